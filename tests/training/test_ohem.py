"""How many pixels loss=ohem counts at least is a setting, and holds for every task that a run makes of its own."""

from dataclasses import replace

import pytest
import torch

import tiny
from semiseg import losses
from semiseg.errors import Refusal
from semiseg.programs._tasks import ExtraClass, Weighted
from semiseg.programs.consensus import Stored
from semiseg.programs.im import IM
from semiseg.programs.train import configure
from semiseg.task import make_task
from semiseg.training.config import Config


def sure(task, mask):
    """Logits that are right and sure of it: few pixels are hard by the threshold."""
    right = 2 * task.truth(mask) - 1
    return 4 * right + torch.randn(right.shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("share", [None, 0.0, 0.5, 1.0])
@pytest.mark.parametrize("kind", tiny.KINDS)
def test_as_many_of_the_hardest_pixels_count_as_are_asked_for(kind, share, folders, tmp_path):
    sets = ["loss=ohem", *([] if share is None else [f"ohem_kept={share}"])]
    config = configure({"data": "x"}, sets, None, {})
    task = tiny.prepare(folders[kind], tmp_path, loss=config.loss, ohem_kept=config.ohem_kept).task
    batch = tiny.labeled(kind, n=2, size=16)
    logits = sure(task, batch.mask)
    per = task.loss_map(logits, batch.mask).flatten()
    hard = int((torch.exp(-per) <= 0.7).sum())
    least = max(hard, 1, round((0.156 if share is None else share) * per.numel()))
    assert hard < 0.1 * per.numel()
    want = per.sort(descending=True).values[:least].mean().item()
    assert task.supervised(logits, batch).item() == pytest.approx(want, abs=1e-6)


def task_with_an_extra_class(session):
    pixels = len(session.data.unlabeled.pixels)
    planes = (torch.ones(pixels, 1, dtype=torch.uint8), torch.ones(pixels, 1, dtype=torch.uint8))
    rows = [{"image": name, "inconsistent_share": 0.0} for name in session.data.unlabeled.names]
    taught, _ = IM(label="extra").lessons(session, 1, Stored(planes, 0.0, {}, rows))
    return taught.data.task


def task_with_a_heavier_label(session):
    IM(discs="dead", disc_weight=3.0).run(session)
    return session.data.task


@pytest.mark.parametrize(
    ("kind", "other", "made"),
    [("multiclass", ExtraClass, task_with_an_extra_class), ("multilabel", Weighted, task_with_a_heavier_label)],
)
def test_tasks_of_a_program_keep_it(kind, other, made, prepared, tmp_path, monkeypatch):
    """Where all pixels are kept the loss is the cross-entropy."""
    monkeypatch.setattr("semiseg.programs._generations.Generations.run", lambda self, session: None)
    data, batch = prepared(kind), tiny.labeled(kind, n=2, size=16)
    found = {}
    for loss in ("ce", "ohem"):
        task = made(tiny.session(tmp_path, replace(data, task=make_task(kind, tiny.NAMES[kind], loss, 1.0))))
        assert isinstance(task, other) and task.loss == loss
        found[loss] = task.supervised(sure(data.task, batch.mask), batch).item()
    assert found["ohem"] == pytest.approx(found["ce"], abs=1e-6)


def test_what_is_asked_for_is_a_share():
    assert Config().ohem_kept == losses.OHEM_KEPT
    with pytest.raises(Refusal, match="ohem_kept to 100000"):
        configure({"data": "x"}, ["ohem_kept=100000"], None, {})
