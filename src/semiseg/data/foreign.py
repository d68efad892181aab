"""A data folder read with the classes of a run: what can be scored in a split, or everything that cannot, at once."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from semiseg import storage
from semiseg.data.classes import ClassMap
from semiseg.data.classfile import FILE, Spec, read_spec
from semiseg.data.decode import load, shown
from semiseg.data.folder import find
from semiseg.data.index import Index, Item
from semiseg.data.judge import judge
from semiseg.data.look import Seen, look_all
from semiseg.data.propose import class_map
from semiseg.errors import DATA, Problem, Refusal

Unfit = Callable[[int, str, str], Problem | None]
"""unfit(channels, dtype, path): why an image is not for the model, or None."""
COMPARED = 20
"""Images by which a data folder is known again."""
UNNAMED = re.compile(r"class '(class \d+|foreground)'")
"""Names that `propose.class_map` gives where no class file does: they mean any."""


def scorable(data: Path, classes: ClassMap, split: str, known: Mapping[str, Sequence[str]], unfit: Unfit) -> list[Item]:
    """The items of a split that have masks. known: split -> names, where training settled them itself.

    Every image and mask but those of unlabeled/ is read; where the split is there, labeled images may be missing.
    Raises Refusal (exit 3) with all problems of the folder (those of `check`), masks of the split that hold what is no
    class, masks that say by their values or their class file that they mean something else than in training, images
    that the model does not take, and D19 for a split without masks.
    """
    spec, problems = read_spec(data / FILE)
    index = _found(data, classes, split, problems)
    items = _items(index, split, known, problems)
    rest = [i for s, i in index.items() if s != "unlabeled" and i not in items]
    seen = look_all([("test", i) for i in (*items, *rest)], 2, None, bool(classes.colors))
    problems += [p for s in seen for p in s.problems]
    wrong, empty = list[Problem](), set()
    for one in seen[: len(items)]:
        if one.image and (problem := unfit(*one.image[2:], shown(one.item.image))):
            problems.append(problem)
        verdict = judge(one, classes)
        wrong += verdict.problems
        if verdict.empty:
            empty.add(one.item.name)
    problems = [p for p in problems if p.level == "error"]
    if not problems:
        wrong = _meaning(index, seen, classes, spec, bool(wrong)) or wrong
    if problems + wrong:
        raise Refusal(problems + wrong, DATA)
    if not (left := [i for i in items if i.name not in empty]):
        fix = f"add {split}/images and {split}/masks, or splits/{split}.txt"
        raise Refusal(Problem("D19", shown(data), f"has no {split} set with masks", fix), DATA)
    return left


def _found(data: Path, classes: ClassMap, split: str, problems: list[Problem]) -> Index:
    """The index with label folders in the order of the classes; refuses label folders where there should be none."""
    wanted = classes.names if classes.coding == "folders" else ()
    index = find(data, None, split)
    if set(index.labels) == set(wanted):
        index = find(data, wanted or None, split)
    elif not any(p.code == "D03" for p in index.problems):
        have = f"folders {', '.join(index.labels)}" if index.labels else "no folder per label"
        want = f"the folders {', '.join(wanted)}" if wanted else "one mask per image, as in training"
        where = next(path for path in (data / "masks", data / split / "masks", data) if path.is_dir())
        raise Refusal(Problem("D20", shown(where), f"holds {have}", "give masks like those", want), DATA)
    problems += index.problems
    return index


def _items(index: Index, split: str, known: Mapping[str, Sequence[str]], problems: list[Problem]) -> list[Item]:
    names = set(known.get(split, ()))
    if not names or (split == "val" and index.val):
        return [i for i in index.split(split) if i.masks]
    items = [i for _, i in index.items() if i.name in names and i.masks]
    if lost := sorted(names - {i.name for i in items}):
        found = f"lacks {len(lost)} of the {len(names)} images of the run's {split} set: {', '.join(lost[:3])}"
        problems.append(Problem("D18", shown(index.root), found, "restore them, or evaluate on another split"))
    return items


def _meaning(index: Index, seen: Sequence[Seen], classes: ClassMap, spec: Spec | None, strange: bool) -> list[Problem]:
    """D20: a value is a class here and ignored in the run or the other way round, or its class file names it otherwise.

    strange: masks hold what the run does not know; that is named where the masks lack what it knows (0/1 for 0/255).
    """
    if classes.coding == "colors" and spec is None:
        return []
    here, problems = class_map(seen, spec, index.labels, index.root / FILE)
    theirs = _meanings(classes)
    held = {v for s in seen for facts in s.masks for layer in facts.values for v in layer}
    if here is None:  # what the run ignores may be a class here, and nothing tells
        return problems if any(name == "ignored" and value in held for value, name in theirs.items()) else []
    ours = {v: name for v, name in _meanings(here).items() if v in held or not isinstance(v, int)}
    strange = strange and any(value not in ours for value, name in theirs.items() if name != "ignored")
    for value, one in ours.items():
        two = theirs.get(value, "no value" if strange else one)
        if one != two and (two == "no value" or "ignored" in (one, two) or (spec and not UNNAMED.fullmatch(two))):
            text = f"has masks in which {value} is {one}, but in the masks of the training it is {two}"
            file = shown(index.root / FILE)
            fix = f"correct {file}" if spec else f"say in {file} what the values mean"
            fix += ", or write the masks as in training"
            if two == "no value":
                values = ", ".join(f"{value} {name.removeprefix('class ')}" for value, name in theirs.items())
                fix = f"write the masks with the values of the training ({values})"
            return [Problem("D20", shown(index.root), text, fix)]
    return []


def _meanings(classes: ClassMap) -> dict[object, str]:
    """Value or colour -> "class NAME", "background" or "ignored"."""
    names = [f"class '{n}'" for n in classes.names]
    coded: Sequence[object] = classes.colors or classes.values
    if classes.task == "multilabel":
        names = ["background", "the label" if len(names) > 1 else names[0]]
    return {**dict(zip(coded, names, strict=True)), **dict.fromkeys(classes.ignore, "ignored")}


def holds_images_of(run: Path, data: Path) -> bool:
    """Is it the folder that the run was trained on, or one that holds the same labeled images (the first COMPARED)?"""
    record = storage.read_json(run / "run.json")["data"]
    typed = (record["path"], record.get("folder", ""))  # as typed, for a run and a folder that were moved together
    if data.resolve() in [Path(path).resolve() for path in typed if path]:
        return True
    if not (run / "check.json").exists():
        return False
    digests = storage.read_json(run / "check.json").get("digests", {})
    here = {item.name: item.image for _, item in find(data).items()}
    names = record["splits"]["labeled"][:COMPARED]
    return all(n in here and hashlib.sha256(load(here[n])).hexdigest() == digests.get(n) for n in names)
