"""One CSV of several comparisons: python benchmarks/collect.py results/methods_small.csv runs/small-isic runs/small-camvid

Rows are those of their table.csv, and of their pairs.csv in a file beside it (…_pairs.csv). Sets that are not named keep
what they have, for the folders of an experiment need not outlive it. The folder of a command's --out is written as RUNS,
its data folders as DATA.
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


def collect(out: Path, runs: list[Path], source: str) -> None:
    """Rows of `source` of every run take the place of those that `out` has of the same set and number of labels."""

    def of(row: dict[str, str]) -> tuple[str, str]:
        return row["data"], row["labels"]

    found = [{**row, "command": plain(row["command"])} if "command" in row else row
             for run in runs for row in read(run / source)]  # fmt: skip
    before, new = read(out), {of(row) for row in found}
    order = list(dict.fromkeys(map(of, [*before, *found])))
    rows = sorted([*(row for row in before if of(row) not in new), *found], key=lambda row: order.index(of(row)))
    write(out, rows)
    print(f"{out}: {len(rows)} rows")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("runs", type=Path, nargs="*")
    args = parser.parse_args()
    collect(args.out, args.runs, "table.csv")
    collect(args.out.with_stem(f"{args.out.stem}_pairs"), args.runs, "pairs.csv")


if __name__ == "__main__":
    main()
