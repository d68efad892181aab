"""What the folders of a comparison allow: a split to read, models to choose among, a row of all masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from semiseg.compare.request import BASE, FULL, Asked, Request
from semiseg.data.check import Checked, check
from semiseg.data.folder import find
from semiseg.errors import Problem, Refusal
from semiseg.training.config import SELECTABLE
from semiseg.training.prepare import crop_size
from semiseg.training.ranges import amount

Full = tuple[str, dict[str, Any]]  # the row of all masks, and its options


def sides(request: Request) -> dict[str, Any]:
    """The sizes that a folder is checked for."""
    return {"size": request.options.get("size"), "resize": request.options.get("resize") or 0}


def crop_of(request: Request, whole: Checked) -> int:
    """The side of crops for every number of labels: of a few labels it could be another one than of all of them."""
    shorter = [min(whole.images[item.name][:2]) for item in whole.index.labeled]
    resize = request.options.get("resize") or max(shorter, default=0)
    return crop_size([min(side, resize) for side in shorter] or [0])


def look(
    request: Request, path: Path, asked: list[Asked], problems: list[Problem], notes: list[str], given: dict[str, Any]
) -> dict[str, Checked] | None:
    """Check the folder with every number of labels, numbers that mean the same images once; None when it is refused."""
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
        names = [item.name for item in checked.index.labeled]
        if twin := next((n for n, c in good.items() if [item.name for item in c.index.labeled] == names), ""):
            notes.append(
                f"{path}: --labels {labels} are the {len(names)} labels of --labels {twin}, which are trained once"
            )
            continue
        good[labels] = checked
        hungry = [a.title for a in asked if a.hungry]
        if checked.ok and not checked.index.unlabeled and hungry:
            fix = "put images without masks into unlabeled/, or ask for fewer --labels"
            text = f"has no unlabeled images with --labels {labels}, and {', '.join(hungry)} learn from them"
            problems.append(Problem("D32", str(path), text, fix))
        judged = [a.title for a in asked if a.program.judged]
        if checked.ok and not checked.index.val and judged:
            text = f"has no val set with --labels {labels}, and {', '.join(judged)} learn to judge masks from it"
            problems.append(Problem("C08", str(path), text, "add val/images and val/masks, or lists in splits/"))
    return good if len(problems) == before else None


def split_of(request: Request, name: str, seen: dict[str, Checked], problems: list[Problem], notes: list[str]) -> str:
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


def unchosen(name: str, seen: dict[str, Checked], k: int) -> list[str]:
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


def folded(
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


def full_row(
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
