"""Which source made a number, by which command, on what machine."""

from __future__ import annotations

import platform
import shlex
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import semiseg

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


def machine() -> dict[str, Any]:
    """What a number's origin needs beside the command."""
    import torch

    return {
        "python": platform.python_version(), "torch": torch.__version__,
        "processor": platform.processor() or platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None, "system": platform.system(),
    }  # fmt: skip
