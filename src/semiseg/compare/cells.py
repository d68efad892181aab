"""Runs the cells of a grid: one process per device, resumable, and a failed cell stops nobody else."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import semiseg
from semiseg import storage
from semiseg.compare import adopted
from semiseg.compare.grid import Cell, Grid
from semiseg.compare.streams import Streams
from semiseg.errors import Problem, Refusal
from semiseg.training.logs import Log
from semiseg.training.origin import commit
from semiseg.training.signals import Stopped

__all__ = ["FIELDS", "Process", "Read", "Row", "Runner", "Start", "commit", "finished", "spent", "start"]

POLL = 0.2
STOPPING = 120
"""Seconds between two looks at the processes; seconds that they have to commit their state when we are stopped."""
FIELDS = ("cell", "status", "message", "data", "labels", "seed", "arm", "split", "val", "score", "seconds",
          "images_forwarded", "commit", "command")  # fmt: skip


@dataclass
class Row:
    """One line of cells.csv. status: waiting, running, finished or failed; val and score: mIoU of the cell's model.

    commit, command: of the training; before it has ended, those of one that starts now. commit is "" where it was not noted.
    """

    cell: str
    status: str
    message: str
    data: str
    labels: str
    seed: int
    arm: str
    split: str
    val: float | None
    score: float | None
    seconds: float | None
    images_forwarded: int | None
    commit: str
    command: str


class Process(Protocol):
    """What the runner needs of a started cell; subprocess.Popen has it."""

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        ...

    def terminate(self) -> None:
        """Ask it to commit its state and end."""
        ...

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end."""
        ...


Start = Callable[[Cell, Path, Mapping[str, str]], Process]
Read = Callable[[Cell, Path], float | None]
"""Start a cell with extra environment variables; read its split, in a thread, returning the mIoU of its model."""


def start(cell: Cell, out: Path, extra: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """`python -m semiseg.cli train …` as a process of its own; what it says goes to logs/CELL.json and .txt."""
    logs = storage.make_folder(out / "logs")
    source = str(Path(semiseg.__file__).parents[1])
    paths = os.pathsep.join(p for p in (source, os.environ.get("PYTHONPATH", "")) if p)
    words = [sys.executable, "-m", "semiseg.cli", *cell.arguments(out), "--json"]
    words += ["--set", f"threads={extra['OMP_NUM_THREADS']}"] if "OMP_NUM_THREADS" in extra else []
    with (logs / f"{cell.name}.json").open("wb") as said, (logs / f"{cell.name}.txt").open("wb") as errors:
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=said, stderr=errors,
                                env={**os.environ, "PYTHONPATH": paths, **extra},
                                start_new_session=True)  # fmt: skip  # Ctrl-C reaches us alone, once


def slots(jobs: int) -> list[dict[str, str]]:
    """The environment of each process that runs at a time: one per visible GPU, else `jobs` (or 1) that share the CPU."""
    import torch

    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    ids = shown.split(",") if shown else [str(i) for i in range(torch.cuda.device_count())]
    if torch.cuda.is_available() and ids:
        return [{"CUDA_VISIBLE_DEVICES": ids[i % len(ids)]} for i in range(jobs or len(ids))]
    if jobs < 2:
        return [{}]
    return [{"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs))} for _ in range(jobs)]


class Runner:
    """Keeps every slot busy with the first cell whose needs are trained. `rows` is the state of every cell.

    What is trained is read by one thread, a cell at a time and in the order of the ends: no slot waits for it.
    """

    def __init__(self, grid: Grid, log: Log, read: Read, begin: Start = start) -> None:
        self.out, self.log, self.read, self.begin = grid.request.out, log, read, begin
        self.cells = {c.name: c for c in grid.cells}
        self.jobs = grid.request.jobs
        self.rows = {c.name: self._row(c) for c in grid.cells}
        self.streams = Streams()
        self.running: dict[str, tuple[Process, dict[str, str]]] = {}
        self.readings: dict[str, Future[dict[str, Any]]] = {}
        self.reader = ThreadPoolExecutor(1)

    def _row(self, cell: Cell) -> Row:
        command = shlex.join(["semiseg", *cell.arguments(self.out)])
        return Row(cell.name, "waiting", "", cell.data, cell.labels, cell.seed, cell.arm, cell.split, None, None, None,
                   None, commit(), command)  # fmt: skip

    def run(self) -> list[Row]:
        """Everything that is not finished yet. A signal stops the processes after they saved their state (Stopped)."""
        with ExitStack() as stack:
            bar = stack.enter_context(self.log.bar("comparing", sum(c.steps for c in self.cells.values())))
            stack.callback(self.reader.shutdown, cancel_futures=True)
            stack.callback(self._stop)
            for name in self.cells:
                if finished(self.out / "cells" / name):
                    self._ended(name, 0)
            free = slots(self.jobs)
            while any(r.status in ("waiting", "running") for r in self.rows.values()):
                for name in [n for n, (process, _) in self.running.items() if process.poll() is not None]:
                    process, slot = self.running.pop(name)
                    free.append(slot)
                    self._ended(name, process.poll() or 0)
                for name in [n for n, reading in self.readings.items() if reading.done()]:
                    self._collect(name, self.readings.pop(name))
                while free and (following := self._next()):
                    if finished(run := self.out / "cells" / following.name):  # by one that outlived another comparison
                        self._ended(following.name, 0)
                    else:
                        if adopted.begun_otherwise(following, run):
                            storage.remove(run)
                        free += self._start(following, free.pop(0))
                bar(self._steps(), self._note())
                time.sleep(POLL if any(r.status in ("waiting", "running") for r in self.rows.values()) else 0)
        return list(self.rows.values())

    def _next(self) -> Cell | None:
        ended = {n for n, r in self.rows.items() if r.status != "waiting"} - self.running.keys()
        ready = (c for c in self.cells.values() if self.rows[c.name].status == "waiting" and ended.issuperset(c.needs))
        return next((c for c in ready if not self._elsewhere(c)), None)

    def _elsewhere(self, cell: Cell) -> bool:
        """Does a process of an earlier call, which was killed, still train this cell? Then it is waited for."""
        busy = storage.held(self.out / "cells" / cell.name)
        if busy and not self.rows[cell.name].message:
            self.rows[cell.name].message = "is still trained by a process of an earlier call"
            self.log.say(f"Note: waiting for {cell.name}: a process of an earlier call still trains it.")
        elif not busy:
            self.rows[cell.name].message = ""
        return busy

    def _start(self, cell: Cell, slot: dict[str, str]) -> list[dict[str, str]]:
        """Begin to train a cell; the slot is left where that cannot be."""
        row = self.rows[cell.name]
        try:
            self.running[cell.name] = self.begin(cell, self.out, slot), slot
        except OSError as error:
            row.status, row.message = "failed", f"could not be started: {error}"
            return [slot]
        row.status = "running"
        return []

    def _ended(self, name: str, code: int) -> None:
        """A process is over: what it trained is read next."""
        row = self.rows[name]
        if code or not finished(self.out / "cells" / name):
            row.status, row.message = "failed", message(self.out, name, code)
            self.save()
        else:
            row.status = "running"
            self.readings[name] = self.reader.submit(self._look, self.cells[name])

    def _look(self, cell: Cell) -> dict[str, Any]:
        """Read what is to be read of a trained cell; what is new in its row."""
        run = self.out / "cells" / cell.name
        adopted.check(cell, run)
        self.streams.check(cell, run)
        score = self.read(cell, run)
        summary = storage.read_json(run / "summary.json")
        seconds, images = spent(summary)
        storage.remove(run / "cache")  # decoded pixels: nothing after the training reads them
        return {
            "status": "finished", "score": score, "val": ((summary.get("model") or {}).get("val") or {}).get("miou"),
            "seconds": seconds, "images_forwarded": images, "commit": summary.get("commit", ""),
            "command": summary.get("command") or self.rows[cell.name].command,
        }  # fmt: skip

    def _collect(self, name: str, reading: Future[dict[str, Any]]) -> None:
        """A reading is over. Whatever went wrong in it is this cell's failure and nobody else's."""
        try:
            found = reading.result()
        except Stopped:
            raise
        except Exception as error:
            said = str(error) if isinstance(error, Refusal) else f"{type(error).__name__}: {error}"
            found = {"status": "failed", "message": said}
        self.rows[name] = replace(self.rows[name], **found)
        self.save()

    def _stop(self) -> None:
        for process, _ in self.running.values():
            process.terminate()
        for process, _ in self.running.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOPPING)

    def _steps(self) -> int:
        """Optimiser steps done: all of an ended cell, of a running one what its logs say."""
        done = 0
        for name, cell in self.cells.items():
            status = self.rows[name].status
            if status == "running":
                logs = (self.out / "cells" / name).glob("generation-*/*/metrics.csv")  # not in cache/, which goes
                done += min(cell.steps, sum(last_step(path) for path in logs))
            elif status != "waiting":
                done += cell.steps
        return done

    def _note(self) -> str:
        ended = [r.status for r in self.rows.values()]
        failed = f", {ended.count('failed')} failed" if "failed" in ended else ""
        return f"steps · {ended.count('finished')} of {len(ended)} cells{failed}"

    def save(self) -> None:
        """cells.csv, whole at every moment."""
        storage.write_csv(self.out / "cells.csv", FIELDS, map(asdict, self.rows.values()))


def finished(run: Path) -> bool:
    """Did the training of this folder come to its end?"""
    if not (run / "summary.json").exists() or not (run / "run_state.json").exists():
        return False
    with suppress(Refusal):
        return bool(storage.read_json(run / "run_state.json").get("status") == "finished")
    return False


def spent(summary: dict[str, Any]) -> tuple[float, int]:
    """Seconds of training and consensus over all tries and models (taken over ones too), and images forwarded."""
    seconds = summary["seconds"]
    asked = seconds.get("consensus_all_tries", seconds.get("consensus", 0))  # an older run notes its last try alone
    return round(seconds.get("training_all_tries", 0) + asked, 1), summary["images_forwarded"]


def last_step(log: Path) -> int:
    """The newest step of a metrics.csv."""
    with suppress(OSError, ValueError, IndexError):
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 400))
            return int(file.read().splitlines()[-1].split(b",")[0])
    return 0


def message(out: Path, name: str, code: int) -> str:
    """Why a cell failed, in its own words."""
    with suppress(OSError, ValueError, KeyError, TypeError, IndexError):  # a killed one has said nothing
        said = json.loads((out / "logs" / f"{name}.json").read_text(encoding="utf-8").splitlines()[-1])
        return "; ".join(str(Problem(**p)) for p in said["error"]["problems"])
    with suppress(OSError, IndexError):
        return f"ended with code {code}: {(out / 'logs' / f'{name}.txt').read_text(encoding='utf-8').splitlines()[-1]}"
    return f"ended with code {code}"
