"""A trained cell is a result of a comparison where it was trained with what its words mean today."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from semiseg import storage
from semiseg.compare.grid import Cell
from semiseg.errors import CHECKPOINT, Problem, Refusal
from semiseg.methods import arguments, method_class
from semiseg.programs import PROGRAMS
from semiseg.programs.train import configure
from semiseg.training.config import FREE, RESOLVED, Config, split_name
from semiseg.training.origin import replaced
from semiseg.training.prepare import default_rate


def check(cell: Cell, run: Path) -> None:
    """Raises Refusal (exit 4) where a file of the user's own or a default is another one since the cell was trained."""
    record = storage.read_json(run / "run.json")
    today = configure(cell.options, list(cell.sets), None, {})
    if file := replaced(record, today.method, today.weights):
        fix = "put the old file back, or choose another --out"
        raise Refusal(Problem("S08", file, "changed since this cell was trained with it", fix), CHECKPOINT)
    new = _values(replace(today, lr=today.lr or default_rate(today)).to_json())
    old = _unsaid(today) | _values(Config().to_json() | record["config"])
    if changed := [f"{k}: {old.get(k)!r} → {v!r}" for k, v in new.items() if old.get(k) != v]:
        found = f"was trained with other settings than its words mean today: {', '.join(changed)}"
        fix = "remove its folder to train it anew, or go on with the version of semiseg that trained it"
        raise Refusal(Problem("S08", f"cells/{cell.name}", found, fix), CHECKPOINT)


def begun_otherwise(cell: Cell, run: Path) -> bool:
    """Was an unfinished training of this cell begun with another file of the user's own? Nothing of it is of use then."""
    if not (run / "run.json").exists():
        return False
    method = split_name(str(cell.options["method"]), PROGRAMS)[0]
    said = {"weights": cell.options.get("weights") or ""} | dict(text.split("=", 1) for text in cell.sets)
    with suppress(Refusal):  # weights that are not there: its own process says so
        return bool(replaced(storage.read_json(run / "run.json"), method, str(said["weights"])))
    return False


def _unsaid(config: Config) -> dict[str, Any]:
    """What an older version did that did not know of it: as by default, a method's own even where a program has another."""
    plain = configure({"method": config.name}, [], None, {})
    own = {f"{config.method}.{k}": v for k, v in arguments(method_class(config.method)).items()}
    return _values(plain.to_json()) | own


def _values(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings, and arguments as OWNER.argument; what was left to be chosen from the data (0) is not among them."""
    found = {k: v for k, v in config.items() if k not in FREE and not k.endswith("_args") and (v or k not in RESOLVED)}
    for part in ("method", "program"):
        found |= {f"{config[part]}.{k}": v for k, v in config[f"{part}_args"].items()}
    return found
