"""Sizes that keep the house liveable, and nothing of one machine in it."""

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
LOOP = "training/loop.py"


def functions(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node.end_lineno - node.lineno + 1


def name(path):
    return path.relative_to(ROOT).as_posix()


def test_no_file_is_longer_than_300_lines():
    long = {name(p): n for p in SOURCES if (n := len(p.read_text().splitlines())) > 300}
    assert not long, long


def test_no_function_is_longer_than_60_lines():
    """Those of the training loop's file may have 90."""
    long = {
        f"{name(p)}:{function}": length
        for p in SOURCES
        for function, length in functions(p)
        if length > (90 if p.as_posix().endswith(LOOP) else 60)
    }
    assert not long, long


def test_no_two_test_files_have_one_name():
    """Without packages, pytest refuses to collect the second one."""
    names = [p.name for p in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names)), sorted({n for n in names if names.count(n) > 1})


def test_the_median_file_is_short():
    lengths = sorted(len(p.read_text().splitlines()) for p in SOURCES if p.name != "__init__.py")
    assert lengths[len(lengths) // 2] <= 140


def tracked():
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:  # an unpacked archive
        return [p for p in (ROOT / "src", ROOT / "tests") for p in p.rglob("*.py")]
    return [p for n in done.stdout.split("\0") if n and (p := ROOT / n).is_file()]


def test_nothing_names_a_machine():
    places = [b"/" + b"work/", b"/" + b"root/"]
    found = [name(p) for p in tracked() if any(place in p.read_bytes() for place in places)]
    assert not found, found


@pytest.mark.parametrize("word", ["TO" + "DO", "FIX" + "ME", "raise NotImplemented" + "Error"])
def test_nothing_is_left_undone(word):
    assert not [name(p) for p in SOURCES if word in p.read_text()]
