"""The contract of a message."""

from __future__ import annotations

from _runner import Ended


def clear(ended: Ended, code: int, *words: str) -> None:
    """Exit code; a way out in every line, none of them endless; the words; no traceback and no bug of ours."""
    assert ended.code == code, ended.text
    lines = [line for line in ended.err.splitlines() if line.startswith("semiseg: error ")]
    assert lines, ended.text
    for line in lines:
        assert "Fix: " in line or "Expected: " in line, line
        assert sum(len(word) + 1 for word in line.split() if len(word) < 100) < 300, line  # a long name is not ours
    for word in words:
        assert word in ended.err, (word, ended.err)
    assert "Traceback" not in ended.text and "B01" not in ended.text
