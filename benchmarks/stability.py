"""Does self-training decay over generations where inconsistency masks do not? A row per generation: im_stability.csv.

python benchmarks/im_ablation.py DATA_ROOT --stage stability

The arms differ in one thing: who says what is true of an unlabeled image, and where. Each has two members in every
generation, two students in the last one, and enough patience to train all five, whatever val says: what is drawn is what
was trained, not what would be shipped. (self_training's teacher is the better of its two on val; that is its only choice.)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measured import key, measured, miou, origin, rounded
from semiseg.report.charts import HEIGHT, WIDTH, Series, line_chart
from semiseg.report.markup import esc

GENERATIONS = 5
ALIKE = f"members=2@students=2@generations={GENERATIONS}@patience={GENERATIONS}@start=fresh"
ARMS = [f"self_training@{ALIKE}", *(f"{name}@{ALIKE}@members_by=seed" for name in ("ensemble", "im"))]
ABOVE, LINE = 30, 24
"""Pixels above a chart for its title, and for a line of the legend."""
SHOWN = "mIoU on val, mean of the two members, a line for each seed"
STYLE = """
svg { font-family: system-ui, sans-serif; --ink: #1b2027; --quiet: #5a6472; --line: #dfe2e6; --page: #ffffff;
  --s0: #0067a8; --s1: #b36b00; --s2: #00805d; --s3: #a8467f; }
@media (prefers-color-scheme: dark) { svg { --ink: #e6e9ed; --quiet: #a0abb8; --line: #313a45; --page: #12161b;
  --s0: #5bb8f5; --s1: #f0b04a; --s2: #45cfa3; --s3: #e695c3; } }
.page { fill: var(--page); } .title { fill: var(--ink); font-size: 14px; font-weight: 600; }
.tick { fill: var(--quiet); font-size: 12.5px; } .grid { stroke: var(--line); fill: none; }
.line { fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round; opacity: .8; }
.dot { fill: currentColor; }
.s0 { color: var(--s0); } .s1 { color: var(--s1); } .s2 { color: var(--s2); } .s3 { color: var(--s3); }
"""


def generations(runs: Path, stage: str = "stability") -> list[dict[str, Any]]:
    """One row for each generation of each finished cell of the stage.

    labels only has generation 0 alone; of its many models the first two are noted, with which every arm began.
    """
    rows = []
    for cell in measured(runs, (stage,)):
        for made in cell.summary["generations"]:
            values = [miou(m["val"]) for m in made["members"][:2]]
            known = [v for v in values if v is not None]
            rows.append({
                **key(cell), "generation": made["generation"],
                **{f"member_{i}": values[i] if i < len(values) else None for i in range(2)},
                "mean": rounded(sum(known) / len(known)) if known else None,
                "promoted": "yes" if made["promoted"] else "no",
                "inconsistent_share": rounded(made["inconsistent_share"]), **origin(cell),
            })  # fmt: skip
    return rows


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """The members' mean mIoU on val over generations, a line per arm and seed, the data sets side by side, as SVG."""
    rows = [r for r in rows if r["arm"] != "labels only" and r["mean"] is not None]
    arms, sets = (list(dict.fromkeys(r[k] for r in rows)) for k in ("arm", "data"))
    parts = [_panel([r for r in rows if r["data"] == name], arms, i * WIDTH) for i, name in enumerate(sets)]
    for i, arm in enumerate(arms):
        y = ABOVE + HEIGHT + (i + 0.5) * LINE
        parts.append(f'<g class="s{i}"><circle class="dot" cx="20" cy="{y - 4}" r="5"/></g>')
        parts.append(f'<text class="tick" x="32" y="{y}">{esc(arm.partition(",")[0])}</text>')
    width, height = WIDTH * max(1, len(sets)), ABOVE + HEIGHT + LINE * (len(arms) + 1.5)
    parts.append(f'<text class="tick" x="14" y="{height - LINE}">{SHOWN}</text>')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:g}" width="{width}" height="{height:g}">'
        f'<style>{STYLE}</style><rect class="page" width="100%" height="100%"/>{"".join(parts)}</svg>\n'
    )


def _panel(rows: Sequence[dict[str, Any]], arms: Sequence[str], left: float) -> str:
    """The chart of one data set, `left` pixels from the edge."""
    lines: dict[tuple[str, str], list[tuple[float, float]]] = {(r["arm"], r["seed"]): [] for r in rows}
    for r in sorted(rows, key=lambda r: int(r["generation"])):
        lines[r["arm"], r["seed"]].append((float(r["generation"]), float(r["mean"])))
    series = [Series(f"{arm}, seed {seed}", arms.index(arm), points) for (arm, seed), points in lines.items()]
    title = f"{rows[0]['data']}, labels: {rows[0]['labels']}"
    chart = re.search(r"<svg .*</svg>", line_chart(series, f"{title}: {SHOWN}", "", x_name="generation"), re.DOTALL)
    assert chart is not None
    placed = chart[0].replace("<svg ", f'<svg x="{left:g}" y="{ABOVE}" width="{WIDTH}" height="{HEIGHT}" ', 1)
    return f'<text class="title" x="{left + 20:g}" y="20">{esc(title)}</text>{placed}'
