"""What was found in a data folder: items in four lists, and the problems met on the way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from semiseg.errors import Problem

SPLITS = ("labeled", "unlabeled", "val", "test")


@dataclass(frozen=True)
class Item:
    """One image. `masks` is empty (none), one file, or one file per label in the order of the class map's names.

    `name` is unique in an index: the image's path without suffix, NFC, posix, without the level "images/"
    (images/a.png -> "a", val/images/x/b.png -> "val/x/b", unlabeled/c.png -> "unlabeled/c"). Masks of unlabeled items
    are recorded when they exist and opened only for full-label baselines and diagnostics.
    """

    name: str
    image: Path
    masks: tuple[Path, ...] = ()

    def bare(self) -> Item:
        """The same image without its masks."""
        return replace(self, masks=())


@dataclass
class Index:
    """The four lists of a data folder. `layout` is "folders" or "lists"; paths start as the user typed the root.

    labels: names of the folders under masks/ when there is one folder per label, else empty.
    val_source: "given", "carved" (from the labeled items), "folds" (of the labeled items, by turns) or "none".
    Items are in the byte order of their NFC names; with lists, `labeled` keeps the order of the file.
    """

    root: Path
    layout: str = "folders"
    labeled: list[Item] = field(default_factory=list)
    unlabeled: list[Item] = field(default_factory=list)
    val: list[Item] = field(default_factory=list)
    test: list[Item] = field(default_factory=list)
    labels: tuple[str, ...] = ()
    problems: list[Problem] = field(default_factory=list)
    val_source: str = "none"

    def split(self, name: str) -> list[Item]:
        """The items of "labeled", "unlabeled", "val" or "test"."""
        items: list[Item] = getattr(self, name)
        return items

    def items(self) -> Iterator[tuple[str, Item]]:
        """(split, item) of every item."""
        for split in SPLITS:
            for item in self.split(split):
                yield split, item

    def counts(self) -> dict[str, int]:
        """Items per split."""
        return {split: len(self.split(split)) for split in SPLITS}


def order(name: str) -> bytes:
    """Sort key: the bytes of the (NFC) name, the same on every machine."""
    return name.encode("utf-8", "surrogateescape")
