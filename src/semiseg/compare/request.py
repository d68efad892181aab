"""What a comparison was asked for, and whether every method of it can be configured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from semiseg.errors import Problem, Refusal, nearest
from semiseg.methods import METHODS, arguments, method_class
from semiseg.programs import PROGRAMS, program_class
from semiseg.programs.train import configure
from semiseg.training.config import Config, split_name

OWN = ("data", "out", "method", "seed", "steps", "labels", "oracle", "reuse", "baseline", "device")
"""Keys that the grid decides; they may not be --set."""
BASE = "labels only"


@dataclass
class Request:
    """What was asked for. options: --network, --size, … as typed, the same for every cell. split: test or val."""

    data: list[Path]
    methods: list[str]
    out: Path
    seeds: int = 3
    steps: int = 2000
    labels: list[str] = field(default_factory=lambda: ["all"])
    baselines: str = "all"
    split: str = "test"
    blocks: int = 1
    jobs: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    sets: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Asked:
    """A method of --methods: NAME[@key=value…], e.g. im@members=2; what it is configured to, and its own settings."""

    title: str
    name: str
    sets: tuple[str, ...]
    config: Config
    models: int


def numbers(request: Request) -> list[Problem]:
    """What is wrong with the numbers and words of a request."""
    problems = []
    for where, value in (("--seeds", request.seeds), ("--blocks", request.blocks)):
        if value < 1:
            problems.append(Problem("C06", where, f"is {value}", expected="1 or more"))
    if request.jobs < 0:
        problems.append(Problem("C06", "--jobs", f"is {request.jobs}", expected="1 or more"))
    choices = (("--baselines", request.baselines, ("all", "none")), ("--split", request.split, ("test", "val")))
    for where, word, options in choices:
        if word not in options:
            found = f"is '{word}'. {nearest(word, options)}".strip()
            problems.append(Problem("C06", where, found, expected=" or ".join(options)))
    for text in request.sets:
        key = text.partition("=")[0].strip()
        if key in OWN:
            problems.append(Problem("C04", f"--set {text}", "is decided by the grid", "use the option of compare"))
    return problems


def configured(request: Request, problems: list[Problem], notes: list[str]) -> list[Asked]:
    """Configure every method once, so that each mistake is found now. `supervised` is a row of its own anyway."""
    asked: dict[str, Asked] = {}
    used: set[str] = set()
    if not request.methods:
        problems.append(Problem("C03", "--methods", "names no method", "semiseg methods lists them"))
    for text in request.methods:
        name, *own = text.split("@")
        try:
            method, program = split_name(name, PROGRAMS)
            given = {method, program} - {""}
            shared = route(request.sets, method, program)
            used |= set(shared)
            options = {**request.options, "steps": request.steps, "method": name, "data": "", "out": ""}
            config = configure(options, [*shared, *own], None, {})
            models = program_class(program)(**config.program_args).models
        except Refusal as refusal:
            problems += [_said(p, text) for p in refusal.problems]
            continue
        if any(s.partition("=")[0] in OWN for s in own):
            problems.append(Problem("C04", text, f"sets what the grid decides ({', '.join(OWN)})"))
        if given == {"supervised"} and not own:
            notes.append(f"{name}: it is the row '{BASE}' already")
            continue
        if given == {"supervised", "committee"}:
            notes.append(f"{name}: labels only train a committee in every comparison")
            continue
        title = ", ".join([name, *own])
        asked.setdefault(", ".join([config.name, *own]), Asked(title, name, (*shared, *own), config, models))
    for text in request.sets:
        if text not in used and text.partition("=")[0] not in OWN and asked:
            problems.append(
                Problem("C04", f"--set {text}", "fits none of the methods", "semiseg methods NAME lists them")
            )
    return list(asked.values())


def _said(problem: Problem, method: str) -> Problem:
    """`--method` is called --methods here."""
    where = f"--methods {method}" if problem.where == "--method" else problem.where
    return Problem(problem.code, where, problem.found, problem.fix, problem.expected)


def route(sets: Iterable[str], method: str, program: str) -> list[str]:
    """The settings that concern a cell: keys of the configuration, and arguments of its own method or program."""
    mine = []
    own = {*arguments(method_class(method)), *arguments(program_class(program))}
    common = {f.name for f in fields(Config)} - {"method_args", "program_args"}
    foreign = {*PROGRAMS, *METHODS} - {method, program}
    for text in sets:
        key = text.partition("=")[0].strip()
        owner, dot, _ = key.rpartition(".")
        if dot and owner in foreign:
            continue
        if dot or key in common or key in own or not _anywhere(key):
            mine.append(text)  # what nobody knows is refused where it is put
    return mine


def _anywhere(key: str) -> bool:
    """Is it an argument of some method or program? Then it may fit another cell."""
    classes = [*(method_class(n) for n in METHODS), *(program_class(n) for n in PROGRAMS)]
    return any(key in arguments(c) for c in classes)
