"""What a comparison will train: cells of one budget, the labels-only rows first. Nothing runs before all of it is right."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from semiseg.compare.folders import Full, crop_of, folded, full_row, look, sides, split_of, unchosen
from semiseg.compare.request import BASE, Asked, Request, configured, numbers, route
from semiseg.data.check import check
from semiseg.errors import DATA, USAGE, Refusal
from semiseg.report.markup import plural

LONGEST = 120
"""Characters of an arm in a folder's name; a name has 255 in all, on Windows a path has."""
LARGEST = {"all": "the largest method trains", "none": "the largest generation 0"}
"""What settles how many models labels only may train (K), by --baselines."""


@dataclass(frozen=True)
class Cell:
    """One `semiseg train`. name: its folder below cells/. arm: its row (a committee has several rows).

    needs: cells to wait for, whose members are taken over. models: how many it trains. split: what is read at the end.
    """

    name: str
    path: Path
    data: str
    labels: str
    seed: int
    arm: str
    options: dict[str, Any]
    sets: tuple[str, ...]
    needs: tuple[str, ...]
    models: int
    split: str

    @property
    def steps(self) -> int:
        """Optimiser steps over all models."""
        return self.models * int(self.options["steps"])

    def arguments(self, out: Path) -> list[str]:
        """The words after `semiseg`, without --json: what a person types to make this cell by hand."""
        words = ["train", str(self.path), "--out", str(out / "cells" / self.name)]
        for key, value in self.options.items():
            words += [f"--{key}"] if value is True else [f"--{key}", str(value)]
        for text in self.sets:
            words += ["--set", text]
        return [*words, "--resume", "auto"]


@dataclass
class Grid:
    """Cells in the order they start, what is to be said about them, and the models that labels only may train (K).

    data: what was read -> its hash. A key is the name of a data set, with /masks when those of unlabeled images were opened.
    sizes: name of the data set -> the side of crops in pixels, the same for any number of labels.
    """

    request: Request
    cells: list[Cell]
    notes: list[str]
    models: int
    splits: dict[str, str]  # name of the data set -> the split that is read
    data: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)

    def path(self, key: str) -> Path:
        """The folder of a key of `data`, as typed."""
        return next(c.path for c in self.cells if c.data == key.partition("/")[0])


def plan(request: Request, progress: Any = None, sizes: Mapping[str, int] | None = None) -> Grid:
    """The grid. Raises Refusal (exit 2 or 3) with everything that is wrong, before anything runs.

    sizes: those that an earlier call chose, perhaps on a machine where it would be another number.
    """
    notes: list[str] = []
    problems = numbers(request)
    asked = configured(request, problems, notes)
    names = _data_names(request.data)
    cells: list[Cell] = []
    splits: dict[str, str] = {}
    hashes: dict[str, str] = {}
    chosen: dict[str, int] = {}
    k = max((a.budget if request.baselines == "all" else a.first for a in asked), default=1)
    if (most := max((a.budget for a in asked), default=1)) > k:
        why = f"as many as {LARGEST['none']}; the largest method trains {most}"
        notes.append(f"labels only train {plural(k, 'model')}, {why}")
    for name, path in names.items():
        given = {**sides(request), "progress": progress, "known": {}}  # every file is read once, whatever is asked
        seen = look(request, path, asked, problems, notes, given)
        if not seen:
            continue
        whole = seen.get("all") or check(path, **given)
        hashes[name] = whole.hash
        notes += unchosen(name, seen, k)
        splits[name] = split_of(request, name, seen, problems, notes)
        folded(name, seen, [a.title for a in asked if a.program.folds], splits[name], problems, notes)
        full = full_row(request, name, whole, seen, splits[name], notes)
        if full is not None and "oracle" in full[1]:  # masks that nobody has looked at yet
            opened = check(path, oracle=True, **given)
            hashes[f"{name}/masks"], problems = opened.hash, problems + opened.errors
        chosen[name] = request.options.get("size") or (sizes or {}).get(name) or crop_of(request, whole)
        cells += _cells(request, name, path, list(seen), asked, k, full, splits[name], chosen[name])
    if problems:
        typed = any(p.code.startswith("C") for p in problems)
        raise Refusal(list(dict.fromkeys(problems)), USAGE if typed else DATA)
    return Grid(request, cells, notes, k, splits, hashes, chosen)


def _data_names(paths: Iterable[Path]) -> dict[str, Path]:
    """A short name for each data folder, all different."""
    names: dict[str, Path] = {}
    for path in dict.fromkeys(paths):
        short = slug(path.resolve().name) or "data"
        number = 2
        name = short
        while name in names:
            name, number = f"{short}-{number}", number + 1
        names[name] = path
    return names


def slug(text: str) -> str:
    """Letters, digits, '+', '.', '_' and '-' only: a folder's name everywhere."""
    return re.sub(r"[^A-Za-z0-9+._=-]+", "-", text).strip("-.")


def _cells(
    request: Request,
    name: str,
    path: Path,
    numbers: list[str],
    asked: list[Asked],
    k: int,
    full: Full | None,
    split: str,
    size: int,
) -> list[Cell]:
    """Seed after seed: the committee and the other labels-only rows, then the methods; plain before its programs."""
    cells: list[Cell] = []

    def add(labels: str, seed: int, arm: str, options: dict[str, Any], sets: Iterable[str], needs: list[str],
            models: int, short: str = "", also: Iterable[str] = ()) -> str:  # fmt: skip
        group = f"{name}-{'' if labels == 'full' else slug(labels) + '-'}seed{seed}"
        folder = f"{group}-{short or _short(arm)}"
        theirs = [*needs, *also] if arm != BASE else _committees(request.out / "cells", group, folder)
        reuse = ["reuse=" + os.pathsep.join(str(request.out / "cells" / n) for n in theirs)] if theirs else []
        chosen = {"seed": seed, "steps": request.steps, "labels": labels, "size": size, **request.options, **options}
        own = (*_as_often(request.steps, chosen["steps"], sets), *sets, *reuse)
        cells.append(Cell(folder, path, name, labels, seed, arm, chosen, own, tuple(needs), models, split))
        return folder

    plain = tuple(route(request.sets, "supervised", ""))
    for seed in range(request.seeds):
        for labels in numbers:
            sets = (*route(_of_one_model(request.sets), "supervised", "committee"), f"committee.members={k}")
            first = add(labels, seed, BASE, {"method": "supervised+committee"}, sets, [], k, f"committee-{k}")
            if request.baselines == "all" and k > 1:
                options = {"method": "supervised", "steps": request.steps * k}
                add(labels, seed, f"{BASE}, {k}× steps", options, plain, [], 1, f"labels-only-{k}x-steps")
            done: dict[str, list[str]] = {}
            taught: dict[str, list[str]] = {}  # programs around a method, who may begin alike: nobody waits for them
            for a in sorted(asked, key=lambda a: bool(a.config.program)):
                takes = a.program.members_by != "snapshots"  # which no committee of labels only has
                needs = [first] * takes if a.config.method == "supervised" else done.get(a.config.method, [])
                options = {"method": a.name, "steps": request.steps * a.longer}
                also = taught.setdefault(a.config.method, [])
                made = add(labels, seed, a.title, options, ("baseline=false", *a.sets), needs, a.models, also=also)
                if a.config.program:
                    also.append(made)
                if a.config.method != "supervised" and a.longer == 1:  # whose members are the committee's
                    done.setdefault(a.config.method, []).append(made)
        if full is not None:
            row, options = full
            add("full", seed, row, {"method": "supervised", **options}, plain, [], 1, "full-labels")
    return cells


def _short(arm: str) -> str:
    """An arm as part of a folder's name. Files of one name in two folders are two methods: theirs tell them apart."""
    apart = ".py:" in arm and "/" in arm.partition(".py:")[0]
    said = slug(arm)
    return said[:LONGEST] + f"-{hashlib.sha256(arm.encode()).hexdigest()[:6]}" * (apart or len(said) > LONGEST)


def _of_one_model(sets: Iterable[str]) -> list[str]:
    """What --set says of labels only: each of them learns alone and from all labels, whatever sets members apart."""
    return [
        text for text in sets if text.partition("=")[0].strip().rpartition(".")[2] not in ("members_by", "networks")
    ]


def _as_often(steps: int, own: int, sets: Iterable[str]) -> list[str]:
    """A longer training is asked on val as often as those of --steps in a row are: it may choose among as many moments."""
    typed = any(text.partition("=")[0].strip() == "eval_every" for text in sets)
    return [] if own == steps or typed else [f"eval_every={max(1, steps // 10)}"]


def _committees(cells: Path, group: str, folder: str) -> list[str]:
    """What earlier grids trained for the same labels and seed with another K: its first members are members here too."""
    return sorted(p.name for p in cells.glob(f"{group}-committee-*") if p.name != folder)
