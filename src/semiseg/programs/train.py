"""`semiseg train`: from what was asked to a finished run folder, in the same order on every try."""

from __future__ import annotations

import copy
import os
import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

import semiseg
from semiseg import storage
from semiseg.data.check import Checked
from semiseg.data.folder import find
from semiseg.data.splits import choose_labels
from semiseg.errors import BUSY, CHECKPOINT, DATA, USAGE, Problem, Refusal, usage
from semiseg.methods import arguments, method_class
from semiseg.networks import build
from semiseg.programs import PROGRAMS, outputs, program_class
from semiseg.programs._generations import FIRST, Generations
from semiseg.programs._promotion import shipped
from semiseg.programs.base import Program
from semiseg.programs.given import named, split, suits
from semiseg.programs.session import Session
from semiseg.report import write_report
from semiseg.training.config import RESOLVED, Config, Settings, differences, split_name
from semiseg.training.logs import Log
from semiseg.training.origin import command_of, files, machine, replaced
from semiseg.training.prepare import look, prepare
from semiseg.training.ranges import amount
from semiseg.training.recipe import read_recipe
from semiseg.training.signals import STOP, Stopped

RESUME = ("", "force", "auto")
READ = ("images", "masks", "unlabeled", "val", "test", "splits")
"""Folders of a data set that are read whole."""
BEFORE = {".lock", "run_state.json", "events.jsonl", "check.json"}
"""What a run holds before its run.json, and may be started anew over."""
REFUSED = {"run.json", "cache"}
"""What it writes before it may be refused, and is of the data as they were: the next start must not find it."""


def configure(options: Mapping[str, Any], sets: list[str], recipe: Path | None, saved: Mapping[str, Any]) -> Config:
    """One Config from, in rising order: the program's own, a resumed run's, the recipe, the options, `--set key=value`."""
    asked = read_recipe(recipe) if recipe else {}
    name = options.get("method") or asked.get("method") or saved.get("method") or default_method(options)
    method, program = split_name(str(name), PROGRAMS)
    if not options.get("method") and not asked.get("method"):
        program = saved.get("program", program)
    known = {f.name for f in fields(Config)}
    kept = copy.deepcopy({k: v for k, v in saved.items() if k in known})  # `saved` is compared with it later
    config = Config(**kept)
    config.method, config.program = method, program
    config.data, config.out = str(options.get("data", "")), str(options.get("out", ""))
    settings = Settings(arguments(method_class(method)), arguments(program_class(program)), config, PROGRAMS)
    for key, value in asked.items():
        if key != "method":
            settings.put(key, value, f"{recipe}")
    for key, value in options.items():
        if key not in ("data", "out", "method") and value is not None:
            settings.put(key, value, f"--{key.replace('_', '-')}")
    for text in sets:
        key, equals, value = text.partition("=")
        if not equals:
            fix = f"type --set {text}=VALUE"
            settings.problems.append(Problem("C04", f"--set {text}", "has no '='", fix, "key=value"))
        else:
            settings.put(key.strip(), value.strip(), f"--set {text}")
    made = settings.finish()
    chosen = program_class(program)(**made.program_args)
    settings.suggest({k: v for k, v in chosen.defaults(made).items() if k not in kept})
    for mine, owner in (("method_args", method), ("program_args", program)):  # noted whole: a default may change later
        defaults = {k: v for k, v in settings.arguments[owner].items() if isinstance(v, str | int | float)}
        setattr(made, mine, {**defaults, **getattr(made, mine)})
    made.program_args |= {k: getattr(chosen, k) for k in made.program_args if k in chosen.settled}
    return made


def default_method(options: Mapping[str, Any]) -> str:
    """What `semiseg train my_images` does: im where there are unlabeled images to learn from, supervised otherwise."""
    index = find(Path(options["data"]))
    wanted = amount(str(options.get("labels") or "all"))
    fewer = wanted < 1 if isinstance(wanted, float) else isinstance(wanted, int) and wanted < len(index.labeled)
    return "im" if (index.unlabeled or fewer) and not options.get("oracle") else "supervised"


def train(
    data: str | Path,
    out: str | Path,
    *,
    resume: str | bool = "",
    sets: list[str] | None = None,
    recipe: str | Path | None = None,
    quiet: bool = False,
    command: str = "",
    **options: Any,
) -> dict[str, Any]:
    """Train on a data folder into a run folder; returns the run's summary.

    options: the keys of `training.config.Config` (method="supervised+im", steps=600, …). resume: "" a new run, "force"
    or True there must be one, "auto" continue or start. Raises Refusal with the exit code of the contract, Stopped
    after a signal.
    """
    run, mode = Path(out), "force" if resume is True else resume or ""
    if mode not in RESUME:
        raise usage("resume", f"is {resume!r}", expected="True to continue, 'auto' to continue or start, or nothing")
    if (processes := int(os.environ.get("WORLD_SIZE", "1"))) > 1:  # one would wait for those that the lock sent away
        raise usage("the launcher", f"has started {processes} processes", "start one", "one process writes a run")
    begin = time.monotonic()
    _apart(Path(data), run)
    with storage.writing(run):
        record = existing(run, str(data), mode)
    saved = record.get("config", {})
    options = {**options, "data": str(data), "out": str(out)}
    config = configure(options, sets or [], Path(recipe) if recipe else None, saved)
    if saved and (changed := differences(_explicit(saved, config), config.to_json())):
        fix = "repeat the old settings, or start another run with another --out"
        raise Refusal(
            Problem("S08", str(run), f"was started with other settings: {'; '.join(changed)}", fix), CHECKPOINT
        )
    program = program_class(config.program)(**config.program_args)
    _check(config, program)
    _same_files(run, config, record)
    log = Log(run, quiet)
    with storage.lock(run):
        storage.sweep(run)
        STOP.install()
        again = shlex.join(["semiseg", "train", config.data, "--out", str(run), "--resume"])
        command = command or command_of(options, sets or [], recipe)
        try:  # a refused resume leaves the state as it was, so these data are looked at first
            checked = _begin(run, config, program, record, log, command) if record else None
            with _told(run, again, "" if record else command):
                checked = checked or _begin(run, config, program, record, log, command)
                return _run(run, config, program, record, checked, log, command, begin)
        finally:
            STOP.release()


@contextmanager
def _told(run: Path, again: str, typed: str) -> Iterator[None]:
    """run_state.json says how it ends and what goes on: `typed` where it is refused before it is a run, as it can be
    corrected then.
    """
    storage.run_state(run, "running", resume=again)
    try:
        yield
    except Stopped as stopped:
        storage.run_state(run, "stopped", stopped.code, str(stopped), again)
        raise
    except Refusal as refusal:
        if typed and refusal.exit in (USAGE, DATA) and {p.name for p in run.iterdir()} <= BEFORE | REFUSED:
            for name in sorted(REFUSED):  # the cache first: run.json says that it is there
                storage.remove(run / name)
        goes_on = again if (run / "run.json").exists() else typed
        storage.run_state(run, "refused", refusal.exit, str(refusal), goes_on)
        raise
    except BaseException as error:
        storage.run_state(run, "failed", 1, f"{type(error).__name__}: {error}", again)
        raise
    storage.run_state(run, "finished")


def _begin(run: Path, config: Config, program: Program, record: dict[str, Any], log: Log, command: str) -> Checked:
    """The data, checked; a new run keeps what was found in check.json. Refuses what changed since (exit 4)."""
    log.say(f"Training {config.name} on {config.data} into {run}.")
    log.event("start", pid=os.getpid(), command=command, resumed=bool(record))
    learns = program.teaches or method_class(config.method).uses_unlabeled
    checked = look(config, log, program.folds, config.name if learns else "", None if record else run / "check.json")
    if record and record["data"]["hash"] != checked.hash:
        found = f"changed since {run} was started{_changes(run / 'check.json', checked.digests)}"
        fix = "restore the data, or start another run with another --out"
        raise Refusal(Problem("S09", config.data, found, fix), CHECKPOINT)
    return checked


def _changes(saved: Path, new: Mapping[str, str]) -> str:
    """How many images were added, removed and changed, in words; nothing where the old ones were not noted."""
    if not saved.exists():
        return ""
    old = storage.read_json(saved).get("digests", {})
    changed = sum(new.get(name, digest) != digest for name, digest in old.items())
    counts = {"added": len(new.keys() - old.keys()), "removed": len(old.keys() - new.keys()), "changed": changed}
    said = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    return f": of its images {said}" if said else ": its masks, lists or classes, not its images"


def _run(
    run: Path, config: Config, program: Program, record: dict[str, Any], checked: Checked, log: Log, command: str,
    begin: float,
) -> dict[str, Any]:  # fmt: skip
    command = record.get("command") or command  # the one that says what this training is; a resume may say less
    about = {"format": 1, "version": semiseg.__version__, "command": command, "machine": machine()}
    about |= files(config.method, config.weights)
    about["created"] = record.get("created") or time.strftime("%Y-%m-%dT%H:%M:%S%z")
    if not record:
        storage.write_json(run / "run.json", {**about, "config": config.to_json(), "data": {"hash": checked.hash}})
    if config.threads:
        torch.set_num_threads(config.threads)
    data = prepare(config, checked, run / "cache", log)
    storage.write_json(run / "run.json", {**about, "config": data.config.to_json(), "data": data.spec()})
    session = Session(run, data, log)
    if said := data.method().caveat():
        log.say(f"Note: {said}.")
        session.warnings.append(f"{said}.")
    outcome = shipped(session, program.run(session))
    log.event("report")
    with log.timed("report"):
        ranking = outputs.label_next(session, outcome) if len(data.unlabeled) else []
        outputs.samples(session, outcome, ranking)
        result = outputs.summary(session, outcome, command, time.monotonic() - begin)
        storage.write_json(run / "summary.json", result)
        write_report(run)
    log.event("end", hash=result["hash"])
    return result


def existing(run: Path, data: str, resume: str) -> dict[str, Any]:
    """run.json of a run to go on with; {} for a new one. Refuses what --resume does not allow."""
    again = shlex.join(["semiseg", "train", data, "--out", str(run)])
    if (run / "run.json").exists():
        if not resume:
            other = shlex.quote(f"{run}-2")
            fix = f"continue it: {again} --resume; or start another one: the same command with --out {other}"
            with storage.lock(run):  # a run that is being written right now is in use before it is anything else
                raise Refusal(Problem("S10", str(run), "holds a run already", fix), BUSY)
        return storage.read_json(run / "run.json")
    if resume == "force":
        fix = "start one: the same command without --resume; --resume auto continues or starts"
        raise Refusal(Problem("S11", str(run), "holds no run: there is nothing to resume", fix), CHECKPOINT)
    if run.exists() and not run.is_dir():
        raise Refusal(Problem("S10", str(run), "is a file", "choose another --out"), BUSY)
    here = [p.name for p in run.iterdir()] if run.is_dir() else []
    if names := sorted(name for name in here if name not in BEFORE and not storage.leftover(name)):
        found = f"is not empty ({', '.join(names[:3])}{', …' if len(names) > 3 else ''}) and is no run of semiseg"
        raise Refusal(Problem("S10", str(run), found, "choose another --out"), BUSY)
    return {}


def _same_files(run: Path, config: Config, record: Mapping[str, Any]) -> None:
    """Refuses (exit 4) to go on with another file of the user's own than the one that something was trained with."""
    other = replaced(record, config.method, config.weights)
    if other and [p for n in ("final", "step-*") for p in run.rglob(n)]:
        found = f"changed since models of {run} were trained with it"
        fix = "put the old file back, or start another run with another --out"
        raise Refusal(Problem("S08", other, found, fix), CHECKPOINT)


def _explicit(saved: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """The saved configuration; what a not yet resolved run had left open (0) may still be chosen.

    Older runs note typed arguments alone: the others count as today's.
    """
    mine = config.to_json()
    known = {k: mine[k] if k in RESOLVED and not v else v for k, v in saved.items() if k in mine}
    return {k: {**mine[k], **v} if k.endswith("_args") else v for k, v in known.items()}


def _apart(data: Path, run: Path) -> None:
    """Refuses (exit 2) a run among images or masks: from then on its pictures would be read as data."""
    root, target = data.resolve(), run.resolve()
    first = target.relative_to(root).parts[:1] if target.is_relative_to(root) else ()
    if first and first[0] in READ:
        found = f"lies in {data / first[0]}, and all in there is data"
        raise Refusal(Problem("C10", f"--out {run}", found, "choose a folder outside of the data"), USAGE)


def _check(config: Config, program: Program) -> None:
    """What a program, a network's name, its weights or the number of labels refuse, before anything is written."""
    index = find(Path(config.data)) if config.labels != "all" else None
    if index is not None and index.labeled:  # else the check says why there are none
        choose_labels(index, amount(config.labels), lambda item: item.name)
    program.fits(config)
    if config.committee and not program.teaches:
        found, fix = f"gives a committee, and {config.name} learns from none", "use --method im, or METHOD+im"
        raise Refusal(Problem("C11", "--committee", found, fix), USAGE)
    if config.committee and not storage.is_sealed(Path(config.out) / FIRST):  # a finished answer needs nobody any more
        members = named(split(config.committee))
        if isinstance(program, Generations):
            suits(program.rule(), len(members))
    for network in dict.fromkeys((config.network, *program.networks)):
        build(network, 3, 2, pretrained=config.weights or None)
