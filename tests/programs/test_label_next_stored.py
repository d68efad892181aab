"""What to label next is read from the consensus that holds it; where none does, the committee is asked."""

from dataclasses import replace

import pytest

import tiny
from semiseg import storage
from semiseg.programs.base import Outcome
from semiseg.programs.consensus import Rule, consensus
from semiseg.programs.outputs import label_next

FOLDER = "generation-1/consensus"


@pytest.fixture(scope="module")
def trained(prepared, tmp_path_factory):
    session = tiny.session(tmp_path_factory.mktemp("next"), prepared("multiclass"), steps=2, eval_every=2)
    return session, [session.train(0, i, f"{i}") for i in range(3)]


def ranked(session, members):
    return [(r["image"], r["score"]) for r in label_next(session, Outcome(members[0], members, ""))]


def asked(session, monkeypatch):
    """The members that are loaded from now on, by their folders."""
    seen, load = [], type(session).load
    monkeypatch.setattr(type(session), "load", lambda self, member: seen.append(member.folder) or load(self, member))
    return seen


def test_a_plain_consensus_of_the_same_members_is_enough(trained, monkeypatch):
    session, members = trained
    alone = ranked(session, members)
    folders = [m.folder for m in members]
    networks = [session.load(m) for m in members]
    for vote in ("consensus", "mean"):
        storage.remove(session.run / FOLDER)
        consensus(session, networks, FOLDER, Rule(vote), folders)
        seen = asked(session, monkeypatch)
        assert ranked(session, members) == alone and seen == []
        assert ranked(session, members[:2]) != alone and seen == folders[:2]  # others are asked


@pytest.mark.parametrize("rule", [Rule(agreement=2), Rule(erode=3), Rule(dilate=3)])
def test_what_hides_more_or_less_than_disagreement_ranks_nothing(trained, monkeypatch, rule):
    session, members = trained
    storage.remove(session.run / FOLDER)
    alone = ranked(session, members)
    stored = consensus(session, [session.load(m) for m in members], FOLDER, rule, [m.folder for m in members])
    assert {r["image"]: r["inconsistent_share"] for r in stored.rows} != dict(alone) and not stored.who
    seen = asked(session, monkeypatch)
    assert ranked(session, members) == alone and len(seen) == 3


def test_views_of_one_teacher_are_not_its_committee(trained, monkeypatch):
    """Somebody else was asked: nothing says whose disagreement is stored."""
    session, members = trained
    storage.remove(session.run / FOLDER)
    alone = ranked(session, members)
    consensus(session, [session.load(members[0]), session.load(members[1])], FOLDER, Rule())
    seen = asked(session, monkeypatch)
    assert ranked(session, members) == alone and len(seen) == 3


def test_a_finished_member_is_found_without_its_method(trained, monkeypatch):
    session, members = trained

    def method(self, name=None):
        raise AssertionError("built")

    monkeypatch.setattr(type(session.data), "method", method)
    again = replace(session, members=[]).train(0, 1, "1")
    assert again.result == members[1].result
