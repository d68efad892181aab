"""The committee's average as a teacher: the same program as `im` without the mask."""

import pytest

import semiseg
import tiny
from semiseg.errors import Refusal
from semiseg.methods import arguments
from semiseg.programs.consensus import Rule, load
from semiseg.programs.ensemble import Ensemble
from semiseg.programs.im import IM


def test_it_differs_from_im_in_the_rule_alone(prepared, tmp_path):
    ours, masks = Ensemble(), IM()
    assert ours.rule() == Rule(mean=True) and masks.rule() == Rule()
    assert (ours.members, ours.generations, ours.students) == (masks.members, masks.generations, masks.students)
    for method in ("supervised", "fixmatch"):
        session = tiny.session(tmp_path, prepared("binary"), method=method)
        assert vars(ours.refiner(session)) == vars(masks.refiner(session))
    assert arguments(Ensemble).items() <= arguments(IM).items()


def test_one_model_is_no_ensemble():
    with pytest.raises(Refusal, match=r"ensemble\.members is 1"):
        Ensemble(members=1)


def test_a_whole_run_trusts_every_pixel(folders, tmp_path):
    summary = semiseg.train(
        folders["multiclass"], tmp_path / "run", method="ensemble", sets=["ensemble.members=2"], size=16, steps=4,
        batch=2, unlabeled_batch=2, checkpoint_every=4, network="unet1x1:0.25", device="cpu", threads=1, workers=1,
        quiet=True,
    )  # fmt: skip
    assert summary["name"] == "supervised+ensemble" and summary["arms"][-1]["name"] == "ensemble, generation 1"
    stored = load(tmp_path / "run/generation-1/consensus")
    assert (stored.planes[1] == 1).all() and (stored.planes[0] < 3).all()
    assert (tmp_path / "run/report.html").is_file()
