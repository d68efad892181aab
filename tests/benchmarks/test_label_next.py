"""The experiment with what to label next, whole, on tiny cells."""

import sys

import pytest

import label_next
from semiseg.data.synthetic import write_cells
from shared import read


@pytest.fixture
def go(tmp_path, monkeypatch):
    """Run it: 3 labels, 2 more revealed, one draw, one seed."""

    def cells(name, root, runs):
        return write_cells(runs / name, labeled=2, unlabeled=7, val=4, test=2, size=32)

    monkeypatch.setattr(label_next, "folder", cells)
    monkeypatch.setattr(label_next, "SIZES", {"cells": {"size": 16, "threads": 1}})
    monkeypatch.setattr(sys, "argv", ["label_next.py", "data", "--only", "cells", "--seeds", "1", "--draws", "1",
                                      "--steps", "2", "--start", "3", "--reveal", "2", "--network", "unet1x1:0.25",
                                      "--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results"),
                                      "--choices", "plain", "diverse"])  # fmt: skip
    return label_next.main


def facts_are_of_every_image(start):
    found, labeled = label_next.facts(start)
    assert len(found) == 6 and len(labeled) == 3
    assert {f.image: f.score for f in found} == {r["image"]: float(r["score"]) for r in read(start / "label_next.csv")}
    assert all(0 <= f.foreground <= 1 and 0 <= f.outline <= 1 and f.feature.shape == labeled[0].shape for f in found)
    assert len({f.feature.tobytes() for f in found}) == 6


def test_from_one_start_to_the_summary(go, tmp_path, monkeypatch):
    go()
    rows = read(tmp_path / "results" / "label_next.csv")
    assert [r["choice"] for r in rows] == ["plain", "diverse", "random-0"]
    assert {(r["labels"], r["steps"], r["split"]) for r in rows} == {("5", "2", "val")}
    assert len({r["images_forwarded"] for r in rows}) == 1
    here = tmp_path / "runs" / "cells-3-0"
    table = read(here / "start" / "label_next.csv")
    ranked = [r["image"] for r in sorted(table, key=lambda r: (-float(r["score"]), r["image"]))]
    shown = (here / "plain-2-data" / "splits" / "labeled.txt").read_text().split()
    assert shown[3:] == ranked[:2] and len(set(shown)) == 5
    (made, other) = read(tmp_path / "results" / "label_next_summary.csv")
    assert (made["choice"], other["choice"]) == ("plain", "diverse")
    assert float(made["delta"]) == pytest.approx(float(rows[0]["miou"]) - float(rows[2]["miou"]), abs=1e-4)
    facts_are_of_every_image(here / "start")
    monkeypatch.setattr(sys, "argv", [*sys.argv[:-3], "--choices", "plain", "--reveal", "3"])
    go()  # other numbers are other folders and other rows
    assert [(r["choice"], r["labels"]) for r in read(tmp_path / "results/label_next.csv")[3:]] == [
        ("plain", "6"),
        ("random-0", "6"),
    ]
    assert len((here / "plain-3-data/splits/labeled.txt").read_text().split()) == 6
    rows = read(tmp_path / "results" / "label_next.csv")
    monkeypatch.setattr(label_next, "train", None)  # what is in the table is never made again
    go()
    assert read(tmp_path / "results" / "label_next.csv") == rows


def test_a_start_is_drawn_by_the_seed(tmp_path):
    data = write_cells(tmp_path / "cells", labeled=2, unlabeled=7, val=4, test=2, size=32)
    starts = [label_next.begin(data, 3, seed, tmp_path / str(seed)) for seed in (0, 1)]
    drawn = [(s / "splits/labeled.txt").read_text().split() for s in starts]
    others = [(s / "splits/unlabeled.txt").read_text().split() for s in starts]
    assert drawn[0] != drawn[1] and all(
        sorted(a + b) == sorted(label_next.lists(data)) for a, b in zip(drawn, others, strict=True)
    )
