"""Reads a run folder for the report. Only summary.json is demanded; of the rest, whatever is there and readable."""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from semiseg import storage
from semiseg.errors import CHECKPOINT, Problem, Refusal
from semiseg.report.markup import number
from semiseg.report.shape import COLOR, EVALUATION, RECORD, SAMPLE, SUMMARY, Json, shaped


@dataclass(frozen=True)
class Curve:
    """The log of one member: points (step, value), in the order of steps."""

    generation: int
    member: str
    loss: list[tuple[float, float]]
    miou: list[tuple[float, float]]


@dataclass
class Facts:
    """Everything the page is made of, in the shapes of `shape.py`.

    `tests`: who predicted -> its evaluation on test; `unread`: damaged files.
    """

    run: Path
    summary: Json
    record: Json
    tests: dict[str, Json]
    samples: list[Json]
    colors: dict[str, str]
    curves: list[Curve]
    queue: list[dict[str, str]]
    unread: list[str] = field(default_factory=list)

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in the order of the channels."""
        return cast(list[str], self.summary["classes"])

    @property
    def generations(self) -> list[Json]:
        """The generations as summary.json lists them."""
        return cast(list[Json], self.summary["generations"])


def load(run: Path) -> Facts:
    """Read `run`. Raises Refusal (exit 4) when there is no readable summary.json."""
    unread: list[str] = []
    summary = _json(run / "summary.json", unread)
    if not isinstance(summary, dict):
        if not (run / "summary.json").exists():
            storage.finished(run)
        fix = "let the training finish: semiseg train … --resume auto"
        expected = "the summary of a finished run"
        raise Refusal(Problem("S01", str(run / "summary.json"), "is damaged", fix, expected), CHECKPOINT)
    summary = shaped(summary, SUMMARY)
    colors = shaped(_json(run / "samples" / "palette.json", unread), [COLOR])
    facts = Facts(
        run=run,
        summary=summary,
        record=shaped(_json(run / "run.json", unread), RECORD),
        tests=_tests(run, summary["hash"], unread),
        samples=shaped(_json(run / "samples" / "samples.json", unread), [SAMPLE]),
        colors={c["name"]: c["color"] for c in colors},
        curves=[],
        queue=read_rows(run / "label_next.csv", unread),
        unread=unread,
    )
    facts.curves = [curve for g in facts.generations for curve in _curves(run, g, unread)]
    return facts


def _tests(run: Path, weights: str, unread: list[str]) -> dict[str, Json]:
    """The evaluations on test that have a score; not that of a model which this run shipped before."""
    files = {"the model": "evaluation-test.json", "average of the committee": "evaluation-test-ensemble.json"}
    found = {who: shaped(_json(run / file, unread), EVALUATION) for who, file in files.items()}
    own = hashlib.sha256(weights.encode()).hexdigest()  # as `Model.hash`
    if found["the model"]["model"] not in ("", own):
        del found["the model"]
    return {who: evaluation for who, evaluation in found.items() if evaluation["metrics"]["miou"] is not None}


def inside(run: Path, relative: str) -> Path | None:
    """The file `relative` in the run folder, or None when it is absent or would lie outside."""
    if not relative or "\0" in relative:
        return None
    for base in (run / "samples", run):
        path = (base / relative).resolve()
        if path.is_relative_to(run.resolve()) and path.is_file():
            return path
    return None


def _json(path: Path, unread: list[str]) -> Any:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        unread.append(path.name)
        return None


def read_rows(path: Path, unread: list[str]) -> list[dict[str, str]]:
    """The rows of a CSV file; none where there is no file, or a damaged one, which is then named in `unread`."""
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as handle:
            return [row for row in csv.DictReader(handle) if any(row.values())]
    except (OSError, ValueError, csv.Error):
        unread.append(path.name)
        return []


def _curves(run: Path, generation: Json, unread: list[str]) -> list[Curve]:
    curves = []
    for member in generation["members"]:
        log = run / (member["folder"] or "-") / "metrics.csv"
        if not log.resolve().is_relative_to(run.resolve()):
            continue
        rows = read_rows(log, unread)
        loss, miou = logged(rows, "train", "loss"), logged(rows, "val", "miou")
        if loss or miou:
            curves.append(Curve(int(generation["generation"] or 0), member["name"] or "member", loss, miou))
    return curves


def logged(rows: list[dict[str, str]], split: str, column: str) -> list[tuple[float, float]]:
    """(step, value of `column`) of the rows of a metrics.csv that are of `split`, in the order of steps."""
    found = []
    for row in rows:
        step, value = number(row.get("step")), number(row.get(column))
        if row.get("split") == split and step is not None and value is not None:
            found.append((step, value))
    return sorted(found)
