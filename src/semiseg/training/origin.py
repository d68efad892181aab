"""Which source made a number, by which command, on what machine."""

from __future__ import annotations

import hashlib
import platform
import shlex
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import semiseg
from semiseg.methods import own

OPTIONS = (
    "method",
    "network",
    "weights",
    "size",
    "resize",
    "steps",
    "batch",
    "labels",
    "augment",
    "seed",
    "committee",
    "out",
)
"""Settings that `semiseg train` has an option for; the others are typed with --set."""


@cache
def commit() -> str:
    """The commit of the source that runs, or the version of an installed package."""
    root = Path(semiseg.__file__).parents[2]
    if (root / ".git").exists():
        with suppress(OSError, subprocess.SubprocessError):
            words = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
            said = subprocess.run(words, capture_output=True, text=True, timeout=20, check=True)
            return said.stdout.strip()
    return semiseg.__version__


def distinct(commits: Iterable[str]) -> str:
    """Each commit once, joined by "; "; a text may hold several already, or "" where none was noted."""
    return "; ".join(dict.fromkeys(c for text in commits for c in text.split("; ") if c))


def command_of(options: Mapping[str, Any], sets: Sequence[str] = (), recipe: str | Path | None = None) -> str:
    """What somebody types for a call of `semiseg.train`. options: settings, data and out among them; None is not given."""
    words, rest = ["--config", str(recipe)] if recipe else [], []
    for key, value in options.items():
        if key in OPTIONS and value is not None:
            words += [f"--{key}", str(value)]
        elif key != "data" and value is not None:
            rest.append(f"{key}={str(value).lower() if isinstance(value, bool) else value}")
    return shlex.join(
        ["semiseg", "train", str(options["data"]), *words, *(w for s in [*rest, *sets] for w in ("--set", s))]
    )


def files(method: str, weights: str) -> dict[str, str]:
    """SHA-256 of the user's own files that decide what is trained: "code" of the method, "weights" that it starts from.

    Without those that there are not: of our methods, from scratch, or from public weights, whose names are enough.
    """
    found = {"code": own.digest(method)}
    if weights not in ("", "imagenet"):
        from semiseg.networks.weights import local_weights  # which brings the encoders' libraries

        file = local_weights(weights)
        both = [p for p in (file, file.parent / "config.json") if p.is_file()]  # which says how colours are scaled
        found["weights"] = _digest(tuple((p, p.stat().st_size, p.stat().st_mtime_ns) for p in both))
    return {name: digest for name, digest in found.items() if digest}


@cache
def _digest(stamped: tuple[tuple[Path, int, int], ...]) -> str:
    """SHA-256 of files one after the other; a file of this size and time is read once."""
    whole = hashlib.sha256()
    for path, *_ in stamped:
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def replaced(record: Mapping[str, Any], method: str, weights: str) -> str:
    """Which of these files is not the one that run.json notes: the method or the weights as typed; "" when all are.

    What an older version did not note is taken for the same.
    """
    now = files(method, weights)
    typed = {"code": method, "weights": weights}
    return next((typed[k] for k in typed if record.get(k, "") not in ("", now.get(k, ""))), "")


def machine() -> dict[str, Any]:
    """What a number's origin needs beside the command."""
    import torch

    return {
        "python": platform.python_version(), "torch": torch.__version__,
        "processor": platform.processor() or platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None, "system": platform.system(),
    }  # fmt: skip
