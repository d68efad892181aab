"""Every interval that a sentence gives is one of a table in results/, with the same three figures."""

from __future__ import annotations

import csv
import re
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NUMBER = r"[+-]?\d?\.\d{3}"
SAID = re.compile(rf"(?:({NUMBER})\s+)?\[({NUMBER}),\s+({NUMBER})\]")


def rounded(value: float) -> str:
    """As sentences have it: `.026`, `-.035`, and `-.000` for what rounds to nothing from below."""
    return f"{value:.3f}".replace("0.", ".", 1)


def measured() -> set[tuple[str, str, str]]:
    """(difference, low, high) of all tables, either way round."""
    found = set()
    for path in (ROOT / "results").glob("*.csv"):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                for name, low, high in triples(row):
                    if row[name] and row[low] and row[high]:
                        value, a, b = (float(row[k]) for k in (name, low, high))
                        found |= {(rounded(value), rounded(a), rounded(b)), (rounded(-value), rounded(-b), rounded(-a))}
    return found


def triples(row: dict[str, str]) -> list[tuple[str, str, str]]:
    """Columns that hold a figure and its bounds."""
    columns = list(row)
    bounds = [(a, b) for a, b in pairwise(columns) if a.endswith("low") and b == a.removesuffix("low") + "high"]
    return [(columns[columns.index(a) - 1], a, b) for a, b in bounds]


@pytest.mark.parametrize("page", [p for p in PAGES if SAID.search(p.read_text())], ids=lambda p: p.name)
def test_intervals_in_sentences_are_rows(page: Path) -> None:
    known = measured()
    bare = {triple[1:] for triple in known}
    wrong = []
    for match in SAID.finditer(page.read_text()):
        value, *bounds = (text and text.replace("+", "") for text in match.groups())
        if (value, *bounds) not in known and (value or tuple(bounds) not in bare):
            wrong.append(match.group())
    assert not wrong, f"{page.relative_to(ROOT)} says {'; '.join(wrong)}, which is in no table"
