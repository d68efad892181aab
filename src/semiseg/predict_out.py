"""The folder that masks go into: where it may lie, which images it holds, and that what it says it holds is there."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from semiseg import storage
from semiseg.data import decode
from semiseg.data.classes import ClassMap
from semiseg.data.classfile import FILE
from semiseg.data.decode import shown
from semiseg.data.folder import images_of, is_data
from semiseg.data.index import SPLITS, order
from semiseg.data.walk import nfc
from semiseg.errors import BUSY, USAGE, Problem, Refusal

Row = dict[str, Any]
Places = Callable[[str], list[str]]
COLUMNS = ("image", "mask", "source", "sha256", "coding", "model", "written")
"""What every table has: the image's path seen from the folder and its content, and the content of its files."""
OTHER = "choose another --out"


class Output:
    """masks/ and what lies beside it, the table that lists them by image, and the class file that says what they mean.

    A file that the table does not list is somebody's work and is never written over. Every image is in the table before
    its files are written, so the call after one that was killed knows them. Rows of other images stay.
    committee: who alone may have made all of it, "" where every image may be by another model.
    """

    def __init__(self, out: Path, table: str, classes: ClassMap, places: Places, committee: str = "") -> None:
        self.out, self.table, self.places, self.committee = out, out / table, places, committee
        self.classes = classes.to_yaml().encode("utf-8")
        self.coding = hashlib.sha256(repr(classes.to_json()).encode()).hexdigest()[:8]
        self.rows = _read(self.table)
        self.began = False  # did this call write the class file first?
        if any(row["coding"] != self.coding for row in self.rows.values()):
            raise _busy([(self.table, "lists masks of other classes or in another coding", OTHER)])
        if committee and any(row["model"] != committee for row in self.rows.values()):
            raise _busy([(self.table, "lists labels of another committee", OTHER)])

    def claim(self, files: Mapping[str, Path]) -> None:
        """List images (name -> file) that are to come. Refuses (exit 7) to replace what was not made from them."""
        listed = {file for name in self.rows for file in self.places(name)}
        tops = {file.split("/")[0] for name in files for file in self.places(name)}
        wrong = [(self.out / file, f"is not listed in {shown(self.table)}: it was not predicted", OTHER)
                 for top in sorted(tops) for file in _files(self.out, top) if file not in listed]  # fmt: skip
        for name, path in files.items():
            row, source = self.rows.get(name), self._source(path)
            there = [file for file in self.places(name) if (self.out / file).exists()]
            if row and row["source"] != source and there and row["sha256"] != _digest(path):
                found = f"was made from {row['source']}, and {shown(path)} has the same name"
                wrong.append((self.out / there[0], found, f"{OTHER} for other images"))
            elif not row or not there:
                self.rows[name] = {"image": name, "source": source, "coding": self.coding, "model": self.committee}
        meaning = self.out / FILE
        if os.path.lexists(meaning) and not (meaning.is_file() and meaning.read_bytes() == self.classes):
            wrong.append((meaning, "is not what this command writes there", f"{OTHER}, or move it away"))
        if wrong:
            raise _busy(wrong)
        self.save()
        self.began = not meaning.exists()
        storage.write_bytes(meaning, self.classes)

    def has(self, name: str, path: Path, digest: str, key: str) -> bool:
        """Were all files of the image written by the same model, for the same content, and are they as they were?"""
        row = self.rows[name]
        if row.get("sha256") != digest or row.get("model") != key or row.get("written") != self._written(name):
            return False
        row["source"] = self._source(path)
        return True

    def put(self, name: str, path: Path, digest: str, key: str, files: Mapping[str, bytes], row: Row,
            every: Sequence[str] = ()) -> None:  # fmt: skip
        """Write the files of an image, the mask first in `files`, and its row. Refusal exit 6.

        every: the files that an image may have. Those of another model or other content go, where this one has none.
        """
        before = self.rows[name]
        if (before.get("sha256"), before.get("model", "").partition("-")[0]) != (digest, key.partition("-")[0]):
            for file in set(every) - set(files):
                (self.out / file).unlink(missing_ok=True)
        for file, data in files.items():
            storage.write_bytes(self.out / file, data)
        self.rows[name] = {
            "image": name, "mask": next(iter(files)), **row, "source": self._source(path), "sha256": digest,
            "coding": self.coding, "model": key, "written": self._written(name),
        }  # fmt: skip

    def save(self) -> None:
        """Write the table."""
        write_rows(self.table, [self.rows[name] for name in sorted(self.rows, key=order)])

    def close(self) -> None:
        """Take images out again that have no files, and write the table; and the class file, where it speaks of none."""
        self.rows = {n: r for n, r in self.rows.items() if any((self.out / file).exists() for file in self.places(n))}
        self.save()
        if self.began and not self.rows:
            (self.out / FILE).unlink(missing_ok=True)

    def _source(self, path: Path) -> str:
        return seen_from(self.out, path)

    def _written(self, name: str) -> str:
        """One SHA-256 for all files of an image; empty when one is missing."""
        try:
            parts = [hashlib.sha256((self.out / file).read_bytes()).digest() for file in self.places(name)]
        except OSError:
            return ""
        return hashlib.sha256(b"".join(parts)).hexdigest()


@contextmanager
def filling(
    out: Path, table: str, images: Path, files: Mapping[str, Path], classes: ClassMap, places: Places,
    members: Sequence[Path] = (), committee: str = "",
) -> Iterator[Output]:  # fmt: skip
    """The output of one call, for it alone, with `files` claimed; its table is written whatever happens.

    places(name): the files of an image below `out`. members: folders of masks that are read. committee: as in `Output`.
    Raises Refusal C10: a place that is not free (exit 2), files of somebody else, or of another committee (exit 7); R02,
    R03 when it cannot be written or another call is at it.
    """
    free(out, images, places, members)
    with storage.lock(out):
        storage.sweep(out)
        output = Output(out, table, classes, places, committee)
        output.claim(files)
        try:
            yield output
        finally:
            output.close()


def seen_from(out: Path, path: Path) -> str:
    """A path as seen from the folder: both may move together."""
    there, here = Path(os.path.realpath(path)), Path(os.path.realpath(out))
    return Path(os.path.relpath(there, here) if there.anchor == here.anchor else there).as_posix()


def free(out: Path, images: Path, places: Places, members: Sequence[Path] = ()) -> None:
    """Refuses (exit 2) a place among the images, in a data folder's own or a member, a folder of masks, a run, a file."""
    target, source = Path(os.path.realpath(out)), Path(os.path.realpath(images))
    inner = images_of(source)
    above = (target, *target.parents)
    file = next((p for p in above if os.path.lexists(p) and not os.path.isdir(p)), None)
    text = ""
    if source.is_dir() and (target == source or target.is_relative_to(inner)):
        text = "is the folder of the images, or lies in it"
    elif file is not None:
        text = "is a file" if file == target else f"lies below {shown(file)}, which is a file"
    elif run := next((p for p in above if os.path.isfile(p / "run.json")), None):
        text = "is a run" if run == target else f"lies in the run {shown(run)}"
    elif any(os.path.isdir(target / name) for name in ("images", "splits")):
        text = "is a data folder, and masks/ in it are yours"
    elif any(_own(p, target) for p in target.parents):
        text = "lies in a data folder, where its own files are"
    else:
        text = _read_there(target, places("x"), members)
    if text:
        raise Refusal(Problem("C10", f"--out {out}", text, "choose another folder"), USAGE)


def _own(root: Path, target: Path) -> bool:
    """Is `target` below a folder of `root` that is read when `root` is given as data?"""
    return is_data(root) and target.relative_to(root).parts[0] in ("images", "masks", "splits", *SPLITS)


def _read_there(target: Path, places: Sequence[str], members: Sequence[Path]) -> str:
    """Does somebody read masks at `target`, of which masks/ in it would take the place? places: an image's files."""
    tops = {file.split("/")[0] for file in places}
    for path in members:
        member = Path(os.path.realpath(path))
        if target.is_relative_to(member):
            return f"{'is' if target == member else 'lies in'} the member {shown(path)}"
        if any(member.is_relative_to(target / top) for top in tops):
            return f"would write into the member {shown(path)}"
    labels = {file.split("/")[1] for file in places if file.startswith("masks/") and file.count("/") > 1} - tops
    for folder in (target, *(target / label for label in sorted(labels))):
        _, _, names = next(os.walk(folder), ("", [], []))
        if held := sorted(n for n in names if not n.startswith(".") and Path(n).suffix.lower() in decode.SUFFIXES):
            return f"holds images or masks of its own: {shown(held[0])}"
    return ""


def mask_places(classes: ClassMap) -> Places:
    """places(name): where the masks of an image go in the coding of `classes`, as `ClassMap.encode` tells."""
    flat = np.zeros((len(classes.names), 1, 1) if classes.kind == "multilabel" else (1, 1), np.uint8)
    kinds = [(folder and f"{folder}/", coded.suffix) for folder, coded in classes.encode(flat).items()]
    return lambda name: [f"masks/{folder}{name}{suffix}" for folder, suffix in kinds]


def png(array: np.ndarray) -> bytes:
    """An array as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def write_rows(path: Path, rows: list[Row]) -> None:
    """A CSV file of rows, with the columns of the fullest one; no file where there are none."""
    if not rows:
        if path.exists():
            path.unlink()
        return
    fullest: Row = max(rows, key=len)
    storage.write_csv(path, list(fullest), rows)


def _read(path: Path) -> dict[str, Row]:
    if not os.path.lexists(path):
        return {}
    try:
        text = path.read_bytes().decode("utf-8", "surrogateescape")
        read = csv.DictReader(io.StringIO(text, newline=""))
        rows = [{k: row.get(k) or "" for k in [*row, *COLUMNS] if k} for row in read]
    except (OSError, csv.Error):
        rows = [{}]
    if not all(row.get("image") and row.get("source") and row.get("coding") for row in rows):
        raise _busy([(path, "was not written by this command, or was changed", f"{OTHER}, or move it away")])
    return {row["image"]: row for row in rows}


def _files(out: Path, top: str) -> Iterator[str]:
    """Image files below out/top, as posix paths below `out`."""
    for folder, _, names in os.walk(out / top):
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in decode.SUFFIXES:
                yield nfc((Path(folder) / name).relative_to(out).as_posix())


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(decode.load(path)).hexdigest()
    except Refusal:
        return ""


def _busy(found: list[tuple[Path, str, str]]) -> Refusal:
    return Refusal([Problem("C10", shown(path), text, fix) for path, text, fix in found], BUSY)
