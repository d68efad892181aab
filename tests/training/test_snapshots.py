"""Weights that are kept along the way are as sound as a checkpoint's."""

from types import SimpleNamespace

import pytest

import tiny
from semiseg import storage
from semiseg.errors import DIVERGED, Refusal
from semiseg.methods.supervised import Supervised
from semiseg.training.loop import _Run


def snapshots(prepared, run):
    """Two members of one training; the earlier one is kept after step 33 of 44, between two rows of the log."""
    return tiny.session(run, prepared("binary"), steps=44, eval_every=44).snapshots(0, 2, "member")


def test_a_loss_that_is_not_finite_is_never_kept(prepared, tmp_path, monkeypatch):
    real = Supervised.step

    def spoiled(self, labeled, unlabeled, clock):
        made = real(self, labeled, unlabeled, clock)
        return {**made, "loss": made["loss"] * (float("nan") if clock.step == 32 else 1.0)}

    monkeypatch.setattr(Supervised, "step", spoiled)
    with pytest.raises(Refusal, match="not finite at step 32") as refused:
        snapshots(prepared, tmp_path)
    assert refused.value.exit == DIVERGED
    assert not list(tmp_path.rglob("*.safetensors"))


def test_sound_weights_are_kept(prepared, tmp_path):
    members = snapshots(prepared, tmp_path)
    assert [storage.read_json(tmp_path / m.folder / "final/result.json")["steps"] for m in members] == [44, 33]


@pytest.mark.parametrize(("images", "said"), [(19, " · val 0.500"), (20, " · best val 0.700")])
def test_the_bar_shows_the_score_of_what_is_kept(images, said):
    """Below 20 val images the last weights are kept, whatever an earlier evaluation said."""
    run = SimpleNamespace(job=SimpleNamespace(val_images=images), last={"miou": 0.5}, best_val={"miou": 0.7})
    assert _Run.score_note(run) == said
    run.last = run.best_val = None
    assert _Run.score_note(run) == ""
