"""Which source made a number."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path

import semiseg


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
