"""Writes our own numbers into docs/, from results/*.csv, between a mark and `<!-- end -->`:

`<!-- numbers: NAME -->`               what was measured of a method, on its page (up to the next heading)
`<!-- table: FILE.csv -->`             all arms of a comparison; `FILE.csv val`: on val
`<!-- pairs: FILE.csv ARM -->`         what an arm is above every other
`<!-- ablation: STAGE -->`             a stage of im_ablation.csv
`<!-- label_next: SPLIT -->`           the rankings of label_next_summary.csv

python docs/numbers.py            write them
python docs/numbers.py --check    exit 1 when a page is not what it would write
"""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TABLES = ("methods_small.csv",)
TABLE = re.compile(r"(<!-- table: ((?:methods_\w+|does_it_help\w*)\.csv)( val)? -->\n).*?(?=<!-- end -->)", re.S)
ABLATION = re.compile(r"(<!-- ablation: (\w+) -->\n).*?(?=<!-- end -->)", re.S)
PAIRS = re.compile(r"(<!-- pairs: (does_it_help\w*_pairs\.csv) (\w+) -->\n).*?(?=<!-- end -->)", re.S)
NEXT = re.compile(r"(<!-- label_next: (\w+) -->\n).*?(?=<!-- end -->)", re.S)
MARK = re.compile(r"(<!-- numbers: (\w+) -->\n).*?(?=\n## |\Z)", re.S)


def rows_of(name: str) -> list[tuple[str, dict[str, str]]]:
    """(file, row) of every measurement of a method or program with its default arguments."""
    found = []
    for table in TABLES:
        path = ROOT / "results" / table
        if path.is_file():
            with path.open(newline="") as file:
                found += [(table, row) for row in csv.DictReader(file) if row["arm"] == name]
    return found


def number(text: str, digits: int = 3) -> str:
    """A score, or a dash."""
    return f"{float(text):.{digits}f}" if text else "–"


def change(row: dict[str, str]) -> str:
    """Difference to labels only with its interval."""
    if not row["delta"]:
        return "–"
    return f"{float(row['delta']):+.3f} ({float(row['low']):+.3f} to {float(row['high']):+.3f})"


def said(name: str) -> str:
    """The table of a page; "" when nothing was measured."""
    rows = rows_of(name)
    if not rows:
        return ""
    lines = [
        "\nOurs, small, from scratch, equal budget; mIoU on test, and its difference to labels only with a 95 % interval:\n",
        "| data | labels | seeds | mIoU | Δ | seconds | file |",
        "|---|---|---|---|---|---|---|",
    ]
    for table, row in rows:
        file = f"[{table}](../../results/{table})"
        cells = [
            row["data"],
            row["labels"],
            row["n_seeds"],
            number(row["miou"]),
            change(row),
            number(row["seconds"], 0),
        ]
        lines.append(f"| {' | '.join(cells)} | {file} |")
    return "\n".join(lines) + "\n"


def overview(table: str, val: bool = False) -> str:
    """A line per arm, a column per data set: mIoU and the difference to labels only with its interval.

    val: the mIoU on val of the last checkpoint of the shipped generation instead, and the number of seeds.
    """
    path = ROOT / "results" / table
    if not path.is_file():
        return ""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    sets = list(dict.fromkeys((row["data"], row["labels"]) for row in rows))
    share = closed if table.startswith("does_it_help") else lambda row: ""
    cell = {((r["data"], r["labels"]), r["arm"]): f"{number(r['miou'])}, {change(r)}{share(r)}" for r in rows}
    if val:
        cell = {
            ((r["data"], r["labels"]), r["arm"]): f"{number(r['val_last'])}, {r['n_seeds']}"
            for r in rows
            if r["val_last"]
        }
    return grid("arm", sets, cell)


def closed(row: dict[str, str]) -> str:
    """The share of the gap to full labels, where there is one."""
    return f", {float(row['gap_recovered']):.0%}" if row.get("gap_recovered") else ""


def pairs(table: str, arm: str) -> str:
    """A line per rival, a column per data set: an arm's difference to it with its interval."""
    path = ROOT / "results" / table
    if not path.is_file():
        return ""
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["arm"] == arm]
    sets = list(dict.fromkeys((row["data"], row["labels"]) for row in rows))
    return grid(f"{arm} above", sets, {((r["data"], r["labels"]), r["rival"]): change(r) for r in rows})


def grid(corner: str, sets: list[tuple[str, str]], cell: dict[tuple[tuple[str, str], str], str]) -> str:
    """Arms down, sets across."""
    heads = [data if labels == "all" else f"{data}, {labels} labels" for data, labels in sets]
    lines = [f"\n| {corner} | {' | '.join(heads)} |", "|---" * (len(sets) + 1) + "|"]
    for arm in dict.fromkeys(arm for _, arm in cell):
        lines.append(f"| {arm} | {' | '.join(cell.get((place, arm), '–') for place in sets)} |")
    return "\n".join(lines) + "\n\n"


def mean(values: list[float]) -> float:
    """The standard library's would import this file in the place of its own `numbers`."""
    return sum(values) / len(values)


def ablation(stage: str) -> str:
    """A line per arm, the best first; a column per data set: mIoU on val, difference to the centre, seeds.

    Full labels are the goal of every number of labels, so they stand in all columns of their data set and steps.
    """
    path = ROOT / "results/im_ablation.csv"
    if not path.is_file():
        return ""
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["stage"] == stage and row["val_miou"]]
    keys = ("data", "labels", "steps")
    known = {tuple(row[k] for k in keys) for row in rows if row["labels"] != "full"}
    places = sorted(known, key=lambda place: (*place[:2], int(place[2])))
    factors, cells = {row["arm"]: row["factor"] for row in rows}, {}
    order: dict[str, list[float]] = {}
    for arm in factors:
        for place in places:
            same = [row for row in rows if (row["arm"], row["data"], row["steps"]) == (arm, place[0], place[2])
                    and row["labels"] in (place[1], "full")]  # fmt: skip
            if same:
                deltas = [float(row["delta_centre"]) for row in same if row["delta_centre"]]
                delta = f"{mean(deltas):+.3f}" if deltas else "–"
                cells[arm, place] = f"{mean([float(row['val_miou']) for row in same]):.3f}, {delta}, {len(same)}"
                order.setdefault(arm, []).append(mean(deltas) if deltas else 1.0)
    heads = [
        f"{data}{'' if labels == 'all' else f', {labels} labels'}, {int(steps):,} steps"
        for data, labels, steps in places
    ]
    lines = [f"\n| arm | factor | {' | '.join(heads)} |", "|---" * (len(places) + 2) + "|"]
    for arm in sorted(factors, key=lambda arm: -mean(order[arm])):
        shown = [cells.get((arm, place), "–") for place in places]
        lines.append(f"| {arm} | {factors[arm] or '–'} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n\n"


def rankings(split: str) -> str:
    """A line per ranking, a column per data set: its difference to random images with an interval, and seeds."""
    path = ROOT / "results/label_next_summary.csv"
    if not path.is_file():
        return ""
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    sets = sorted({row["data"] for row in rows})
    cell = {
        (r["choice"], r["data"]): f"{float(r['delta']):+.3f} "
        + (f"({float(r['low']):+.3f} to {float(r['high']):+.3f}), {r['seeds']}" if r["low"] else "(one seed)")
        for r in rows
    }
    lines = [f"\n| ranking | {' | '.join(sets)} |", "|---" * (len(sets) + 1) + "|"]
    for choice in dict.fromkeys(row["choice"] for row in rows):
        lines.append(f"| {choice} | {' | '.join(cell.get((choice, name), '–') for name in sets)} |")
    return "\n".join(lines) + "\n\n"


def pages() -> dict[Path, str]:
    """Every page as it should be."""
    found = {}
    for path in sorted([*(ROOT / "docs/methods").glob("*.md"), *(ROOT / "docs/explanation").glob("*.md")]):
        text = path.read_text(encoding="utf-8")
        text = MARK.sub(lambda match: match[1] + said(match[2]), text)
        text = TABLE.sub(lambda match: match[1] + overview(match[2], bool(match[3])), text)
        text = PAIRS.sub(lambda match: match[1] + pairs(match[2], match[3]), text)
        text = NEXT.sub(lambda match: match[1] + rankings(match[2]), text)
        found[path] = ABLATION.sub(lambda match: match[1] + ablation(match[2]), text)
    return found


def main() -> None:
    """Write, or check."""
    stale = [path for path, text in pages().items() if path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv[1:]:
        if stale:
            sys.exit(f"{', '.join(p.name for p in stale)}: run python docs/numbers.py")
        return
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
    print(f"{len(stale)} pages written")


if __name__ == "__main__":
    main()
