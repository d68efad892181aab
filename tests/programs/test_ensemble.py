"""The committee's average as a teacher: the same program as `im` without the mask."""

import pytest
import torch

import semiseg
import tiny
from semiseg.errors import Refusal
from semiseg.methods import arguments
from semiseg.programs._generations import Generations
from semiseg.programs.consensus import Rule, consensus, load
from semiseg.programs.ensemble import Ensemble
from semiseg.programs.im import IM


def test_it_differs_from_im_in_the_rule_alone(prepared, tmp_path):
    ours, masks = Ensemble(), IM()
    assert ours.rule() == Rule("mean") and masks.rule() == Rule()
    for key in ("members", "members_by", "generations", "patience", "students", "start", "draw"):
        assert getattr(ours, key) == getattr(masks, key), key
    for method in ("supervised", "fixmatch"):
        session = tiny.session(tmp_path, prepared("binary"), method=method)
        assert vars(ours.refiner(session)) == vars(masks.refiner(session))
    assert arguments(Ensemble).items() <= arguments(IM).items()


def test_the_papers_vote(prepared, tmp_path, monkeypatch):
    """Binary sets: intersection, which is im's label before blocking (0 at inconsistent pixels); others: the mean."""
    monkeypatch.setattr(Generations, "run", lambda self, session: self.rule())
    for kind, vote in (("binary", "intersection"), ("multiclass", "mean"), ("multilabel", "mean")):
        session = tiny.session(tmp_path, prepared(kind))
        assert Ensemble(preset="paper").run(session) == Rule(vote) and Ensemble().run(session) == Rule("mean")
    session = tiny.session(tmp_path, prepared("binary"))
    networks = [tiny.Pixelwise(1, 1).eval() for _ in range(3)]
    for cut, network in zip((0.3, 0.5, 0.7), networks, strict=True):  # of the images' brightness
        weight, bias = network.parameters()
        torch.nn.init.ones_(weight)
        torch.nn.init.constant_(bias, -cut * weight[0].numel())
    ours, masks = (consensus(session, networks, rule.vote, rule) for rule in (Rule("intersection"), Rule()))
    agree = masks.planes[1] == 1
    assert agree.any() and (~agree).any() and (ours.planes[1] == 1).all()
    assert torch.equal(ours.planes[0], masks.planes[0].masked_fill(~agree, 0))


def test_one_model_is_no_ensemble():
    with pytest.raises(Refusal, match=r"ensemble\.members is 1"):
        Ensemble(members=1)


def test_a_whole_run_trusts_every_pixel(folders, tmp_path):
    summary = semiseg.train(
        folders["multiclass"], tmp_path / "run", method="ensemble", sets=["ensemble.members=2"], size=16, steps=4,
        batch=2, unlabeled_batch=2, checkpoint_every=4, network="unet1x1:0.25", device="cpu", threads=1, workers=1,
        quiet=True,
    )  # fmt: skip
    assert summary["name"] == "supervised+ensemble" and summary["arms"][-1]["name"] == "ensemble, generation 3"
    for generation in (1, 2, 3):
        stored = load(tmp_path / f"run/generation-{generation}/consensus")
        assert (stored.planes[1] == 1).all() and (stored.planes[0] < 3).all()
    assert (tmp_path / "run/report.html").is_file()
