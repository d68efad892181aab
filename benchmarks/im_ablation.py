"""What makes inconsistency masks work: one factor at a time from a centre, on val only: results/im_ablation.csv.

python benchmarks/im_ablation.py DATA_ROOT [--stage screen|confirm|stability] [--runs runs/ablation] [--jobs 1]

screen: every arm around CENTRE, `im` as it is by default, on isic2018 (40 labels) and the made-up cells, 2 seeds, 500 steps
for every training. confirm: the arms named by --arms on isic2018 (40 and 20), camvid, vnc_em and cells, 3 seeds, 1,000
steps, held against labels only. Both beside labels only with as many steps in all, and full labels. stability: see
stability.py. Each stage is one `semiseg compare` per data set and goes on where it was; rows of cells that are not there
any more stay in the table; test stays closed.

factor                what it varies; everything else is as in the arm it is compared with
fill                  what students see at inconsistent pixels: the image, black, noise
label                 what they learn there: nothing, or background
mask                  where nothing is learned: without unanimity, without 2 votes of 3 (agreement=2), or nowhere, and the
                      label is that of the mean probability (ensemble)
teacher               a committee, or one model that is trusted everywhere: self_training
weights               what kept pixels count: balance gives every class its share of the labels back, which the mask thins
                      out unevenly; doubt=.3 lets inconsistent pixels count .3 with the label of most members
what a consensus counts  beside the labels: .3, or 1
mixing                what is pasted into consensus images, with its consensus: nothing, or boxes, or classes, of the next
committee size        3 members, 2, or 5
diversity             what sets members apart: moments of one training, or seeds; or folds or bootstraps of the labels
scheme                as in the paper: members of their own seeds, one generation of students that start afresh, and a
                      consensus that counts 1 and is seen as the labels' own images
start                 students go on from their teacher's weights, or start afresh
generations           3, or 1, or 6
student augmentation  how students see consensus images: in strong colours, or as the labels' own (view=train); strong
                      colours for everybody, or no augmentation
route                 students of `supervised`; FixMatch alone, and with im: offline (half of the steps), online, both, and
                      with a committee of its own averages (im_moving)
warm-up               of FixMatch's own term in fixmatch+im: a fifth of the training, or none
preset                ours, or the paper's training and masks
both                  a consensus that counts 1 and is seen as the labels' own images: the default before

The figure of an arm is the mIoU on val of one fixed model, the last generation's first student (labels only and FixMatch:
the first model), so that no arm gains by choosing among its models on val. What would be shipped is another column.
Rows of stage "fresh" are of an earlier screen, around one generation of students that start afresh.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from measured import figures, kept, key, measured, print_means, with_deltas
from semiseg.compare import compare
from semiseg.compare.request import Request
from shared import RAMP, SIZES, STEPS, folder, write
from stability import ARMS as STABLE
from stability import draw, generations

CENTRE = "im"
WARM = "@".join(["", *RAMP])
OFFLINE = f"fixmatch+im{WARM}"
BEFORE = "@weight=1@view=train"
"""What a consensus counted, and how it was seen, when the default was first frozen."""
SCREENED: dict[str, dict[str, str]] = {
    "fill": {"im@fill=zero": CENTRE, "im@fill=noise": CENTRE},
    "label": {"im@label=background": CENTRE},
    "mask": {"ensemble": CENTRE, "im@agreement=2": CENTRE},
    "teacher": {"self_training": CENTRE},
    "what a consensus counts": {"im@weight=1": CENTRE},
    "committee size": {f"im@members={n}": CENTRE for n in (2, 5)},
    "diversity": {"im@members_by=seed@generations=3@start=warm": CENTRE},
    "start": {"im@start=fresh@weight=0.3@view=strong": CENTRE},
    "scheme": {"im@members_by=seed": CENTRE},
    "generations": {"im@generations=1": CENTRE, "im@generations=6@patience=6": CENTRE},
    "student augmentation": {"im@view=train": CENTRE, "im@augment=strong": CENTRE},
    "route": {
        f"fixmatch{WARM}": CENTRE,
        OFFLINE: f"fixmatch{WARM}",
        f"fixmatch+im@route=online{WARM}": f"fixmatch{WARM}",
    },
    "warm-up": {"fixmatch+im@warmup=0@ramp=0": OFFLINE},
}
"""Factor -> its arms, each with the arm that it differs from in this factor alone."""
OTHERS: dict[str, dict[str, str]] = {
    "mask": {f"ensemble{BEFORE}": f"im{BEFORE}"},
    "teacher": {f"self_training{BEFORE}": f"im{BEFORE}"},
    "weights": {"im@balance=yes": CENTRE, "im@doubt=0.3": CENTRE},
    "mixing": {"im@mix=cutmix": CENTRE, "im@mix=classmix": CENTRE},
    "diversity": {f"im@members_by={way}@generations=3@start=warm": CENTRE for way in ("bootstrap", "folds")},
    "student augmentation": {"im@augment=none": CENTRE},
    "route": {f"fixmatch+im@route=both{WARM}": f"fixmatch{WARM}", f"fixmatch+im_moving{WARM}": f"fixmatch{WARM}"},
    "preset": {"im@preset=paper": CENTRE},
    "both": {f"im{BEFORE}": CENTRE},
}
"""Those that are trained when --arms asks for them."""
ARMS = {
    arm: (factor, other)
    for group in (SCREENED, OTHERS)
    for factor, arms in group.items()
    for arm, other in arms.items()
}
CENTRES = {"screen": CENTRE, "confirm": "labels only", "fresh": "im, members_by=seed"}
"""Stage -> the arm that others are held against, by its title."""


def requests(args: argparse.Namespace) -> list[Request]:
    """The comparisons of a stage."""
    confirm, stability = args.stage == "confirm", args.stage == "stability"
    shared: dict[str, Any] = {
        "baselines": "none" if stability else "all", "steps": args.steps or (STEPS if confirm else 500),
        "split": "val", "jobs": args.jobs,
    }  # fmt: skip
    if confirm:
        plans = [("isic2018", args.labels or ["40", "20"], args.arms, 3)]
        plans += [(name, ["all"], args.arms, 3) for name in ("cells", "vnc_em", "camvid")]
    else:
        screened = [CENTRE, *(args.arms or (arm for arms in SCREENED.values() for arm in arms))]
        methods = STABLE if stability else list(dict.fromkeys(screened))
        plans = [("isic2018", ["40"], methods, 2), ("cells", ["all"], methods, 2)]
    found = []
    for name, labels, methods, seeds in plans:
        if args.only and name not in args.only:
            continue
        options = {"batch": args.batch, **SIZES[name], "network": args.network}
        data, out = [folder(name, args.root, args.runs)], args.runs / f"{args.stage}-{name}-{shared['steps']}"
        found.append(Request(data, methods, out, seeds=args.seeds or seeds, labels=labels, options=options, **shared))
    return found


def factor(title: str) -> tuple[str, str]:
    """What an arm of the table varies, and the arm that it is compared with, by the titles that `compare` gives."""
    titles = {arm.replace("@", ", "): (f, other.replace("@", ", ")) for arm, (f, other) in ARMS.items()}
    return titles.get(title, ("centre", "") if title == CENTRE else ("", ""))


def collect(runs: Path, table: Path | None = None) -> list[dict[str, Any]]:
    """Every finished cell of screen and confirm; and the rows of `table` whose cells are not there any more."""
    rows = [{**key(cell), "factor": "", "reference": "", **figures(cell)} for cell in measured(runs, CENTRES)]
    rows = kept(table, rows) if table else rows
    for row in rows:
        if not row["factor"]:
            row["factor"], row["reference"] = factor(row["arm"])
    return with_deltas(rows, CENTRES)


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--stage", choices=[*CENTRES, "stability"], default="screen")
    parser.add_argument("--runs", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--steps", type=int, default=0, help="instead of the stage's own number")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--network", default="unet1x1")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=0, help="instead of the stage's own number")
    parser.add_argument("--labels", nargs="*", default=[], help="of isic2018 in confirm, instead of 40 and 20")
    parser.add_argument("--arms", nargs="*", default=[], choices=[CENTRE, *ARMS], metavar="ARM", help="some, not all")
    parser.add_argument("--only", nargs="*", default=[], choices=SIZES, metavar="SET")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--images", type=Path, default=Path("docs/images"))
    args = parser.parse_args(words)
    if args.stage == "confirm" and not args.arms:
        parser.error("--stage confirm needs --arms: those that the screen found best")
    return args


def main() -> None:
    """Run what is missing of a stage; tables are written after every data set."""
    args = arguments()
    for request in requests(args):
        compare(request)
        if args.stage == "stability":
            table = args.results / "im_stability.csv"
            rows = kept(table, generations(args.runs))
            draw(rows, args.images / "im_stability.svg")
        else:
            table = args.results / "im_ablation.csv"
            rows = collect(args.runs, table)
            if args.stage == "confirm":
                every = args.results / "im_generations.csv"
                write(every, kept(every, generations(args.runs, "confirm")))
            print_means(r for r in rows if f"{r['stage']}-{r['data']}-{r['steps']}" == request.out.name)
        write(table, rows)
        print(f"{request.out}: {len(rows)} rows in {table}", flush=True)


if __name__ == "__main__":
    main()
