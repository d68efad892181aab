"""Reads a run folder for the report. Only summary.json is demanded; of the rest, whatever is there and readable."""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from semiseg import storage
from semiseg.errors import CHECKPOINT, Problem, Refusal
from semiseg.report.markup import number

Json = dict[str, Any]


@dataclass(frozen=True)
class Curve:
    """The log of one member: points (step, value), in the order of steps."""

    generation: int
    member: str
    loss: list[tuple[float, float]]
    miou: list[tuple[float, float]]


@dataclass
class Facts:
    """Everything the page is made of. `tests`: who predicted -> its evaluation on test; `unread`: damaged files."""

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
        return [str(c) for c in self.summary.get("classes") or []]

    @property
    def generations(self) -> list[Json]:
        """The generations as summary.json lists them."""
        return dicts(self.summary.get("generations"))


def dicts(value: Any) -> list[Json]:
    """The dictionaries in a list; an empty list for anything else."""
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def mapping(value: Any) -> Json:
    """`value` when it is a dictionary, else an empty one."""
    return value if isinstance(value, dict) else {}


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
    samples = _json(run / "samples" / "samples.json", unread)
    colors = {str(c.get("name")): str(c.get("color")) for c in dicts(_json(run / "samples" / "palette.json", unread))}
    evaluations = {
        "the model": _json(run / "evaluation-test.json", unread),
        "average of the committee": _json(run / "evaluation-test-ensemble.json", unread),
    }
    weights = hashlib.sha256(str(summary.get("hash")).encode()).hexdigest()  # as `Model.hash`
    if mapping(evaluations["the model"]).get("model", weights) != weights:
        evaluations["the model"] = None  # of a model that this run shipped before
    facts = Facts(
        run=run,
        summary=summary,
        record=mapping(_json(run / "run.json", unread)),
        tests={who: found for who, found in evaluations.items() if isinstance(found, dict)},
        samples=dicts(samples),
        colors=colors,
        curves=[],
        queue=read_rows(run / "label_next.csv", unread),
        unread=unread,
    )
    facts.curves = [curve for g in facts.generations for curve in _curves(run, g, unread)]
    return facts


def inside(run: Path, relative: Any) -> Path | None:
    """The file `relative` in the run folder, or None when it is absent or would lie outside."""
    if not relative or not isinstance(relative, str) or "\0" in relative:
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
    for member in dicts(generation.get("members")):
        log = run / str(member.get("folder") or "-") / "metrics.csv"
        if not log.resolve().is_relative_to(run.resolve()):
            continue
        rows = read_rows(log, unread)
        loss, miou = logged(rows, "train", "loss"), logged(rows, "val", "miou")
        if loss or miou:
            index = number(generation.get("generation")) or 0
            curves.append(Curve(int(index), str(member.get("name") or "member"), loss, miou))
    return curves


def logged(rows: list[dict[str, str]], split: str, column: str) -> list[tuple[float, float]]:
    """(step, value of `column`) of the rows of a metrics.csv that are of `split`, in the order of steps."""
    found = []
    for row in rows:
        step, value = number(row.get("step")), number(row.get(column))
        if row.get("split") == split and step is not None and value is not None:
            found.append((step, value))
    return sorted(found)
