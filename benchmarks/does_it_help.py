"""Inconsistency masks and their rivals on test, one comparison per data set: results/does_it_help.csv.

python benchmarks/does_it_help.py DATA_ROOT [--only isic2018 …] [--seeds 3] [--jobs 1] [--network unet1x1]

The default of `im` is frozen before this runs. Every arm has the same labeled stream, augmentation and network, and as many
steps in all: --steps for each of the four trainings of `im` and its kin, four times that for FixMatch, Mean
Teacher and masks that move with it.
Labels only has three rows (one model, the best on val of four, one of four times the steps) and the average of its models;
and, as a control, four times the steps with its images in the strong colours in which students see a consensus.
Each set is one `semiseg compare`, goes on where it was, and is written to the table when it ends.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from shared import RAMP, SIZES, STEPS, folder

LONGER = "steps=4x"
"""Of methods that train one model: as many in all as the four trainings of `im` have."""
ARMS = [
    "im", "ensemble", "self_training", f"supervised@augment=strong@{LONGER}",
    *("@".join([name, *RAMP, *([] if name.endswith("+im") else [LONGER])])
      for name in ("mean_teacher", "mean_teacher+im", "mean_teacher+im_moving", "fixmatch", "fixmatch+im")),
]  # fmt: skip
SETS: dict[str, list[str]] = {
    "isic2018": ["--labels", "20,40,160"],
    "camvid": ["--blocks", "20"],
    "cells": [],
    "vnc_em": [],
    "covid_ct": [],
    "chase_db1": [],
}
"""Options of each set. vnc_em tests on 5 sections of one stack, two runs of 3 at most: drawn in blocks they would give no
interval at all, so they are drawn one by one, and its intervals are too short by what neighbours have in common.
chase_db1 came last: no arm was chosen with it, neither on val nor on test.
"""
SEEDS = {"covid_ct": 5, "chase_db1": 5}
"""Where 3 are too few: they have 48 and 8 test images, and 10 and 4 to choose by."""
FRESH = 11
"""The cells' seed: neither the demo's nor the ablation's."""


def command(name: str, data: Path, out: Path, args: argparse.Namespace) -> list[str]:
    """The words after `semiseg`."""
    seeds = max(args.seeds, SEEDS.get(name, 1))
    words = ["compare", str(data), "--methods", ",".join(args.arms), "--seeds", str(seeds), *SETS[name]]
    if args.labels and "--labels" in words:
        words[words.index("--labels") + 1] = args.labels
    words += [str(w) for k, v in SIZES[name].items() for w in (f"--{k}", v)]
    same = [w for k in ("batch", "network", "jobs", "steps") for w in (f"--{k}", getattr(args, k))]
    return [*words, *same, "--out", str(out)]


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs/does_it_help"))
    parser.add_argument("--only", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--arms", nargs="+", default=ARMS, metavar="ARM")
    parser.add_argument("--seeds", type=int, default=3, help="of every set, but no fewer than a set has of its own")
    parser.add_argument("--labels", default="", help="of isic2018, instead of 20,40,160")
    parser.add_argument("--steps", default=str(STEPS))
    parser.add_argument("--batch", default="8")
    parser.add_argument("--network", default="unet1x1")
    parser.add_argument("--jobs", default="1")
    parser.add_argument("--table", default="results/does_it_help.csv")
    return parser.parse_args(words)


def main() -> None:
    """A failed cell is a row of its table, and a set that is refused does not stop the others."""
    args = arguments()
    for name in args.only:
        words = command(name, folder(name, args.root, args.runs, seed=FRESH), args.runs / f"test-{name}", args)
        subprocess.run([sys.executable, "-m", "semiseg.cli", *words], check=False)
        done = [str(path.parent) for path in sorted(args.runs.glob("test-*/table.csv"))]
        if done:
            subprocess.run([sys.executable, str(Path(__file__).parent / "collect.py"), args.table, *done], check=True)


if __name__ == "__main__":
    main()
