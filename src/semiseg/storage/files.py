"""Single files of a run: atomic and durable writes, JSON and CSV.

A file under its final name is complete: written under a temporary name, fsynced, renamed, its folder fsynced.
"""

from __future__ import annotations

import csv
import errno
import io
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from semiseg.errors import CHECKPOINT, RESOURCES, Problem, Refusal
from semiseg.storage import faults

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_number = itertools.count()


def damaged(where: Path | str, found: str, fix: str = "", code: str = "S01") -> Refusal:
    """The refusal (exit 4) of something damaged, missing or never written by semiseg."""
    fix = fix or "restore it from a copy, or remove the folder and run the same command with --resume auto"
    return Refusal(Problem(code, str(where), found, fix), CHECKPOINT)


@contextmanager
def writing(where: Path, needed: int = 0) -> Iterator[None]:
    """Turn errors of the disk, or of a path that cannot be, into a refusal (exit 6) with the bytes that it needs."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            size = f" ({needed} bytes)" if needed else ""
            found, fix = (
                f"cannot be written{size}: {error.strerror or error}",
                "make it writable, or choose another --out",
            )
            raise Refusal(Problem("R02", str(where), found, fix), RESOURCES) from error
        fix = "make room or choose another --out; the last complete version is untouched"
        need = f"it needs {needed} bytes, " if needed else ""
        found = f"does not fit on the disk: {need}{free_bytes(where)} bytes are free"
        raise Refusal(Problem("R01", str(where), found, fix), RESOURCES) from error


def free_bytes(path: Path) -> int:
    """Free bytes of the disk that holds (or will hold) `path`."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    usage = shutil.disk_usage(path)
    return usage.free if usage.total else 1 << 62  # some network disks do not tell


def require_space(path: Path, needed: int) -> None:
    """Refuse (exit 6) before the work starts when the disk of `path` has less than `needed` bytes free."""
    with writing(path, needed):
        if free_bytes(path) < needed:
            raise OSError(errno.ENOSPC, "disk full")


def beside(path: Path, word: str) -> Path:
    """A free temporary name in the same folder; `word` is tmp or old, see `folders.sweep`."""
    name = path.name if word == "old" else path.name[:40]  # a name of 255 bytes has no room for more
    return path.with_name(f"{name}.{word}-{os.getpid()}-{next(_number)}")


def make(folder: Path) -> None:
    """Create a folder and its parents, each name on the disk."""
    if folder.is_dir():
        return
    make(folder.parent)
    try:
        faults.mkdir(folder)
    except FileExistsError:
        if not folder.is_dir():  # else somebody else was quicker
            raise
    faults.fsync_folder(folder.parent)


def make_folder(folder: Path) -> Path:
    """Create `folder` and its parents durably; an existing one is fine. Refusal exit 6."""
    with writing(folder, 0):
        make(folder)
    return folder


def put(path: Path, data: bytes) -> None:
    """Write a file in place, and wait for the disk."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o666)
    try:
        faults.write(fd, path, data)
        faults.fsync(fd, path)
    finally:
        os.close(fd)


@contextmanager
def growing(path: Path) -> Iterator[Callable[[bytes | memoryview], None]]:
    """A new file that grows by what is given to it, for a folder that is sealed when all of it is there. Refusal exit 6."""
    with writing(path), path.open("wb", buffering=1 << 20) as file:

        def add(data: bytes | memoryview) -> None:
            with writing(path, memoryview(data).nbytes):
                faults.grow(file, path, data)

        yield add


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that at every moment the old or the new one is there, complete. Refusal exit 6."""
    tmp = beside(path, "tmp")
    with writing(path, len(data)):
        make(path.parent)
        try:
            put(tmp, data)
            faults.replace(tmp, path)
        except BaseException:
            with suppress(OSError):
                faults.unlink(tmp)
            raise
        faults.fsync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8 text."""
    write_bytes(path, text.encode())


def write_csv(path: Path, fields: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """`write_bytes` of a table under its column names: None is an empty cell, and what else a row holds is left out.

    A name that is not UTF-8 keeps its bytes.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode("utf-8", "surrogateescape"))


def json_bytes(obj: object) -> bytes:
    """JSON as it stands in our files: UTF-8, no NaN, keys in the given order, one newline at the end.

    A name that is not UTF-8 keeps its bytes as escapes, which JSON reads back.
    """
    return (json.dumps(obj, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", "backslashreplace")


def write_json(path: Path, obj: object) -> None:
    """`write_bytes` of JSON; NaN and infinity raise ValueError (write null)."""
    write_bytes(path, json_bytes(obj))


def read_json(path: Path) -> Any:
    """The content of a JSON file. Refusal exit 4 naming it when it is missing or damaged."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path, f"cannot be read: {error}") from error


def remove(path: Path) -> None:
    """Remove a file or folder at once as far as its name is concerned; nothing happens when there is none."""
    with writing(path, 0):
        if path.exists() or path.is_symlink():
            tmp = beside(path, "tmp")
            faults.replace(path, tmp)
            faults.fsync_folder(path.parent)
            with suppress(OSError):  # what is left is for sweep()
                faults.remove_tree(tmp)
