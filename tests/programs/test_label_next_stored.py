"""What to label next is read from the consensus that holds it; where none does, the committee is asked."""

from dataclasses import replace

import numpy as np
import pytest

import tiny
from semiseg import storage
from semiseg.programs import outputs, ranking
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
        assert ranked(session, members) == alone and seen == folders[:1]  # the model, for its features alone
        assert ranked(session, members[:2]) != alone and seen[1:] == [*folders[:2], folders[0]]  # others are asked


@pytest.mark.parametrize("rule", [Rule(agreement=2), Rule(erode=3), Rule(dilate=3)])
def test_what_hides_more_or_less_than_disagreement_ranks_nothing(trained, monkeypatch, rule):
    session, members = trained
    storage.remove(session.run / FOLDER)
    alone = ranked(session, members)
    stored = consensus(session, [session.load(m) for m in members], FOLDER, rule, [m.folder for m in members])
    assert {r["image"]: r["inconsistent_share"] for r in stored.rows} != dict(alone) and not stored.who
    seen = asked(session, monkeypatch)
    assert ranked(session, members) == alone and len(seen) == 4


def test_views_of_one_teacher_are_not_its_committee(trained, monkeypatch):
    """Somebody else was asked: nothing says whose disagreement is stored."""
    session, members = trained
    storage.remove(session.run / FOLDER)
    alone = ranked(session, members)
    consensus(session, [session.load(members[0]), session.load(members[1])], FOLDER, Rule())
    seen = asked(session, monkeypatch)
    assert ranked(session, members) == alone and len(seen) == 4


def test_first_comes_what_stands_for_many_disputed_images(trained, monkeypatch):
    """Two images alike with a little doubt each are before one that is disputed more, and alone; see test_ranking.py."""
    session, members = trained
    names = session.data.unlabeled.names
    scores = dict.fromkeys(names, 0.0) | {names[0]: 0.5, names[1]: 0.3, names[2]: 0.3}
    places = dict.fromkeys(names, (0.0, 0.0)) | {names[0]: (1.0, 0.0), names[1]: (0.0, 1.0), names[2]: (0.0, 1.0)}
    monkeypatch.setattr(outputs, "_stored", lambda *_: list(scores.values()))
    unlabeled = len(session.data.labeled)
    rows = iter([(0.0, 0.0)] * unlabeled + list(places.values()))
    monkeypatch.setattr(outputs, "feature", lambda network, image: np.array([next(rows) for _ in image]))
    assert [image for image, _ in ranked(session, members)[:3]] == [names[1], names[0], names[2]]


def test_only_the_pool_is_looked_at(trained, monkeypatch):
    """The two most disputed ones and the labeled ones are encoded; the others follow by score."""
    session, members = trained
    names = session.data.unlabeled.names
    monkeypatch.setattr(outputs, "POOL", 2)
    monkeypatch.setattr(ranking, "POOL", 2)
    monkeypatch.setattr(outputs, "_stored", lambda *_: [i / 10 for i in range(len(names))])
    seen = []
    monkeypatch.setattr(outputs, "feature", lambda _, image: seen.extend(image) or np.ones((len(image), 2)))
    order = [image for image, _ in ranked(session, members)]
    assert order == list(reversed(names)) and len(seen) == len(session.data.labeled) + 2


def test_a_finished_member_is_found_without_its_method(trained, monkeypatch):
    session, members = trained

    def method(self, *_):
        raise AssertionError("built")

    monkeypatch.setattr(type(session.data), "method", method)
    again = replace(session, members=[]).train(0, 1, "1")
    assert again.result == members[1].result
