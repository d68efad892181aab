"""What a run says about itself while it goes: the CSV log and run_state.json. Trouble with them never ends a run."""

from __future__ import annotations

import csv
import io
import os
import shlex
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from semiseg.errors import CHECKPOINT, Problem, Refusal
from semiseg.storage import faults
from semiseg.storage.files import damaged, make_folder, read_json, write_bytes, write_json, writing


class CsvLog:
    """A log that a reader can open at any time: one row, one write. A full disk costs rows, not the run."""

    def __init__(self, path: Path, fields: Sequence[str]) -> None:
        self.path, self.fields, self._warned = path, list(fields), False
        make_folder(path.parent)
        with writing(path, 0):
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
            self._fd = os.open(path, flags, 0o666)
            head = path.read_bytes() if path.is_file() else b""
            if head and not head.endswith(b"\n"):  # the last writer was killed within a row
                os.ftruncate(self._fd, head.rfind(b"\n") + 1)
        if b"\n" not in head:
            self._append(b"")
        elif head.partition(b"\n")[0] != self._line(self.fields).rstrip(b"\n"):
            os.close(self._fd)
            raise damaged(path, f"has other columns than {','.join(self.fields)}")

    @staticmethod
    def _line(values: Sequence[object]) -> bytes:
        text = io.StringIO()
        plain = [v.replace("\n", " ").replace("\r", " ") if isinstance(v, str) else v for v in values]
        csv.writer(text, lineterminator="\n").writerow(plain)
        return text.getvalue().encode()

    def _append(self, line: bytes) -> None:
        size = os.fstat(self._fd).st_size
        try:
            faults.write(self._fd, self.path, line if size else self._line(self.fields) + line)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._fd, size)  # no half row in front of the next one
            if not self._warned:
                self._warned = True
                warnings.warn(f"{self.path}: rows are being lost ({error.strerror or error})", stacklevel=3)

    def row(self, values: Mapping[str, object]) -> None:
        """Append one row; missing columns stay empty, floats keep all digits, unknown columns are a ValueError."""
        if unknown := set(values) - set(self.fields):
            raise ValueError(f"{self.path} has no column {sorted(unknown)}")
        self._append(self._line([values.get(f, "") for f in self.fields]))

    def sync(self) -> None:
        """Wait until all rows are on the disk (before a checkpoint that counts on them). Never raises."""
        with suppress(OSError):
            faults.fsync(self._fd, self.path)

    def close(self) -> None:
        """Close the file; a second time is fine."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @staticmethod
    def truncate(path: Path, step: int) -> int:
        """Drop the rows whose column `step` is above `step`, and torn rows; the number dropped. Atomic. No file: 0."""
        if not path.exists():
            return 0
        data = path.read_bytes()
        if b"\n" not in data:
            return 0  # a torn header: the next CsvLog writes it again
        lines = data.split(b"\n")
        fields = lines[0].decode(errors="replace").split(",")
        if "step" not in fields:
            raise damaged(path, "has no column 'step'")
        column, kept = fields.index("step"), [lines[0]]
        for line in lines[1:-1]:  # the last piece is empty, or a row torn by a kill
            with suppress(ValueError, csv.Error):
                cells = next(csv.reader([line.decode(errors="replace")]), [])
                if len(cells) == len(fields) and int(cells[column]) <= step:
                    kept.append(line)
        new = b"\n".join(kept) + b"\n"
        if new != data:
            write_bytes(path, new)
        return len(lines) - 1 - len(kept) + bool(lines[-1])


def run_state(run: Path, status: str, code: int = 0, reason: str = "", resume: str = "") -> None:
    """Write run_state.json for schedulers and tests. Never raises: a full disk must not hide why a run ended."""
    with suppress(Exception):
        state = {"status": status, "code": code, "reason": reason, "resume": resume}
        write_json(run / "run_state.json", state)


def finished(run: Path) -> dict[str, Any]:
    """run.json of a run that has ended. Refuses (exit 4) what is no run, S06, and one that is not finished, S07."""
    if not (run / "run.json").exists():
        fix = "give the folder that `semiseg train … --out` wrote"
        raise Refusal(Problem("S06", str(run), "is no run: it has no run.json", fix), CHECKPOINT)
    record: dict[str, Any] = read_json(run / "run.json")
    if not (run / "summary.json").exists():
        again = shlex.join(["semiseg", "train", record["config"]["data"], "--out", str(run), "--resume"])
        fix = f"finish it: {again}"
        raise Refusal(Problem("S07", str(run), "is not finished: it has no summary.json", fix), CHECKPOINT)
    return record
