"""Finished cells of the experiments as rows: figures on val of one fixed model, what it cost, how it was set."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semiseg.storage import read_json
from semiseg.training.config import FREE
from shared import read

PLACE = ("stage", "data", "labels", "steps", "seed")
"""Cells that differ in their arm alone share these."""
SCORES = ("val_miou", "val_last", "shipped_val", "average_val")
"""Columns that are reckoned with."""


@dataclass(frozen=True)
class Cell:
    """One finished cell of a comparison in runs/STAGE-SET.

    steps: of the comparison's models, which K× rows have more of. row: its line of cells.csv; arguments: what it was set to.
    """

    stage: str
    steps: int
    row: dict[str, Any]
    run: Path
    summary: dict[str, Any]
    arguments: str

    @property
    def folded(self) -> bool:
        """Members were scored on labels that they did not see, so nothing of theirs is a figure on val."""
        return "out_of_fold" in self.summary["generations"][0]


def measured(runs: Path, stages: Collection[str]) -> Iterator[Cell]:
    """The cells of some stages."""
    for path in sorted(runs.glob("*/cells.csv")):
        stage = path.parent.name.partition("-")[0]
        if stage not in stages:
            continue
        steps = read_json(path.parent / "grid.json")["steps"]
        for row in read(path):
            if row["status"] == "finished":
                run = path.parent / "cells" / row["cell"]
                noted = _noted(read_json(run / "run.json")["config"])
                yield Cell(stage, steps, row, run, read_json(run / "summary.json"), noted)


def key(cell: Cell) -> dict[str, Any]:
    """The columns that say which cell a row is of."""
    return {"stage": cell.stage, **{k: cell.row[k] for k in ("data", "labels")}, "steps": cell.steps,
            **{k: cell.row[k] for k in ("seed", "arm")}}  # fmt: skip


def origin(cell: Cell) -> dict[str, Any]:
    """The columns that say where a row is from."""
    return {"commit": cell.row["commit"], "arguments": cell.arguments,
            "command": "python benchmarks/im_ablation.py"}  # fmt: skip


def figures(cell: Cell) -> dict[str, Any]:
    """The figure of an arm, what would be shipped, and what it cost.

    val_miou: of the last generation's first model, at its best step on val (below 20 val images at the last one), as every
    model of every arm; val_last: at its last step. average_val: of all models of generation 0 at prediction time. promoted:
    was that generation better than what there was? shipped_val: of the model that a run of this arm ships.
    """
    rows = cell.summary["generations"]
    first, last = rows[0], rows[-1]
    result = read_json(cell.run / last["members"][0]["folder"] / "final" / "result.json")
    average = next((a["val"] for a in cell.summary["arms"] if "average of" in a["name"]), None)
    shipped = cell.summary["model"]
    return {
        "val_miou": None if cell.folded else miou(result["val"]),
        "val_last": None if cell.folded else miou(result["val_last"]),
        "generation": last["generation"],
        "promoted": ("yes" if last["promoted"] else "no") if len(rows) > 1 else "",
        "shipped_generation": shipped["generation"], "shipped_val": None if cell.folded else miou(shipped["val"]),
        "members": len(first["members"]), "average_val": miou(average),
        "inconsistent_share": rounded(rows[-2]["inconsistent_share"]) if len(rows) > 1 else None,
        "seconds": cell.row["seconds"], "images_forwarded": cell.row["images_forwarded"], **origin(cell),
    }  # fmt: skip


def kept(table: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, and those of `table` that are of other cells: their folders may be gone, what they measured is not."""
    mine = {_named(r) for r in rows}
    old = [{**r, **{k: float(r[k]) if r[k] else None for k in SCORES if k in r}} for r in read(table)]
    old = [r for r in old if _named(r) not in mine]
    return sorted([*rows, *old], key=lambda r: (*_named(r)[:4], int(r["seed"])))


def with_deltas(rows: list[dict[str, Any]], centres: Mapping[str, str]) -> list[dict[str, Any]]:
    """The rows with delta_centre and delta_reference: val_miou minus that of the same stage, set, labels and seed.

    centres: stage -> its centre.
    """
    values: dict[tuple[Any, ...], float | None] = {(*_place(r), r["arm"]): r["val_miou"] for r in rows}

    def delta(row: dict[str, Any], other: str) -> float | None:
        base = values.get((*_place(row), other))
        return None if base is None or row["val_miou"] is None else rounded(row["val_miou"] - base)

    return [
        {**r, "delta_centre": delta(r, centres[r["stage"]]), "delta_reference": delta(r, r["reference"])} for r in rows
    ]


def means(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each stage, set, labels and arm: means over its seeds, the arms with the largest delta_centre first."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[*_place(row)[:-1], row["arm"]].append(row)
    made = []
    for (stage, data, labels, steps, arm), same in groups.items():
        figure = {k: mean(r[k] for r in same) for k in ("val_miou", "delta_centre", "delta_reference", "shipped_val")}
        place = {"stage": stage, "data": data, "labels": labels, "steps": int(steps)}
        made.append({**place, "arm": arm, "seeds": len(same), **figure})
    return sorted(
        made,
        key=lambda r: (r["stage"], r["data"], r["labels"], int(r["steps"]), -_or(r["delta_centre"], -9.0), r["arm"]),
    )


def print_means(rows: Iterable[dict[str, Any]]) -> None:
    """What a terminal shows."""
    for r in means(rows):
        shown = [f"{_or(r[k], float('nan')):{form}}" for k, form in (("val_miou", ".4f"), ("delta_centre", "+.4f"))]
        place = f"{r['stage']} {r['data']} {r['labels']:>4} {r['steps']:>5}"
        print(f"{place}  {shown[0]}  {shown[1]}  ({r['seeds']} seeds)  {r['arm']}")


def miou(val: dict[str, Any] | None) -> float | None:
    """mIoU of METRICS, to six digits."""
    return None if val is None else rounded(val["miou"])


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of what there is."""
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def rounded(value: float | None) -> float | None:
    """To six digits."""
    return None if value is None else round(value, 6)


def _or(value: float | None, other: float) -> float:
    return other if value is None else value


def _place(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(row[k]) for k in PLACE)


def _named(row: dict[str, Any]) -> tuple[str, ...]:
    return (*_place(row), row["arm"])


def _noted(config: dict[str, Any]) -> str:
    """key=value of a configuration as the run noted it, with all arguments of its method and program, typed or not."""
    own = {k: v for k, v in config.items() if k not in FREE | {"method", "program", "method_args", "program_args"}}
    for part in ("method", "program"):
        own |= {f"{config[part]}.{k}": v for k, v in config[f"{part}_args"].items()}
    return " ".join(f"{k}={v}" for k, v in own.items())
