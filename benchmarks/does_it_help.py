"""Inconsistency masks and their rivals on test, one comparison per data set: results/does_it_help.csv.

python benchmarks/does_it_help.py DATA_ROOT [--only isic2018 …] [--jobs 1] [--steps 500] [--network unet1x1]

The default of `im` is frozen before this runs. Every arm has the same labeled stream, augmentation, network and steps;
labels only has three rows (one model, the best on val of as many, one of as many steps) and the average of its models.
Each set is one `semiseg compare`, goes on where it was, and is written to the table when it ends.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from shared import SIZES, folder

ARMS = ["im", "ensemble", "self_training", "mean_teacher", "mean_teacher+im", "fixmatch", "fixmatch+im"]
SETS: dict[str, list[str]] = {
    "isic2018": ["--labels", "20,40,160", "--seeds", "3"],
    "camvid": ["--seeds", "3", "--blocks", "20"],
    "cells": ["--seeds", "3"],
    "vnc_em": ["--seeds", "3"],
    "covid_ct": ["--seeds", "5"],
}
SHARED = ["--batch", "16", "--set", "warmup=0.2", "--set", "ramp=0.2"]
FRESH = 11
"""The cells' seed: neither the demo's nor the ablation's."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs/does_it_help"))
    parser.add_argument("--only", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--steps", default="500")
    parser.add_argument("--network", default="unet1x1")
    parser.add_argument("--jobs", default="1")
    parser.add_argument("--table", default="results/does_it_help.csv")
    args = parser.parse_args()
    for name in args.only:
        out = args.runs / name
        words = ["compare", str(folder(name, args.root, args.runs, seed=FRESH)), "--methods", args.arms]
        words += [*SETS[name], *SHARED, *(str(w) for k, v in SIZES[name].items() for w in (f"--{k}", v))]
        words += ["--steps", args.steps, "--network", args.network, "--jobs", args.jobs, "--out", str(out)]
        subprocess.run(
            [sys.executable, "-m", "semiseg.cli", *words], check=False
        )  # a failed cell is a row of the table
        done = [str(args.runs / n) for n in SETS if (args.runs / n / "table.csv").is_file()]
        subprocess.run([sys.executable, str(Path(__file__).parent / "collect.py"), args.table, *done], check=True)


if __name__ == "__main__":
    main()
