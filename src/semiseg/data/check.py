"""Everything that can be wrong with a data folder, found in one pass before training, in the user's words.

`semiseg check` and training call the same `check`. Every image and every labeled, val and test mask is read and decoded
once; masks of unlabeled images stay closed unless they are asked for. Problem codes: `CODES`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from semiseg.data import setwide
from semiseg.data.classes import ClassMap
from semiseg.data.classfile import FILE, read_spec
from semiseg.data.codes import CODES, LEVELS, render
from semiseg.data.decode import shown
from semiseg.data.folder import find
from semiseg.data.index import Index, order
from semiseg.data.judge import Verdict, judge
from semiseg.data.look import Known, Progress, Seen, look_all
from semiseg.data.propose import class_map
from semiseg.data.splits import carve_val, choose_labels
from semiseg.errors import DATA, Problem, Refusal

__all__ = ["CODES", "Checked", "check", "render"]


@dataclass
class Checked:
    """What `check` found.

    index: items to train on (labels chosen, val carved). images: item name -> (height, width, channels, dtype).
    sizes: (height, width) of the smallest, the median and the largest image by area. channels, dtype: of most images.
    pixels: split -> class name -> pixels, with "ignore" (and "background" for a binary task).
    opened: how many unlabeled images are now labeled, since their masks were asked for (`oracle`).
    digests: item name -> SHA-256 of the image file. hash: of lists, images, masks that train or score, and class map.
    """

    index: Index
    classes: ClassMap | None = None
    problems: list[Problem] = field(default_factory=list)
    images: dict[str, tuple[int, int, int, str]] = field(default_factory=dict)
    channels: int = 0
    dtype: str = ""
    sizes: tuple[tuple[int, int], tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0), (0, 0))
    pixels: dict[str, dict[str, int]] = field(default_factory=dict)
    opened: int = 0
    digests: dict[str, str] = field(default_factory=dict)
    hash: str = ""

    def level(self, level: str) -> list[Problem]:
        """Problems of one level: "error", "warning" or "note"."""
        return [p for p in self.problems if p.level == level]

    @property
    def errors(self) -> list[Problem]:
        """What training refuses."""
        return self.level("error")

    @property
    def warnings(self) -> list[Problem]:
        """What training goes on with, and says."""
        return self.level("warning")

    @property
    def ok(self) -> bool:
        """No errors."""
        return not self.errors

    def refuse(self) -> None:
        """Raise Refusal (exit 3) with all errors, if there are any."""
        if self.errors:
            raise Refusal(self.errors, DATA)

    def to_json(self) -> dict[str, Any]:
        """All findings, every problem in full: what `check --json` prints and a new run keeps in check.json."""
        return {
            "ok": self.ok,
            "root": shown(self.index.root),
            "layout": self.index.layout,
            "counts": self.index.counts(),
            "val_source": self.index.val_source,
            "kind": self.classes.kind if self.classes else None,
            "classes": self.classes.to_json() if self.classes else None,
            "channels": self.channels,
            "dtype": self.dtype,
            "sizes": dict(zip(("smallest", "median", "largest"), map(list, self.sizes), strict=True)),
            "pixels": self.pixels,
            "hash": self.hash,
            "problems": [p.to_json() for p in self.problems],
        }


def check(
    data: Path | str,
    *,
    size: int | None = None,
    resize: int = 0,
    labels: int | float | str | None = None,
    members: int | None = None,
    oracle: bool = False,
    diagnose: bool = False,
    workers: int = 2,
    progress: Progress | None = None,
    known: Known | None = None,
) -> Checked:
    """Read the folder once and report all problems.

    size, resize: crop and image size in pixels of the training to come (`setwide.working`). labels: how many labeled
    images to use (`splits.choose_labels`); the masks of all settle the class map, so that the task does not depend on it.
    members: number of folds that the labels are divided into, if they are; no val set is carved from them then.
    oracle: unlabeled images that have masks are labeled like the others, but never become val, and their masks do not
    settle the class map. diagnose: those masks are read and judged only. progress(done, total) is called in this thread.
    known: what was read by earlier checks of the folder that were given the same dictionary; nothing in it is read again.
    Raises Refusal only for a `labels` that cannot be (exit 2); everything else is in `problems`.
    """
    root = Path(data)
    spec, problems = read_spec(root / FILE)
    index = find(root)
    if spec is not None and index.labels and set(spec.names) == set(index.labels) and spec.names != index.labels:
        index = find(root, tuple(spec.names))
    choose_labels(index, labels, lambda item: item.name)  # refused before anything is read
    rgb, open_ = bool(spec is not None and spec.colors), oracle or diagnose
    items = [(split, item if open_ or split != "unlabeled" else item.bare()) for split, item in index.items()]
    seen = look_all(items, workers, progress, rgb, known)
    digests, found = {s.item.name: s.digest for s in seen}, [p for s in seen for p in s.problems]
    index = choose_labels(index, labels, lambda item: digests[item.name])
    checked = Checked(index, problems=index.problems + problems + found, digests=digests)
    if not problems:
        told = [s for s in seen if s.split != "unlabeled"]  # with or without the others' masks, the task is one
        checked.classes, more = class_map(told, spec, index.labels, root / FILE)
        checked.problems += more
        checked.problems += setwide.numbered(index, checked.classes, told) if spec is None else []
    _finish(checked, seen, members, oracle)
    checked.problems += setwide.crops(checked.index, checked.images, size, resize)
    checked.problems.sort(key=lambda p: (LEVELS.index(p.level), p.code))
    return checked


def _finish(checked: Checked, seen: Sequence[Seen], members: int | None, oracle: bool) -> None:
    """Judge the masks, settle the splits, then look at the set as a whole."""
    verdicts: dict[str, Verdict] = {}
    if checked.classes is not None:
        verdicts = {s.item.name: judge(s, checked.classes) for s in seen if s.whole}
        checked.problems += [p for v in verdicts.values() for p in v.problems]
    checked.images = {s.item.name: s.image for s in seen if s.image is not None}
    _settle(checked, verdicts, members)
    checked.problems += setwide.numbers(checked.index, members)
    if oracle:
        index = checked.index
        known = [item for item in index.unlabeled if item.masks]
        free = [item for item in index.unlabeled if not item.masks]
        checked.index, checked.opened = replace(index, labeled=index.labeled + known, unlabeled=free), len(known)
    if checked.images:
        areas = sorted((h * w, h, w) for h, w, _, _ in checked.images.values())
        checked.sizes = (areas[0][1:], areas[len(areas) // 2][1:], areas[-1][1:])
        kinds = Counter((c, kind) for _, _, c, kind in checked.images.values())
        checked.channels, checked.dtype = kinds.most_common(1)[0][0]
    checked.pixels = _pixels(checked, verdicts)
    checked.problems += setwide.kinds(checked.index, checked.images, checked.channels, checked.dtype)
    checked.problems += setwide.repeats(checked.index, seen)
    whole = not any(p.level == "error" for p in checked.problems)
    checked.problems += setwide.presence(checked.index, checked.classes, checked.pixels, whole)
    checked.hash = _manifest(checked, seen)


def _settle(checked: Checked, verdicts: dict[str, Verdict], members: int | None) -> None:
    """Images whose masks are all ignore are unlabeled; then val is carved if none is given and there are no folds."""
    index = checked.index
    empty = {name for name, verdict in verdicts.items() if verdict.empty}
    if empty:
        emptied = [item for item in index.labeled if item.name in empty]
        fix = "label it, or leave it: its image is used without the mask"
        for _, item in index.items():
            if item.name in empty and item.masks:
                where = shown(item.masks[0])
                checked.problems.append(Problem("D26", where, "is ignored everywhere", fix, level="warning"))
        if len(emptied) == len(index.labeled):
            fix = "label some pixels as a class (255 means ignore)"
            found = f"holds {len(emptied)} labeled images, and the masks of all are ignored everywhere"
            checked.problems.append(Problem("D26", shown(index.root), found, fix))
            return
        free = [item.bare() if item.name in empty else item for item in index.unlabeled + emptied]
        index = replace(
            index,
            labeled=[item for item in index.labeled if item.name not in empty],
            unlabeled=sorted(free, key=lambda item: order(item.name)),
            val=[item for item in index.val if item.name not in empty],
            test=[item for item in index.test if item.name not in empty],
        )
    names = {n: k for k, n in enumerate(checked.classes.names)} if checked.classes else {}
    held = {
        name: frozenset(names[n] for n, count in verdict.pixels.items() if count and n in names)
        for name, verdict in verdicts.items()
    }
    if members is None:
        checked.index = carve_val(index, checked.digests, classes=held)
    else:
        checked.index = replace(index, val_source=index.val_source if index.val else "folds")


def _pixels(checked: Checked, verdicts: dict[str, Verdict]) -> dict[str, dict[str, int]]:
    if checked.classes is None:
        return {}
    pixels: dict[str, dict[str, int]] = {}
    for split in ("labeled", "val", "test"):
        total = Counter[str]()
        for item in checked.index.split(split):
            if (verdict := verdicts.get(item.name)) is not None:
                total.update(verdict.pixels)
                total["ignore"] += verdict.ignored
        row = {name: total[name] for name in checked.classes.names}
        if checked.classes.kind == "binary":
            row = {"background": total[""], **row}
        pixels[split] = {**row, "ignore": total["ignore"]}
    return pixels


def _manifest(checked: Checked, seen: Sequence[Seen]) -> str:
    of = {s.item.name: s for s in seen}
    lines = []
    for split, item in checked.index.items():
        masks = of[item.name].mask_digests if split != "unlabeled" else []
        lines.append(f"{split}\t{item.name}\t{[of[item.name].digest, *masks]}")
    lines.append(repr(checked.classes.to_json()) if checked.classes else "")
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
