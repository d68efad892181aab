"""What the masks of finished cells left, as rows."""

import csv
import sys

from test_collected import cell

import mask_left


def test_a_row_for_each_class_of_the_first_committee(tmp_path, monkeypatch):
    more = {"kept_per_class": {"a": 0.9, "b": 0.01}, "labeled_per_class": {"a": 0.7, "b": 0.3},
            "quality": {"val": {"precision": 0.25, "recall": 0.5, "agreed_wrong": 0.0625}}}  # fmt: skip
    for folder, arms in (("screen-cells", ("im", "ensemble")), ("screen-other", ("im",))):
        for arm in arms:
            cell(tmp_path / folder, arm, scores=((0.5, 0.6), (0.7,)), more=more)
    monkeypatch.setattr(sys, "argv", ["mask_left.py", str(tmp_path / "screen-cells"), "--results", str(tmp_path)])
    mask_left.main()
    with (tmp_path / "mask_left.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["data"], r["arm"], r["class"], r["labeled_share"], r["kept_share"]) for r in rows] == [
        ("cells", "im", "a", "0.7", "0.9"), ("cells", "im", "b", "0.3", "0.01"),
    ]  # fmt: skip
    assert {(r["precision"], r["recall"], r["agreed_wrong"], r["commit"], r["seed"]) for r in rows} == {
        ("0.25", "0.5", "0.0625", "abc", "0")
    }
