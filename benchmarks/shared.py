"""What the experiments have in common: the data sets, the commit that is noted, the CSV that is written."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from semiseg.compare.cells import commit
from semiseg.data.synthetic import write_cells

__all__ = ["RAMP", "SIZES", "STEPS", "commit", "folder", "read", "write"]

SIZES: dict[str, dict[str, Any]] = {
    "isic2018": {"resize": 64, "size": 64},
    "camvid": {"resize": 96, "size": 64},
    "cells": {"size": 64},
    "vnc_em": {"resize": 256, "size": 64},
    "covid_ct": {"resize": 96, "size": 64},
    "chase_db1": {"resize": 384, "size": 64},
}
"""What images are resized to and cut into, in pixels, so that a cell takes minutes on two cores."""
STEPS = 1000
"""Of every training where arms are confirmed and tested; `im` has four of them, and what it is held against as many in all.
Half of what `train` takes, so that a set and seed take a quarter of an hour of one core. With the screen's 500 all models
are far from their end (docs/explanation/what-the-mask-leaves.md)."""
RAMP = ("warmup=0.2", "ramp=0.2")
"""When the unlabeled terms of FixMatch and Mean Teacher set in, as shares of the training: runs of 500 steps are short."""


def folder(name: str, root: Path, runs: Path, *, labeled: int = 16, seed: int = 7) -> Path:
    """The data set `root/name`; "cells" are made below `runs`, from other seeds than the demo's."""
    if name != "cells":
        return root / name
    return write_cells(runs / "cells", labeled=labeled, unlabeled=240, val=60, test=120, size=96, seed=seed)


def read(table: Path) -> list[dict[str, Any]]:
    """The rows of a CSV; none where there is no file."""
    if not table.exists():
        return []
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def write(table: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write a CSV anew, whole at every moment; what a row lacks stays empty."""
    table.parent.mkdir(parents=True, exist_ok=True)
    new = table.with_suffix(".new")
    with new.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(k for r in rows for k in r)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    new.replace(table)
