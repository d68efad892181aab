"""The charts of a comparison: differences with intervals and a dot per seed, curves, labels, risk and coverage."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from semiseg.compare.gather import Arm, Group, average
from semiseg.compare.request import BASE
from semiseg.compare.scores import COVERAGE
from semiseg.compare.table import digits, span
from semiseg.report.charts import Series, line_chart, ticks
from semiseg.report.load import logged, read_rows
from semiseg.report.markup import esc, name

HEIGHT = 26


def color_of(arm: str, arms: Sequence[str]) -> int:
    """A colour of the style sheet; labels only is 0, in every chart the same arm has the same."""
    return 0 if arm == BASE else 1 + [a for a in arms if a != BASE].index(arm) % 7


def legend(arms: Sequence[str], shown: Sequence[str]) -> str:
    """The names and colours of the arms that a chart shows."""
    items = [f'<li><i class="swatch s{color_of(a, arms)}"></i>{name(a)}</li>' for a in arms if a in shown]
    return f'<ul class="legend">{"".join(items)}</ul>' if items else ""


def deltas(group: Group) -> str:
    """Δ to labels only of every arm: the interval as a bar, a dot for each seed, a line at 0."""
    rows = [a for a in group.arms if a.gain is not None and math.isfinite(a.gain.value)]
    if not rows:
        return ""
    values = [0.0]
    for a in rows:
        assert a.gain is not None
        values += [v for v in (a.gain.value, a.gain.low, a.gain.high, *a.gain.per_seed) if math.isfinite(v)]
    marks = ticks(min(values), max(values), 5)
    low, high = min(marks[0], *values), max(marks[-1], *values)

    def at(value: float) -> float:
        return round(2 + 96 * (value - low) / ((high - low) or 1), 2)

    lines = "".join(_vertical(at(m), "grid") for m in marks) + _vertical(at(0), "zero")
    items = [f"<li>{_label(a)}{_track(a, at, lines)}{_value(a)}</li>" for a in rows]
    axis = "".join(
        f'<text class="tick" x="{at(m)}%" y="14" text-anchor="middle">{esc(_plain(m))}</text>' for m in marks
    )
    items.append(f'<li class="axis-row"><span></span><svg role="img" aria-label="Δ mIoU">{axis}</svg></li>')
    return f'<ul class="deltas">{"".join(items)}</ul>'


def _plain(value: float) -> str:
    return f"{value:+g}".replace("-", "−") if value else "0"


def _vertical(x: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x}%" x2="{x}%" y1="0" y2="{HEIGHT}"/>'


def _label(arm: Arm) -> str:
    own = " method" if arm.asked else ""
    return f'<span class="arm{own}">{name(arm.name)}</span>'


def _value(arm: Arm) -> str:
    return f'<span class="value">{esc(span(arm.gain)).replace(" ", "&nbsp;")}</span>'


def _track(arm: Arm, at: Callable[[float], float], lines: str) -> str:
    gain = arm.gain
    assert gain is not None
    middle = HEIGHT / 2
    kind = (
        "plain" if not math.isfinite(gain.low) or gain.low <= 0 <= gain.high else "better" if gain.low > 0 else "worse"
    )
    parts = [lines]
    if math.isfinite(gain.low):
        parts.append(f'<line class="span" x1="{at(gain.low)}%" x2="{at(gain.high)}%" y1="{middle}" y2="{middle}"/>')
    parts.append(f'<circle class="mean" cx="{at(gain.value)}%" cy="{middle}" r="6"/>')
    for seed, value in zip(arm.paired, gain.per_seed, strict=True):
        if math.isfinite(value):
            tip = f"<title>seed {seed}: {digits(value, '+.4f')}</title>"
            parts.append(f'<circle class="seed" cx="{at(value)}%" cy="{middle}" r="3">{tip}</circle>')
    said = f"{arm.name}: {span(gain)} to labels only"
    body = "".join(parts)
    return f'<svg class="{kind}" role="img" aria-label="{esc(said)}">{body}</svg>'


def curves(group: Group) -> str:
    """mIoU on val over the steps of the shown member of every arm and of the generations before it, a mean over seeds."""
    arms = [a.name for a in group.arms]
    series = []
    for arm in group.arms:
        if not any(word in arm.name for word in (", average", ", best of")) and (points := _curve(arm)):
            series.append(Series(arm.name, color_of(arm.name, arms), points))
    chart = line_chart(
        series, "mIoU on val over training, one generation after the other", "mIoU on val, mean over seeds"
    )
    return chart and legend(arms, [s.name for s in series]) + chart


def _curve(arm: Arm) -> list[tuple[float, float]]:
    found: dict[float, list[float]] = defaultdict(list)
    for folders in arm.folders.values():
        own = folders[0].parent if folders[0].name.startswith("snapshot-") else folders[0]  # the training it is of
        for step, value in in_a_row(own):
            found[step].append(value)
    return [(step, sum(v) / len(v)) for step, v in sorted(found.items()) if len(v) == len(arm.folders)]


def in_a_row(member: Path) -> list[tuple[float, float]]:
    """(step, mIoU on val) of a member after the first members of the generations before its own, whose steps count."""
    number = member.parent.name.removeprefix("generation-")
    before = [
        member.parent.with_name(f"generation-{g}") / "member-0" for g in range(int(number) if number.isdigit() else 0)
    ]
    rows: list[tuple[float, float]] = []
    for folder in (*before, member):
        past = rows[-1][0] if rows else 0.0
        log = read_rows(folder / "metrics.csv", [])
        rows += [(past + step, value) for step, value in logged(log, "val", "miou")]
    return rows


def over_labels(groups: Sequence[Group]) -> str:
    """mIoU over the number of labels that were trained on, for every arm with two or more of them."""
    arms = list(dict.fromkeys(a.name for g in groups for a in g.arms))
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for group in groups:
        base = group.arm(BASE)
        if base is None:
            continue
        labeled = next(iter(base.summaries.values()))["counts"]["labeled"]
        for arm in group.arms:
            value = average(arm.figures.get("miou", []))
            if value is not None:
                points[arm.name].append((float(labeled), value))
    series = [Series(a, color_of(a, arms), sorted(p)) for a, p in points.items() if len(p) > 1]
    split = groups[0].split
    chart = line_chart(series, f"mIoU on {split} over labels", f"mIoU on {split}", x_name="labeled images")
    return chart and legend(arms, [s.name for s in series]) + chart


def risk(group: Group) -> str:
    """1 - mIoU of the images kept, least inconsistent first: does disagreement tell which images to distrust?"""
    arms = [a.name for a in group.arms]
    series = []
    for arm in group.arms:
        rows = [r for r in arm.figures.get("risk", []) if r is not None]
        if rows and all(math.isfinite(v) for r in rows for v in r):
            means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
            shares = [100 * c for c in COVERAGE]
            series.append(Series(arm.name, color_of(arm.name, arms), list(zip(shares, means, strict=True))))
    chart = line_chart(series, "Risk over coverage", "1 − mIoU of the images kept", x_name="% of the images kept")
    return chart and legend(arms, [s.name for s in series]) + chart
