"""Do two codings contradict each other? What a class file says of values, colours or channels against a class map."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from semiseg.data.classes import ClassMap
from semiseg.data.classfile import Spec
from semiseg.data.decode import shown
from semiseg.errors import Problem

BACKGROUND = "background"
NAMELESS = re.compile(r"(class|label) \d+|foreground")
"""Names that masks get where no class file names them."""


def contradicted(spec: Spec, classes: ClassMap, file: Path, whose: str) -> Iterator[Problem]:
    """P03 where a class file of a mask folder gives a value, colour or channel another name than `classes` does.

    Names that nobody gave (class 1, label 1, foreground) contradict none.
    """
    ours, theirs = _meanings(classes), _spoken(spec, classes)
    for value, mine in ours.items():
        name = theirs.get(value, mine)
        if name.casefold() != mine.casefold() and not (NAMELESS.fullmatch(mine) or NAMELESS.fullmatch(name)):
            found = f"says that {value} is {name}, and in {whose} it is {mine}"
            yield Problem(
                "P03", shown(file), found, "write the masks of all members in one coding, with the same names"
            )


def _meanings(classes: ClassMap) -> dict[object, str]:
    """Value, colour or channel -> name; of a binary task the background is called so."""
    if classes.coding in ("folders", "channels"):
        return dict(enumerate(classes.names)) if classes.coding == "channels" else {}
    names = (BACKGROUND, *classes.names) if classes.kind == "binary" else classes.names
    return dict(zip(classes.colors or classes.values, names, strict=True))


def _spoken(spec: Spec, classes: ClassMap) -> dict[object, str]:
    """The same of a class file; without values two names mean 0 and 1 or 255, and more their numbers."""
    names: Sequence[str] = spec.names
    if classes.coding == "channels":
        return dict(enumerate(names))
    if classes.kind == "binary":  # whatever the first is called, it is the background
        lone = len(spec.values or spec.colors) == 1  # which is the foreground's
        names = names if lone else (BACKGROUND, names[-1])
    coded: Sequence[object] = spec.colors or spec.values or range(len(names))
    found = dict(zip(coded, names, strict=False))
    return {**found, 255: names[-1]} if len(names) == 2 and not (spec.colors or spec.values) else found
