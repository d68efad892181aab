"""`semiseg train`: from what was asked to a finished run folder, in the same order on every try."""

from __future__ import annotations

import copy
import os
import platform
import shlex
import time
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

import semiseg
from semiseg import storage
from semiseg.data.folder import find
from semiseg.errors import BUSY, CHECKPOINT, USAGE, Problem, Refusal
from semiseg.methods import arguments, method_class
from semiseg.networks import build
from semiseg.programs import PROGRAMS, outputs, program_class
from semiseg.programs._generations import Generations
from semiseg.programs.given import named, split
from semiseg.programs.session import Session
from semiseg.report import write_report
from semiseg.training.config import RESOLVED, Config, Settings, differences, read_recipe, split_name
from semiseg.training.logs import Log
from semiseg.training.prepare import look, prepare
from semiseg.training.signals import STOP, Stopped

RESUME = ("", "force", "auto")


def configure(options: Mapping[str, Any], sets: list[str], recipe: Path | None, saved: Mapping[str, Any]) -> Config:
    """One Config from, in rising order: a resumed run's, the recipe, the options, `--set key=value`."""
    asked = read_recipe(recipe) if recipe else {}
    name = options.get("method") or asked.get("method") or saved.get("method") or default_method(options)
    method, program = split_name(str(name), PROGRAMS)
    if not options.get("method") and not asked.get("method"):
        program = saved.get("program", program)
    known = {f.name for f in fields(Config)}
    kept = copy.deepcopy({k: v for k, v in saved.items() if k in known})  # `saved` is compared with it later
    config = Config(**kept)
    config.method, config.program = method, program
    settings = Settings(arguments(method_class(method)), arguments(program_class(program)), config)
    for key, value in asked.items():
        if key != "method":
            settings.put(key, value, f"{recipe}")
    for key, value in options.items():
        if key != "method" and value is not None:
            settings.put(key, value, f"--{key.replace('_', '-')}")
    for text in sets:
        key, equals, value = text.partition("=")
        if not equals:
            settings.problems.append(Problem("C04", f"--set {text}", "has no '='", expected="key=value"))
        else:
            settings.put(key.strip(), value.strip(), f"--set {text}")
    return settings.finish()


def default_method(options: Mapping[str, Any]) -> str:
    """What `semiseg train my_images` does: im where there are unlabeled images to learn from, supervised otherwise."""
    some = bool(find(Path(options["data"])).unlabeled) or options.get("labels") not in (None, "all")
    return "im" if some and not options.get("oracle") else "supervised"


def train(
    data: str | Path,
    out: str | Path,
    *,
    resume: str = "",
    sets: list[str] | None = None,
    recipe: str | Path | None = None,
    quiet: bool = False,
    command: str = "",
    **options: Any,
) -> dict[str, Any]:
    """Train on a data folder into a run folder; returns the run's summary.

    options: the keys of `training.config.Config` (method="supervised+im", steps=600, …). resume: "" a new run, "force"
    there must be one, "auto" continue or start. Raises Refusal with the exit code of the contract, Stopped after a signal.
    """
    run = Path(out)
    if resume not in RESUME:
        raise Refusal(Problem("C01", "--resume", f"is '{resume}'", expected="nothing or auto"), USAGE)
    begin = time.monotonic()
    record = _existing(run, str(data), resume)
    saved = record.get("config", {})
    options = {**options, "data": str(data), "out": str(out)}
    config = configure(options, sets or [], Path(recipe) if recipe else None, saved)
    if saved and (changed := differences(_explicit(saved, config), config.to_json())):
        fix = "repeat the old settings, or start another run with another --out"
        raise Refusal(
            Problem("S08", str(run), f"was started with other settings: {'; '.join(changed)}", fix), CHECKPOINT
        )
    _check_program(config)
    log = Log(run, quiet)
    with storage.lock(run):
        storage.sweep(run)
        STOP.install()
        again = shlex.join(["semiseg", "train", config.data, "--out", str(run), "--resume"])
        storage.run_state(run, "running", resume=again)
        try:
            result = _run(run, config, record, log, command or again.replace(" --resume", ""), begin)
        except Stopped as stopped:
            storage.run_state(run, "stopped", stopped.code, str(stopped), again)
            raise
        except Refusal as refusal:
            storage.run_state(run, "refused", refusal.exit, str(refusal), again)
            raise
        except BaseException as error:
            storage.run_state(run, "failed", 1, f"{type(error).__name__}: {error}", again)
            raise
        finally:
            STOP.release()
        storage.run_state(run, "finished")
    return result


def _run(run: Path, config: Config, record: dict[str, Any], log: Log, command: str, begin: float) -> dict[str, Any]:
    log.say(f"Training {config.name} on {config.data} into {run}.")
    log.event("start", pid=os.getpid(), command=command, resumed=bool(record))
    program = program_class(config.program)(**config.program_args)
    checked = look(config, log, program.folds)
    if record and record["data"]["hash"] != checked.hash:
        fix = "restore the data, or start another run with another --out"
        raise Refusal(Problem("S09", config.data, f"changed since {run} was started", fix), CHECKPOINT)
    about = {"format": 1, "version": semiseg.__version__, "command": command, "machine": machine()}
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
    outcome = program.run(session)
    log.event("report")
    with log.timed("report"):
        ranking = outputs.label_next(session, outcome) if len(data.unlabeled) else []
        outputs.samples(session, outcome, ranking)
        result = outputs.summary(session, outcome, command, time.monotonic() - begin)
        storage.write_json(run / "summary.json", result)
        write_report(run)
    log.event("end", hash=result["hash"])
    return result


def _existing(run: Path, data: str, resume: str) -> dict[str, Any]:
    """run.json of a run to go on with; {} for a new one. Refuses what --resume does not allow."""
    again = shlex.join(["semiseg", "train", data, "--out", str(run)])
    if (run / "run.json").exists():
        if not resume:
            other = shlex.join(["semiseg", "train", data, "--out", f"{run}-2"])
            fix = f"continue it: {again} --resume; or start another one: {other}"
            raise Refusal(Problem("S10", str(run), "holds a run already", fix), BUSY)
        return storage.read_json(run / "run.json")
    if resume == "force":
        fix = f"start one: {again}; --resume auto continues or starts"
        raise Refusal(Problem("S11", str(run), "holds no run: there is nothing to resume", fix), CHECKPOINT)
    if run.exists() and not run.is_dir():
        raise Refusal(Problem("S10", str(run), "is a file", "choose another --out"), BUSY)
    mine = {".lock", "run_state.json", "events.jsonl", "cache"}
    names = sorted(p.name for p in run.iterdir() if p.name not in mine) if run.is_dir() else []
    if names:
        found = f"is not empty ({', '.join(names[:3])}{', …' if len(names) > 3 else ''}) and is no run of semiseg"
        raise Refusal(Problem("S10", str(run), found, "choose another --out"), BUSY)
    return {}


def _explicit(saved: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """The saved configuration; what a not yet resolved run had left open (0) may still be chosen."""
    mine = config.to_json()
    return {k: mine[k] if k in RESOLVED and not v else v for k, v in saved.items() if k in mine}


def _check_program(config: Config) -> None:
    """What a program, a network's name or its weights refuse is refused before anything is read."""
    program = program_class(config.program)(**config.program_args)
    if config.committee and not isinstance(program, Generations):
        found, fix = f"gives a committee, and {config.name} learns from none", "use --method im, or METHOD+im"
        raise Refusal(Problem("C11", "--committee", found, fix), USAGE)
    if config.committee:
        named(split(config.committee))
    for network in dict.fromkeys((config.network, *program.networks)):
        build(network, 3, 2, pretrained=config.weights or None)


def machine() -> dict[str, Any]:
    """What a number's origin needs beside the command."""
    return {
        "python": platform.python_version(), "torch": torch.__version__,
        "processor": platform.processor() or platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None, "system": platform.system(),
    }  # fmt: skip
