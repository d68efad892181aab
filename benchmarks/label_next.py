"""Is the list of what to label next worth following? Its first 20 images against 20 random ones: results/label_next.csv.

python benchmarks/label_next.py DATA_ROOT [--seeds 3] [--draws 5] [--steps 500] [--split val] [--only isic2018]

From one start (a committee trained on few labels) the masks of 20 more images are revealed: those at the top of
label_next.csv, or random ones. A fresh supervised model is trained on both together, with equal steps, and scored. The
choice between ways of ranking is made with --split val; --split test is for the one that was chosen.
"""

from __future__ import annotations

import argparse
import csv
import random
import subprocess
from pathlib import Path
from typing import Any

from semiseg.data.synthetic import write_cells
from semiseg.model import Model
from semiseg.predict import evaluate_split
from semiseg.programs.train import train
from semiseg.storage import read_json

TABLE = Path("results/label_next.csv")
REVEALED = 20
START = 20
COMMON: dict[str, Any] = {"batch": 16, "size": 64}
SETS: dict[str, dict[str, Any]] = {"isic2018": {"resize": 64}, "cells": {}}


def folder_of(name: str, root: Path, runs: Path) -> Path:
    """The data set; cells are made."""
    if name != "cells":
        return root / name
    return write_cells(runs / "cells", labeled=START, unlabeled=240, val=60, test=120, size=96, seed=7)


def reveal(data: Path, labeled: list[str], out: Path) -> Path:
    """The same images and masks with another list of labeled ones; the others stay unlabeled."""
    if not (out / "splits").is_dir():
        out.mkdir(parents=True, exist_ok=True)
        for part in ("images", "masks"):
            if not (out / part).exists():
                (out / part).symlink_to((data / part).resolve(), target_is_directory=True)
        splits = out / "splits.new"
        splits.mkdir(exist_ok=True)
        for split in ("val", "test"):
            (splits / f"{split}.txt").write_text((data / "splits" / f"{split}.txt").read_text())
        (splits / "labeled.txt").write_text("".join(f"{n}\n" for n in labeled))
        (splits / "unlabeled.txt").write_text("")
        splits.rename(out / "splits")
    return out


def rankings(run: Path, seed: int, draws: int) -> dict[str, list[str]]:
    """Way of choosing -> the images that are revealed."""
    with (run / "label_next.csv").open(newline="") as file:
        ranked = [row["image"] for row in csv.DictReader(file)]
    chosen = {"label_next": ranked[:REVEALED]}
    for draw in range(draws):
        chosen[f"random-{draw}"] = random.Random(f"{seed}/{draw}").sample(sorted(ranked), REVEALED)
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs/label_next"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--split", choices=["val", "test"], default="val")
    parser.add_argument("--only", nargs="+", default=list(SETS))
    args = parser.parse_args()
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    rows: list[dict[str, Any]] = []
    if TABLE.exists():
        with TABLE.open(newline="") as file:
            rows = list(csv.DictReader(file))
    done = {(r["data"], r["seed"], r["choice"], r["split"], r["steps"]) for r in rows}
    for name in args.only:
        data = folder_of(name, args.root, args.runs)
        for seed in range(args.seeds):
            options = {**COMMON, **SETS[name], "steps": args.steps, "seed": seed}
            start = args.runs / f"{name}-start-{seed}"
            train(data, start, resume="auto", method="committee", labels=str(START), **options)
            first = read_json(start / "run.json")["data"]["splits"]["labeled"]
            for choice, names in rankings(start, seed, args.draws).items():
                if (name, str(seed), choice, args.split, str(args.steps)) in done:
                    continue
                folder = reveal(data, [*first, *names], args.runs / f"{name}-{choice}-{seed}-data")
                out = args.runs / f"{name}-{choice}-{seed}"
                train(folder, out, resume="auto", method="supervised", **options)
                metrics = evaluate_split(Model(out), folder, args.split)["metrics"]
                rows.append({
                    "data": name, "seed": seed, "choice": choice, "split": args.split, "labels": len(first) + len(names),
                    "miou": round(metrics["miou"], 4), "iou_per_image": round(metrics["iou_per_image"], 4),
                    "steps": args.steps, "commit": head.stdout.strip(), "command": "python benchmarks/label_next.py",
                })  # fmt: skip
                print(name, seed, choice, rows[-1]["miou"], flush=True)
                with TABLE.open("w", newline="") as file:
                    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
                    writer.writeheader()
                    writer.writerows(rows)


if __name__ == "__main__":
    main()
