"""One CSV of several comparisons: python benchmarks/collect.py results/methods_small.csv runs/small-isic runs/small-camvid

Rows are those of their table.csv; the folder of a command's --out is written as RUNS, its data folders as DATA.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from shared import read, write


def plain(command: str) -> str:
    """A command without the paths of one machine."""
    command = re.sub(r"--out \S*?([\w.-]+)(?= |$)", r"--out RUNS/\1", command)
    return re.sub(r"(?<= )\S*/([\w.-]+)(?= --methods)", r"DATA/\1", command)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("runs", type=Path, nargs="*")
    args = parser.parse_args()
    rows: list[dict[str, str]] = []
    for run in args.runs:
        rows += [{**row, "command": plain(row["command"])} for row in read(run / "table.csv")]
    write(args.out, rows)
    print(f"{args.out}: {len(rows)} rows")


if __name__ == "__main__":
    main()
