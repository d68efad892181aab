"""What a comparison was asked for, and whether every method of it can be configured."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from semiseg.errors import Problem, Refusal, nearest
from semiseg.methods import METHODS, arguments, method_class
from semiseg.programs import PROGRAMS, program_class
from semiseg.programs.base import Program
from semiseg.programs.train import configure
from semiseg.training.config import Config, split_name

OWN = ("data", "out", "method", "seed", "steps", "labels", "oracle", "reuse", "baseline", "device", "committee")
"""Keys that the grid decides; they may not be --set."""
BUDGET = ("batch", "size", "resize", "network", "weights", "freeze")
"""Keys that all arms have in common: an arm with another one would differ from labels only in more than its method."""
BASE, FULL = "labels only", "full labels"
"""The rows that every comparison has begin so."""


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
    """A method of --methods: NAME[@key=value…], e.g. im@members=2; what it is configured to, and its own settings.

    longer: how many times --steps each of its models is trained for (fixmatch@steps=4x).
    """

    title: str
    name: str
    sets: tuple[str, ...]
    config: Config
    program: Program
    longer: int = 1

    @property
    def budget(self) -> int:
        """Steps of all its models, in --steps."""
        return self.models * self.longer

    @property
    def hungry(self) -> bool:
        """Does it learn from unlabeled images?"""
        return self.program.teaches or method_class(self.config.method).uses_unlabeled

    @property
    def models(self) -> int:
        """Models that it trains; an EvalNet is one."""
        return self.program.models + self.program.judged

    @property
    def first(self) -> int:
        """Models of its generation 0; snapshots and averages are of one."""
        return 1 if self.program.members_by == "snapshots" else min(self.program.members, self.program.models)


def numbers(request: Request) -> list[Problem]:
    """What is wrong with the numbers and words of a request."""
    problems = []
    for where, value in (("--seeds", request.seeds), ("--blocks", request.blocks), ("--steps", request.steps)):
        if value < 1:
            problems.append(Problem("C06", where, f"is {value}", expected="1 or more"))
    if request.jobs < 0:
        problems.append(Problem("C06", "--jobs", f"is {request.jobs}", expected="1 or more"))
    choices = (("--baselines", request.baselines, ("all", "none")), ("--split", request.split, ("test", "val")))
    for where, word, options in choices:
        if word not in options:
            found = f"is '{word}'. {nearest(word, options)}".strip()
            problems.append(Problem("C06", where, found, expected=" or ".join(options)))
    if not request.labels:
        problems.append(Problem("C06", "--labels", "names no number of labels", expected="numbers, shares, or all"))
    for text in request.sets:
        key = text.partition("=")[0].strip()
        if key in OWN:
            option = {"method": "--methods", "seed": "--seeds"}.get(key, f"--{key}")
            offered = key in ("data", "out", "method", "seed", "steps", "labels")
            fix = f"use {option}" if offered else f"leave it out; `semiseg train` takes {key}"
            problems.append(Problem("C04", f"--set {text}", "is decided by the grid", fix))
    return problems


def separated(text: str) -> list[str]:
    """--methods at its commas; what names no method belongs to the word before it: im@networks=unet1x1,unet/resnet18."""
    found: list[str] = []
    for part in (p.strip() for p in text.split(",") if p.strip()):
        known = part.partition("@")[0].partition("+")[0] in {*METHODS, *PROGRAMS} or ".py:" in part
        if found and not known and _takes_words(found[-1]):
            found[-1] += f",{part}"
        else:
            found.append(part)
    return found


def _takes_words(arm: str) -> bool:
    """Does an arm end in a setting whose value may be a list of words?"""
    name, *own = arm.split("@")
    try:
        owners = [cls for part, make in zip(split_name(name, PROGRAMS), (method_class, program_class), strict=True)
                  if part and (cls := make(part))]  # fmt: skip
    except Refusal:
        return False
    key = own[-1].partition("=")[0].strip().rpartition(".")[2] if own else ""
    return any(isinstance(arguments(cls).get(key), str) for cls in owners)


def configured(request: Request, problems: list[Problem], notes: list[str]) -> list[Asked]:
    """Configure every method once, so that each mistake is found now. `supervised` is a row of its own anyway."""
    asked: dict[str, Asked] = {}
    used: set[str] = set()
    keys: set[str] = set()
    if not request.methods:
        problems.append(Problem("C03", "--methods", "names no method", "semiseg methods lists them"))
    for text in request.methods:
        name, *typed = _plain(text).split("@")
        if not all(words.strip() for words in typed):
            problems.append(Problem("C04", text, "has nothing behind an @", f"write {name or 'METHOD'}@key=value"))
            continue
        own, longer = _longer(typed)
        try:
            method, program = split_name(name, PROGRAMS)
            given = {method, program} - {""}
            shared = route(request.sets, method, program)
            used |= set(shared)
            keys |= _keys(method, program)
            options = {
                **request.options,
                "steps": max(1, request.steps) * longer,
                "method": name,
                "data": "",
                "out": "",
            }
            config = configure(options, [*shared, *own], None, {})
            made = program_class(program)(**config.program_args)
            made.fits(config)
        except Refusal as refusal:
            problems += [_said(p, text) for p in refusal.problems]
            continue
        if theirs := [k for k in _named(own) if k in OWN]:
            fix = "a multiple of --steps is steps=4x" if "steps" in theirs else ""
            problems.append(Problem("C04", text, f"sets what the grid decides: {', '.join(theirs)}", fix))
        if common := [k for k in _named(own) if k in BUDGET]:
            found = f"sets {', '.join(common)} for itself, and all arms of a comparison share that"
            fix = f"run another comparison, with its own --out, --{common[0]} and methods"
            problems.append(Problem("C04", text, found, fix))
        if given == {"supervised"} and not typed:
            notes.append(f"{name}: it is the row '{BASE}' already")
            continue
        if given == {"supervised", "committee"} and not own:
            notes.append(f"{name}: labels only train a committee in every comparison")
            continue
        title = ", ".join([name, *typed])
        if changed := _training(own):
            notes.append(f"{title}: has its own {', '.join(changed)}, so its difference is not of the method alone")
        one = Asked(title, name, (*shared, *own), config, made, longer)
        if getattr(made, "grow", 0) and config.network.startswith("unet1x1"):
            notes.append(f"{title}: its students are wider every generation (grow=0: all as wide as other arms)")
        if one.program.judged:
            notes.append(f"{title}: its EvalNet learns from the masks of val, which no labels-only row does")
        asked.setdefault(", ".join([config.name, *typed]), one)
    for text in request.sets:
        key = text.partition("=")[0].strip()
        if text not in used and key not in OWN and keys:
            found = f"fits none of the methods. {nearest(key, keys)}".strip()
            problems.append(Problem("C04", f"--set {text}", found, "semiseg methods NAME lists arguments"))
    return list(asked.values())


def _plain(text: str) -> str:
    """./mine.py:Mine as mine.py:Mine."""
    path, py, its = text.partition(".py:")
    return f"{Path(path).as_posix()}{py}{its}" if py else text


def _longer(typed: Sequence[str]) -> tuple[list[str], int]:
    """An arm's own settings without steps=Nx, and that N: as many steps in all as an arm of N models has."""
    found = [re.fullmatch(r"\s*steps\s*=\s*([1-9]\d{0,3})x\s*", text) for text in typed]
    times = [int(m[1]) for m in found if m]
    return [text for text, m in zip(typed, found, strict=True) if not m], times[-1] if times else 1


def _named(sets: Sequence[str]) -> list[str]:
    """The keys of key=value."""
    return [text.partition("=")[0].strip() for text in sets]


def _training(own: Sequence[str]) -> list[str]:
    """What an arm sets of the training, which all the others have in common."""
    common = {f.name for f in fields(Config)}
    paper = "preset=paper"  # a program's argument, which sets loss, optimiser, schedule and augmentation
    return [key for key in _named(own) if key in common] + [paper] * any(text.endswith(paper) for text in own)


def _said(problem: Problem, method: str) -> Problem:
    """`--method` is called --methods here."""
    where = f"--methods {method}" if problem.where == "--method" else problem.where
    return Problem(problem.code, where, problem.found, problem.fix, problem.expected)


def route(sets: Iterable[str], method: str, program: str) -> list[str]:
    """The settings that concern a cell: keys of the configuration, and arguments of its own method or program."""
    mine = []
    known = _keys(method, program)
    for text in sets:
        key = text.partition("=")[0].strip()
        owner, _, argument = key.rpartition(".")
        if argument in known if owner in (method, program) else key in known:
            mine.append(text)
    return mine


def _keys(method: str, program: str) -> set[str]:
    """What may be set for a method and program, without their names in front."""
    common = {f.name for f in fields(Config)} - {"method_args", "program_args"}
    return common | {*arguments(method_class(method)), *arguments(program_class(program))}
