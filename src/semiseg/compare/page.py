"""compare.html: verdict, differences, tables, curves and pictures in one file that loads nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from semiseg.compare import figures
from semiseg.compare.cells import Row
from semiseg.compare.gather import Arm, Group, average
from semiseg.compare.grid import LARGEST, Grid
from semiseg.compare.pictures import side_by_side
from semiseg.compare.request import BASE
from semiseg.compare.statistics import BLOCKS, TOO_FEW, Interval
from semiseg.compare.table import bounds, digits, limits, nothing, remark, span
from semiseg.report.markup import command, count, duration, esc, name, note, section, table, terms
from semiseg.report.page import ALONE, document
from semiseg.training.origin import distinct

Column = Callable[[Arm], str]
BUDGET = 4_000_000
JOINT = (
    "its interval holds for all methods at once: from the same draws, as wide as the largest deviation among them asks, "
    "and wider for few seeds; a method whose models are all of generation 0 is not credited"
)
STYLE = """
.deltas { margin: 0 0 1rem; padding: .6rem clamp(10px, 1.6vw, 18px); list-style: none; background: var(--card);
  border: 1px solid var(--line); border-radius: 10px; font-size: .93rem; }
.deltas li { display: grid; grid-template-columns: minmax(0, 15rem) minmax(0, 1fr) 11.5rem; gap: .2rem 1rem;
  align-items: center; padding: .2rem 0; }
.deltas svg { display: block; width: 100%; height: 26px; overflow: visible; }
.deltas .arm { min-width: 0; } .deltas .method { font-weight: 600; }
.deltas .value { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.deltas .zero { stroke: var(--ink); stroke-width: 1.5; }
.deltas .span { stroke: currentColor; stroke-width: 5; stroke-linecap: round; opacity: .35; }
.deltas .mean { fill: currentColor; } .deltas .seed { fill: var(--card); stroke: var(--ink); stroke-width: 1.2; }
.deltas .plain { color: var(--s0); } .deltas .better { color: var(--up); } .deltas .worse { color: var(--down); }
.small { color: var(--quiet); font-size: .85em; font-weight: 400; white-space: nowrap; }
.pictures.many { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(46%, 148px), 1fr)); }
table { font-size: .88rem; } th, td { padding: .45rem .55rem; } td { white-space: nowrap; }
th[scope=row] { min-width: clamp(8.5rem, 18vw, 13rem); }
.verdict p + p { margin-top: .5rem; }
@media (max-width: 620px) {
  .deltas li { grid-template-columns: minmax(0, 1fr); padding: .35rem 0; }
  .deltas .value { text-align: left; } .deltas .axis-row span { display: none; }
}
"""


def page(grid: Grid, groups: Sequence[Group], rows: Sequence[Row], typed: str) -> str:
    """The whole page as text."""
    title = f"{' · '.join(_asked(groups)) or 'labels only'} on {', '.join(dict.fromkeys(g.data for g in groups))}"
    paths = {c.data: c.path for c in grid.cells}
    shown = [g for g in groups if any(a.readings for a in g.arms)]
    parts = [_group(g, n) for n, g in enumerate(groups)]
    for data in dict.fromkeys(g.data for g in shown):
        several = [g for g in shown if g.data == data]
        if len(several) > 1 and (chart := figures.over_labels(several)):
            parts.append(section(f"labels-{len(parts)}", f"{data}: how many labels", chart))
    for n, g in enumerate(shown):
        share = BUDGET // max(1, len(shown))
        parts.append(section(f"pictures-{n}", f"{_title(g)}: the same images", side_by_side(g, paths[g.data], share)))
    parts += [_failures(rows, grid.notes), _made(grid, groups, rows, typed)]
    header = f'<p class="eyebrow">semiseg comparison</p>\n<h1>{name(title)}</h1>\n{_head(grid, groups, rows)}'
    return document(f"{title} – semiseg comparison", header, parts, f"Written by semiseg compare. {ALONE}", STYLE)


def _title(group: Group) -> str:
    share = "." in group.labels
    return f"{group.data}, {group.labels}{' of the' if share else ''} labels"


def _asked(groups: Sequence[Group]) -> list[str]:
    """The methods, without the rows that every comparison has."""
    return list(dict.fromkeys(a.name for g in groups for a in g.arms if a.asked))


def _head(grid: Grid, groups: Sequence[Group], rows: Sequence[Row]) -> str:
    """The verdict of every data set, its caveats, and the key figures."""
    said, tones = zip(*(verdict(g) for g in groups), strict=True) if groups else ((), ())
    tone = "helped" if set(tones) == {"helped"} else "hurt" if set(tones) == {"hurt"} else "flat"
    lines = "".join(f"<p>{esc(s)}</p>" for s in said)
    caveats = "".join(f"<li>{esc(c)}</li>" for c in _caveats(grid, groups))
    ended = [r.status for r in rows]
    tiles = [
        ("Cells", f"{ended.count('finished')} of {len(ended)}", f"{ended.count('failed')} failed"),
        ("Seeds", str(grid.request.seeds), "paired: equal seeds, equal batches"),
        ("Steps", count(grid.request.steps), "of every model"),
        ("Models", str(grid.models), f"of labels only, as many as {LARGEST[grid.request.baselines]}"),
    ]
    items = "".join(f'<div class="tile"><dt>{t}</dt><dd>{v}<small>{esc(u)}</small></dd></div>' for t, v, u in tiles)
    return (
        f'<div class="verdict {tone}">{lines}<ul class="caveats">{caveats}</ul></div>\n<dl class="tiles">{items}</dl>'
    )


def verdict(group: Group) -> tuple[str, str]:
    """One sentence about one data set and number of labels, and its tone."""
    arms = [a for a in group.arms if a.asked and a.gain is not None and math.isfinite(a.gain.value)]
    where = f"{_title(group)}: "
    if not arms:
        read = [a for a in group.arms if a.gain is not None]
        return f"{where}no method could be compared{f' ({nothing(group)})' if read else ''}.", "flat"
    best = max(arms, key=_gain)
    if max(len(a.paired) for a in arms) < 2:
        said = f"one seed cannot tell whether a method helped; the largest difference, {best.name}"
        return f"{where}{said}: {span(best.gain)} {_over(group)}.", "flat"
    if group.blocks < BLOCKS:
        return f"{where}{TOO_FEW}; the largest difference, {best.name}: {span(best.gain)} {_over(group)}.", "flat"
    judged = [a for a in arms if a.joint]
    if not judged:
        return f"{where}no method made a better model than those it started from.", "flat"
    helped = [a for a in judged if a.joint and a.joint[0] > 0]
    clear = [a for a in helped if a.above[0] > 0] if group.longer else helped
    best = max(clear or helped or judged, key=_gain)
    low, high = best.joint or (math.nan, math.nan)
    numbers = f"{bounds(_gain(best), low, high)} {_over(group)}"
    if helped and not clear and (rival := group.longer):
        found = group.pairs.get((best.name, rival.name))
        to = f"{bounds(found.value, *best.above)} to it" if found else "the two have no seed in common"
        return f"{where}{best.name}: {numbers}, and no method is clearly above {rival.name}; {best.name}: {to}.", "flat"
    if helped:
        return f"{where}{best.name} helped: {numbers}.", "helped"
    if high < 0:
        return f"{where}no method helped; the best, {best.name}: {numbers}.", "hurt"
    return f"{where}no clear difference; the best, {best.name}: {numbers}.", "flat"


def _gain(arm: Arm) -> float:
    return arm.gain.value if arm.gain else -math.inf


def _over(group: Group) -> str:
    return f"mIoU on {group.split} over labels only"


def _caveats(grid: Grid, groups: Sequence[Group]) -> list[str]:
    said = []
    for g in groups:
        said += _outdone(g)
        for word in ("best", "average"):
            rival = g.of_many(word)
            gains = [a.best if word == "best" else a.over for a in g.arms if a.asked]
            if rival is not None and any(gains) and not any(d is not None and d.low > 0 for d in gains):
                said.append(f"{_title(g)}: no method is clearly better than the {rival.name.removeprefix(f'{BASE}, ')} "
                            f"of models that saw labels only ({digits(average(rival.figures['miou']))}).")  # fmt: skip
    said += dict.fromkeys(text for g in groups for text in limits(g))
    if grid.request.blocks > 1:
        said.append(f"Images were drawn in runs of {grid.request.blocks} neighbours.")
    return said


def _outdone(group: Group) -> list[str]:
    """A sentence where the same steps with labels only are worth more than any method."""
    asked = [a for a in group.arms if a.asked and a.gain is not None and math.isfinite(a.gain.value)]
    rival = group.longer
    if not asked or rival is None or rival.gain is None or not rival.gain.value > max(map(_gain, asked)):
        return []
    return [f"{_title(group)}: {rival.name} is above every method: {span(rival.gain)} {_over(group)}."]


def _group(group: Group, number: int) -> str:
    """Differences, table, curves and risk of one data set and number of labels."""
    if not any(a.readings for a in group.arms):
        return section(f"group-{number}", _title(group), note("Every cell failed; the reasons are listed below."))
    text = f"{count(group.images)} images of <b>{esc(group.split)}</b>. Bars are 95 % intervals over seeds and images, "
    text += "rings are seeds, green and red do not touch 0."
    absent = f"Absent from the truth and left out of the means: {', '.join(name(n) for n in group.absent)}."
    columns = _columns(group)
    charted = [f"<div>{c}</div>" for c in (figures.curves(group), figures.risk(group)) if c]
    return section(
        f"group-{number}", f"{_title(group)}: difference to labels only", note(text), figures.deltas(group),
        table(["Arm", *columns], [_row(a, list(columns.values())) for a in group.arms], f"Scores of {_title(group)}"),
        note(_meaning(group)), note(absent) if group.absent else "", _matrix(group),
        f'<div class="charts">{"".join(charted)}</div>' if charted else "",
    )  # fmt: skip


def _matrix(group: Group) -> str:
    """Every arm against every other, behind a click."""
    names = [a.name for a in group.arms if a.readings]
    if len(names) < 2:
        return ""
    rows = [[name(a), *(_delta(group.pairs.get((a, b))) for b in names)] for a in names]
    made = table(["Δ to", *(name(b) for b in names)], rows, "Differences of all pairs", tall=True)
    return f"<details><summary>Every arm (row) against every other (column)</summary>{made}</details>"


def _meaning(group: Group) -> str:
    """What the columns mean, and the gap that is there to be closed."""
    text = "Means over seeds. Time and images forwarded are those of all models behind an arm."
    if group.full is not None and group.full.gain is not None:
        text += f" {esc(group.full.name.capitalize())} are worth {esc(span(group.full.gain))} mIoU here; "
        text += "less than 0.03 is no headroom, less than 3 standard errors uncertain."
    return text


def _columns(group: Group) -> dict[str, Column]:
    """Head and cell of every column but the first; what no arm of the group can have is no column."""

    def mean(key: str, form: str = ".3f") -> Column:
        return lambda a: digits(average(a.figures[key]), form)

    rivals: dict[str, Column] = {}
    if best := group.of_many("best"):
        rivals[f"Δ to {esc(best.name.removeprefix(f'{BASE}, '))}"] = lambda a: _delta(a.best)
    if many := group.of_many("average"):
        rivals[f"Δ to {esc(many.name.removeprefix(f'{BASE}, '))}"] = lambda a: _delta(a.over)
    cells = any(v is not None for a in group.arms for v in a.figures.get("mcce", []))
    return {
        "mIoU": lambda a: f"<b>{digits(average(a.figures['miou']))}</b>",
        "Δ to labels only": lambda a: _delta(a.gain), **rivals, "Gap recovered": _gap, "Dice": mean("dice"),
        "IoU per image": mean("iou_per_image"), "Boundary IoU": mean("boundary_iou"),
        "Calibration error": mean("calibration_error"), **({"MCCE": mean("mcce", ".2f")} if cells else {}),
        "Val, best": mean("val_miou"), "Val, last": mean("val_last"),
        "Time": lambda a: duration(average(a.figures["seconds"])),
        "Images forwarded": lambda a: count(average(a.figures["images_forwarded"])),
        "Parameters": lambda a: count(average(a.figures["parameters"])),
    }  # fmt: skip


def _row(arm: Arm, columns: Sequence[Column]) -> list[str]:
    title = name(arm.name)
    if said := remark(arm):
        title += f' <span class="badge">{esc(said)}</span>'
    if not arm.figures:
        return [title, '<span class="none">failed</span>', *["–"] * (len(columns) - 1)]
    return [title, *(cell(arm) for cell in columns)]


def _delta(found: Interval | None) -> str:
    """A difference, coloured where its interval does not touch 0."""
    if found is None:
        return "–"
    value = digits(found.value, "+.3f")
    if not math.isfinite(found.low):
        return value
    kind = "up" if found.low > 0 else "down" if found.high < 0 else "same"
    inner = f"[{digits(found.low, '+.3f')}, {digits(found.high, '+.3f')}]"
    return f'<span class="{kind}">{value}</span> <span class="small">{inner}</span>'


def _gap(arm: Arm) -> str:
    if arm.share is None:
        return "–"
    return esc(arm.share.why) if arm.share.share is None else _percent(arm.share.share)


def _percent(share: Interval) -> str:
    value, low, high = (digits(100 * v, ".0f") for v in (share.value, share.low, share.high))
    return f'{value}&nbsp;% <span class="small">[{low}, {high}]</span>'


def _failures(rows: Sequence[Row], notes: Sequence[str]) -> str:
    said = [f"{r.cell}: {r.message}" for r in rows if r.status == "failed"] + list(notes)
    items = "".join(f"<li>{esc(s)}</li>" for s in said)
    return section("warnings", "Failures and notes", f'<ul class="warnings">{items}</ul>' if said else note("None."))


def _made(grid: Grid, groups: Sequence[Group], rows: Sequence[Row], typed: str) -> str:
    """The command, the budget, and what each cell was."""
    seconds, read = sum(r.seconds or 0 for r in rows), {g.split for g in groups}
    pairs = [
        (
            "Budget",
            esc(
                f"{grid.request.steps} steps of every model, the same size, batch and network; all else as well, but for "
                "what a row's name says"
            ),
        ),
        (
            "Chosen on",
            "val only; test was read once per cell, after its training"
            if "test" in read
            else "val, which is also what is reported: these figures flatter whoever chooses most",
        ),
        ("Intervals", "95 %, 2000 draws of seeds and images; Δ is paired by both"),
        ("Verdict", JOINT),
        ("Training", f"{duration(seconds)}; members that several rows begin with are counted in each"),
        ("Commit", ", ".join(f"<code>{esc(c)}</code>" for c in distinct(r.commit for r in rows).split("; ") if c)),
    ]
    listed = [
        [f"<code>{esc(r.cell)}</code>", esc(r.status), digits(r.val), digits(r.score), duration(r.seconds)]
        for r in rows
    ]
    head = ["Cell", "Status", "mIoU on val", "mIoU read", "Time"]
    more = f"<details><summary>Every cell</summary>{table(head, listed, 'Cells', tall=True)}</details>"
    return section("made", "How it was made", command(typed), terms(pairs), more)


def write(path: Path, grid: Grid, groups: Sequence[Group], rows: Sequence[Row], typed: str) -> None:
    """Write the page atomically."""
    from semiseg.storage import write_text

    write_text(path, page(grid, groups, rows, typed))
