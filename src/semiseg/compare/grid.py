"""What a comparison will train: cells of one budget, the labels-only rows first. Nothing runs before all of it is right."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from semiseg.compare.request import BASE, FULL, Asked, Request, configured, numbers, route
from semiseg.data.check import Checked, check
from semiseg.data.folder import find
from semiseg.errors import DATA, USAGE, Problem, Refusal
from semiseg.report.markup import plural
from semiseg.training.config import SELECTABLE
from semiseg.training.ranges import amount

Full = tuple[str, dict[str, Any]]  # the row of all masks, and its options
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
    """

    request: Request
    cells: list[Cell]
    notes: list[str]
    models: int
    splits: dict[str, str]  # name of the data set -> the split that is read
    data: dict[str, str] = field(default_factory=dict)

    def path(self, key: str) -> Path:
        """The folder of a key of `data`, as typed."""
        return next(c.path for c in self.cells if c.data == key.partition("/")[0])


def plan(request: Request, progress: Any = None) -> Grid:
    """The grid. Raises Refusal (exit 2 or 3) with everything that is wrong, before anything runs."""
    notes: list[str] = []
    problems = numbers(request)
    asked = configured(request, problems, notes)
    names = _data_names(request.data)
    cells: list[Cell] = []
    splits: dict[str, str] = {}
    hashes: dict[str, str] = {}
    k = max((a.budget if request.baselines == "all" else a.first for a in asked), default=1)
    if (most := max((a.budget for a in asked), default=1)) > k:
        why = f"as many as {LARGEST['none']}; the largest method trains {most}"
        notes.append(f"labels only train {plural(k, 'model')}, {why}")
    for name, path in names.items():
        given = {**_sides(request), "progress": progress, "known": {}}  # every file is read once, whatever is asked
        seen = _look(request, path, asked, problems, given)
        if not seen:
            continue
        whole = seen.get("all") or check(path, **given)
        hashes[name] = whole.hash
        notes += _unchosen(name, seen, k)
        splits[name] = _split(request, name, seen, problems, notes)
        _folded(name, seen, [a.title for a in asked if a.program.folds], splits[name], problems, notes)
        full = _full(request, name, whole, seen, splits[name], notes)
        if full is not None and "oracle" in full[1]:  # masks that nobody has looked at yet
            opened = check(path, oracle=True, **given)
            hashes[f"{name}/masks"], problems = opened.hash, problems + opened.errors
        cells += _cells(request, name, path, asked, k, full, splits[name])
    if problems:
        typed = any(p.code.startswith("C") for p in problems)
        raise Refusal(list(dict.fromkeys(problems)), USAGE if typed else DATA)
    return Grid(request, cells, notes, k, splits, hashes)


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


def _sides(request: Request) -> dict[str, Any]:
    """The sizes that a folder is checked for."""
    return {"size": request.options.get("size"), "resize": request.options.get("resize") or 0}


def _look(
    request: Request, path: Path, asked: list[Asked], problems: list[Problem], given: dict[str, Any]
) -> dict[str, Checked] | None:
    """Check the folder with every number of labels; None when it is refused."""
    good: dict[str, Checked] = {}
    before = len(problems)
    for labels in dict.fromkeys(request.labels):
        try:
            wanted = amount(labels) if find(path).labeled else None
            checked = check(path, labels=wanted, **given)
        except Refusal as refusal:
            problems += refusal.problems
            continue
        problems += checked.errors
        good[labels] = checked
        hungry = [a.title for a in asked if a.hungry]
        if checked.ok and not checked.index.unlabeled and hungry:
            fix = "put images without masks into unlabeled/, or ask for fewer --labels"
            text = f"has no unlabeled images with --labels {labels}, and {', '.join(hungry)} learn from them"
            problems.append(Problem("D32", str(path), text, fix))
        judged = [a.title for a in asked if a.judged]
        if checked.ok and not checked.index.val and judged:
            text = f"has no val set with --labels {labels}, and {', '.join(judged)} learn to judge masks from it"
            problems.append(Problem("C08", str(path), text, "add val/images and val/masks, or lists in splits/"))
    return good if len(problems) == before else None


def _split(request: Request, name: str, seen: dict[str, Checked], problems: list[Problem], notes: list[str]) -> str:
    """test, or val where there is no test set."""
    index = next(iter(seen.values())).index
    if request.split == "test" and index.test:
        return "test"
    if without := [labels for labels, c in seen.items() if not c.index.val]:
        found = f"no val set with --labels {', '.join(without)}"
        fix = "add val/images and val/masks, or ask for more --labels"
        if request.split == "test":
            found, fix = f"no test set, and {found}", "add test/images and test/masks"
        problems.append(Problem("D19", str(index.root), f"has {found}", f"{fix}, or lists in splits/"))
    elif request.split == "test":
        notes.append(f"{name} has no test set: val is reported, on which models were chosen as well")
    else:
        notes.append(f"{name}: val is reported as asked, on which models were chosen as well")
    return "val"


def _unchosen(name: str, seen: dict[str, Checked], k: int) -> list[str]:
    """Notes where val is too small to choose one of K labels-only models, or is not there at all."""
    notes: list[str] = []
    places: dict[int, list[str]] = {}
    for labels, c in seen.items():
        places.setdefault(len(c.index.val), []).append(labels)
    for count, those in sorted(places.items()):
        where = f" with --labels {', '.join(those)}" if len(seen) > 1 else ""
        if not count:
            notes.append(
                f"{name}: there is no val set{where}, so every generation counts as better than the one before it"
            )
        elif count < SELECTABLE and k > 1:
            held = f"val has {count} images{where}, fewer than the {SELECTABLE} that a choice needs"
            notes.append(f"{name}: {held}, so there is no row '{BASE}, best of {k} on val'")
    return notes


def _folded(
    name: str, seen: dict[str, Checked], arms: list[str], split: str, problems: list[Problem], notes: list[str]
) -> None:
    """Arms in folds keep all labels for training where other rows lose some of them to val."""
    carved = [c for c in seen.values() if c.index.val_source == "carved"]
    if not arms or not carved:
        return
    those, why = ", ".join(arms), "val is carved from the labels, and in folds no label is left out for it"
    if split == "val":
        fix = "add val/images and val/masks, or leave these arms out"
        problems.append(Problem("D19", str(carved[0].index.root), f"has no val set for {those}: {why}", fix))
    else:
        notes.append(f"{name}: {those} with more labels than the other rows: {why}")


def _full(
    request: Request, name: str, whole: Checked, seen: dict[str, Checked], split: str, notes: list[str]
) -> Full | None:
    """The full-label row, or None with the reason in the notes. whole: the folder with all labels."""
    if request.baselines == "none":
        return None
    unlabeled = find(whole.index.root).unlabeled
    masks = sum(bool(item.masks) for item in unlabeled)
    fewer = any(_known(c) < _known(whole) for c in seen.values())
    if not masks and not fewer:
        notes.append(f"{name}: no masks of unlabeled images, so there is no row '{FULL}'")
        return None
    if split == "val" and any(c.index.val_source == "carved" for c in seen.values()):
        notes.append(f"{name}: val is carved from the labels, so '{FULL}' would have trained on it and is left out")
        return None
    if not masks:
        return FULL, {"labels": "all"}
    row = FULL
    if masks < len(unlabeled):
        row = f"{FULL}, {masks} of {len(unlabeled)} masks"
        notes.append(f"{name}: only {masks} of {len(unlabeled)} unlabeled images have masks, so there is no '{FULL}'")
    return row, {"labels": "all", "oracle": True}


def _known(checked: Checked) -> int:
    """Images whose masks are trained on, or were until val was carved."""
    return len(checked.index.labeled) + len(checked.index.val) * (checked.index.val_source == "carved")


def _cells(
    request: Request, name: str, path: Path, asked: list[Asked], k: int, full: Full | None, split: str
) -> list[Cell]:
    """Seed after seed: the committee and the other labels-only rows, then the methods; plain before its programs."""
    cells: list[Cell] = []

    def add(labels: str, seed: int, arm: str, options: dict[str, Any], sets: Iterable[str], needs: list[str],
            models: int, short: str = "", also: Iterable[str] = ()) -> str:  # fmt: skip
        group = f"{name}-{'' if labels == 'full' else slug(labels) + '-'}seed{seed}"
        folder = f"{group}-{slug(short or arm)}"
        theirs = [*needs, *also] if arm != BASE else _committees(request.out / "cells", group, folder)
        reuse = ["reuse=" + os.pathsep.join(str(request.out / "cells" / n) for n in theirs)] if theirs else []
        chosen = {"seed": seed, "steps": request.steps, "labels": labels, **request.options, **options}
        own = (*_as_often(request.steps, chosen["steps"], sets), *sets, *reuse)
        cells.append(Cell(folder, path, name, labels, seed, arm, chosen, own, tuple(needs), models, split))
        return folder

    plain = tuple(route(request.sets, "supervised", ""))
    for seed in range(request.seeds):
        for labels in dict.fromkeys(request.labels):
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
