"""A method is found by its name, or in a file of one's own; what is wrong with either is said."""

import pytest

import tiny
from semiseg.batch import Clock
from semiseg.errors import Refusal
from semiseg.methods import method_class
from semiseg.methods.base import Method


def test_unknown_methods_are_refused_with_a_suggestion():
    with pytest.raises(Refusal, match="Did you mean 'fixmatch'") as refused:
        method_class("fixmach")
    assert refused.value.exit == 2


def test_a_method_in_a_file_of_ones_own(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from semiseg.methods.base import Method\nclass Mine(Method):\n    views = ()\n    step = print\n")
    assert method_class(f"{path}:Mine").views == ()
    for text, found in ((f"{path}:Mein", "Did you mean 'Mine'"), (f"{tmp_path}/none.py:A", "does not exist")):
        with pytest.raises(Refusal, match=found):
            method_class(text)
    path.write_text("x = (\n")
    with pytest.raises(Refusal, match=r"mine\.py:1 does not parse"):
        method_class(f"{path}:Mine")
    path.write_text("\nimport nothing_of_that_name\n")
    with pytest.raises(Refusal, match=r"mine\.py:2 fails on import: ModuleNotFoundError"):
        method_class(f"{path}:Mine")


def test_a_method_without_a_step_says_so():
    with pytest.raises(TypeError, match="must write step"):
        Method(tiny.make_of(tiny.task_of("binary")), tiny.task_of("binary")).step(None, None, Clock(0, 1))
