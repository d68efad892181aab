"""A committee of labels-only models: its members, its arms, and that another run takes them over."""

import os

import pytest

import tiny
from semiseg.errors import Refusal
from semiseg.programs import program_class
from semiseg.programs.committee import Committee
from semiseg.programs.im import IM
from semiseg.training.config import Config


def test_members_without_unlabeled_images(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr("semiseg.programs.session.SELECTABLE", 1)
    session = tiny.session(tmp_path, prepared("binary"))
    outcome = Committee(members=3).run(session)
    assert [m.folder for m in outcome.committee] == [f"generation-0/member-{i}" for i in range(3)]
    assert outcome.model is max(outcome.committee, key=lambda m: m.val["miou"])
    assert outcome.baseline is outcome.committee[0]
    names = [a["name"] for a in session.arms]
    assert names == ["labels only", "labels only, best of 3 on val", "labels only, average of 3 at prediction"]
    assert len({m.result["hash"] for m in outcome.committee}) == 3
    assert all(
        m.result["images_forwarded"] == 8 * 2 for m in outcome.committee
    )  # steps x labeled batch: no other image
    assert session.generations[0]["promoted"]


def test_few_val_images_choose_nothing(prepared, tmp_path):
    session = tiny.session(tmp_path, prepared("multiclass"))
    outcome = Committee(members=2).run(session)
    assert outcome.model is outcome.committee[0] and "too few" in outcome.why
    assert [a["name"] for a in session.arms] == ["labels only", "labels only, average of 2 at prediction"]


def test_one_member_is_one_model(prepared, tmp_path):
    session = tiny.session(tmp_path, prepared("binary"))
    outcome = Committee(members=1).run(session)
    assert [a["name"] for a in session.arms] == ["labels only"] and outcome.model is outcome.committee[0]
    with pytest.raises(Refusal, match=r"committee\.members is 0"):
        Committee(members=0)


def test_members_are_taken_over_from_any_of_several_runs(prepared, tmp_path):
    """Of the first run one member, of the second two: the third run finds both and trains none of them."""
    for name, members in (("a", 1), ("b", 2)):
        Committee(members=members).run(tiny.session(tmp_path / name, prepared("binary")))
    reuse = os.pathsep.join(str(tmp_path / n) for n in ("nowhere", "a", "b"))
    session = tiny.session(tmp_path / "c", prepared("binary"), reuse=reuse)
    Committee(members=2).run(session)
    events = (tmp_path / "c/events.jsonl").read_text()
    assert events.count('"taken over"') == 2
    assert str(tmp_path / "a") in events and str(tmp_path / "b") in events


def test_a_path_may_hold_the_separator(tmp_path):
    odd = tmp_path / f"one{os.pathsep}two"
    odd.mkdir()
    assert Config(reuse=str(odd)).sources() == [str(odd)]
    assert Config(reuse=os.pathsep.join(["a", "b"])).sources() == ["a", "b"]
    assert Config(reuse=os.pathsep.join(["a", str(odd), "b", str(odd)])).sources() == ["a", str(odd), "b", str(odd)]
    assert Config().sources() == []


def test_how_many_models_programs_train():
    assert Committee(members=5).models == 5
    assert IM(members=3, generations=2, students=4, members_by="seed").models == 10
    assert IM(members=3, generations=2, students=4).models == 6  # snapshots are of one training
    for name in ("im", "ensemble", "self_training", "input_ensemble"):
        assert program_class(name)().models == 4, name  # a teacher for each of three generations, and a student
    for name in ("im_plus", "im_plusplus", "aim_plus", "aim_plusplus", "evalnet"):
        made = program_class(name)()
        assert made.models == made.members * made.generations + 1, name
    assert program_class("")().models == 1
