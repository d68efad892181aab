"""The few system calls that change a disk, and a hook that makes the n-th of them fail.

`SEMISEG_FAULT=point:n:action` acts on the n-th call (from 1) of one point in this process. Points: write, fsync,
replace, mkdir, unlink (rmdir counts as unlink). Actions: kill (the process ends at once with code 9), enospc, eio,
short. At `write`, kill and short let the first half of the bytes reach the file; short then reports a full disk.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from pathlib import Path
from typing import BinaryIO

POINTS = ("write", "fsync", "replace", "mkdir", "unlink")
ACTIONS = {"kill": 0, "enospc": errno.ENOSPC, "eio": errno.EIO, "short": errno.ENOSPC}

counts: Counter[str] = Counter()
"""Calls so far, by point; counted only while a fault is asked for."""


def hit(point: str, path: Path, detail: object = None) -> str:
    """Count one call of `point`; the action that is due now, or "". `detail` (bytes, target) is for recorders."""
    fault = os.environ.get("SEMISEG_FAULT")
    if not fault:
        return ""
    wanted, number, action = fault.split(":")
    counts[point] += 1
    return action if wanted == point and counts[point] == int(number) else ""


def _act(action: str, path: Path) -> None:
    if action == "kill":
        os._exit(9)
    if action:
        code = ACTIONS[action]
        raise OSError(code, os.strerror(code), str(path))


def _write_all(fd: int, data: memoryview) -> None:
    while data:  # a short write is legal: the next one tells why
        data = data[os.write(fd, data) :]


def write(fd: int, path: Path, data: bytes) -> None:
    """Write all of `data` to `fd`; `path` is only for messages."""
    action = hit("write", path, data)
    if action in ("kill", "short"):
        _write_all(fd, memoryview(data)[: len(data) // 2])
    _act(action, path)
    _write_all(fd, memoryview(data))


def grow(file: BinaryIO, path: Path, data: bytes | memoryview) -> None:
    """Add `data` to a file that is written bit by bit; a call of the point write."""
    action = hit("write", path)
    if action in ("kill", "short"):
        file.write(memoryview(data).cast("B")[: memoryview(data).nbytes // 2])
        file.flush()
    _act(action, path)
    file.write(data)


def fsync(fd: int, path: Path) -> None:
    """Wait until the bytes of an open file are on the disk."""
    _act(hit("fsync", path), path)
    os.fsync(fd)


def fsync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk (nothing to do on Windows)."""
    _act(hit("fsync", path), path)
    if os.name == "nt":
        return
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems have no such call for folders
            raise
    finally:
        os.close(fd)


def replace(source: Path, target: Path) -> None:
    """Rename atomically, over an existing file or an empty folder."""
    _act(hit("replace", source, target), source)
    os.replace(source, target)


def mkdir(path: Path) -> None:
    """Create one folder."""
    _act(hit("mkdir", path), path)
    path.mkdir()


def unlink(path: Path) -> None:
    """Remove a file, a link or an empty folder."""
    _act(hit("unlink", path), path)
    if stat.S_ISDIR(path.lstat().st_mode):
        path.rmdir()
    else:
        path.unlink()


def remove_tree(path: Path) -> None:
    """Remove a file, or a folder and all in it; links are removed, never followed."""
    if path.is_dir() and not path.is_symlink():
        for child in sorted(path.iterdir()):
            remove_tree(child)
    unlink(path)
