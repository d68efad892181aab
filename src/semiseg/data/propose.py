"""From what the masks hold (and the class file, if any) to a class map; a refusal comes with the lines to paste."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from semiseg.data import decode
from semiseg.data.classes import IGNORE, MAX_CLASSES, ClassMap, unpack
from semiseg.data.classfile import Spec, block, say_ignored
from semiseg.data.decode import shown
from semiseg.data.look import MaskFacts, Seen
from semiseg.data.strays import PLAIN_RUN, blended, interpolated, outliers, slips
from semiseg.errors import Problem

NEGATIVE = ((255, 255, 255), (0, 0, 0))
"""A palette whose index 0 is white, as quantising a black and white picture may give: white is still the foreground."""
PREDICTED = "if `semiseg predict` wrote the masks, copy the classes.yaml beside them there; else "


@dataclass(frozen=True)
class Found:
    """All masks of the labeled, val and test items together; `file` is where a class file would be written."""

    facts: list[MaskFacts]
    labels: tuple[str, ...]
    file: Path

    @property
    def where(self) -> str:
        """The first mask, for messages."""
        return shown(self.facts[0].path)


def class_map(
    seen: Sequence[Seen], spec: Spec | None, labels: tuple[str, ...], file: Path
) -> tuple[ClassMap | None, list[Problem]]:
    """The class map of the masks read. labels: label folders; file: the class file there is or could be.

    (None, problems) when the masks cannot be understood: D05, D08, D10, D20, D26. Outliers in few masks do not change the
    map; `judge.judge` reports them file by file.
    """
    found = Found([facts for s in seen if s.whole for facts in s.masks], labels, file)
    if not found.facts:
        return None, []
    if spec is None and all(set(layer) == {IGNORE} for f in found.facts for layer in f.values):
        return None, [_unlabeled(found)]
    classes, problems = _propose(found, spec, labels)
    both = [v for v in classes.ignore if v in classes.values + classes.colors] if spec and classes else []
    if both:
        text = f"has {', '.join(map(str, both))} under ignore, which is a class too"
        return None, [Problem("D20", shown(file), text, "take it out of ignore, or give that class another value")]
    return classes, problems


def _propose(found: Found, spec: Spec | None, labels: tuple[str, ...]) -> tuple[ClassMap | None, list[Problem]]:
    """Which kind of coding it is: the class file decides, then what most masks are."""
    if labels:
        return _folders(found, spec)
    if spec is not None and spec.colors:
        return _spec_colors(spec), []
    stacks = [f for f in found.facts if len(f.values) > 1 and (not f.rgb or (spec and spec.task == "multilabel"))]
    if 2 * len(stacks) > len(found.facts):
        return _channels(found, stacks, spec)
    grey = [f for f in found.facts if len(f.values) == 1]
    if 2 * len(grey) <= len(found.facts) or (len(grey) < len(found.facts) and all(f.rgb for f in found.facts)):
        return None, [_color_problem(found)]  # of RGB masks some may show one class only, whose colour is grey
    found = replace(found, facts=grey)  # a few colour masks among grey ones: `judge` names them
    if problem := _palettes(found):
        return None, [problem]
    return _spec_values(found, spec) if spec is not None else _values(found)


def _folders(found: Found, spec: Spec | None) -> tuple[ClassMap | None, list[Problem]]:
    if spec is not None and set(spec.names) != set(found.labels):
        text = f"names {', '.join(spec.names)}, but the label folders are {', '.join(found.labels)}"
        return None, [Problem("D20", shown(found.file), text, "use the names of the folders")]
    names = spec.names if spec is not None else found.labels
    if any(len(f.values) > 1 for f in found.facts):
        wide = next(f for f in found.facts if len(f.values) > 1)
        text = "has several channels, but a label folder holds one label"
        return None, [Problem("D10", shown(wide.path), text, "save it as a grey mask of 0 and 255")]
    values, ignore, problem = _two_values(found, _layers(found), names, spec)
    if problem is not None:
        return None, [problem]
    return ClassMap("multilabel", names, "folders", values, ignore=ignore, palette=_palette(found)), []


def _channels(found: Found, stacks: list[MaskFacts], spec: Spec | None) -> tuple[ClassMap | None, list[Problem]]:
    count = Counter(len(f.values) for f in stacks).most_common(1)[0][0]
    names = spec.names if spec is not None else tuple(f"label {k}" for k in range(count))
    if len(names) != count:
        text = f"names {len(names)} labels, but the masks have {count} channels"
        return None, [Problem("D20", shown(found.file), text, "name one label per channel")]
    layers = [v for f in stacks if len(f.values) == count for v in f.values]
    values, ignore, problem = _two_values(found, layers, names, spec)
    if problem is not None:
        return None, [problem]
    return ClassMap("multilabel", names, "channels", values, ignore=ignore), []


def _spec_colors(spec: Spec) -> ClassMap:
    ignore = tuple(c for c in spec.ignore or () if not isinstance(c, int))
    if spec.task == "binary":
        return ClassMap("multilabel", spec.names[1:], "colors", colors=spec.colors, ignore=ignore)
    return ClassMap("multiclass", spec.names, "colors", colors=spec.colors, ignore=ignore)


def _spec_values(found: Found, spec: Spec) -> tuple[ClassMap | None, list[Problem]]:
    """A class file for grey or palette masks: its values, or ids 0..K-1, or 0/255 for two classes."""
    if spec.task == "multilabel" and len(spec.names) > 1:
        text = "names several labels, but each image has one grey mask"
        return None, [Problem("D20", shown(found.file), text, "use a folder per label, masks/LABEL/NAME.png")]
    two = len(spec.names) <= 2
    values: tuple[int, ...] = spec.values or tuple(range(len(spec.names)))
    if two:
        values, _, problem = _two_values(found, _layers(found), spec.names[-1:], spec)
        if problem is not None:
            return None, [problem]
    ignore = _ignored(spec, values)
    grey = any(f.grey_rgb for f in found.facts)
    if two and spec.task != "multiclass":
        return ClassMap("multilabel", spec.names[-1:], "values", values, (), ignore, _palette(found), grey), []
    return ClassMap("multiclass", spec.names, "values", values, (), ignore, _palette(found), grey), []


def _values(found: Found) -> tuple[ClassMap | None, list[Problem]]:
    """No class file: {0,1} and {0,255} are binary, ids are classes, 255 beside ids is ignore.

    Ids may have gaps, as predictions have, which show some classes only. The indices of a palette are ids whatever they
    are; grey values far apart are none.
    """
    counts, files = Counter[int](), Counter[int]()
    for facts in found.facts:
        counts.update(facts.values[0])
        files.update(facts.values[0].keys())
    grey, palette, used = any(f.grey_rgb for f in found.facts), _palette(found), set(counts)
    if not (indexed := _indexed(found)):
        used -= interpolated(found.facts, counts)
        used -= outliers(sorted(used - {IGNORE}), files)
    ids = sorted(used - {IGNORE}) or [0]
    dense = ids[-1] < min(MAX_CLASSES, max(PLAIN_RUN, 2 * len(ids) + 8))
    if len(ids) > MAX_CLASSES or not (dense or indexed):
        some = ", ".join(map(str, sorted(used)[:8])) + (", ..." if len(used) > 8 else "")
        if len(counts) > PLAIN_RUN:
            return None, [_many(found, len(counts))]
        text = f"and the other masks hold the grey values {some}, which are no ids 0, 1, 2, ..."
        fix = PREDICTED + block(values=sorted(used), path=shown(found.file))
        return None, [Problem("D08", found.where, text, fix)]
    if used - slips(counts) <= {0, 1, IGNORE}:
        names: tuple[str, ...] = ("foreground",)
        values, ignore, problem = _two_values(found, _layers(found), names, None)
        if problem is not None:
            return None, [problem]
        return ClassMap("multilabel", names, "values", values, (), ignore, palette, grey), []
    classes = tuple(range(ids[-1] + 1)) if dense else tuple(ids)
    names = tuple(f"class {v}" for v in classes)
    return ClassMap("multiclass", names, "values", classes, (), (IGNORE,), palette, grey), []


def _two_values(
    found: Found, layers: list[dict[int, int]], names: Sequence[str], spec: Spec | None
) -> tuple[tuple[int, int], tuple[int, ...], Problem | None]:
    """(background, foreground), ignore, problem: 0/255 when no mask holds a 1, else 0/1 with 255 = ignore.

    A 1 by a slip does not count, nor does what the class file ignores. Without any 1 one mask may be foreground everywhere.
    """
    if spec is not None and len(spec.values) == 2:
        return (spec.values[0], spec.values[1]), _ignored(spec, spec.values), None
    told = _ignored(spec, (IGNORE,))
    layers = [{v: n for v, n in layer.items() if v not in told} for layer in layers]
    total = Counter[int]()
    for layer in layers:
        total.update(layer)
    held = [set(layer) - slips(layer) - slips(total) for layer in layers]
    ones, full = [h for h in held if 1 in h], [h for h in held if IGNORE in h]
    if not ones and full:
        return (0, IGNORE), _ignored(spec, (0, IGNORE)), None
    if ones and any(0 in h for h in full) and not any(1 in h for h in full):
        text = f"and {len(ones) - 1} more masks use 0/1, {len(full)} others use 0/255"
        where = shown(next(f.path for f in found.facts if any(1 in v and IGNORE not in v for v in f.values)))
        return (0, 1), (), Problem("D10", where, text, f"save all in one way, or {say_ignored(names)}")
    painted = [f.palette[:2] for f in found.facts if f.palette]
    negative = spec is None and len(painted) == len(found.facts) and set(painted) == {NEGATIVE}
    return (1, 0) if negative else (0, 1), _ignored(spec, (0, 1)), None


def _ignored(spec: Spec | None, values: tuple[int, ...]) -> tuple[int, ...]:
    """What the class file says, or 255 where it is no class."""
    if spec is not None and spec.ignore is not None:
        return tuple(v for v in spec.ignore if isinstance(v, int))
    return () if IGNORE in values else (IGNORE,)


def _layers(found: Found) -> list[dict[int, int]]:
    """The values of every mask, without those that interpolation made."""
    counts = Counter[int]()
    for facts in found.facts:
        counts.update(facts.values[0])
    weak = interpolated(found.facts, counts)
    return [{v: n for v, n in facts.values[0].items() if v not in weak} for facts in found.facts]


def _palette(found: Found) -> tuple[tuple[int, int, int], ...] | None:
    return max((f.palette for f in found.facts if f.palette), key=len, default=None)


def _indexed(found: Found) -> bool:
    """Have all masks a palette that says what its indices are?"""
    return all(f.palette and not decode.says_nothing(f.palette) for f in found.facts)


def _palettes(found: Found) -> Problem | None:
    """One index with two colours: each file was given its own palette, and the indices mean nothing."""
    known: dict[int, tuple[tuple[int, int, int], MaskFacts]] = {}
    for facts in found.facts:
        for value in facts.values[0] if facts.palette else ():
            color = facts.palette[value] if facts.palette and value < len(facts.palette) else (0, 0, 0)
            first, other = known.setdefault(value, (color, facts))
            if first != color:
                text = f"paints index {value} as {color}, {shown(other.path)} as {first}"
                fix = "save all masks with one palette, or name the colours in classes.yaml"
                return Problem("D10", shown(facts.path), text, fix)
    return None


def _unlabeled(found: Found) -> Problem:
    """D26: 255 alone may be the foreground or what is ignored, and there is nothing to learn either way."""
    text = f"holds {len(found.facts)} masks of nothing but 255, so all are ignored everywhere"
    layers = len(found.facts[0].values)
    names = found.labels or (("foreground",) if layers == 1 else tuple(f"label {k}" for k in range(layers)))
    fix = f"label some pixels as a class, or write  names: [{', '.join(names)}]  and  ignore: []  into {shown(found.file)}"
    fix += " if 255 is the foreground, as the classes.yaml of `semiseg predict` says of its masks"
    return Problem("D26", shown(found.file.parent), text, fix)


def _many(found: Found, count: int) -> Problem:
    """D08 by the mask with most values: so many, far apart, are hardly classes."""
    most = max(found.facts, key=lambda f: len(f.values[0]))
    held = len(most.values[0])
    text = f"holds {held} of the {count} grey values of all masks, as photographs, probabilities or resized masks do"
    fix = "save ids 0, 1, 2, ..., resized with nearest neighbour only; or, where each value is a class, name them all"
    return Problem("D08", shown(most.path), text, f"{PREDICTED}{fix} under values: in {shown(found.file)}")


def _color_problem(found: Found) -> Problem:
    """D05 with the table of colours to paste; D09 for smoothed colours, D10 for channels that do not agree."""
    wide = [f for f in found.facts if len(f.values) > 1]
    first, channels = wide[0], sorted({len(f.values) for f in found.facts})
    if not all(f.rgb for f in wide):
        text = f"has {len(first.values)} channels, and the masks have {' or '.join(map(str, channels))}"
        return Problem("D10", shown(first.path), text, "save all masks in one way")
    colors = Counter[int]()
    for facts in found.facts:
        colors.update(facts.colors or {})
    if len(colors) > MAX_CLASSES:
        text = f"is one of {len(wide)} RGB masks with {len(colors)} different colours: it looks interpolated"
        return Problem("D09", shown(first.path), text, "export the masks again without smoothing, as PNG")
    files = Counter(key for facts in found.facts for key in facts.colors or ())
    if weak := blended(found.facts, colors):
        text = f"is one of {len(wide)} RGB masks with {len(colors)} colours, of which {len(weak)} lie on borders only"
        return Problem("D09", shown(first.path), text, "export the masks again without smoothing, as PNG")
    ranked = [key for key, _ in colors.most_common()]
    ranked.sort(key=lambda key: key != 0)  # black first: it is the background nearly everywhere
    text = f"is an RGB mask ({len(wide)} of {len(found.facts)} are, with {len(colors)} colours), and no file names them"
    held = [set[int]().union(*(f.values[k] for f in wide)) for k in range(3)]
    stacked = all(h in ({0, 1}, {0, IGNORE}) for h in held)  # what three labels in one file look like
    fix = PREDICTED + block([unpack(k) for k in ranked], path=shown(found.file), labels=3 * stacked)
    if len(colors) > PLAIN_RUN and sum(n == 1 for n in files.values()) > 0.8 * len(files):
        fix = "if each object has a colour of its own, paint all objects of a kind alike; else name the colours"
    return Problem("D05", shown(first.path), text, fix)
