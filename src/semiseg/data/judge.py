"""Masks against the class map: values that are no class, pixels per class, masks that are ignored everywhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from semiseg.data.classes import IGNORE, ClassMap, pack_color, unpack
from semiseg.data.classfile import say_ignored
from semiseg.data.decode import shown
from semiseg.data.look import MAX_KEPT, MaskFacts, Seen
from semiseg.errors import Problem

SPECKS = 8
"""Fewer pixels with values between the classes are slips of a brush: smoothing spoils the whole border of an object."""


@dataclass
class Verdict:
    """One item's masks: pixels per class name, ignored pixels, and what is wrong."""

    pixels: dict[str, int] = field(default_factory=dict)
    ignored: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Nothing but ignore."""
        return self.ignored > 0 and not any(self.pixels.values()) and not self.problems


def judge(seen: Seen, classes: ClassMap) -> Verdict:
    """Count the classes of one item from its facts; no file is opened. Problems D05, D06, D08, D09, D10."""
    verdict = Verdict({name: 0 for name in classes.names})
    if not seen.whole:
        return verdict
    for k, facts in enumerate(seen.masks):
        if classes.coding == "colors":
            _colors(facts, classes, verdict)
        elif classes.coding == "channels":
            if len(facts.values) != len(classes.names):
                text = f"has {len(facts.values)} channels, the class map has {len(classes.names)} labels"
                verdict.problems.append(Problem("D10", shown(facts.path), text, "save one channel per label"))
                continue
            for name, layer in zip(classes.names, facts.values, strict=True):
                _values(facts, layer, classes, (None, name), verdict)
        elif len(facts.values) > 1:
            text = f"has {len(facts.values)} channels, the other masks have one value per pixel"
            verdict.problems.append(Problem("D05", shown(facts.path), text, "save it like the other masks"))
        else:
            name = classes.names[k] if classes.coding == "folders" else classes.names[0]
            names = (None, name) if classes.task == "multilabel" else classes.names
            _values(facts, facts.values[0], classes, names, verdict)
    return verdict


def _values(
    facts: MaskFacts, layer: dict[int, int], classes: ClassMap, names: Sequence[str | None], verdict: Verdict
) -> None:
    meaning = dict(zip(classes.values, names, strict=True))
    wrong: dict[int, int] = {}
    for value, count in layer.items():
        if value in classes.ignore:
            verdict.ignored += count
        elif value not in meaning:
            wrong[value] = count
        elif (name := meaning[value]) is not None:
            verdict.pixels[name] += count
    background = sum(layer.get(v, 0) for v, n in meaning.items() if n is None)
    if background:
        verdict.pixels[""] = verdict.pixels.get("", 0) + background
    if wrong:
        verdict.problems.append(_wrong(facts, wrong, classes))


def _wrong(facts: MaskFacts, wrong: dict[int, int], classes: ClassMap) -> Problem:
    total, where = sum(wrong.values()), shown(facts.path)
    inside = sum((facts.inner or wrong).get(value, 0) for value in wrong)
    known = ", ".join(map(str, classes.values[:6])) + (", ..." if len(classes.values) > 6 else "")
    between = min(classes.values) < min(wrong) and max(wrong) < max(classes.values)
    if between and total >= SPECKS and inside <= 0.1 * total:
        text = f"holds {len(wrong)} values between the classes ({known}), on borders only: it looks interpolated"
        return Problem("D09", where, text, "export it again without smoothing, or resize with nearest neighbour")
    some = ", ".join(f"{v} ({n} pixel{'s' * (n > 1)})" for v, n in Counter(wrong).most_common(3))
    fix = "correct those pixels, or name all values in classes.yaml"
    if set(wrong) == {IGNORE} and len(classes.names) <= 2:
        fix = "write values: {background: 0, foreground: 255} into classes.yaml if 255 is the foreground"
    if set(wrong) == {1} and classes.values == (0, IGNORE):
        fix = f"correct those pixels, or {say_ignored(classes.names)}"
    expected = f"{known}" + (f" or {', '.join(map(str, classes.ignore))} = ignore" if classes.ignore else "")
    return Problem("D08", where, f"holds the value {some}", fix, expected)


def _colors(facts: MaskFacts, classes: ClassMap, verdict: Verdict) -> None:
    names = ("", *classes.names) if len(classes.colors) > len(classes.names) else classes.names
    meaning = {pack_color(color): name for color, name in zip(classes.colors, names, strict=True)}
    ignore = {pack_color(color) for color in classes.ignore if not isinstance(color, int)}
    held = facts.colors
    if held is None:
        if len(facts.values) > 1 or max(facts.values[0]) > 255:
            text = "has no colours"
            verdict.problems.append(Problem("D10", shown(facts.path), text, "save it as an RGB mask like the others"))
            return
        held = {value * 0x010101: count for value, count in facts.values[0].items()}
    wrong: dict[int, int] = {}
    for key, count in held.items():
        if key in ignore:
            verdict.ignored += count
        elif key in meaning:
            verdict.pixels[meaning[key]] = verdict.pixels.get(meaning[key], 0) + count
        else:
            wrong[key] = count
    if wrong:
        some = ", ".join(f"{list(unpack(key))} ({n} pixels)" for key, n in Counter(wrong).most_common(3))
        more = f"{len(wrong)} colours" if len(wrong) < MAX_KEPT - 1 else f"more than {len(wrong)} colours"
        text = f"holds {more} that the class file does not name: {some}"
        fix = "add them to colors (or ignore) in classes.yaml, or correct the mask"
        verdict.problems.append(Problem("D06", shown(facts.path), text, fix))
