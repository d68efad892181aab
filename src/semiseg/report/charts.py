"""Charts as inline SVG and bars as HTML: colours come from the style sheet, so they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from semiseg.report.markup import count, esc, percent, score

Points = Sequence[tuple[float, float]]
WIDTH, HEIGHT = 440, 250
LEFT, RIGHT, TOP, BOTTOM = 46, 22, 14, 40
POINTS = 160
"""At most so many points a line; more are averaged in groups."""


@dataclass(frozen=True)
class Series:
    """A line: its name for the tooltip, its colour as a number of the style sheet (0 = labels only), its points."""

    name: str
    color: int
    points: Points


def line_chart(
    series: Sequence[Series], label: str, y_name: str, *, line: tuple[str, float] | None = None, x_name: str = "step"
) -> str:
    """Lines over steps (or `x_name`); `line` is a dashed reference (name, value). Empty when nothing has a point."""
    drawn = [Series(s.name, s.color % 8, _thin(s.points)) for s in series if s.points]
    if not drawn:
        return ""
    xs = [x for s in drawn for x, _ in s.points]
    ys = [y for s in drawn for _, y in s.points] + ([line[1]] if line else [])
    y_ticks = ticks(min(ys), max(ys))
    low, high = min(y_ticks[0], min(ys)), max(y_ticks[-1], max(ys))
    first, last = min(xs), max(xs)

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - first) / (last - first) if last > first else 0.5
        up = (y - low) / (high - low) if high > low else 0.5
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = [_grid(y_ticks, [at(first, y)[1] for y in y_ticks])]
    parts += [_text(at(x, low)[0], HEIGHT - 22, count(x), "middle") for x in _few(ticks(first, last), first, last)]
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 5, x_name, "middle"))
    if line:
        y = at(first, line[1])[1]
        tip = f"<title>{esc(line[0])}: {score(line[1])}</title>"
        parts.append(f'<path class="reference" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}">{tip}</path>')
    dots = sum(len(s.points) for s in drawn) <= 400
    for s in drawn:
        parts.append(_line(s, [at(x, y) for x, y in s.points], dots, x_name))
    ends = [(s.name, s.points[0], s.points[-1]) for s in drawn]
    said = [f"{n}: {a[1]:.3g} at {x_name} {a[0]:.10g}, {b[1]:.3g} at {x_name} {b[0]:.10g}." for n, a, b in ends]
    return _svg(" ".join([f"{label}.", *said]), parts, y_name)


def histogram(values: Sequence[float], label: str, bins: int = 12) -> str:
    """How many images have which share (values in [0,1]); the axis ends at the next round share above the largest."""
    if not values:
        return ""
    top = ticks(0.0, max(max(values), 0.01))[-1]
    counts = [0] * bins
    for value in values:
        counts[min(bins - 1, max(0, int(value / top * bins)))] += 1
    y_ticks = sorted({float(round(t)) for t in ticks(0.0, float(max(counts)))})
    high = max(y_ticks[-1], max(counts))
    span, wide = HEIGHT - TOP - BOTTOM, (WIDTH - LEFT - RIGHT) / bins
    parts = [_grid(y_ticks, [HEIGHT - BOTTOM - y / high * span for y in y_ticks])]
    for index, found in enumerate(counts):
        tall = found / high * span
        tip = f"{percent(index * top / bins)} to {percent((index + 1) * top / bins)}: {found} images"
        parts.append(
            f'<rect class="bin" x="{LEFT + index * wide + 1:.1f}" y="{HEIGHT - BOTTOM - tall:.1f}" '
            f'width="{wide - 2:.1f}" height="{tall:.1f}" rx="2"><title>{esc(tip)}</title></rect>'
        )
    for share in (0.0, top / 2, top):
        x = LEFT + share / top * (WIDTH - LEFT - RIGHT)
        parts.append(_text(x, HEIGHT - 22, f"{100 * share:.3g} %", "end" if share == top else "middle"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 5, "inconsistent share of the image", "middle"))
    most = max(range(bins), key=counts.__getitem__)
    said = f"{label}: {len(values)} images, largest share {percent(max(values))}, most images between "
    return _svg(said + f"{percent(most * top / bins)} and {percent((most + 1) * top / bins)}.", parts, "images")


def bar(value: float | None, kind: str = "", mark: float | None = None) -> str:
    """A horizontal bar of a value in [0,1] with an optional mark; its number stands beside it."""
    width = 0.0 if value is None else 100 * min(1.0, max(0.0, value))
    tick = "" if mark is None else f'<i class="mark" style="left:{100 * min(1.0, max(0.0, mark)):.2f}%"></i>'
    return f'<span class="bar {kind}" aria-hidden="true"><i class="fill" style="width:{width:.2f}%"></i>{tick}</span>'


def ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """Round numbers that enclose [low, high], about `wanted` steps apart."""
    if high - low <= 1e-6 * max(abs(low), abs(high), 1e-3):  # equal, as far as a chart can show
        room = 0.1 * abs(low) if abs(low) > 1e-3 else 0.5
        low, high = low - room, high + room
    raw = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * f for f in (1, 2, 2.5, 5, 10) if power * f >= raw * 0.999)
    start, stop = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(start, stop + 1)]


def _few(values: Sequence[float], first: float, last: float) -> list[float]:
    return [v for v in values if first <= v <= last] or [first]


def _thin(points: Points) -> list[tuple[float, float]]:
    """At most POINTS points: groups by their mean value at their last step."""
    size = max(1, math.ceil(len(points) / POINTS))
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(g[-1][0], sum(y for _, y in g) / len(g)) for g in groups]


def _grid(values: Sequence[float], heights: Sequence[float]) -> str:
    lines = "".join(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>' for y in heights)
    return lines + "".join(_text(LEFT - 6, y + 4, f"{v:g}", "end") for v, y in zip(values, heights, strict=True))


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{esc(text)}</text>'


def _line(series: Series, places: Sequence[tuple[float, float]], dots: bool, x_name: str) -> str:
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    parts = [f'<path class="line" d="{path}"><title>{esc(series.name)}</title></path>']
    if dots and len(places) <= 30:
        for (x, y), (step, value) in zip(places, series.points, strict=True):
            tip = f"<title>{esc(series.name)}, {x_name} {step:.10g}: {value:.3g}</title>"
            parts.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3">{tip}</circle>')
    return f'<g class="s{series.color}">{"".join(parts)}</g>'


def _svg(said: str, parts: Sequence[str], y_name: str) -> str:
    title = f'<figcaption class="axis">{esc(y_name)}</figcaption>'
    body = "".join(parts)
    return (
        f'<figure class="chart">{title}<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{esc(said)}">'
        f"{body}</svg></figure>"
    )
