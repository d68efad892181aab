"""Does the demo's data leave something to learn? Full labels against few, same steps: results/demo_gap.csv.

python benchmarks/demo_gap.py [--seeds 3] [--runs runs/demo_gap]

Every row is one supervised training with the demo's own settings, and its scores on the demo's test images.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from semiseg.data.synthetic import write_cells
from semiseg.demo import CELLS, TRAINING
from semiseg.model import Model
from semiseg.predict import evaluate_split
from semiseg.programs.train import train
from shared import commit, write

TABLE = Path("results/demo_gap.csv")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=Path("runs/demo_gap"))
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    data = write_cells(args.runs / "cells", **CELLS)
    for seed in range(args.seeds):
        for oracle in (False, True):
            out = args.runs / f"{'full' if oracle else 'few'}-{seed}"
            options = {**TRAINING, "seed": seed, "method": "supervised", "oracle": oracle}
            run = train(data, out, resume="auto", **options)
            metrics = evaluate_split(Model(out), data, "test")["metrics"]
            row = {
                "labels": "full" if oracle else "few", "images": run["counts"]["labeled"], "seed": seed,
                "test_miou": round(metrics["miou"], 4),
                **{f"iou_{name}": round(v["iou"], 4) for name, v in metrics["per_class"].items()},
                "steps": run["steps"], "batch": run["batch"], "size": run["size"], "commit": commit(),
                "command": "python benchmarks/demo_gap.py",
            }  # fmt: skip
            rows.append(row)
            print(row["labels"], seed, row["test_miou"], flush=True)
    write(TABLE, rows)
    few, full = ([r["test_miou"] for r in rows if r["labels"] == name] for name in ("few", "full"))
    print(f"few {sum(few) / len(few):.3f}, full {sum(full) / len(full):.3f}")


if __name__ == "__main__":
    main()
