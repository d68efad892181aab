"""What is wrong with a data set as a whole, although every file is fine: leaks, mixed kinds, absent classes, sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations

from semiseg.data.classes import IGNORE, ClassMap
from semiseg.data.decode import shown
from semiseg.data.index import Index, Item
from semiseg.data.look import Seen
from semiseg.errors import Problem

Shape = tuple[int, int, int, str]
OBJECTS, COUNTS = 5, 3
"""Masks number objects if each holds 1 to n without a gap, n is OBJECTS or more in one and differs in COUNTS of them."""
DENSE, MANY = 0.6, 10
"""And where few are missing: such a share of 1 to n is there, n is MANY or more in one mask, at most half of that in a
quarter of them, and the same in no more than a quarter. Of classes the last few are the highest in nearly every mask.
"""
COLORS = 4
"""Channels of a photograph; more may be a stack that was saved as one file."""


def kinds(index: Index, images: Mapping[str, Shape], channels: int, dtype: str) -> list[Problem]:
    """D14: images whose channels or type differ from those of most; D15: two items of one name; D39: many channels."""
    problems = []
    if channels > COLORS:
        found = (
            f"has images of {channels} channels; slices of a stack or frames of a film belong into files of their own"
        )
        problems.append(Problem("D39", shown(index.root), found, level="note"))
    most = sum((c, t) == (channels, dtype) for _, _, c, t in images.values())
    names = Counter(item.name for _, item in index.items())
    for _, item in index.items():
        shape = images.get(item.name)
        if shape is not None and shape[2:] != (channels, dtype):
            found = f"has {_kind(*shape[2:])}, but {most} of {len(images)} images have {_kind(channels, dtype)}"
            fix = f"save it with {_kind(channels, dtype)}, or remove it"
            problems.append(Problem("D14", shown(item.image), found, fix))
        if names[item.name] > 1:
            found = f"has the name {item.name!r}, as another image has"
            problems.append(Problem("D15", shown(item.image), found, "rename one of the two"))
    return problems


def _kind(channels: int, dtype: str) -> str:
    return f"{channels} channel{'s' * (channels != 1)} of {dtype}"


def repeats(index: Index, seen: Sequence[Seen]) -> list[Problem]:
    """D23, D24, D25: the same file content twice, where it matters."""
    of = {s.item.name: s for s in seen}
    groups: dict[str, dict[str, list[Item]]] = {}
    for split, item in index.items():
        if of[item.name].digest:
            groups.setdefault(of[item.name].digest, {}).setdefault(split, []).append(item)
    problems: list[Problem] = []
    for group in groups.values():
        for split, other in combinations(group, 2):
            problems += [_twin(group[split][0], split, item, other) for item in group[other]]
        for first, item in ((items[0], i) for split, items in group.items() if split != "unlabeled" for i in items[1:]):
            found, fix = f"is the same image as {shown(first.image)}", "remove one of the two"
            if of[item.name].mask_digests != of[first.name].mask_digests:
                found, fix = found + ", with another mask", "keep the better mask"
            problems.append(Problem("D25", shown(item.image), found, fix, level="warning"))
    return problems


def _twin(item: Item, split: str, twin: Item, other: str) -> Problem:
    """One content in two splits: unclean when one of them is unlabeled, else a score that says nothing."""
    if split == "unlabeled":
        item, split, twin, other = twin, other, item, split
    where, found = shown(twin.image), f"is the same image as {shown(item.image)} ({split} and {other})"
    if other == "unlabeled":
        return Problem("D24", where, found, "remove one of the two", level="warning")
    return Problem("D23", where, f"{found}: its score would say nothing", "keep it in one of the two")


def presence(
    index: Index, classes: ClassMap | None, pixels: Mapping[str, Mapping[str, int]], whole: bool = True
) -> list[Problem]:
    """D27: classes without a labeled pixel, where all masks could be read. D37: what was found, in one line."""
    if classes is None:
        return []
    names = ", ".join(classes.names[:12]) + (f", ... ({len(classes.names)})" if len(classes.names) > 12 else "")
    coding = {"values": "values " + ", ".join(map(str, classes.values[:12])), "colors": "colours",
              "folders": "a folder per label", "channels": "a channel per label"}[classes.coding]  # fmt: skip
    text = f"is read as {classes.kind}: {names} ({coding})"
    counted = sum(pixels["labeled"].values())
    if hidden := pixels["labeled"].get("ignore", 0) if classes.kind != "multilabel" else 0:
        text += f"; {hidden / counted:.1%} of the labeled pixels are ignored"
    problems = [Problem("D37", shown(index.root), text, level="note")]
    absent = [name for name in classes.names if whole and not pixels["labeled"].get(name)]
    elsewhere = [n for n in absent if any(pixels[s].get(n) for s in ("val", "test"))]
    fix = "label an image that shows it, or leave it out of the classes"
    for name in absent:
        where = " but in " + ("val" if pixels["val"].get(name) else "test") if name in elsewhere else ""
        text = f"has no pixel of class {name!r} in its labeled masks{where}: it cannot be learned"
        problems.append(Problem("D27", shown(index.root), text, fix, level="warning"))
    return problems


def numbered(index: Index, classes: ClassMap | None, seen: Sequence[Seen]) -> list[Problem]:
    """D38: ids that count the objects of an image, as tools for instances write them. Not asked with a class file."""
    if classes is None or classes.kind != "multiclass" or classes.coding != "values":
        return []
    ids = [set(facts.values[0]) - {0, IGNORE} for s in seen for facts in s.masks if len(facts.values) == 1]
    last = sorted(max(found) for found in ids if found)  # of each mask
    if len(set(last)) < COUNTS or last[-1] < OBJECTS:
        return []
    whole = all(max(found, default=0) == len(found) for found in ids)
    spread = 2 * last[len(last) // 4] <= last[-1] and max(Counter(last).values()) <= len(last) / 4
    dense = sum(map(len, ids)) >= DENSE * sum(last) and last[-1] >= MANY and spread
    if not (whole or dense):
        return []
    gaps = "without a gap" if whole else "with few gaps"
    found = f"has masks of 1 to {last[0]} up to 1 to {last[-1]} {gaps}, as if they numbered objects: "
    fix = "make every object 255 (or the number of its kind), or add a classes.yaml that names the classes"
    return [Problem("D38", shown(index.root), found + "each number is taken as a class", fix, level="warning")]


def working(height: int, width: int, resize: int) -> tuple[int, int]:
    """Height and width to train at: the shorter side of larger images becomes `resize` pixels; 0 = as they are."""
    side = min(height, width)
    if not resize or side <= resize:
        return height, width
    return max(1, round(height * resize / side)), max(1, round(width * resize / side))


def crops(index: Index, images: Mapping[str, Shape], size: int | None, resize: int = 0) -> list[Problem]:
    """D29: error when no image is as large as the crop in height or width, note when some are padded."""
    if size is None or not images:
        return []
    where, after = shown(index.root), f" after --resize {resize}" if resize else ""
    sizes = [working(h, w, resize) for h, w, _, _ in images.values()]
    longest, smaller = max(map(max, sizes)), sum(min(s) < size for s in sizes)
    if size > longest:
        side = min(map(max, sizes))
        found = f"has no image of {size} pixels in height or width (the longest side is {longest}{after})"
        return [Problem("D29", where, found, f"use --size {side // 32 * 32 or side}")]
    if smaller:
        found = f"has {smaller} of {len(images)} images smaller{after} than the crop of {size}: they are padded"
        return [Problem("D29", where, found, "nothing: padding is never trained on", level="note")]
    return []


def numbers(index: Index, members: int | None) -> list[Problem]:
    """D30 where val comes from, D32 no unlabeled images, D33 fewer labels than folds."""
    where, labeled, problems = shown(index.root), len(index.labeled), []
    if index.val_source == "carved":
        found = f"has no val set: {len(index.val)} of {labeled + len(index.val)} labeled images were set aside as val"
        fix = (
            "add val/ for a val set of your own: among more labels others are set aside, and scores cannot be compared"
        )
        problems.append(Problem("D30", where, found, fix, level="note"))
    elif index.val_source == "folds":
        found = "has no val set: each member is scored on its fold of the labels, which it does not learn from"
        problems.append(Problem("D30", where, found, "add val/ for a val set of your own", level="note"))
    elif labeled and not index.val:
        found = f"has {labeled} labeled image{'s' * (labeled > 1)} and no val set: too few to set some aside, "
        found += "so the last weights are taken and no score is known"
        problems.append(Problem("D30", where, found, "label at least 5 images, or add val/", level="warning"))
    if labeled and not index.unlabeled:
        fix = f"put images without masks into {shown(index.root / 'unlabeled')}/"
        if index.layout == "lists":
            fix = f"list images without masks in {shown(index.root / 'splits' / 'unlabeled.txt')}"
        found = "has no unlabeled images: only supervised training"
        problems.append(Problem("D32", where, found, fix, level="warning"))
    if members is not None and members > labeled > 0:
        found = f"has {labeled} labeled images, too few for {members} folds"
        fix = f"use at most {labeled} folds" if labeled > 1 else "label more, or set members apart by seed"
        problems.append(Problem("D33", where, found, fix))
    return problems
