"""From cells and readings to arms: one per data set, number of labels and method, with its statistics over seeds."""

from __future__ import annotations

import math
import re
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from semiseg import storage
from semiseg.compare import cells as running
from semiseg.compare import reading, scores
from semiseg.compare.grid import Cell, Grid
from semiseg.compare.reading import Reading
from semiseg.compare.request import BASE, FULL
from semiseg.compare.statistics import (
    BLOCKS,
    Draws,
    Interval,
    Recovered,
    dice,
    difference,
    draw,
    jointly,
    miou,
    present,
    recovered,
)
from semiseg.errors import Refusal
from semiseg.programs import program_class

Json = dict[str, Any]


@dataclass
class Arm:
    """An arm of one data set and number of labels, over its seeds.

    gain: Δ to labels only; best, over: to the best and the average of K of them. joint: the interval of `gain` that holds
    for all methods at once; above: that of Δ to labels only with as many steps. See `_judge`.
    """

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
    best: Interval | None = None
    over: Interval | None = None
    joint: tuple[float, float] | None = None
    above: tuple[float, float] = (math.nan, math.nan)
    share: Recovered | None = None
    folders: dict[int, list[Path]] = field(default_factory=dict)  # the members; the curve of the first one is shown
    commits: list[str] = field(default_factory=list)  # of the trainings, each once

    @property
    def seeds(self) -> list[int]:
        """Seeds with a reading."""
        return sorted(self.readings)

    @property
    def asked(self) -> bool:
        """Is it a method that was asked for, none of the rows that every comparison has?"""
        return not self.name.startswith((BASE, FULL))

    @property
    def kept(self) -> int:
        """Seeds whose model is one of generation 0 of a program whose work begins after it."""
        return sum(g == 0 and more for g, more in zip(self.figures["generation"], self.figures["teaches"], strict=True))

    @property
    def counted(self) -> int:
        """Seeds that Δ is over; without Δ those with a reading."""
        return len(self.seeds) if self.gain is None else len(self.gain.per_seed)


@dataclass
class Group:
    """All arms of one data set and number of labels; `images` of the split were read, in `blocks` independent runs.

    pairs: (arm, rival) -> Δ of the first to the second, on the seeds and images that both have.
    """

    data: str
    labels: str
    split: str
    arms: list[Arm]
    images: int = 0
    blocks: int = 0
    classes: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    pairs: dict[tuple[str, str], Interval] = field(default_factory=dict)

    def arm(self, name: str) -> Arm | None:
        """An arm with readings, by its name."""
        return next((a for a in self.arms if a.name == name and a.readings), None)

    @property
    def full(self) -> Arm | None:
        """The arm with readings of all masks that there are."""
        return next((a for a in self.arms if a.name.startswith(FULL) and a.readings), None)

    def of_many(self, word: str) -> Arm | None:
        """The arm with readings of several labels-only models: their "best" on val or their "average"."""
        return next((a for a in self.arms if a.name.startswith(f"{BASE}, {word} of ") and a.readings), None)

    @property
    def longer(self) -> Arm | None:
        """Labels only with as many steps as the largest method has in all, where that was read."""
        return next((a for a in self.arms if re.fullmatch(rf"{BASE}, \d+× steps", a.name) and a.readings), None)


def gather(grid: Grid, rows: list[running.Row]) -> list[Group]:
    """Everything that was read, with its statistics. Damaged readings count as failed cells."""
    status = {r.cell: r for r in rows}
    groups: dict[tuple[str, str], Group] = {}
    for cell in grid.cells:
        beside = dict.fromkeys(c.labels for c in grid.cells if c.data == cell.data and c.labels != "full")
        for labels in [cell.labels] if cell.labels != "full" else beside:
            group = groups.setdefault((cell.data, labels), Group(cell.data, labels, cell.split, []))
            _add(group, cell, status[cell.name], grid.request.out / "cells" / cell.name)
    for group in groups.values():
        base, full = group.arm(BASE), group.full
        if base is not None and full is not None and _labeled(base) == _labeled(full):
            group.arms.remove(full)  # all masks are in use already: it would be labels only, trained once more
        _score(group, grid.request.blocks)
    return list(groups.values())


def _labeled(arm: Arm) -> int:
    """How many labeled images an arm with readings was trained on."""
    return int(next(iter(arm.summaries.values()))["counts"]["labeled"])


def _add(group: Group, cell: Cell, row: running.Row, run: Path) -> None:
    found: list[Reading] = []
    if row.status == "finished":
        try:
            found = reading.load(run / f"reading-{cell.split}", reading.arms_of(run, cell.arm))
            summary = storage.read_json(run / "summary.json")
        except Refusal as refusal:
            row.status, row.message = "failed", str(refusal)
    for name in [r.part.name for r in found] or [cell.arm]:
        arm = next((a for a in group.arms if a.name == name), None)
        if arm is None:
            arm = Arm(name, group.data, group.labels)
            group.arms.append(arm)
        if cell not in arm.cells:
            arm.cells.append(cell)
        if found:
            arm.commits = [*dict.fromkeys([*arm.commits, *row.commit.split("; ")])]
        if not found:
            arm.failed[cell.seed] = row.message or row.status
    for made in found:
        arm = next(a for a in group.arms if a.name == made.part.name)
        arm.readings[cell.seed], arm.summaries[cell.seed] = made, summary
        arm.folders[cell.seed] = [run / folder for folder in made.part.folders]


def _score(group: Group, blocks: int) -> None:
    """Figures of every arm, then differences on the seeds and images that two arms have in common."""
    for arm in group.arms:
        if arm.readings:
            arm.figures = figures(arm)
    base, full, best, mean = group.arm(BASE), group.full, group.of_many("best"), group.of_many("average")
    first = next((a for a in group.arms if a.readings), None)
    if first is not None:
        one = next(iter(first.readings.values()))
        group.images, group.blocks = len(one.names), len(one.names) // blocks
        group.classes = list(next(iter(first.summaries.values()))["classes"])
        there = present(one.found.sum(0))
        group.absent = [n for n, pixels in zip(group.classes, there, strict=True) if not pixels]
    for arm, rival in combinations([a for a in group.arms if a.readings], 2):
        if (gain := _delta(arm, rival, blocks)) is not None:
            group.pairs |= {(arm.name, rival.name): gain, (rival.name, arm.name): -gain}
    for arm in group.arms:
        arm.gain, arm.best, arm.over = (group.pairs.get((arm.name, r.name)) if r else None for r in (base, best, mean))
        if arm.gain is not None and base is not None:
            arm.paired = sorted(set(arm.readings) & set(base.readings))
        if base is None or full is None or arm in (base, full):
            continue
        if triple := _paired([arm, base, full], blocks):
            arm.share = recovered(triple[0][0], triple[0][1], triple[0][2], triple[1])
    _judge(group)


def _delta(arm: Arm, rival: Arm, blocks: int) -> Interval | None:
    """Δ of an arm to another on what both have; None without a common seed or image list."""
    if not (pair := _paired([arm, rival], blocks)):
        return None
    return difference(pair[0][0], pair[0][1], pair[1])


def _judge(group: Group) -> None:
    """`joint` and `above` of the methods that can be credited: two or more seeds, and not in each a model of generation 0.

    Such a model was trained before the method did anything: what it gains is the choice among several on val.
    """
    arms = [a for a in group.arms if a.asked and len(a.paired) > 1 and a.kept < len(a.seeds)]
    for attribute, rival in (("joint", group.arm(BASE)), ("above", group.longer)):
        pairs = [(a, group.pairs.get((a.name, rival.name))) for a in arms] if rival else []
        found = [(a, d) for a, d in pairs if d and math.isfinite(d.low) and len(d.per_seed) > 1]
        if found and group.blocks >= BLOCKS:
            for (arm, _), bounds in zip(found, jointly([d for _, d in found], group.blocks), strict=True):
                setattr(arm, attribute, bounds)


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
    own = [_cost(s, r.part.first) for s, r in zip(sums, reads, strict=True)]
    results = [_results(arm.folders[s]) for s in arm.seeds]
    return {
        "miou": [float(miou(r.found.sum(0))) for r in reads],
        "dice": [float(dice(r.found.sum(0))) for r in reads],
        "iou_per_image": [scores.iou_per_image(r.found, r.multilabel) for r in reads],
        "boundary_iou": [float(miou(r.edges.sum(0))) for r in reads],
        "calibration_error": [scores.calibration_error(r.bins) for r in reads],
        "mcce": [None if r.cells is None else float(r.cells.mean()) for r in reads],
        "mean_risk": [None if r.share is None else scores.mean_risk(r.found, r.share) for r in reads],
        "risk": [None if r.share is None else scores.risk_coverage(r.found, r.share) for r in reads],
        "val_miou": [(r.part.val or {}).get("miou") for r in reads],
        "val_last": [(r[0].get("val_last") or {}).get("miou") if len(r) == 1 else None for r in results],
        "seconds": [c[0] for c in own],
        "images_forwarded": [c[1] for c in own],
        "parameters": [sum(m["parameters"] for m in r) if r else None for r in results],
        "generation": [s["model"]["generation"] for s in sums],
        "last": [s["generations"][-1]["generation"] for s in sums],
        "teaches": [program_class(s["program"] or "").teaches for s in sums],
    }


def _cost(summary: Json, first: bool) -> tuple[float, int]:
    """Seconds and images forwarded of the training behind an arm: a committee's first model, or the whole run."""
    if first:
        member = summary["generations"][0]["members"][0]
        return round(member["seconds"], 1), member["images_forwarded"]
    return running.spent(summary)


def _results(folders: list[Path]) -> list[Json]:
    """result.json of each member of an arm; nothing where one cannot be read."""
    with suppress(Refusal):
        return [storage.read_json(folder / "final" / "result.json") for folder in folders]
    return []


def average(values: list[Any]) -> float | None:
    """The mean of what is known."""
    known = [v for v in values if v is not None and math.isfinite(v)]
    return sum(known) / len(known) if known else None
