"""What makes inconsistency masks work: one factor at a time from a centre, on val only: results/im_ablation.csv.

python benchmarks/im_ablation.py DATA_ROOT [--stage screen|confirm|stability] [--runs runs/ablation] [--jobs 1]

screen: every arm around ONE, the scheme of one generation (three models of their own, one student that starts afresh), on
isic2018 (40 labels) and the made-up cells, 2 seeds, 500 steps. confirm: the arms named by --arms on isic2018 (40 and 20),
camvid, vnc_em and cells, 3 seeds, 1,000 steps for every training, held against labels only, beside labels only with as many
steps in all, and full labels. stability: see stability.py. Each stage is one `semiseg compare` per data set and goes on
where it was; rows of cells that are not there any more stay in the table; test stays closed.

factor                what it varies; everything else is as in the arm it is compared with: ONE, or `im` as it is by default
fill                  what students see at inconsistent pixels: the image, black, its mean, noise
label                 what they learn there: nothing, or background
mask                  where nothing is learned: without unanimity, without 2 votes of 3 (agreement=2), or nowhere, and the
                      label is that of the mean probability (ensemble)
weights               what kept pixels count: balance gives every class its share of the labels back, which the mask thins
                      out unevenly; doubt=.3 lets inconsistent pixels count .3 with the label of most members; both
what a consensus counts  beside the labels: .3, or 1; and how students see its images: in strong colours, or as the labels'
                      own (view=train)
mixing                what is pasted into consensus images, with its consensus: nothing, or boxes, or classes, of the next
morphology            the mask opened by 3 × 3 pixels: what is thin is learned after all
gate                  whether images with more doubt than agreed foreground are left out
committee size        3 members, 2, or 5
diversity             what sets members apart: seed; bootstrap or folds of the labels; networks; snapshots of one training;
                      average: all models, students too, are averages of their weights over the last 2 % of the training
start                 students start afresh, or warm, with the weights of the generation before
generations           1, or 3 that are all trained, afresh or warm
scheme                ONE, and labels only, beside `im` as it is by default
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

from measured import figures, kept, key, measured, print_means, with_deltas
from semiseg.compare import compare
from semiseg.compare.request import Request
from shared import RAMP, SIZES, STEPS, folder, write
from stability import ARMS as STABLE
from stability import draw, generations

CENTRE = "im"
BEFORE = "@weight=1@view=train"
"""What a consensus counted, and how it was seen, when the default was first frozen."""
WARM = "@".join(["", *RAMP])


def once(arm: str) -> str:
    """An arm with one generation of students that start afresh, taught by models of their own seeds."""
    name, *own = arm.split("@")
    if name == "self_training" or "members_by=snapshots" in own:  # of which there are three generations by default
        return "@".join([name, "generations=1", "start=fresh", *own])
    return arm if "members_by" in arm else "@".join([name, "members_by=seed", *own])


ONE = once(CENTRE)
LONGER = once("im@generations=3@patience=3")
ONLINE = once(f"fixmatch+im{WARM}")
CENTRES = {"screen": ONE, "confirm": "labels only"}
"""Stage -> the arm that others are held against."""
FACTORS: dict[str, dict[str, str]] = {
    "fill": {once(f"im@fill={f}"): ONE for f in ("zero", "mean", "noise")},
    "label": {once("im@label=background"): ONE},
    "mask": {
        once("ensemble"): ONE,
        once("im@agreement=2"): ONE,
        "ensemble": CENTRE,
        f"ensemble{BEFORE}": f"im{BEFORE}",
    },
    "weights": {
        once("im@balance=yes"): ONE,
        once("im@doubt=0.3"): ONE,
        once("im@balance=yes@doubt=0.3"): once("im@balance=yes"),
        f"im@balance=yes{BEFORE}": f"im{BEFORE}",
        f"im@balance=yes@doubt=0.3{BEFORE}": f"im@balance=yes{BEFORE}",
    },
    "mixing": {"im@mix=cutmix": CENTRE, "im@mix=classmix": CENTRE, "im@mix=cutmix@weight=1": "im@mix=cutmix"},
    "what a consensus counts": {f"im{BEFORE}": CENTRE, "im@weight=1": CENTRE, "im@view=train": CENTRE},
    "morphology": {once("im@erode=3@dilate=3"): ONE},
    "gate": {once("im@gate=foreground"): ONE},
    "committee size": {once(f"im@members={n}"): ONE for n in (2, 5)},
    "diversity": {
        **{once(f"im@members_by={way}"): ONE for way in ("bootstrap", "folds", "snapshots")},
        once("im@networks=unet1x1,unet1x1:1,unet/resnet18"): ONE,
        once("im@average=0.99"): ONE,
    },
    "start": {once(f"im@start=warm{BEFORE}"): ONE, "im@start=fresh@weight=0.3@view=strong": CENTRE},
    "generations": {LONGER: ONE, "im@generations=1": CENTRE, "im@generations=6@patience=6": CENTRE},
    "scheme": {ONE: ""},
    "student augmentation": {
        once("im@augment=none"): ONE,
        "im_plus@members=3@generations=3@patience=3@grow=0": LONGER,
    },
    "route": {
        f"fixmatch{WARM}": ONE,
        ONLINE: f"fixmatch{WARM}",
        once(f"fixmatch+im@route=online{WARM}"): f"fixmatch{WARM}",
        once(f"fixmatch+im@route=both{WARM}"): f"fixmatch{WARM}",
        f"fixmatch+im_moving{WARM}": f"fixmatch{WARM}",
    },
    "warm-up": {once("fixmatch+im@warmup=0@ramp=0"): ONLINE},
    "preset": {once("im@preset=paper"): ONE},
    "teacher": {once("self_training"): ONE, "self_training": CENTRE, f"self_training{BEFORE}": f"im{BEFORE}"},
}
"""Factor -> its arms, each with the arm that it differs from in this factor alone."""
ARMS = {arm: (factor, other) for factor, arms in FACTORS.items() for arm, other in arms.items()}


def around(arm: str) -> str:
    """ONE or `im`: the centre that an arm is some steps away from."""
    return arm if arm in ("", ONE, CENTRE) else around(ARMS[arm][1])


def requests(args: argparse.Namespace) -> list[Request]:
    """The comparisons of a stage."""
    confirm = args.stage == "confirm"
    shared: dict[str, Any] = {
        "baselines": "all" if confirm else "none", "steps": args.steps or (STEPS if confirm else 500),
        "split": "val", "jobs": args.jobs,
    }  # fmt: skip
    if confirm:
        plans = [("isic2018", args.labels or ["40", "20"], args.arms, 3)]
        plans += [(name, ["all"], args.arms, 3) for name in ("cells", "vnc_em", "camvid")]
    else:
        screened = [ONE, *(args.arms or (arm for arm in ARMS if arm != ONE and around(arm) == ONE))]
        methods = STABLE if args.stage == "stability" else list(dict.fromkeys(screened))
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
        row["factor"], row["reference"] = factor(row["arm"])
    return with_deltas(rows, {stage: centre.replace("@", ", ") for stage, centre in CENTRES.items()})


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
            table, rows = args.results / "im_stability.csv", generations(args.runs)
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
