"""Methods under one budget: plan a grid, run it, read test once, and say with intervals what came of it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from semiseg import storage
from semiseg.compare import cells, gather, page, reading, table
from semiseg.compare.grid import Cell, Grid, plan
from semiseg.compare.request import Request
from semiseg.errors import BUSY, CHECKPOINT, Problem, Refusal
from semiseg.training.logs import Log
from semiseg.training.signals import STOP, Stopped

FREE = ("jobs", "blocks", "out", "methods", "seeds", "labels", "data", "split", "baselines")
"""What may differ when the same folder is used again: more of everything, but no other budget."""


def compare(
    request: Request, command: str = "", quiet: bool = False, begin: cells.Start | None = None
) -> dict[str, Any]:
    """Run a comparison into request.out, or what is missing of it; returns rows, cells and paths.

    Raises Refusal before anything runs when something is wrong with the request or its data (exit 2 or 3), when the folder
    holds a comparison with another budget or other data (4) or is in use (7). A failed cell is a row, not an exception.
    """
    out = request.out
    log = Log(quiet=quiet)
    _budget(request)
    with log.bar("reading the folders", 1) as bar:
        grid = plan(request, lambda done, total: bar(done, total), _noted(out).get("sizes"))
    storage.make_folder(out)
    with storage.lock(out):
        budget = _budget(request)  # once more: another call may have begun here while the folders were read
        _same_data(out, budget, grid)
        storage.sweep(out)
        grid.notes += _unasked(out, grid)
        for text in grid.notes:
            log.say(f"Note: {text}.")
        log.say(f"{len(grid.cells)} cells, {sum(c.steps for c in grid.cells)} steps in total, into {out}.")

        def stop(done: int) -> None:
            if STOP.requested:
                raise Stopped(STOP.requested)

        def read(cell: Cell, run: Path) -> float | None:
            made = reading.read(run, cell.path, cell.split, cell.arm, stop)
            return gather.average([float(gather.miou(next(r for r in made if r.part.shipped).found.sum(0)))])

        STOP.install()
        try:
            rows = cells.Runner(grid, log, read, begin or cells.start).run()
        except Stopped as stopped:
            stopped.again = "The same command goes on where it stopped."
            raise
        finally:
            STOP.release()
        groups = gather.gather(grid, rows)
        made = [table.as_row(a, g, command) for g in groups for a in g.arms]
        table.write_csv(out / "table.csv", made)
        table.write_csv(out / "pairs.csv", table.pair_rows(groups), table.PAIRS)
        storage.write_text(out / "table.md", table.markdown(groups, grid.notes))
        page.write(out / "compare.html", grid, groups, rows, command)
    failed = [{"cell": r.cell, "message": r.message} for r in rows if r.status == "failed"]
    return {
        "out": str(out), "report": str(out / "compare.html"), "table": made, "cells": [asdict(r) for r in rows],
        "failed": failed, "notes": grid.notes, "limits": list(dict.fromkeys(t for g in groups for t in table.limits(g))),
    }  # fmt: skip


def _budget(request: Request) -> dict[str, Any]:
    """What every cell has in common. Refuses a folder that is no comparison, or one with another budget."""
    out = request.out
    mine = {k: v for k, v in asdict(request).items() if k not in FREE}
    if before := _noted(out):
        if changed := _changes(before, mine):
            fix = "repeat the old settings, or choose another --out"
            found = f"holds a comparison with another budget: {'; '.join(changed)}"
            raise Refusal(Problem("S08", str(out), found, fix), CHECKPOINT)
    elif out.exists() and (
        not out.is_dir() or any(p.name != ".lock" and not storage.leftover(p.name) for p in out.iterdir())
    ):
        raise Refusal(Problem("S10", str(out), "is not empty and holds no comparison", "choose another --out"), BUSY)
    return mine


def _changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """`key: old → new` of everything that differs, options one by one."""
    old, new = ({**{k: v for k, v in b.items() if k != "options"}, **b.get("options", {})} for b in (before, now))
    keys = [k for k in dict.fromkeys([*new, *before.get("options", {})]) if old.get(k) != new.get(k)]
    return [f"{k}: {old.get(k, 'the default')} → {new.get(k, 'the default')}" for k in keys]


def _same_data(out: Path, budget: dict[str, Any], grid: Grid) -> None:
    """Note in grid.json what was compared on. Refuses data that were others when the comparison saw them first."""
    before = _noted(out) or budget
    known = before.get("data", {})
    fix = "restore the data, or choose another --out"
    changed = [
        Problem("S09", str(grid.path(key)), f"holds other images, masks or lists than '{key}' of {out} did", fix)
        for key, found in grid.data.items() if known.get(key, found) != found
    ]  # fmt: skip
    if changed:
        raise Refusal(changed, CHECKPOINT)
    sizes = {**grid.sizes, **before.get("sizes", {})}
    storage.write_json(out / "grid.json", {**before, "data": {**known, **grid.data}, "sizes": sizes})


def _noted(out: Path) -> dict[str, Any]:
    """grid.json of a comparison; {} for a new one."""
    return storage.read_json(out / "grid.json") if (out / "grid.json").exists() else {}


def _unasked(out: Path, grid: Grid) -> list[str]:
    """A note on cells that earlier calls finished and this one leaves out of its tables."""
    mine = {cell.name for cell in grid.cells}
    left = sorted(p.parent.name for p in (out / "cells").glob("*/summary.json") if p.parent.name not in mine)
    if not left:
        return []
    some = ", ".join(left[:3]) + (", …" if len(left) > 3 else "")
    return [
        f"left out of the tables, since nobody asked for their rows this time: {len(left)} finished before ({some})"
    ]


def summary(result: dict[str, Any]) -> list[str]:
    """What a terminal shows: the rows of every data set, failures, where the page is."""
    lines: list[str] = []
    place: tuple[str, str] | None = None
    width = max((len(r["arm"]) for r in result["table"]), default=3)
    for row in result["table"]:
        if place != (row["data"], row["labels"]):
            place = (row["data"], row["labels"])
            lines += ["", f"{row['data']}, labels: {row['labels']} ({row['split']}, {row['n_images']} images)",
                      f"{'':{width}}   mIoU   Δ to labels only, 95 %      gap recovered"]  # fmt: skip
        gap = row["gap_note"] if row["gap_recovered"] is None else f"{row['gap_recovered']:.0%}"
        note = f"  ({row['note']})" if row["note"] else ""
        shown = table.bounds(row["delta"], row["low"], row["high"]) if row["delta"] is not None else ""
        lines.append(f"{row['arm']:{width}}  {table.digits(row['miou']):>6}  {shown:26} {gap}{note}".rstrip())
    lines += [f"Failed: {f['cell']}: {f['message']}" for f in result["failed"]]
    return [*lines[1:], "", *result["limits"], f"table: {result['out']}/table.csv", f"report: {result['report']}"]
