"""table.csv for machines, table.md for people: one row per data set, number of labels and arm."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

from semiseg import storage
from semiseg.compare import cells as running
from semiseg.compare.gather import Arm, Group, Json, average
from semiseg.compare.statistics import Interval

FIGURES = ("miou", "dice", "iou_per_image", "boundary_iou", "calibration_error", "mcce", "val_miou")
COLUMNS = ("data", "labels", "arm", "split", *FIGURES, "miou_per_seed", "delta", "low", "high", "delta_per_seed",
           "delta_to_average", "average_low", "average_high", "gap", "gap_recovered", "gap_low", "gap_high",
           "gap_note", "note", "seconds", "images_forwarded", "parameters", "seeds", "n_seeds", "n_images", "failed",
           "commit", "command")  # fmt: skip


def as_row(arm: Arm, group: Group, command: str) -> Json:
    """A line of table.csv; numbers as numbers, None where there is none."""
    f, gain, over, share = arm.figures, arm.gain, arm.over, arm.share
    inner = share.share if share else None
    return {
        "data": arm.data, "labels": arm.labels, "arm": arm.name, "split": group.split,
        **{k: average(f.get(k, [])) for k in FIGURES},
        "miou_per_seed": f.get("miou", []), "delta": gain and gain.value, "low": gain and gain.low,
        "high": gain and gain.high, "delta_per_seed": list(gain.per_seed) if gain else [],
        "delta_to_average": over and over.value, "average_low": over and over.low, "average_high": over and over.high,
        "gap": share and share.gap.value, "gap_recovered": inner and inner.value, "gap_low": inner and inner.low,
        "gap_high": inner and inner.high, "gap_note": share.why if share else "",
        "note": remark(arm), "seconds": average(f.get("seconds", [])),
        "images_forwarded": average(f.get("images_forwarded", [])), "parameters": average(f.get("parameters", [])),
        "seeds": arm.seeds, "n_seeds": len(arm.seeds), "n_images": group.images,
        "failed": "; ".join(f"seed {s}: {m}" for s, m in sorted(arm.failed.items())), "commit": running.commit(),
        "command": command,
    }  # fmt: skip


def remark(arm: Arm) -> str:
    """What a reader of the row must know beside its numbers."""
    said = []
    generations = zip(arm.figures.get("generation", []), arm.figures.get("last", []), strict=True)
    if back := sum(kept < last for kept, last in generations):
        said.append(f"earlier generation kept: {back} of {len(arm.seeds)}")
    if arm.failed:
        said.append(f"failed: {len(arm.failed)}")
    return "; ".join(said)


def write_csv(path: Path, groups: list[Group], command: str) -> list[Json]:
    """table.csv; returns its rows."""
    rows = [as_row(a, g, command) for g in groups for a in g.arms]
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: _cell(v) for k, v in row.items()} for row in rows)
    storage.write_text(path, text.getvalue())
    return rows


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return ";".join(str(_cell(v)) for v in value)
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else ""
    return "" if value is None else value


def digits(value: float | None, form: str = ".3f") -> str:
    """A number for people, or a dash."""
    return "–" if value is None or not math.isfinite(value) else format(value, form).replace("-", "−")


def span(found: Interval | None) -> str:
    """`+0.021 [+0.010, +0.034]`."""
    return (
        "–"
        if found is None
        else f"{digits(found.value, '+.3f')} [{digits(found.low, '+.3f')}, {digits(found.high, '+.3f')}]"
    )


def markdown(groups: list[Group], notes: list[str]) -> str:
    """table.md."""
    lines: list[str] = []
    for g in groups:
        lines += [f"## {g.data}, labels: {g.labels}", "", f"{g.split}, {g.images} images, 95 % intervals.", ""]
        lines += ["| arm | mIoU | Δ to labels only | gap recovered | Dice | IoU per image | seconds | images forwarded |",
                  "|---|---|---|---|---|---|---|---|"]  # fmt: skip
        for a in g.arms:
            f = a.figures
            if not f:
                lines.append(f"| {a.name} | failed | | | | | | |")
                continue
            gap = span(a.share.share) if a.share and a.share.share else (a.share.why if a.share else "–")
            cells = [digits(average(f[k])) for k in ("miou", "dice", "iou_per_image")]
            cost = [digits(average(f[k]), ",.0f") for k in ("seconds", "images_forwarded")]
            name = a.name.replace("|", "\\|") + (f" ({len(a.failed)} failed)" if a.failed else "")
            lines.append(
                f"| {name} | {cells[0]} | {span(a.gain)} | {gap} | {cells[1]} | {cells[2]} | {' | '.join(cost)} |"
            )
        if g.absent:
            lines += ["", f"Absent from {g.split} and left out of the means: {', '.join(g.absent)}."]
        lines.append("")
    return "\n".join([*lines, *(f"- {n}" for n in notes), ""])
