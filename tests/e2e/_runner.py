"""A server that has imported semiseg once and forks a child for every command: real processes without the start-up.

Run as a script it reads one JSON request per line ({"argv", "cwd", "env", "kill", "out", "err"}), forks, runs
`semiseg ARGV` in the child (its own process group), and prints {"pid"} at once and {"code"} when the child has ended.
A child may be told to SIGKILL itself at the n-th call of a function or the n-th storage operation on a matching path.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SRC = Path(__file__).parents[2] / "src"


@dataclass(frozen=True)
class Kill:
    """Die at the n-th call of `call` ("module:function", or "module:Class.method"), or of a storage point.

    point: write, fsync, replace, mkdir or unlink, on a path (relative to the working folder) that `match` finds.
    """

    n: int = 1
    call: str = ""
    point: str = ""
    match: str = ""

    def __str__(self) -> str:
        return self.call.rpartition(":")[2] + f" #{self.n}" if self.call else f"{self.point} {self.match} #{self.n}"


@dataclass(frozen=True)
class Ended:
    """Exit code (128+n or -n after a signal), standard output and standard error."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err


class Server:
    """The client's side. One child at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(SRC)}
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )
        assert self._answer() == {"ready": True}

    def run(
        self,
        *argv: object,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        kill: Kill | None = None,
        watch: Callable[[int], None] | None = None,
    ) -> Ended:
        """`semiseg ARGV`; `watch(pid)` may look at the run folder and send signals while the child works."""
        out, err = self.folder / "stdout", self.folder / "stderr"
        request: dict[str, Any] = {
            "argv": [str(a) for a in argv], "cwd": str(cwd or self.folder), "env": dict(env or {}),
            "kill": vars(kill) if kill else None, "out": str(out), "err": str(err),
        }  # fmt: skip
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        pid = self._answer()["pid"]
        if watch:
            watch(pid)
        code = self._answer()["code"]
        return Ended(code, out.read_text(), err.read_text())

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the fork server died"
        return json.loads(line)

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def ends(pid: int, seconds: float) -> bool:
    """Wait for the end of a child, at most some time: did it end?"""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], seconds)[0])
    finally:
        os.close(fd)


def once(happened: Callable[[], bool], then: int) -> Callable[[int], None]:
    """A watch that sends the signal `then` to the child's process group as soon as something has happened."""

    def watch(pid: int) -> None:
        while not happened():
            if ends(pid, 0.005):
                return
        with suppress(ProcessLookupError):
            os.killpg(pid, then)

    return watch


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _arm(kill: Kill) -> None:
    """Replace what is to be fatal by a counting copy."""
    seen = 0
    if kill.point:
        from semiseg.storage import faults

        def hit(point: str, path: Path, detail: object = None) -> str:
            nonlocal seen
            if point == kill.point and re.search(kill.match, os.path.relpath(path)):
                seen += 1
                if seen == kill.n and point == "write":
                    faults._act = lambda action, path: _die()  # after half of the bytes
                    return "kill"
                if seen == kill.n:
                    _die()
            return ""

        faults.hit = hit
        return
    where, _, name = kill.call.partition(":")
    owner: Any = importlib.import_module(where)
    for part in name.split(".")[:-1]:
        owner = getattr(owner, part)
    name = name.split(".")[-1]
    real = getattr(owner, name)

    def counted(*args: Any, **options: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == kill.n:
            _die()
        return real(*args, **options)

    setattr(owner, name, counted)


def _child(request: dict[str, Any]) -> int:
    os.setsid()
    os.chdir(request["cwd"])
    os.environ.update(request["env"])
    for number, path in ((1, request["out"]), (2, request["err"])):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if request["kill"]:
        _arm(Kill(**request["kill"]))
    from semiseg import cli

    sys.argv = ["semiseg", *request["argv"]]
    try:
        cli.main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


def _serve() -> None:
    import torch

    torch.set_num_threads(1)
    from semiseg.report import pictures

    pictures.SIDE = 48  # drawing and packing large pictures takes longer than training here,
    os.fsync = lambda fd: None  # and so does the disk; a kill, unlike a power cut, loses nothing that was written
    for name in ("commands", "predict", "programs.train", "programs.im", "report.page", "data.check", "networks.unet1x1",
                 "methods.supervised", "methods.mean_teacher", "methods.fixmatch"):  # fmt: skip
        importlib.import_module(f"semiseg.{name}")
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                code = _child(json.loads(line))
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(code)
        print(json.dumps({"pid": pid}), flush=True)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(json.dumps({"code": code}), flush=True)


if __name__ == "__main__":
    _serve()
