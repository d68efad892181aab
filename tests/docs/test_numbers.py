"""The numbers on the pages of methods are those of results/."""

import csv
import importlib.util
from pathlib import Path

import pytest

from semiseg.methods import METHODS

ROOT = Path(__file__).parents[2]
FIELDS = ["data", "labels", "arm", "n_seeds", "miou", "delta", "low", "high", "seconds"]


@pytest.fixture
def numbers():
    spec = importlib.util.spec_from_file_location("docs_numbers", ROOT / "docs/numbers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_are_current(numbers):
    stale = [path.name for path, text in numbers.pages().items() if path.read_text() != text]
    assert not stale, "run: python docs/numbers.py"
    marked = {m[2] for path in numbers.pages() for m in numbers.MARK.finditer(path.read_text())}
    assert set(METHODS) <= marked


def _project(root, page, text, rows):
    """A project of one page and one table."""
    (root / "results").mkdir()
    with (root / "results/methods_small.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows)
    (root / page).parent.mkdir(parents=True)
    (root / page).write_text(text)
    return root / page


def test_a_row_becomes_a_line_and_the_rest_of_the_page_stays(numbers, tmp_path, monkeypatch):
    values = {"data": "isic2018", "labels": "40", "n_seeds": "3", "miou": "0.70051", "seconds": "61.2"}
    row = {**values, "arm": "csl", "delta": "0.0123", "low": "-0.01", "high": "0.03"}
    text = "# csl\n\n<!-- numbers: csl -->\nold\n\n## Cost\n\nmuch\n"
    monkeypatch.setattr(numbers, "ROOT", tmp_path)
    page = _project(tmp_path, "docs/methods/csl.md", text, [row, {**values, "arm": "csl, alpha=2", "miou": "0.9"}])
    text = numbers.pages()[page]
    assert "| isic2018 | 40 | 3 | 0.701 | +0.012 (-0.010 to +0.030) | 61 |" in text
    assert "old" not in text and "0.900" not in text and text.endswith("\n## Cost\n\nmuch\n")
    (tmp_path / "results/methods_small.csv").unlink()
    assert numbers.pages()[page] == "# csl\n\n<!-- numbers: csl -->\n\n## Cost\n\nmuch\n"


def test_a_table_has_a_line_for_every_arm_and_a_column_for_every_set(numbers, tmp_path, monkeypatch):
    ours = {"data": "isic2018", "labels": "40", "arm": "csl", "miou": "0.7", "delta": "0.1", "low": "0", "high": "0.2"}
    base = {"data": "camvid", "labels": "all", "arm": "labels only", "miou": "0.3"}
    text = "# small\n\n<!-- table: methods_small.csv -->\nold\n<!-- end -->\n\nwhy\n"
    monkeypatch.setattr(numbers, "ROOT", tmp_path)
    page = _project(tmp_path, "docs/explanation/small.md", text, [ours, base])
    text = numbers.pages()[page]
    assert (
        "| arm | isic2018, 40 labels | camvid |\n|---|---|---|\n| csl | 0.700, +0.100 (+0.000 to +0.200) | – |" in text
    )
    assert "| labels only | – | 0.300, – |" in text and "old" not in text and text.endswith("<!-- end -->\n\nwhy\n")


def test_an_arm_beside_its_rivals_and_the_gap(numbers, tmp_path, monkeypatch):
    monkeypatch.setattr(numbers, "ROOT", tmp_path)
    text = "<!-- pairs: does_it_help_pairs.csv im -->\n<!-- end -->\n<!-- table: does_it_help.csv -->\n<!-- end -->\n"
    text += "<!-- table: does_it_help.csv val -->\n<!-- end -->\n"
    page = _project(tmp_path, "docs/explanation/help.md", text, [])
    assert numbers.pages()[page] == text  # nothing was measured
    row = {"data": "cells", "labels": "all", "arm": "im", "delta": "0.1", "low": "0", "high": "0.2"}
    tables = {
        "does_it_help_pairs.csv": [{**row, "rival": "ensemble"}, {**row, "arm": "ensemble", "rival": "im"}],
        "does_it_help.csv": [{**row, "miou": "0.7", "gap_recovered": "0.514", "val_last": "0.65", "n_seeds": "3"}],
    }
    for name, rows in tables.items():
        with (tmp_path / "results" / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    text = numbers.pages()[page]
    assert "| im above | cells |\n|---|---|\n| ensemble | +0.100 (+0.000 to +0.200) |\n\n<!-- end -->" in text
    assert "| im | 0.700, +0.100 (+0.000 to +0.200), 51% |" in text and "| im | 0.650, 3 |" in text


def test_arms_of_the_ablation_are_in_the_order_of_their_difference(numbers, tmp_path, monkeypatch):
    monkeypatch.setattr(numbers, "ROOT", tmp_path)
    (tmp_path / "results").mkdir()
    (tmp_path / "docs/explanation").mkdir(parents=True)
    page = tmp_path / "docs/explanation/mask.md"
    page.write_text("# mask\n\n<!-- ablation: screen -->\nold\n<!-- end -->\n\nwhy\n")
    row = {"stage": "screen", "data": "cells", "labels": "all", "steps": "500", "factor": "", "arm": "im",
           "delta_centre": "0"}  # fmt: skip
    with (tmp_path / "results/im_ablation.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*row, "val_miou"])
        writer.writeheader()
        writer.writerow({**row, "val_miou": "0.5"})
        for score, delta in (("0.52", "0.02"), ("0.56", "0.06")):
            writer.writerow({**row, "arm": "x", "factor": "fill", "val_miou": score, "delta_centre": delta})
        writer.writerow({**row, "arm": "x", "data": "isic", "labels": "40", "steps": "2000", "val_miou": "0.7"})
        writer.writerow({**row, "arm": "full labels", "labels": "full", "val_miou": "0.8", "delta_centre": ""})
        writer.writerow({**row, "arm": "y", "stage": "confirm", "val_miou": "0.9"})
        writer.writerow({**row, "arm": "folds", "val_miou": ""})
    made = numbers.pages()[page]
    assert "| arm | factor | cells, 500 steps | isic, 40 labels, 2,000 steps |\n|---|---|---|---|\n" in made
    lines = [line for line in made.splitlines() if line.startswith(("| x", "| im", "| y", "| folds", "| full"))]
    assert lines[0] == "| full labels | – | 0.800, –, 1 | – |"
    assert lines[1:] == ["| x | – | 0.540, +0.040, 2 | 0.700, +0.000, 1 |", "| im | – | 0.500, +0.000, 1 | – |"]
    assert made.endswith("<!-- end -->\n\nwhy\n") and "old" not in made


def test_rankings_of_a_split(numbers, tmp_path, monkeypatch):
    monkeypatch.setattr(numbers, "ROOT", tmp_path)
    (tmp_path / "results").mkdir()
    row = {
        "data": "cells",
        "split": "val",
        "choice": "plain",
        "seeds": "3",
        "delta": "0.01",
        "low": "-0.02",
        "high": "0.04",
    }
    one = {"data": "isic", "choice": "other", "seeds": "1", "low": "", "high": ""}
    with (tmp_path / "results/label_next_summary.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, row)
        writer.writeheader()
        writer.writerows([row, {**row, **one}, {**row, "split": "test", "choice": "never"}])
    assert numbers.rankings("val").splitlines()[3:5] == [
        "| plain | +0.010 (-0.020 to +0.040), 3 | – |", "| other | – | +0.010 (one seed) |",
    ]  # fmt: skip
