"""What the masks of finished comparisons left of each class, and how well they found errors: results/mask_left.csv.

python benchmarks/mask_left.py RUNS/STAGE-SET [RUNS/STAGE-SET …] [--arms im]

A row per cell, generation and class: IoU on val of the generation's first model; of the mask that its committee makes for
the next one the shares of the labeled pixels and of the kept ones, its precision and recall for wrong pixels of val, and
the share of wrong pixels among those that are kept. Rows of other cells stay as they are.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from measured import Cell, key, measured, origin, rounded
from shared import read, write

WHO = ("stage", "data", "labels", "steps", "seed", "arm")


def left(cell: Cell) -> list[dict[str, Any]]:
    """The rows of one cell. Where nobody is taught by a generation there is no mask."""
    rows = []
    for made in cell.summary["generations"]:
        on_val = (made.get("quality") or {}).get("val", {})
        rates = {k: rounded(on_val.get(k)) for k in ("precision", "recall", "agreed_wrong")}
        known, kept = made.get("labeled_per_class", {}), made.get("kept_per_class", {})
        for name, of_class in made["members"][0]["val"]["per_class"].items():
            shares = {"labeled_share": rounded(known.get(name)), "kept_share": rounded(kept.get(name))}
            rows.append({**key(cell), "generation": made["generation"], "class": name, "val_iou": rounded(of_class["iou"]),
                         **shares, "inconsistent_share": rounded(made.get("inconsistent_share")), **rates,
                         **origin(cell), "command": "python benchmarks/mask_left.py"})  # fmt: skip
    return rows


def main() -> None:
    """Put the cells' rows in the place of those that they had."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--arms", nargs="+", default=["im"])
    parser.add_argument("--results", type=Path, default=Path("results"))
    args = parser.parse_args()
    rows = [row for folder in args.folders for cell in measured(folder.parent, [folder.name.partition("-")[0]])
            if cell.run.is_relative_to(folder) and cell.row["arm"] in args.arms for row in left(cell)]  # fmt: skip
    table = args.results / "mask_left.csv"
    mine = {tuple(str(r[k]) for k in WHO) for r in rows}
    write(table, [*(r for r in read(table) if tuple(r[k] for k in WHO) not in mine), *rows])
    print(f"{len(rows)} rows")


if __name__ == "__main__":
    main()
