"""From cells and readings to arms: one per data set, number of labels and method, with its statistics over seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from semiseg import storage
from semiseg.compare import cells as running
from semiseg.compare import reading, scores
from semiseg.compare.grid import Cell, Grid
from semiseg.compare.reading import Reading
from semiseg.compare.request import BASE
from semiseg.compare.statistics import Draws, Interval, Recovered, dice, difference, draw, miou, recovered
from semiseg.errors import Refusal

FULL = "full labels"
Json = dict[str, Any]


@dataclass
class Arm:
    """An arm of one data set and number of labels, over its seeds. gain: Δ to labels only; over: Δ to the average of K."""

    name: str
    data: str
    labels: str
    cells: list[Cell] = field(default_factory=list)
    readings: dict[int, Reading] = field(default_factory=dict)
    summaries: dict[int, Json] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    figures: Json = field(default_factory=dict)
    gain: Interval | None = None
    paired: list[int] = field(default_factory=list)  # the seeds of `gain`
    over: Interval | None = None
    share: Recovered | None = None
    folders: dict[int, Path] = field(default_factory=dict)  # of the member whose curve is shown

    @property
    def seeds(self) -> list[int]:
        """Seeds with a reading."""
        return sorted(self.readings)


@dataclass
class Group:
    """All arms of one data set and number of labels; `images` of the split were read."""

    data: str
    labels: str
    split: str
    arms: list[Arm]
    images: int = 0
    classes: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)

    def arm(self, name: str) -> Arm | None:
        """An arm with readings, by its name."""
        return next((a for a in self.arms if a.name == name and a.readings), None)


def gather(grid: Grid, rows: list[running.Row]) -> list[Group]:
    """Everything that was read, with its statistics. Damaged readings count as failed cells."""
    status = {r.cell: r for r in rows}
    groups: dict[tuple[str, str], Group] = {}
    for cell in grid.cells:
        for labels in [cell.labels] if cell.labels != "full" else dict.fromkeys(grid.request.labels):
            group = groups.setdefault((cell.data, labels), Group(cell.data, labels, cell.split, []))
            _add(group, cell, status[cell.name], grid.request.out / "cells" / cell.name)
    for group in groups.values():
        _score(group, grid.request.blocks)
    return list(groups.values())


def _add(group: Group, cell: Cell, row: running.Row, run: Path) -> None:
    found: list[Reading] = []
    if row.status == "finished":
        try:
            found = reading.load(run / f"reading-{cell.split}")
            summary = storage.read_json(run / "summary.json")
            folders = reading.arms_of(run, cell.arm)
        except Refusal as refusal:
            row.status, row.message = "failed", str(refusal)
    for name in [r.arm for r in found] or [cell.arm]:
        arm = next((a for a in group.arms if a.name == name), None)
        if arm is None:
            arm = Arm(name, group.data, group.labels)
            group.arms.append(arm)
        if cell not in arm.cells:
            arm.cells.append(cell)
        if not found:
            arm.failed[cell.seed] = row.message or row.status
    for made in found:
        arm = next(a for a in group.arms if a.name == made.arm)
        arm.readings[cell.seed], arm.summaries[cell.seed] = made, summary
        arm.folders[cell.seed] = run / folders[made.arm][0]


def _score(group: Group, blocks: int) -> None:
    """Figures of every arm, then differences on the seeds and images that two arms have in common."""
    for arm in group.arms:
        if arm.readings:
            arm.figures = figures(arm)
    base, full = group.arm(BASE), group.arm(FULL)
    first = next((a for a in group.arms if a.readings), None)
    if first is not None:
        one = next(iter(first.readings.values()))
        group.images = len(one.names)
        truth = one.found[..., 0].sum(0) + one.found[..., 2].sum(0)
        group.classes = list(next(iter(first.summaries.values()))["classes"])
        group.absent = [n for n, pixels in zip(group.classes, truth, strict=True) if not pixels]
    mean = next((a for a in group.arms if a.name.startswith(f"{BASE}, average") and a.readings), None)
    for arm in group.arms:
        if base is not None and arm is not base and (pair := _paired([arm, base], blocks)):
            arm.gain = difference(pair[0][0], pair[0][1], pair[1])
            arm.paired = sorted(set(arm.readings) & set(base.readings))
        if mean is not None and arm is not mean and (pair := _paired([arm, mean], blocks)):
            arm.over = difference(pair[0][0], pair[0][1], pair[1])
        if base is None or full is None or arm in (base, full):
            continue
        if triple := _paired([arm, base, full], blocks):
            arm.share = recovered(triple[0][0], triple[0][1], triple[0][2], triple[1])


def _paired(arms: list[Arm], blocks: int) -> tuple[list[Any], Draws] | None:
    """(S,N,C,3) counts of each arm on the seeds that all have, and the draws; None without a common seed or image list."""
    common = sorted(set.intersection(*(set(a.readings) for a in arms)))
    if not common:
        return None
    names = arms[0].readings[common[0]].names
    if any(a.readings[s].names != names for a in arms for s in common):
        return None
    stacks = [np.stack([a.readings[s].found for s in common]) for a in arms]
    return stacks, draw(len(common), len(names), blocks=blocks)


def figures(arm: Arm) -> Json:
    """Per-seed lists of every figure of an arm, in the order of its seeds; None where there is none."""
    reads = [arm.readings[s] for s in arm.seeds]
    sums = [arm.summaries[s] for s in arm.seeds]
    one = arm.name == BASE
    own = [_members(s, r.members, one) for s, r in zip(sums, reads, strict=True)]
    return {
        "miou": [float(miou(r.found.sum(0))) for r in reads],
        "dice": [float(dice(r.found.sum(0))) for r in reads],
        "iou_per_image": [scores.iou_per_image(r.found) for r in reads],
        "boundary_iou": [float(miou(r.edges.sum(0))) for r in reads],
        "calibration_error": [scores.calibration_error(r.bins) for r in reads],
        "mcce": [None if r.cells is None else float(r.cells.mean()) for r in reads],
        "risk": [None if r.share is None else scores.risk_coverage(r.found, r.share) for r in reads],
        "val_miou": [_val(s, arm.name) for s in sums],
        "seconds": [c[0] for c in own],
        "images_forwarded": [c[1] for c in own],
        "parameters": [s["parameters"] * r.members for s, r in zip(sums, reads, strict=True)],
        "generation": [s["model"]["generation"] for s in sums],
        "last": [s["generations"][-1]["generation"] for s in sums],
    }


def _members(summary: Json, predicting: int, one: bool) -> tuple[float, int]:
    """Seconds and images forwarded of the training behind an arm: one member of the committee, or the whole run."""
    if one and summary["program"] == "committee":
        member = summary["generations"][0]["members"][0]
        return round(member["seconds"], 1), member["images_forwarded"]
    return running.spent(summary)


def _val(summary: Json, name: str) -> float | None:
    arm = next((a for a in summary["arms"] if a["name"] == name), None)
    found = (arm or {}).get("val") or summary["model"].get("val") or {}
    return found.get("miou")


def average(values: list[Any]) -> float | None:
    """The mean of what is known."""
    known = [v for v in values if v is not None and math.isfinite(v)]
    return sum(known) / len(known) if known else None
