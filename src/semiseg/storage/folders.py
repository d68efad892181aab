"""Sealed folders: manifest.json with SHA-256 and size of every file, and of itself, written last.

A folder gets its name by a rename; a sealed one is never changed, only replaced as a whole.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semiseg.errors import BUSY, Problem, Refusal
from semiseg.storage import faults
from semiseg.storage.files import (
    beside,
    damaged,
    json_bytes,
    make,
    put,
    read_json,
    remove,
    require_space,
    write_bytes,
    writing,
)
from semiseg.storage.tensors import tensors_to_bytes

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
MANIFEST = "manifest.json"
_TMP = re.compile(r".+\.tmp-(\d{1,9})-\d+")
_OLD = re.compile(r"(.+)\.old-(\d{1,9})-\d+")
_STEP = re.compile(r"step-(\d{8,})")
_NAME = re.compile(r"[A-Za-z0-9._/-]+")


def _inside(folder: Path, name: str) -> Path:
    """The path of a manifest's name; refuses (exit 4) what is absolute, climbs, is odd or links out of the folder."""
    parts = name.split("/")
    if not _NAME.fullmatch(name) or any(p in ("", ".", "..") for p in parts) or name == MANIFEST:
        raise damaged(folder, f"lists a file named {name!r}, which semiseg never writes", code="S02")
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise damaged(path, "is a link that leaves its folder", code="S02")
    return path


def _manifest(files: dict[str, dict[str, object]], meta: Mapping[str, object]) -> bytes:
    body: dict[str, object] = {"format": FORMAT, "meta": dict(meta), "files": dict(sorted(files.items()))}
    return json_bytes({**body, "sha256": hashlib.sha256(json_bytes(body)).hexdigest()})


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_folder(
    folder: Path, files: Mapping[str, bytes | str | Mapping[str, Tensor]], meta: Mapping[str, object]
) -> None:
    """Write a sealed folder. A reader finds the old one or the new one at every moment, also after a kill.

    `files`: name (A-Z a-z 0-9 . _ - and / for subfolders) to bytes, text or tensors (as safetensors). An existing
    folder of that name is replaced. Refusal exit 6 (nothing changed) or 4 (bad name).
    """
    ready = {
        n: v.encode() if isinstance(v, str) else v if isinstance(v, bytes) else tensors_to_bytes(v)
        for n, v in files.items()
    }
    for name in ready:
        _inside(folder, name)
    entries: dict[str, dict[str, object]] = {
        n: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)} for n, data in ready.items()
    }
    manifest = _manifest(entries, meta)
    needed = sum(map(len, ready.values())) + len(manifest)
    require_space(folder, needed)
    tmp = beside(folder, "tmp")
    with writing(folder, needed):
        make(folder.parent)
        _restore(folder)
        for stale in _old_of(folder) if folder.exists() else ():  # never to be put back in place of what is newer
            remove(stale)
        try:
            faults.mkdir(tmp)
            for name, data in ready.items():
                make((tmp / name).parent)
                put(tmp / name, data)
            for sub in {p for name in ready for p in (tmp / name).parents if tmp in p.parents}:
                faults.fsync_folder(sub)
            put(tmp / MANIFEST, manifest)
            faults.fsync_folder(tmp)
            _swap(tmp, folder)
        except BaseException:
            with suppress(OSError):
                faults.remove_tree(tmp)
            raise


def _swap(tmp: Path, folder: Path) -> None:
    """Give `tmp` the name `folder`. What had it waits beside: `.old` is put back by `_restore`, `.tmp` is not."""
    away: list[Path] = []
    while True:
        if folder.exists():
            away.append(beside(folder, "old" if is_sealed(folder) else "tmp"))
            faults.replace(folder, away[-1])
        try:
            faults.replace(tmp, folder)
            break
        except OSError as error:
            _restore(folder)
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # else: a reader had put the old one back
                raise
    faults.fsync_folder(folder.parent)  # before the old one goes
    with suppress(OSError):  # the new one is committed: leftovers are for sweep()
        for path in away:
            if path.exists():
                faults.remove_tree(path)


def _old_of(folder: Path) -> list[Path]:
    found = [(p, _OLD.fullmatch(p.name)) for p in folder.parent.iterdir()]
    return sorted(p for p, match in found if match and match[1] == folder.name)


def _restore(folder: Path) -> None:
    """If a writer died between moving the old folder away and naming the new one, put the old one back."""
    if folder.exists() or not folder.parent.is_dir():
        return
    with suppress(OSError):
        for path in _old_of(folder):
            if (path / MANIFEST).exists():
                faults.replace(path, folder)
                faults.fsync_folder(folder.parent)
                return


def seal(folder: Path, meta: Mapping[str, object]) -> None:
    """Seal a folder of finished files written in place (memmaps): fsync and hash each of them, manifest last.

    Refusal exit 7 when it is sealed already, 6 when the disk fails, 4 on a file name that no manifest may hold.
    """
    if (folder / MANIFEST).exists():
        raise Refusal(Problem("S05", str(folder), "is sealed already", "remove it to build it again"), BUSY)
    entries: dict[str, dict[str, object]] = {}
    with writing(folder, 0):
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if any(map(_TMP.fullmatch, name.split("/"))):
                continue
            if path.is_dir():
                faults.fsync_folder(path)
                continue
            _inside(folder, name)
            with path.open("rb+") as file:
                faults.fsync(file.fileno(), path)
            entries[name] = {"sha256": _digest(path), "size": path.stat().st_size}
        faults.fsync_folder(folder)
    write_bytes(folder / MANIFEST, _manifest(entries, meta))


def verify(folder: Path, deep: bool = True) -> dict[str, Any]:
    """The manifest {format, meta, files} of a sealed folder whose files are as they were written.

    `deep=False` compares sizes instead of hashes. Refusal exit 4 names the damaged file, or says that the folder is not
    sealed or needs a newer semiseg.
    """
    _restore(folder)
    path = folder / MANIFEST
    if not path.exists():
        raise damaged(folder, f"is not complete: it has no {MANIFEST}", code="S03")
    manifest = read_json(path)
    try:
        body = {k: v for k, v in manifest.items() if k != "sha256"}
        whole = {**body, "sha256": hashlib.sha256(json_bytes(body)).hexdigest()}
        if path.read_bytes() != json_bytes(whole):
            raise ValueError("it is not what was written")
        if body["format"] > FORMAT:
            raise damaged(path, f"has format {body['format']}, this semiseg reads {FORMAT}", "update semiseg", "S04")
        for name, entry in body["files"].items():
            file = _inside(folder, name)
            if not file.is_file() or file.stat().st_size != entry["size"]:
                raise damaged(file, f"is damaged: it is missing or not {entry['size']} bytes long")
            if deep and _digest(file) != entry["sha256"]:
                raise damaged(file, "is damaged: its bytes changed since it was written")
    except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise damaged(path, f"is damaged: {error}") from error
    return body


def is_sealed(folder: Path) -> bool:
    """Whether the manifest is intact and every file has its size (no hashing)."""
    try:
        verify(folder, deep=False)
    except Refusal:
        return False
    return True


def newest_checkpoint(folder: Path) -> tuple[Path | None, str]:
    """The folder `step-XXXXXXXX` of the highest step that verifies or None, and a note on damaged ones or ""."""
    steps: dict[int, Path] = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        old = _OLD.fullmatch(path.name)
        name = old[1] if old else path.name
        if match := _STEP.fullmatch(name):
            steps[int(match[1])] = folder / name
    notes: list[str] = []
    for step in sorted(steps, reverse=True):
        try:
            verify(steps[step])
        except Refusal as refusal:
            notes.append(f"{refusal.problems[0].where} {refusal.problems[0].found}")
            continue
        return steps[step], "; ".join([*notes, f"went back to step {step}"]) if notes else ""
    return None, "; ".join(notes)


def leftover(name: str) -> bool:
    """Is it the name of what a writer that was killed may leave, and `sweep` removes?"""
    return bool(_TMP.fullmatch(name) or _OLD.fullmatch(name))


def sweep(run: Path) -> list[Path]:
    """Remove what killed writers left in `run` (call it while holding the lock); the paths removed. Never raises."""
    gone: list[Path] = []
    for root, folders, files in os.walk(run):
        for name in sorted(folders + files):
            path, old, tmp = Path(root, name), _OLD.fullmatch(name), _TMP.fullmatch(name)
            if not (old or tmp) or _alive(int(old[2] if old else tmp[1] if tmp else 0)):
                continue
            if old:
                _restore(Path(root, old[1]))
            with suppress(OSError):
                if path.exists() or path.is_symlink():
                    faults.remove_tree(path)
                    gone.append(path)
        folders[:] = [n for n in folders if Path(root, n).is_dir()]
    return gone


def _alive(pid: int) -> bool:
    """Whether another process of this machine has that id. Our own leftovers are stale: we have just started."""
    if pid == os.getpid() or os.name == "nt":  # on Windows os.kill would end it
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
