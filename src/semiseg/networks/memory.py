"""Freed memory stays ours: every step needs as much as the one before, and the system takes its time over new pages."""

from __future__ import annotations

import ctypes
import platform
from functools import cache

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt(3), from malloc.h."""


@cache
def keep_freed_memory() -> bool:
    """Tell glibc not to hand freed memory back to the system, from now on and in this process; False on another C library.

    Training on a CPU then spends less of its time in the system, for the same numbers, and holds a little more memory.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_THRESHOLD, 2**30) and mallopt(M_TRIM_THRESHOLD, -1))
