"""One CSV of several comparisons: python benchmarks/collect.py results/methods_small.csv runs/small-isic runs/small-camvid

Rows are those of their table.csv; the folder of a command's --out is written as RUNS, its data folders as DATA.
"""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path


def plain(command: str) -> str:
    """A command without the paths of one machine."""
    command = re.sub(r"--out \S*?([\w.-]+)(?= |$)", r"--out RUNS/\1", command)
    return re.sub(r"(?<= )\S*/([\w.-]+)(?= --methods)", r"DATA/\1", command)


def main() -> None:
    out, *runs = map(Path, sys.argv[1:])
    rows: list[dict[str, str]] = []
    for run in runs:
        with (run / "table.csv").open(newline="") as file:
            rows += [{**row, "command": plain(row["command"])} for row in csv.DictReader(file)]
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"{out}: {len(rows)} rows")


if __name__ == "__main__":
    main()
