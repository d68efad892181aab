"""Every arm must have seen the same labeled images in the same order: the hash of each first batch tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from semiseg import storage
from semiseg.compare.grid import Cell
from semiseg.errors import CHECKPOINT, Problem, Refusal

SHAPING = ("size", "batch", "augment", "resize", "turn")
"""Settings that change a batch: arms that differ in one are not held to the same hash."""
OWN = ("members_by", "draw", "preset")
ALIKE = ("", "seed", "snapshots", "even", "default")
"""Arguments of programs by which members see parts of the labels, or other batches, unless they are one of ALIKE."""


def first_batches(run: Path) -> list[tuple[str, str]]:
    """(member-0, hash of its first labeled batch), … of all generations; a snapshot counts as its member."""
    summary = storage.read_json(run / "summary.json")
    folders = [m["folder"] for g in summary["generations"] for m in g["members"]]
    results = {f: storage.read_json(run / f / "final" / "result.json") for f in folders}
    return [(_member(Path(f)), r["first_batch"]) for f, r in results.items()]


def _member(folder: Path) -> str:
    return next((part for part in folder.parts if part.startswith("member-")), folder.name)


class Streams:
    """Remembers the batches of each data set, number of labels and seed, and refuses an arm that saw others."""

    def __init__(self) -> None:
        self.seen: dict[tuple[Any, ...], dict[str, tuple[str, str]]] = {}

    def check(self, cell: Cell, run: Path) -> None:
        """Raises Refusal (exit 4) when a member's first batch is not that of the other arms, where all see all labels."""
        config = storage.read_json(run / "run.json")["config"]
        args = config.get("program_args", {})
        if any(args.get(k, "") not in ALIKE for k in OWN):
            return
        known = self.seen.setdefault((cell.data, cell.labels, cell.seed, *(config[k] for k in SHAPING)), {})
        for member, batch in first_batches(run):
            other, theirs = known.setdefault(member, (cell.name, batch))
            if batch != theirs:
                found = f"saw other labeled batches than {other} ({member}), so the two cannot be compared"
                fix = "was the data changed in between? Remove both folders and run the same command again"
                raise Refusal(Problem("S12", f"cells/{cell.name}", found, fix), CHECKPOINT)
