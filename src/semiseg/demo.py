"""`semiseg demo`: a made-up culture of cells, three ways of training on it, one table and a report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from semiseg import storage
from semiseg.data.synthetic import write_cells
from semiseg.errors import BUSY, Problem, Refusal
from semiseg.programs.train import existing, train
from semiseg.report import write_report
from semiseg.training.signals import Stopped

CELLS: dict[str, int] = {"labeled": 8, "unlabeled": 202, "val": 40, "test": 80, "size": 96, "seed": 0}
TRAINING: dict[str, Any] = {"size": 64, "batch": 4, "steps": 1000, "lr": 0.005, "seed": 0, "network": "unet1x1"}
MADE = {"cells", "cells-quick", "ensemble", "im", ""}  # up to the first dot: a file browser leaves .files behind
QUICK_CELLS: dict[str, int] = {"labeled": 6, "unlabeled": 10, "val": 4, "test": 4, "size": 64, "seed": 0}
QUICK: dict[str, Any] = {"size": 48, "batch": 4, "steps": 12, "seed": 0, "network": "unet1x1"}


def demo(out: Path, *, quick: bool = False, quiet: bool = False) -> dict[str, Any]:
    """Train supervised, ensemble and im on generated cells with one shared committee; returns the table and the report.

    A demo folder that is there already is made anew; one that holds anything else is refused (exit 7), as is a run
    folder that is none, or one of either that is in use. Everything is deterministic on one machine.
    """
    cells, training = (QUICK_CELLS, QUICK) if quick else (CELLS, TRAINING)
    data = out / ("cells-quick" if quick else "cells")
    storage.make_folder(out)
    if names := sorted(p.name for p in out.iterdir() if p.name.partition(".")[0] not in MADE):
        found = f"is not empty ({', '.join(names[:3])}{', …' if len(names) > 3 else ''}) and is no demo"
        raise Refusal(Problem("S10", str(out), found, "choose another --out"), BUSY)
    runs = [out / "ensemble", out / "im"]
    for run in runs:
        existing(run, str(data), "auto")
    common: dict[str, Any] = {**training, "quiet": quiet}
    with storage.lock(out):
        for run in runs:
            with storage.lock(run):  # refuses to take away what somebody goes on training
                pass
        for run in runs:
            storage.remove(run)
        write_cells(data, **cells)
        try:
            ensemble = train(data, runs[0], method="ensemble", **common)
            im = train(data, runs[1], method="im", reuse=str(runs[0]), **common)
        except Stopped as stopped:
            stopped.again = "The same command makes the demo anew."
            raise
        return _told(out, data, ensemble, im)


def _told(out: Path, data: Path, ensemble: dict[str, Any], im: dict[str, Any]) -> dict[str, Any]:
    """The arms of both runs in the report of one."""
    taught = ensemble["arms"][-1]
    first = [arm for arm in im["arms"][:-1] if not arm["name"].startswith("im,")]
    arms = [*first, {**taught, "folder": f"../ensemble/{taught['folder']}"}, im["arms"][-1]]
    storage.write_json(out / "im" / "summary.json", {**im, "arms": arms})
    return {
        "arms": arms,
        "report": str(write_report(out / "im")),
        "data": str(data),
        "runs": [str(out / "ensemble"), str(out / "im")],
    }
