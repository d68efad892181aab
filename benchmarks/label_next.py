"""Is the list of what to label next worth following? Its first 20 images against 20 random ones: results/label_next.csv.

python benchmarks/label_next.py DATA_ROOT [--seeds 3] [--draws 5] [--steps 500] [--split val] [--only isic2018]

From one start (a committee trained on few labels) the masks of 20 more images are revealed: those at the top of
label_next.csv, or random ones. A fresh supervised model is trained on both together, with equal steps, and scored. The
choice between ways of ranking is made with --split val; --split test is for the one that was chosen.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from semiseg.model import Model
from semiseg.predict import evaluate_split
from semiseg.programs.train import train
from semiseg.storage import read_json
from shared import SIZES, commit, folder, read, write

TABLE = Path("results/label_next.csv")
REVEALED = 20
START = 20
SETS = ("isic2018", "cells")


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
    ranked = [row["image"] for row in read(run / "label_next.csv")]
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
    rows = read(TABLE)
    done = {(r["data"], r["seed"], r["choice"], r["split"], r["steps"]) for r in rows}
    for name in args.only:
        data = folder(name, args.root, args.runs, labeled=START)
        for seed in range(args.seeds):
            options = {"batch": 16, **SIZES[name], "steps": args.steps, "seed": seed}
            start = args.runs / f"{name}-start-{seed}"
            train(data, start, resume="auto", method="committee", labels=str(START), **options)
            first = read_json(start / "run.json")["data"]["splits"]["labeled"]
            for choice, names in rankings(start, seed, args.draws).items():
                if (name, str(seed), choice, args.split, str(args.steps)) in done:
                    continue
                shown = reveal(data, [*first, *names], args.runs / f"{name}-{choice}-{seed}-data")
                out = args.runs / f"{name}-{choice}-{seed}"
                train(shown, out, resume="auto", method="supervised", **options)
                metrics = evaluate_split(Model(out), shown, args.split)["metrics"]
                rows.append({
                    "data": name, "seed": seed, "choice": choice, "split": args.split, "labels": len(first) + len(names),
                    "miou": round(metrics["miou"], 4), "iou_per_image": round(metrics["iou_per_image"], 4),
                    "steps": args.steps, "commit": commit(), "command": "python benchmarks/label_next.py",
                })  # fmt: skip
                print(name, seed, choice, rows[-1]["miou"], flush=True)
                write(TABLE, rows)


if __name__ == "__main__":
    main()
