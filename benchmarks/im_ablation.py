"""What makes inconsistency masks work: one factor at a time from a centre, on val only: results/im_ablation.csv.

python benchmarks/im_ablation.py DATA_ROOT [--stage screen|confirm|stability] [--runs runs/ablation] [--jobs 1]

screen: every arm on isic2018 (40 labels) and the made-up cells, 2 seeds. confirm: the arms named by --arms on isic2018
(20 and 40), camvid, vnc_em and cells, 3 seeds. stability: self-training, ensemble and im over five generations. Each stage
is one `semiseg compare` per data set and goes on where it was; test stays closed.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from semiseg.compare import compare
from semiseg.compare.request import Request
from shared import SIZES, folder, read, write

TABLE = Path("results/im_ablation.csv")
CENTRE = "im"
FACTORS = {
    "fill": ["im@fill=zero", "im@fill=mean", "im@fill=noise"],
    "label": ["im@label=background", "ensemble"],
    "committee": ["im@members=2", "im@members=5", "im@agreement=2"],
    "diversity": ["im@members_by=bootstrap", "im@members_by=folds"],
    "mask": ["im@erode=3@dilate=3", "im@gate=foreground"],
    "generations": ["im@generations=3"],
    "student augmentation": ["im_plus@members=3@generations=1@grow=0"],
    "route": ["fixmatch", "fixmatch+im", "fixmatch+im@route=online"],
    "warm-up": ["fixmatch+im@warmup=0.2"],
    "preset": ["im@preset=paper"],
    "self-training": ["self_training"],
}
STABILITY = ["self_training", "ensemble@members=2", "im@members=2"]


def requests(args: argparse.Namespace) -> list[Request]:
    """The comparisons of a stage."""
    arms = [CENTRE, *(arm for group in FACTORS.values() for arm in group)]
    shared: dict[str, Any] = {"steps": args.steps, "baselines": "none", "split": "val", "jobs": args.jobs}
    found = []
    if args.stage == "screen":
        plans = [("isic2018", ["40"], arms, 2), ("cells", ["all"], arms, 2)]
    elif args.stage == "confirm":
        chosen = [CENTRE, *(arm for arm in args.arms if arm != CENTRE)]
        plans = [("isic2018", ["20", "40"], chosen, 3)]
        plans += [(name, ["all"], chosen, 3) for name in ("camvid", "vnc_em", "cells")]
    else:
        longer = [f"{arm}@generations={args.generations}@patience={args.generations}" for arm in STABILITY]
        plans = [("isic2018", ["40"], longer, 2), ("cells", ["all"], longer, 2)]
    for name, labels, methods, seeds in plans:
        if args.only and name not in args.only:
            continue
        out = args.runs / f"{args.stage}-{name}"
        options = {"batch": 16, **SIZES[name]}
        data = [folder(name, args.root, args.runs)]
        found.append(Request(data, methods, out, seeds=seeds, labels=labels, options=options, **shared))
    return found


def factor(arm: str) -> str:
    """What an arm of the table varies."""
    title = {a.replace("@", ", "): f for f, group in FACTORS.items() for a in group}
    return title.get(arm, "centre" if arm == CENTRE else "")


def collect(runs: Path) -> list[dict[str, Any]]:
    """Every finished cell of every stage."""
    rows = []
    for table in sorted(runs.glob("*/cells.csv")):
        stage, _, _ = table.parent.name.partition("-")
        for row in read(table):
            if row["status"] == "finished":
                kept = ("data", "labels", "seed", "arm")
                rows.append({"stage": stage, **{k: row[k] for k in kept}, "factor": factor(row["arm"]),
                             "val_miou": row["score"], "seconds": row["seconds"],
                             "images_forwarded": row["images_forwarded"], "commit": row["commit"],
                             "command": "python benchmarks/im_ablation.py"})  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("--stage", choices=["screen", "confirm", "stability"], default="screen")
    parser.add_argument("--runs", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--generations", type=int, default=5)
    parser.add_argument("--arms", nargs="*", default=[])
    parser.add_argument("--only", nargs="*", default=[])
    args = parser.parse_args()
    for request in requests(args):
        compare(request)
        rows = collect(args.runs)
        write(TABLE, rows)
        print(f"{request.out}: {len(rows)} rows in {TABLE}", flush=True)


if __name__ == "__main__":
    main()
