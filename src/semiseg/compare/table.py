"""table.csv for machines, table.md for people: one row per data set, number of labels and arm."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from semiseg import storage
from semiseg.compare.gather import Arm, Group, Json, average
from semiseg.compare.statistics import BLOCKS, TOO_FEW, Interval
from semiseg.report.markup import plural

FIGURES = ("miou", "dice", "iou_per_image", "boundary_iou", "calibration_error", "mcce", "mean_risk", "val_miou",
           "val_last")  # fmt: skip
COLUMNS = ("data", "labels", "arm", "split", *FIGURES, "miou_per_seed", "delta", "low", "high", "delta_per_seed",
           "delta_to_best", "best_low", "best_high", "delta_to_average", "average_low", "average_high", "gap",
           "gap_recovered", "gap_low", "gap_high", "gap_note", "note", "seconds", "images_forwarded", "parameters",
           "seeds", "n_seeds", "n_images", "failed", "commit", "command")  # fmt: skip
PAIRS = ("data", "labels", "split", "arm", "rival", "delta", "low", "high", "delta_per_seed", "n_seeds", "n_images")


def as_row(arm: Arm, group: Group, command: str) -> Json:
    """A line of table.csv; numbers as numbers, None where there is none."""
    f, gain, share = arm.figures, arm.gain, arm.share
    row = {
        "data": arm.data, "labels": arm.labels, "arm": arm.name, "split": group.split,
        **{k: average(f.get(k, [])) for k in FIGURES}, "miou_per_seed": f.get("miou", []),
        **_bounds(gain, "delta", "low", "high"), "delta_per_seed": list(gain.per_seed) if gain else [],
        **_bounds(arm.best, "delta_to_best", "best_low", "best_high"),
        **_bounds(arm.over, "delta_to_average", "average_low", "average_high"),
        "gap": share and share.gap.value, **_bounds(share.share if share else None, "gap_recovered", "gap_low", "gap_high"),
        "gap_note": share.why if share else "", "note": "; ".join(filter(None, (remark(arm), _unsure(gain, group)))),
        "seconds": average(f.get("seconds", [])), "images_forwarded": average(f.get("images_forwarded", [])),
        "parameters": average(f.get("parameters", [])),
        "seeds": arm.seeds, "n_seeds": arm.counted, "n_images": group.images,
        "failed": "; ".join(f"seed {s}: {m}" for s, m in sorted(arm.failed.items())), "commit": arm.commits,
        "command": command,
    }  # fmt: skip
    return {k: _known(v) for k, v in row.items()}


def _unsure(gain: Interval | None, group: Group) -> str:
    """Why a difference has no interval, or is none."""
    if gain is None or math.isfinite(gain.low):
        return ""
    return TOO_FEW if math.isfinite(gain.value) else nothing(group)


def nothing(group: Group) -> str:
    """Why there is no mIoU."""
    return f"no mIoU: the truth of {group.split} has no pixel of {', '.join(group.absent) or 'any class'}"


def pair_rows(groups: Iterable[Group]) -> list[Json]:
    """The lines of pairs.csv; low and high are None where there are too few images for an interval."""
    return [
        {
            "data": g.data, "labels": g.labels, "split": g.split, "arm": arm, "rival": rival,
            **{k: _known(v) for k, v in _bounds(gain, "delta", "low", "high").items()},
            "delta_per_seed": list(gain.per_seed), "n_seeds": len(gain.per_seed), "n_images": g.images,
        }
        for g in groups
        for (arm, rival), gain in g.pairs.items()
    ]  # fmt: skip


def _bounds(found: Interval | None, *names: str) -> Json:
    """A figure and its bounds under three names."""
    values = (found.value, found.low, found.high) if found else (None, None, None)
    return dict(zip(names, values, strict=True))


def _known(value: Any) -> Any:
    """None for a number that is none: JSON has no word for it."""
    if isinstance(value, list):
        return [_known(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def remark(arm: Arm) -> str:
    """What a reader of the row must know beside its numbers."""
    said = []
    generations = zip(arm.figures.get("generation", []), arm.figures.get("last", []), strict=True)
    back = sum(0 < kept < last for kept, last in generations)
    if arm.figures and arm.kept:
        said.append(f"kept generation 0 in {arm.kept} of {len(arm.seeds)}")
    if back:
        said.append(f"earlier generation kept in {back} of {len(arm.seeds)}")
    if arm.counted < len(arm.seeds):
        said.append(f"Δ over {plural(arm.counted, 'seed')} of {len(arm.seeds)}")
    if arm.failed:
        said.append(f"failed: {len(arm.failed)}")
    return "; ".join(said)


def limits(group: Group) -> list[str]:
    """What the seeds and images of a group cannot tell."""
    compared = [a.counted for a in group.arms if a.gain is not None]
    seeds = max(compared or [len(a.seeds) for a in group.arms], default=0)
    said: list[str] = []
    if not seeds:
        return said
    if seeds == 1:
        said.append("One seed cannot tell a method from luck: intervals cover the choice of images only.")
    elif seeds < 5:
        said.append(f"{seeds} seeds: intervals from so few are too short; see docs/how-to/compare.md.")
    if group.blocks < BLOCKS:
        runs = f" in {group.blocks} runs" if group.blocks < group.images else ""
        said.append(f"{plural(group.images, 'image')}{runs}: {TOO_FEW}, which takes at least {BLOCKS}.")
    return said


def write_csv(path: Path, rows: list[Json], columns: Sequence[str] = COLUMNS) -> None:
    """table.csv, or another table of figures, lists and words."""
    storage.write_csv(path, columns, ({k: _cell(v) for k, v in row.items()} for row in rows))


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return ";".join(str(_cell(v)) for v in value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else value


def digits(value: float | None, form: str = ".3f") -> str:
    """A number for people, or a dash."""
    if value is None or not math.isfinite(value):
        return "–"
    text = format(value, form)
    nothing = not any(digit in text for digit in "123456789")  # −0.000 would look like a loss
    return text.replace("-", "−" if not nothing else "+" if "+" in form else "")


def span(found: Interval | None) -> str:
    """`+0.021 [+0.010, +0.034]`."""
    return "–" if found is None else bounds(found.value, found.low, found.high)


def bounds(value: float | None, low: float | None, high: float | None) -> str:
    """A difference and its interval, or the difference alone where the images are too few for one."""
    if low is None or not math.isfinite(low):
        return digits(value, "+.3f")
    return f"{digits(value, '+.3f')} [{digits(low, '+.3f')}, {digits(high, '+.3f')}]"


def markdown(groups: list[Group], notes: list[str]) -> str:
    """table.md."""
    lines: list[str] = []
    for g in groups:
        lines += [f"## {g.data}, labels: {g.labels}", "", f"{g.split}, {g.images} images, 95 % intervals."]
        lines += [" ".join(limits(g)), ""]
        rows = [_columns(a) for a in g.arms]
        used = [k for k in max(rows, key=len) if any(r.get(k, "–") != "–" for r in rows)]
        lines += [_line(used), "|" + "---|" * len(used), *(_line([r.get(k, "–") for k in used]) for r in rows)]
        if g.absent:
            lines += ["", f"Absent from the truth of {g.split} and left out of the means: {', '.join(g.absent)}."]
        lines.append("")
    return "\n".join([*lines, *(f"- {n}" for n in notes), ""])


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(c.replace('|', chr(92) + '|') for c in cells)} |"


def _columns(arm: Arm) -> dict[str, str]:
    """A line of table.md. What no arm of the group has is no column."""
    f = arm.figures
    if not f:
        return {"arm": arm.name, "mIoU": "failed", "remarks": remark(arm)}
    mean = {k: average(v) for k, v in f.items() if k != "risk"}
    share = arm.share
    return {
        "arm": arm.name, "mIoU": digits(mean["miou"]), "Δ to labels only": span(arm.gain),
        "Δ to best of K": span(arm.best), "Δ to average of K": span(arm.over),
        "gap recovered": "–" if share is None else span(share.share) if share.share else share.why,
        "Dice": digits(mean["dice"]), "IoU per image": digits(mean["iou_per_image"]),
        "boundary IoU": digits(mean["boundary_iou"]), "calibration error": digits(mean["calibration_error"]),
        "MCCE": digits(mean["mcce"], ".2f"), "val, best": digits(mean["val_miou"]), "val, last": digits(mean["val_last"]),
        "seconds": digits(mean["seconds"], ",.0f"), "images forwarded": digits(mean["images_forwarded"], ",.0f"),
        "seeds": str(arm.counted), "remarks": remark(arm) or "–",
    }  # fmt: skip
