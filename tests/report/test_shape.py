"""Whatever a file holds, the report gets what it expects of it."""

import pytest

from semiseg.report.shape import SUMMARY, shaped


@pytest.mark.parametrize(
    ("value", "shape", "expected"),
    [
        (0.5, float, 0.5), ("0.5", float, 0.5), (True, float, None), (float("inf"), float, None), ({}, float, None),
        ("a", str, "a"), (None, str, ""), (3, str, ""), ([1], None, [1]),
        (["a", 3, None], [str], ["a"]), ("a", [str], []), ([{"a": 1}, 2], [{}], [{"a": 1}]),
        ({"x": 1, "y": "?"}, {str: float}, {"x": 1.0, "y": None}), ([], {str: float}, {}),
        ({"more": 1}, {"a": float, "b": [str], "c": {}}, {"more": 1, "a": None, "b": [], "c": {}}),
    ],
)  # fmt: skip
def test_shapes(value, shape, expected):
    assert shaped(value, shape) == expected


def test_what_is_not_there_is_there_and_empty():
    found = shaped({"generations": [{"members": [{}]}]}, SUMMARY)
    assert found["model"] == {"folder": "", "why": ""} and found["steps"] is None and found["arms"] == []
    assert found["generations"][0]["members"][0]["val"]["miou"] is None
