"""What the masks of finished cells left, as rows."""

import csv
import sys

from test_collected import cell

import mask_left


def test_a_row_for_each_class_and_generation(tmp_path, monkeypatch):
    more = {"kept_per_class": {"a": 0.9, "b": 0.01}, "labeled_per_class": {"a": 0.7, "b": 0.3},
            "quality": {"val": {"precision": 0.25, "recall": 0.5, "agreed_wrong": 0.0625}}}  # fmt: skip
    for folder, arms in (("screen-cells", ("im", "ensemble")), ("screen-other", ("im",))):
        for arm in arms:
            cell(tmp_path / folder, arm, scores=((0.5, 0.6), (0.7,)), more=more)
    words = ["mask_left.py", str(tmp_path / "screen-cells"), "--results", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    mask_left.main()
    monkeypatch.setattr(sys, "argv", [*words, "--arms", "im", "ensemble"])
    mask_left.main()  # the rows of im are written once
    with (tmp_path / "mask_left.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = ("data", "generation", "class", "val_iou", "labeled_share", "kept_share")
    for arm in ("im", "ensemble"):
        assert [tuple(r[k] for k in columns) for r in rows if r["arm"] == arm] == [
            ("cells", "0", "a", "0.25", "0.7", "0.9"), ("cells", "0", "b", "0.5", "0.3", "0.01"),
            ("cells", "1", "a", "0.35", "0.7", "0.9"), ("cells", "1", "b", "0.7", "0.3", "0.01"),
        ]  # fmt: skip
    assert len(rows) == 8
    assert {(r["precision"], r["recall"], r["agreed_wrong"], r["commit"], r["seed"]) for r in rows} == {
        ("0.25", "0.5", "0.0625", "abc", "0")
    }
