"""Few val images: two generations are compared on the same ones, also where there is nothing to find."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import semiseg
import tiny
from semiseg.programs import _promotion, diagnostics, train
from semiseg.programs._promotion import EveryImage, every_image, judge, shipped
from semiseg.programs.base import Outcome
from semiseg.programs.session import Member
from semiseg.task import Multiclass, Multilabel

SMALL = {"size": 16, "steps": 2, "batch": 2, "network": "unet1x1:0.125", "device": "cpu", "threads": 1,
         "workers": 1, "unlabeled_batch": 2, "checkpoint_every": 4, "quiet": True}  # fmt: skip


class Above(nn.Module):
    """Finds whatever is brighter than a level."""

    def __init__(self, level):
        super().__init__()
        self.level = level

    def forward(self, x):
        return (x - self.level) * 100


def test_an_empty_image_that_stays_empty_counts():
    """A model that finds things in an empty image loses to one that finds less of the object and nothing there."""
    empty, image = np.full((8, 8, 1), 100, np.uint8), np.full((8, 8, 1), 100, np.uint8)
    image[2:4], image[4:6] = 150, 200
    masks = [np.zeros((8, 8, 1), np.uint8), (image > 100).astype(np.uint8)]
    val = tiny.store_of([empty, image], masks)
    val.stacked = True
    nets = {"eager": Above(0.3), "shy": Above(0.7)}
    data = SimpleNamespace(task=Multilabel(["cell"]), units=tiny.plain_units(1, 255.0))
    session = SimpleNamespace(
        folded=False, data=data, scored_on=lambda i: val, load=lambda m: nets[m.folder], selectable=lambda: False
    )
    eager, shy = (Member(n, 0, {"val": every_image(session, [Member(n, 0, {})])}) for n in nets)
    assert eager.val["iou_per_image"] == pytest.approx((0 + 0.5) / 2)
    assert shy.val["iou_per_image"] == pytest.approx((1 + 0.5) / 2)
    assert judge(session, eager.val, shy.val)[0] and not judge(session, shy.val, eager.val)[0]


def test_an_image_of_which_nothing_is_known_counts_for_nobody():
    for task in (Multilabel(["a", "b"]), Multiclass(["a", "b"])):
        metrics = EveryImage(task)
        shape = (2, 4, 4) if task.multilabel else (4, 4)
        metrics.update(torch.zeros(shape), torch.full(shape, 255))
        assert metrics.compute()["iou_per_image"] is None


def test_a_run_is_promoted_by_it_and_says_each_warning_once(folders, tmp_path, monkeypatch):
    def scores(session, members):
        return {"miou": None, "iou_per_image": 0.5 + 0.1 * members[0].generation}

    monkeypatch.setattr(_promotion, "every_image", scores)
    monkeypatch.setattr(diagnostics, "collapse", lambda *_: 2 * ["Said twice."])
    summary = semiseg.train(folders["binary"], tmp_path / "run", method="im", sets=tiny.words(members=2), **SMALL)
    last = summary["generations"][-1]
    assert last["promoted"] and last["why"] == "iou_per_image on val 0.5000 → 0.6000"
    assert summary["arms"][-1]["val"]["miou"] is not None  # the table keeps METRICS
    assert summary["warnings"].count("Said twice.") == 1


def outcome(mine, labels_only):
    def member(folder, miou):
        return Member(folder, 1, {"val": None if miou == "no val" else {"miou": miou, "iou_per_image": miou}})

    model = member("generation-1/member-0", mine)
    return Outcome(model, [model], "promoted", member("baseline", labels_only))


@pytest.mark.parametrize(
    ("mine", "labels_only", "which"),
    [
        (0.4, 0.5, "baseline"), (0.5, 0.4, "generation-1/member-0"), (0.5, 0.5, "generation-1/member-0"),
        ("no val", "no val", "generation-1/member-0"), (None, None, "generation-1/member-0"),
    ],
)  # fmt: skip
def test_labels_only_is_shipped_where_it_is_better(mine, labels_only, which):
    session = SimpleNamespace(first=[], folded=False, selectable=lambda: True)
    made = shipped(session, outcome(mine, labels_only))
    assert made.model.folder == which
    assert (made.why == "promoted") == (which != "baseline")
    assert [m.folder for m in made.committee] == [which]
    several = outcome(mine, labels_only)
    several.committee = 2 * several.committee
    assert shipped(session, several).committee == several.committee  # whose disagreement is mapped all the same


def test_few_val_images_ship_by_the_mean_over_all_of_them(monkeypatch):
    """iou_per_image of a model leaves out what is empty for it; the two are asked about the same images."""
    told = {"generation-1/member-0": 0.7, "baseline": 0.8}
    monkeypatch.setattr(_promotion, "every_image", lambda _, members: {"iou_per_image": told[members[0].folder]})
    session = SimpleNamespace(first=[], folded=False, selectable=lambda: False)
    made = shipped(session, outcome(0.9, 0.1))
    assert made.model.folder == "baseline"
    assert made.why == "labels only is better than generation-1/member-0: iou_per_image on val 0.7000 → 0.8000"


def test_what_is_shipped_is_what_predicts_and_what_the_report_names(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "shipped", lambda session, made: replace(made, model=made.baseline, why="for a test"))
    run = tmp_path / "run"
    summary = semiseg.train(folders["binary"], run, method="im", sets=["im.members=2"], **SMALL)
    assert summary["model"]["folder"] == "baseline" and summary["model"]["why"] == "for a test"
    assert semiseg.load(run).folders["model"] == "baseline"
    assert "a labels-only model is kept" in (run / "report.html").read_text()


def test_a_baseline_that_lost_a_generation_is_not_asked_again():
    """With folds, and beside a given committee, it is generation 0 and was compared on more images."""
    made = outcome(0.4, 0.5)
    assert made.baseline is not None
    session = SimpleNamespace(first=[made.baseline], selectable=lambda: True)
    assert shipped(session, made) is made
