"""How a command ends: every refusal becomes its lines and its exit code, everything else a bug report (exit 1)."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from semiseg.errors import BUG, RESOURCES, USAGE, Problem, Refusal


def guarded(work: Callable[[], Any], debug: bool, as_json: bool) -> int:
    """The exit code of `work`; says why on stderr (with --json as an object on stdout)."""
    try:
        code = work()
        return code if isinstance(code, int) else 0
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
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
    if kind == "Abort":
        return 130
    if hasattr(error, "format_message"):
        return _say(Refusal(_usage(error), USAGE), as_json)
    if kind == "Stopped":  # training stopped on a signal, after a checkpoint
        again = getattr(error, "again", "")
        print(f"semiseg: {error}; the state is saved. {again}", file=sys.stderr)
        return int(getattr(error, "code", 143))
    if kind in ("OutOfMemoryError", "MemoryError"):
        fix = "use a smaller --batch or --size, or --set precision=bf16-mixed"
        return _say(Refusal(Problem("R04", "memory", "ran out", fix), RESOURCES), as_json)
    from semiseg.methods import LOADED

    frames = [f for f in traceback.extract_tb(error.__traceback__) if os.path.realpath(f.filename) in LOADED]
    if frames:  # a method in a file of the user's own
        where = f"{LOADED[os.path.realpath(frames[-1].filename)]}:{frames[-1].lineno}"
        fix = "correct it and go on with --resume auto; --debug prints the whole way there"
        return _say(Refusal(Problem("C03", where, f"fails: {kind}: {error}", fix), USAGE), as_json)
    found = f"met a bug of its own: {kind}: {error}"
    fix = "run it again with --debug and report what it prints"
    return _say(Refusal(Problem("B01", "semiseg", found, fix), BUG), as_json)


def _usage(error: Any) -> Problem:
    """What the parser did not understand; it names the nearest option or command itself where there is one."""
    message = error.format_message().rstrip(".?")
    hint = "" if "Did you mean" in message or "Possible" in message else "semiseg --help shows what there is"
    return Problem("C01", "command line", f"is not understood: {message}", hint)


def _say(refusal: Refusal, as_json: bool) -> int:
    if as_json:
        said = {"exit": refusal.exit, "problems": [p.to_json() for p in refusal.problems]}
        print(json.dumps({"error": said, **getattr(refusal, "result", {})}))
        return refusal.exit
    from semiseg.data.codes import render

    for line in render(refusal.problems, "the output of --json"):
        print(f"semiseg: error {line}", file=sys.stderr)
    return refusal.exit
