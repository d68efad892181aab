"""Walking a folder: image files by name, with links, special files and clashing names dealt with."""

from __future__ import annotations

import errno
import os
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from semiseg.data.decode import SUFFIXES, shown
from semiseg.data.index import order
from semiseg.errors import Problem

JUNK = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx"})


@dataclass
class Scan:
    """Image files of a folder: `files` maps the name (relative path without suffix, NFC) to the path, in name order."""

    files: dict[str, Path] = field(default_factory=dict)
    other: list[Path] = field(default_factory=list)
    special: list[Path] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


@dataclass
class Masks:
    """Mask files by image name: `files[name]` is one path, or one per label in the order of `labels`."""

    root: Path
    labels: tuple[str, ...] = ()
    files: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    scans: list[Scan] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def nfc(text: str) -> str:
    """One Unicode form for names: macOS writes "é" as two characters."""
    return unicodedata.normalize("NFC", text)


def scan(folder: Path) -> Scan:
    """All image files below `folder`; hidden files and known junk are skipped, others counted, pipes not opened.

    Problems: D15 two files of one name, D16 names that differ only by case or Unicode form, D17 links and folders that
    cannot be followed.
    """
    found = Scan()
    paths = sorted(_walk(folder, found), key=lambda p: order(nfc(p.as_posix())))
    seen: dict[str, tuple[str, Path]] = {}
    for path in paths:
        if path.suffix.lower() not in SUFFIXES:
            found.other.append(path)
            continue
        raw = path.relative_to(folder).with_suffix("").as_posix()
        name = nfc(raw)
        if not name.isprintable() and any("\ud800" <= c <= "\udfff" for c in name):
            found.problems.append(Problem("D17", shown(path), "has a name that is not UTF-8", "rename it"))
        if (first := seen.get(name.casefold())) is not None:
            found.problems.append(_clash(path, raw, *first))
            continue
        seen[name.casefold()] = (raw, path)
        found.files[name] = path
    found.files = dict(sorted(found.files.items(), key=lambda pair: order(pair[0])))
    return found


def scan_masks(folder: Path, images: Scan, labels: tuple[str, ...] | None = None) -> Masks:
    """Mask files below `folder`: one per image, or a folder per label when masks/ holds only folders.

    labels: the label folders if already known (val and test follow the labeled ones), () for none, None to find out.
    """
    masks = Masks(folder)
    inside = _label_folders(folder, images) if labels is None else labels
    if not inside:
        masks.scans = [scan(folder)]
        masks.files = {name: (path,) for name, path in masks.scans[0].files.items()}
        return masks
    masks.labels = tuple(inside)
    masks.scans = [scan(folder / label) if (folder / label).is_dir() else Scan() for label in inside]
    empty = [label for label, s in zip(inside, masks.scans, strict=True) if not s.files and not s.problems]
    for name in sorted({n for s in masks.scans for n in s.files}, key=order):
        lacking = [label for label, s in zip(inside, masks.scans, strict=True) if name not in s.files]
        if empty:  # it may go where nobody else decides what the labels are
            fix = "" if labels else "remove it, or "
            fix += "add one mask per image, all 0 where the label does not occur"
            masks.problems.append(Problem("D36", f"{shown(folder / empty[0])}/", "holds no masks", fix))
        elif lacking:
            where = shown(next(s.files[name] for s in masks.scans if name in s.files))
            fix = "add the missing mask (all 0 when the label does not occur), or remove the image"
            found = f"has no counterpart in {', '.join(shown(folder / n) + '/' for n in lacking[:3])}"
            masks.problems.append(Problem("D36", where, found, fix))
        else:
            masks.files[name] = tuple(s.files[name] for s in masks.scans)
    return masks


def _label_folders(folder: Path, images: Scan) -> tuple[str, ...]:
    """Names of the label folders, or () when masks lie side by side or mirror the subfolders of images/."""
    folders, mirrored = [], {name.split("/")[0] for name in images.files if "/" in name}
    try:
        entries = sorted(os.scandir(folder), key=lambda e: order(nfc(e.name)))
    except OSError:
        return ()
    for entry in entries:
        if entry.name.startswith(".") or entry.name.lower() in JUNK:
            continue
        if entry.is_dir():
            folders.append(entry.name)
        elif Path(entry.name).suffix.lower() in SUFFIXES:
            return ()
    return () if mirrored & {nfc(f) for f in folders} else tuple(folders)


def _clash(path: Path, raw: str, other: str, first: Path) -> Problem:
    if raw == other:
        found = f"has the same name as {shown(first)}: their masks and predictions would be one file"
        return Problem("D15", shown(path), found, "rename or remove one of the two")
    found = f"differs from {shown(first)} only by case or Unicode form, which is one file on Windows and macOS"
    return Problem("D16", shown(path), found, "rename one of the two")


def _walk(folder: Path, found: Scan) -> Iterator[Path]:
    """Regular files below a folder; a link to a parent folder is a problem, not an endless walk."""
    stack: list[tuple[Path, frozenset[tuple[int, int]]]] = [(folder, frozenset())]
    while stack:
        here, parents = stack.pop()
        try:
            info = os.stat(here)
            identity = (info.st_dev, info.st_ino)
            if identity in parents:
                raise OSError(errno.ELOOP, "link to a folder that contains it")
            names = os.listdir(here)
        except OSError as error:
            found.problems.append(_unreadable(here, error))
            continue
        for name in names:
            if name.startswith(".") or name.lower() in JUNK:
                continue
            path = here / name
            try:
                mode = os.stat(path).st_mode
            except OSError as error:
                found.problems.append(_unreadable(path, error))
                continue
            if stat.S_ISDIR(mode):
                stack.append((path, parents | {identity}))
            elif stat.S_ISREG(mode):
                yield path
            else:
                found.special.append(path)


def _unreadable(path: Path, error: OSError) -> Problem:
    if path.is_symlink():
        why = "runs in a circle" if error.errno == errno.ELOOP else "leads nowhere"
        return Problem("D17", shown(path), f"is a link that {why}", "remove the link, or point it at the data")
    return Problem("D17", shown(path), f"cannot be read: {error.strerror}", "make it readable, or remove it")
