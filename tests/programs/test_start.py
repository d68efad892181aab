"""Students that go on from the weights of the generation before, as they do unless they cannot."""

from dataclasses import replace

import pytest
import torch

import tiny
from semiseg.errors import Refusal
from semiseg.programs import _generations
from semiseg.programs.ensemble import Ensemble
from semiseg.programs.evalnet import EvalNetProgram
from semiseg.programs.im import IM
from semiseg.programs.im_plus import IMPlus
from semiseg.programs.input_ensemble import InputEnsemble
from semiseg.programs.noisy_student import NoisyStudent
from semiseg.programs.self_training import SelfTraining
from semiseg.storage import write_bytes
from semiseg.storage.tensors import tensors_to_bytes
from semiseg.training.prepare import Prepared


@pytest.fixture
def starts(monkeypatch):
    """(own, begun with) of every member that is trained, in order; folders relative to the run."""
    seen = []
    original = Prepared.method

    def spy(self, name=None, start=None):
        seen.append(start and start.parent.parent)
        return original(self, name, start)

    monkeypatch.setattr(Prepared, "method", spy)
    monkeypatch.setattr(_generations, "judge", lambda *_: (False, "worse"))
    return seen


def begun(starts, run):
    return [s and str(s.relative_to(run)) for s in starts]


def trained(program, starts, tmp_path, data, **changes):
    """Those of the students; programs also make methods to ask them what they are."""
    return ran(program, starts, tmp_path, data, **changes)[0]


def ran(program, starts, tmp_path, data, **changes):
    """And the session."""
    session = tiny.session(tmp_path, data, steps=4, **changes)
    program.run(session)
    return [s for s in begun(starts, tmp_path) if s], session


def test_each_goes_on_from_the_member_in_its_place(prepared, tmp_path, starts):
    program = IM(members=2, members_by="seed", generations=2, patience=2, students=3, start="warm")
    assert trained(program, starts, tmp_path, prepared("binary")) == [
        "generation-0/member-0", "generation-0/member-1",
        "generation-1/member-0", "generation-1/member-1", "generation-1/member-0",
    ]  # fmt: skip


ENDS = [f"generation-{g}/member-0" for g in range(3)]  # of the training of each generation but the last


@pytest.mark.parametrize("program", [IM, Ensemble, SelfTraining, InputEnsemble])
def test_by_default_students_go_on(prepared, tmp_path, starts, program):
    assert trained(program(), starts, tmp_path, prepared("binary")) == ENDS


@pytest.mark.parametrize(
    "program",
    [
        IM(members=2, start="fresh"),
        IM(members=2, members_by="folds", generations=2, patience=2),
        IM(members=2, preset="paper"),
        NoisyStudent(),
        IMPlus(members=2),
        EvalNetProgram(members=2, threshold=0.01),
    ],
)
def test_and_afresh_where_that_is_said_or_the_papers_scheme(prepared, tmp_path, starts, program):
    assert trained(program, starts, tmp_path, prepared("binary")) == []


def test_the_first_go_on_from_labels_alone_after_a_given_committee(prepared, tmp_path, starts):
    data, given = prepared("binary"), tiny.others(tmp_path / "masks", "binary")
    found = trained(IM(members=2, start="warm"), starts, tmp_path / "one", data, committee=given)
    assert found == ["baseline", *ENDS[1:]]
    starts.clear()
    program = IM(members=2, members_by="seed", generations=2, patience=2, students=3, start="warm")
    assert trained(program, starts, tmp_path / "many", data, committee=given) == [
        "baseline", "baseline", "generation-1/member-0", "generation-1/member-1", "generation-1/member-0"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("program", "first"),
    [
        (IM(members=2, members_by="snapshots", generations=1, start="warm"), "generation-0/member-0"),  # its end
        (SelfTraining(generations=1, start="warm"), "generation-0/member-0"),
    ],
)
def test_other_committees(prepared, tmp_path, starts, program, first):
    assert trained(program, starts, tmp_path, prepared("multiclass")) == [first]


def test_another_method_goes_on_too(prepared, tmp_path, starts):
    program = IM(members=2, members_by="seed", generations=1, start="warm")
    found = trained(program, starts, tmp_path, prepared("binary"), method="fixmatch")
    assert found == ["generation-0/member-0"]


def test_the_student_and_what_copies_it_begin_there(prepared, tmp_path):
    """A second network that shall differ does not."""
    data = prepared("binary")
    state = {k: torch.full_like(v, 0.25) for k, v in data.make().state_dict().items()}
    write_bytes(tmp_path / "w.safetensors", tensors_to_bytes(state))
    made = data.method("mean_teacher", tmp_path / "w.safetensors")
    weights = [p for name in ("student", "teacher") for p in getattr(made, name).parameters()]
    assert len(weights) > 4 and all((p == 0.25).all() for p in weights)
    pair = data.method("cps", tmp_path / "w.safetensors")
    assert all((p == 0.25).all() for p in pair.student.parameters())
    assert any((p != 0.25).any() for p in pair.second.parameters())


@pytest.mark.parametrize("program", [IMPlus, NoisyStudent])
def test_a_network_that_grows_has_nothing_to_go_on_from(prepared, program):
    config = prepared("binary").config
    with pytest.raises(Refusal, match="add grow=0") as refused:
        program(generations=2, start="warm").fits(config)
    assert refused.value.exit == 2
    program(generations=2, start="warm", grow=0).fits(config)
    program(generations=1, start="warm").fits(config)  # the first students are no wider
    program(generations=2, start="warm").fits(replace(config, network="unet/resnet18"))  # which never grows


@pytest.mark.parametrize(("method", "number"), [("cps", 2), ("segkc", 2)])
def test_of_two_networks_only_one_was_kept(prepared, tmp_path, method, number):
    with pytest.raises(Refusal, match=f"start is warm, and {method} trains {number} networks"):
        IM(members=2, start="warm").run(tiny.session(tmp_path, prepared("binary"), method=method))
    assert not list(tmp_path.glob("generation-*"))


def test_a_class_that_the_weights_do_not_know(prepared, tmp_path):
    session = tiny.session(tmp_path, prepared("multiclass"))
    with pytest.raises(Refusal, match="start is warm, and label=extra adds a class"):
        IM(members=2, preset="paper", start="warm").run(session)
    assert not list(tmp_path.glob("generation-*"))


@pytest.mark.parametrize(
    ("kind", "method", "arguments", "why"),
    [
        ("binary", "cps", {}, "cps trains 2 networks, of which one is kept"),
        ("multiclass", "supervised", {"label": "extra"}, "label=extra adds a class that their teachers do not have"),
    ],
)
def test_who_cannot_go_on_starts_afresh_unless_it_was_asked_for(
    prepared, tmp_path, starts, kind, method, arguments, why
):
    """The default gives way and says so, once; a word that was typed is refused before anything is trained."""
    found, session = ran(IM(members=2, **arguments), starts, tmp_path / "a", prepared(kind), method=method)
    assert found == [] and len(session.generations) == 4
    assert session.warnings.count(f"Students start afresh: {why}.") == 1
    with pytest.raises(Refusal, match=f"start is warm, and {why}"):
        IM(members=2, start="warm", **arguments).run(tiny.session(tmp_path / "b", prepared(kind), method=method))
    assert not list((tmp_path / "b").glob("generation-*"))
