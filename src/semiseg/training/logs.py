"""What a person and a scheduler see while it runs: progress with time left, events.jsonl, TensorBoard if asked."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from semiseg.training.signals import STOP, Stopped


def steps_per_row(steps: int) -> int:
    """Steps that a row of metrics.csv covers in a training of `steps`."""
    return max(1, min(10, steps // 20))


class Log:
    """One run's voice. quiet: nothing on the terminal (`--json`); events still go to events.jsonl."""

    def __init__(self, run: Path | None = None, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet, soft_wrap=True, highlight=False)
        self.run = run
        self.quiet = quiet
        self.seconds: dict[str, float] = {}

    def say(self, text: str) -> None:
        """A line on the terminal."""
        self.console.print(text, markup=False)

    def event(self, kind: str, **details: Any) -> None:
        """A line of events.jsonl; a full disk never stops training because of its log."""
        if self.run is not None:
            with suppress(OSError), (self.run / "events.jsonl").open("a") as file:
                file.write(json.dumps({"time": round(time.time(), 3), "event": kind, **details}) + "\n")

    @contextmanager
    def bar(self, title: str, total: int, done: int = 0, *, stops: bool = True) -> Iterator[Bar]:
        """A progress bar with the time left. stops: a signal ends this stage at once (training commits its state first)."""
        columns = [
            TextColumn("{task.description}"), BarColumn(bar_width=16), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("left"), TextColumn("{task.fields[note]}"),
        ]  # fmt: skip
        with Progress(*columns, console=self.console, refresh_per_second=4, disable=self.quiet) as progress:
            task = progress.add_task(title, total=total, completed=done, note="")

            def update(n: int, note: str, whole: int | None) -> None:
                progress.update(task, completed=n, note=note, total=whole)
                if stops and STOP.requested:
                    raise Stopped(STOP.requested)

            yield Bar(update)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time spent inside to `seconds[stage]`."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - start


class Bar:
    """Moves one progress bar."""

    def __init__(self, update: Callable[[int, str, int | None], Any]) -> None:
        self._update = update

    def __call__(self, done: int, note: str | int = "") -> None:
        """`done` of the total; an int as second argument is a new total (as callbacks of the data stages give it)."""
        self._update(done, note if isinstance(note, str) else "", note if isinstance(note, int) else None)


class Board:
    """TensorBoard scalars when asked for and installed; a failure warns once and never stops training."""

    def __init__(self, folder: Path, on: bool, step: int, log: Log) -> None:
        self.writer: Any = None
        if not on:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step)
        except ImportError:
            log.say("TensorBoard is not installed: pip install 'semiseg[tensorboard]'. Training goes on without it.")

    def scalars(self, values: dict[str, Any], step: int) -> None:
        """Write the numbers of one row."""
        if self.writer is not None:
            with suppress(Exception):
                for key, value in values.items():
                    if isinstance(value, float):
                        self.writer.add_scalar(key, value, step)

    def close(self) -> None:
        """Flush."""
        if self.writer is not None:
            with suppress(Exception):
                self.writer.close()
