"""What the masks of finished comparisons left of each class, and how well they found errors: results/mask_left.csv.

python benchmarks/mask_left.py RUNS/STAGE-SET [RUNS/STAGE-SET …] [--arms im]

A row per cell and class, of the committee of generation 0: shares of the labeled pixels and of the kept ones; of the mask on
val its precision and recall for wrong pixels, and the share of wrong pixels among those that are kept.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from measured import Cell, key, measured, origin, rounded
from shared import write


def left(cell: Cell) -> list[dict[str, Any]]:
    """The rows of one cell; none where nothing was masked."""
    first = cell.summary["generations"][0]
    on_val = (first.get("quality") or {}).get("val", {})
    rates = {k: rounded(on_val.get(k)) for k in ("precision", "recall", "agreed_wrong")}
    return [
        {**key(cell), "class": name, "labeled_share": rounded(share), "kept_share": first["kept_per_class"][name],
         "inconsistent_share": rounded(first["inconsistent_share"]), **rates, **origin(cell),
         "command": "python benchmarks/mask_left.py"}
        for name, share in first.get("labeled_per_class", {}).items()
    ]  # fmt: skip


def main() -> None:
    """Write the table anew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--arms", nargs="+", default=["im"])
    parser.add_argument("--results", type=Path, default=Path("results"))
    args = parser.parse_args()
    rows = [row for folder in args.folders for cell in measured(folder.parent, [folder.name.partition("-")[0]])
            if cell.run.is_relative_to(folder) and cell.row["arm"] in args.arms for row in left(cell)]  # fmt: skip
    write(args.results / "mask_left.csv", rows)
    print(f"{len(rows)} rows")


if __name__ == "__main__":
    main()
