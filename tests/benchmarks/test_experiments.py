"""The experiments ask for arms that exist: a queue of hours must not stop at a misspelt one."""

import argparse
import itertools
from pathlib import Path

import pytest

import does_it_help
import im_ablation
from semiseg.compare.request import Request, configured


def asked(request):
    problems, notes = [], []
    arms = configured(request, problems, notes)
    assert problems == [] and notes == []
    return arms


@pytest.mark.parametrize("stage", ["screen", "confirm", "stability"])
def test_the_ablation_can_be_configured(stage, tmp_path, monkeypatch):
    monkeypatch.setattr(im_ablation, "folder", lambda name, root, runs: root / name)
    args = argparse.Namespace(
        root=tmp_path, runs=tmp_path, stage=stage, steps=20, jobs=1, generations=5, only=[], arms=[]
    )
    for request in im_ablation.requests(args):
        assert request.split == "val"
        assert len(asked(request)) == len(request.methods)


def test_one_factor_at_a_time():
    """Every arm has one factor, and its row finds it again by the title that `compare` gives it."""
    arms = list(itertools.chain.from_iterable(im_ablation.FACTORS.values()))
    assert len(arms) == len(set(arms))
    titles = [a.title for a in asked(Request([Path("data")], arms, Path("out")))]
    assert all(im_ablation.factor(title) for title in titles)
    assert im_ablation.factor(im_ablation.CENTRE) == "centre"


def test_the_comparisons_can_be_configured():
    sets = [w for w in does_it_help.SHARED if "=" in w]
    assert len(asked(Request([Path("data")], does_it_help.ARMS, Path("out"), sets=sets))) == len(does_it_help.ARMS)
