"""How a command ends: every refusal becomes its lines and its exit code, everything else a bug report (exit 1)."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from semiseg.errors import BUG, RESOURCES, USAGE, Problem, Refusal, nearest


def guarded(work: Callable[[], Any], debug: bool, as_json: bool) -> int:
    """The exit code of `work`; says why on stderr (with --json as an object on stdout)."""
    try:
        code = work()
        return code if isinstance(code, int) else 0
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _stopped(130, "was interrupted", "", as_json)
    except Exception as error:
        if debug:
            traceback.print_exc()
        return _explain(error, as_json)


def _explain(error: Exception, as_json: bool) -> int:
    """Kinds are told by their names: torch is not imported here, and typer may bring its own copy of click."""
    kind = type(error).__name__
    if isinstance(error, Refusal):
        return _say(error, as_json)
    if kind == "Exit":
        return int(getattr(error, "exit_code", 0))
    if kind == "Abort":  # the parser's name for Ctrl-C
        return _stopped(130, "was interrupted", "", as_json)
    if hasattr(error, "format_message"):
        return _say(Refusal(_usage(error), USAGE), as_json)
    if kind == "Stopped":  # training stopped on a signal, after a checkpoint
        return _stopped(int(getattr(error, "code", 143)), str(error), getattr(error, "again", ""), as_json)
    if kind in ("OutOfMemoryError", "MemoryError"):
        fix = "use a smaller --batch or --size, or --set precision=bf16-mixed"
        return _say(Refusal(Problem("R04", "memory", "ran out", fix), RESOURCES), as_json)
    from semiseg.methods.own import LOADED

    frames = [f for f in traceback.extract_tb(error.__traceback__) if os.path.realpath(f.filename) in LOADED]
    if frames:  # a method in a file of the user's own
        where = f"{LOADED[os.path.realpath(frames[-1].filename)]}:{frames[-1].lineno}"
        fix = "correct it and start again (--debug prints the whole way there)"
        return _say(Refusal(Problem("C03", where, f"fails: {kind}: {error}", fix), USAGE), as_json)
    found = f"met a bug of its own: {kind}: {error}"
    fix = "run it again with --debug and report what it prints"
    return _say(Refusal(Problem("B01", "semiseg", found, fix), BUG), as_json)


def _usage(error: Any) -> Problem:
    """What the parser did not understand, and what is near: it does not say so for options, so that is done here."""
    context, option = getattr(error, "ctx", None), getattr(error, "option_name", "")
    path = context.command_path if context else "semiseg"
    if type(error).__name__ == "NoSuchOption" and context:
        fix = _near_option(option.lstrip("-"), [o for p in context.command.get_params(context) for o in p.opts])
        return Problem("C01", option, f"is no option of {path}", fix or f"{path} --help lists them")
    message, _, guess = error.format_message().partition(" Did you mean ")
    fix = f"Did you mean {guess}" if guess else f"{path} --help shows what there is"
    return Problem("C01", "command line", f"is not understood: {message.rstrip('.')}", fix)


def _near_option(name: str, options: list[str]) -> str:
    """A key of the configuration has its place in --set; anything else may be a slip of the keyboard."""
    from semiseg.training.config import ELSEWHERE, Config

    key = name.replace("-", "_")
    if "--set" in options and key in Config.__annotations__.keys() - ELSEWHERE.keys():
        return f"type --set {key}=VALUE"
    return nearest(name, [o[2:] for o in options if o.startswith("--")]).replace("'", "'--", 1)


def _stopped(code: int, found: str, again: str, as_json: bool) -> int:
    """A signal is nobody's mistake: a plain line for a person, the same object as every other end for a machine."""
    if as_json:
        return _say(Refusal(Problem("R06", "semiseg", found, again), code), as_json)
    print(f"semiseg: {found}. {again}".rstrip(), file=sys.stderr)
    return code


def _say(refusal: Refusal, as_json: bool) -> int:
    if as_json:
        said = {"exit": refusal.exit, "problems": [p.to_json() for p in refusal.problems]}
        print(json.dumps({"error": said, **getattr(refusal, "result", {})}))
        return refusal.exit
    from semiseg.data.codes import render

    for line in render(refusal.problems, getattr(refusal, "full", "the output of --json")):
        print(f"semiseg: error {line}", file=sys.stderr)
    return refusal.exit
