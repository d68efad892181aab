"""One writer per run folder."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from semiseg.errors import BUSY, RESOURCES, Problem, Refusal
from semiseg.storage.files import make_folder, writing

_held: set[IO[str]] = set()


def _try_lock(file: IO[str]) -> None:
    """Lock an open file or raise BlockingIOError/PermissionError at once; the kernel frees it when the process dies."""
    if sys.platform == "win32":
        import msvcrt

        file.seek(1 << 30)  # far behind the text, which others must be able to read
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        file.seek(0)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def lock(run: Path) -> Iterator[None]:
    """Hold `run`/.lock: one writer per run folder. Refusal exit 7 names the holder. A kill frees it; the file stays."""
    path = make_folder(run) / ".lock"
    with writing(path, 0):
        file = path.open("a+", encoding="utf-8", errors="replace")
    with file:
        try:
            _try_lock(file)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            holder = (file.read(1000).split("\n") + ["?"] * 3)[:3]
            found = f"is in use by pid {holder[0] or '?'} on {holder[1]} since {holder[2]}"
            raise Refusal(
                Problem("R03", str(run), found, "wait for it, stop it, or choose another --out"), BUSY
            ) from None
        except OSError as error:
            found = f"cannot be locked: {error.strerror or error}"
            raise Refusal(Problem("R02", str(path), found, "choose another --out"), RESOURCES) from error
        with writing(path, 100):
            file.truncate(0)
            file.write(f"{os.getpid()}\n{socket.gethostname()}\n{time.strftime('%Y-%m-%d %H:%M:%S')}\n")
            file.flush()
        _held.add(file)
        try:
            yield
        finally:
            _held.discard(file)


def held(run: Path) -> bool:
    """Is somebody writing `run`? It is only looked at: nothing is created and no lock stays."""
    try:
        with (run / ".lock").open("r+", encoding="utf-8", errors="replace") as file:
            _try_lock(file)
    except (BlockingIOError, PermissionError):
        return True
    except OSError:
        return False
    return False


def _forget() -> None:
    """In a forked child (a loader's worker): it must not keep the lock of a killed parent."""
    for file in _held:
        file.close()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
