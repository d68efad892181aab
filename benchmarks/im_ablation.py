"""What makes inconsistency masks work: one factor at a time from a centre, on val only: results/im_ablation.csv.

python benchmarks/im_ablation.py DATA_ROOT [--stage screen|confirm|equal|stability] [--runs runs/ablation] [--jobs 1]

screen: every arm on isic2018 (40 labels) and the made-up cells, 2 seeds, 500 steps. confirm: the arms named by --arms on
isic2018 (40 and 20), camvid, vnc_em and cells, 3 seeds, 2,000 steps, beside labels only with as many steps in all, and full
labels. equal: the arms named by --arms that are one training each, as `warm_start` makes them of im's generations with
snapshots, beside labels only and full labels with as many steps, 4,000. stability: see stability.py. Each stage is one
`semiseg compare` per data set and goes on where it was; test stays closed.

factor                what it varies; everything else is as in the centre, `im`
fill                  what students see at inconsistent pixels: the image, black, its mean, noise
label                 what they learn there: nothing, or background
mask                  where nothing is learned: without unanimity, without 2 votes of 3 (agreement=2), or nowhere, and the
                      label is that of the mean probability (ensemble)
weights               what kept pixels count: balance gives every class its share of the labels back, which the mask thins
                      out unevenly; doubt=.3 lets inconsistent pixels count .3 with the label of most members; both
morphology            the mask opened by 3 × 3 pixels: what is thin is learned after all
gate                  whether images with more doubt than agreed foreground are left out
committee size        3 members, 2, or 5
diversity             what sets members apart: seed; bootstrap or folds of the labels; networks; snapshots of one training;
                      average: all models, students too, are averages of their weights over the last 2 % of the training
start                 students start afresh, or warm, with the weights of the generation before; the latter with snapshots as
                      the committee, so that one network goes on and on
generations           1, or 3 that are all trained; of one training, too
student augmentation  as everybody's; none for anybody; noise that grows over 3 generations (against plain im with 3)
route                 students of `supervised`; FixMatch alone, and with im: offline (half of the steps), online, both, and
                      with a committee of its own averages (im_moving)
warm-up               of FixMatch's own term in fixmatch+im: a fifth of the training, or none
preset                ours, or the paper's training and masks
teacher               a committee of 3, or one model that is trusted everywhere: self_training

The figure of an arm is the mIoU on val of one fixed model, the last generation's first student (labels only and FixMatch:
the first model), so that no arm gains by choosing among its models on val. What would be shipped is another column.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from measured import figures, key, measured, print_means, with_deltas
from semiseg.compare import compare
from semiseg.compare.request import Request
from shared import RAMP, SIZES, STEPS, folder, write
from stability import ARMS as STABLE
from stability import draw, generations

CENTRE = "im"
CENTRES = {"screen": CENTRE, "confirm": CENTRE, "equal": "labels only"}
"""Stage -> the arm that others are held against."""
WARM = "@".join(["", *RAMP])
LONGER = "im@generations=3@patience=3"
CHAIN = "im@members_by=snapshots@warm_start=yes@generations=3@patience=3"
"""One training: a quarter of the steps on the labels alone, then three with the consensus of its own snapshots."""
ONLINE = f"fixmatch+im{WARM}"
FACTORS: dict[str, dict[str, str]] = {
    "fill": {"im@fill=zero": CENTRE, "im@fill=mean": CENTRE, "im@fill=noise": CENTRE},
    "label": {"im@label=background": CENTRE},
    "mask": {
        "ensemble": CENTRE,
        "im@agreement=2": CENTRE,
        "ensemble@warm_start=yes": "im@warm_start=yes",
        CHAIN.replace("im", "ensemble", 1): CHAIN,
    },
    "weights": {
        "im@balance=yes": CENTRE,
        "im@doubt=0.3": CENTRE,
        "im@balance=yes@doubt=0.3": "im@balance=yes",
        f"{CHAIN}@balance=yes": CHAIN,
        f"{CHAIN}@balance=yes@doubt=0.3": f"{CHAIN}@balance=yes",
    },
    "morphology": {"im@erode=3@dilate=3": CENTRE},
    "gate": {"im@gate=foreground": CENTRE},
    "committee size": {"im@members=2": CENTRE, "im@members=5": CENTRE},
    "diversity": {
        "im@members_by=bootstrap": CENTRE,
        "im@members_by=folds": CENTRE,
        "im@members_by=snapshots": CENTRE,
        "im@networks=unet1x1,unet1x1:1,unet/resnet18": CENTRE,
        "im@average=0.99": CENTRE,
    },
    "start": {
        "im@warm_start=yes": CENTRE,
        "im@warm_start=yes@balance=yes@doubt=0.3": "im@balance=yes@doubt=0.3",
        "im@members_by=snapshots@warm_start=yes": "im@members_by=snapshots",
    },
    "generations": {LONGER: CENTRE, CHAIN: "im@members_by=snapshots@warm_start=yes"},
    "student augmentation": {
        "im@augment=none": CENTRE,
        "im_plus@members=3@generations=3@patience=3@grow=0": LONGER,
    },
    "route": {
        f"fixmatch{WARM}": CENTRE,
        ONLINE: f"fixmatch{WARM}",
        f"fixmatch+im@route=online{WARM}": f"fixmatch{WARM}",
        f"fixmatch+im@route=both{WARM}": f"fixmatch{WARM}",
        f"fixmatch+im_moving{WARM}": f"fixmatch{WARM}",
    },
    "warm-up": {"fixmatch+im@warmup=0@ramp=0": ONLINE},
    "preset": {"im@preset=paper": CENTRE},
    "teacher": {"self_training": CENTRE, "self_training@warm_start=yes@generations=3@patience=3": CHAIN},
}
"""Factor -> its arms, each with the arm that it differs from in this factor alone."""
ARMS = {arm: (factor, other) for factor, arms in FACTORS.items() for arm, other in arms.items()}


def requests(args: argparse.Namespace) -> list[Request]:
    """The comparisons of a stage."""
    steps = {"confirm": STEPS, "equal": 2 * STEPS}
    shared: dict[str, Any] = {
        "baselines": "all" if args.stage in steps else "none", "steps": args.steps or steps.get(args.stage, 500),
        "split": "val", "jobs": args.jobs,
    }  # fmt: skip
    chosen = list(dict.fromkeys([*([] if args.stage == "equal" else [CENTRE]), *(args.arms or ARMS)]))
    if args.stage in steps:
        plans = [("isic2018", args.labels or ["40", "20"], chosen, 3)]
        plans += [(name, ["all"], chosen, 3) for name in ("cells", "vnc_em", "camvid")]
    else:
        methods = chosen if args.stage == "screen" else STABLE
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


def collect(runs: Path) -> list[dict[str, Any]]:
    """Every finished cell of screen, confirm and equal."""
    rows = []
    for cell in measured(runs, CENTRES):
        varied, other = factor(cell.row["arm"])
        rows.append({**key(cell), "factor": varied, "reference": other, **figures(cell)})
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
    parser.add_argument(
        "--labels", nargs="*", default=[], help="of isic2018 in confirm and equal, instead of 40 and 20"
    )
    parser.add_argument("--arms", nargs="*", default=[], choices=[CENTRE, *ARMS], metavar="ARM", help="some, not all")
    parser.add_argument("--only", nargs="*", default=[], choices=SIZES, metavar="SET")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--images", type=Path, default=Path("docs/images"))
    args = parser.parse_args(words)
    if args.stage in ("confirm", "equal") and not args.arms:
        parser.error(f"--stage {args.stage} needs --arms: those that the screen found best")
    return args


def main() -> None:
    """Run what is missing of a stage; tables are written after every data set."""
    args = arguments()
    for request in requests(args):
        compare(request)
        if args.stage == "stability":
            table, rows = args.results / "im_stability.csv", generations(args.runs)
            draw(rows, args.images / "im_stability.svg")
        else:
            table, rows = args.results / "im_ablation.csv", collect(args.runs)
            print_means(r for r in rows if f"{r['stage']}-{r['data']}-{r['steps']}" == request.out.name)
        write(table, rows)
        print(f"{request.out}: {len(rows)} rows in {table}", flush=True)


if __name__ == "__main__":
    main()
