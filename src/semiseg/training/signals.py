"""A request to stop (SIGTERM, SIGINT, SIGUSR1) is answered after the step, with a checkpoint; a second one at once."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any


class Stopped(Exception):
    """Training stopped on request after it committed its state; exit code 130 or 143."""

    def __init__(self, code: int) -> None:
        super().__init__(f"stopped by signal {code - 128}")
        self.code = code
        self.again = "The state is saved: continue with the same command and --resume auto."


class Stop:
    """`requested` is the exit code once a signal has come, 0 before."""

    def __init__(self) -> None:
        self.requested = 0
        self._before: dict[signal.Signals, Any] = {}

    def install(self) -> None:
        """Take over the signals; only the main thread can."""
        self.requested = 0  # a program that trains again after it was stopped
        if threading.current_thread() is threading.main_thread():
            names = ("SIGTERM", "SIGINT", "SIGUSR1")  # Windows has no third
            for name in (getattr(signal, n) for n in names if hasattr(signal, n)):
                self._before[name] = signal.signal(name, self._handle)

    def release(self) -> None:
        """Give the signals back to whoever had them."""
        while self._before:
            name, handler = self._before.popitem()
            signal.signal(name, handler or signal.SIG_DFL)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            os._exit(self.requested)  # the second request: the last committed checkpoint is the state
        self.requested = 130 if number == signal.SIGINT else 143


STOP = Stop()
