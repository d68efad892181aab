"""Students that go on from the weights of the generation before, as they do unless they cannot."""

from dataclasses import replace

import pytest
import torch

import tiny
from semiseg.data.sampler import Drawing
from semiseg.data.views import VIEWS
from semiseg.errors import Refusal
from semiseg.programs import _generations
from semiseg.programs.ensemble import Ensemble
from semiseg.programs.evalnet import EvalNetProgram
from semiseg.programs.im import IM
from semiseg.programs.im_plus import IMPlus
from semiseg.programs.input_ensemble import InputEnsemble
from semiseg.programs.noisy_student import NoisyStudent
from semiseg.programs.self_training import SelfTraining
from semiseg.programs.train import configure
from semiseg.storage import read_json, write_bytes
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


def test_the_first_begin_afresh_after_a_given_committee(prepared, tmp_path, starts):
    """It has no weights of ours. Labels only has as many steps as what follows has in a row."""
    data, given = prepared("binary"), tiny.others(tmp_path / "masks", "binary")
    found = trained(IM(members=2, start="warm"), starts, tmp_path / "one", data, committee=given)
    assert found == ENDS[1:]
    assert result(tmp_path / "one/baseline")["steps"] == 3 * 4
    starts.clear()
    program = IM(members=2, members_by="seed", generations=2, patience=2, students=3, start="warm")
    assert trained(program, starts, tmp_path / "many", data, committee=given) == [
        "generation-1/member-0", "generation-1/member-1", "generation-1/member-0",
    ]  # fmt: skip


def result(folder):
    return read_json(folder / "final/result.json")


@pytest.mark.parametrize(
    "arguments", [{}, {"members_by": "seed", "generations": 2, "start": "warm"}, {"start": "fresh"}]
)
def test_labels_only_has_as_many_steps_as_what_is_shipped(prepared, tmp_path, starts, arguments):
    """Beside fresh students it is generation 0's first model; `compare` has cells of its own for it."""
    program = IM(members=2, **arguments)
    session = tiny.session(tmp_path / "a", prepared("binary"), steps=4)
    outcome = program.run(session)
    if program.start == "fresh":
        assert outcome.baseline.folder == "generation-0/member-0" and outcome.baseline.result["steps"] == 4
        return
    assert outcome.baseline.folder == "baseline"
    assert outcome.baseline.result["steps"] == 4 * (program.generations + 1)
    assert [a["name"] for a in session.arms][:2] == ["labels only", "supervised, generation 0"]
    bare = tiny.session(tmp_path / "b", prepared("binary"), steps=4, baseline=False)
    assert IM(members=2, **arguments).run(bare).baseline is None
    assert bare.arms[0]["name"] == "supervised, generation 0"


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


@pytest.mark.parametrize(
    ("kind", "method", "arguments", "why"),
    [
        ("binary", "cps", {}, "cps trains 2 networks, of which one is kept"),
        ("binary", "segkc", {"start": "warm"}, "segkc trains 2 networks, of which one is kept"),
        ("multiclass", "supervised", {"label": "extra"}, "label=extra adds a class that their teachers do not have"),
    ],
)
def test_who_cannot_go_on_starts_afresh_and_says_so(prepared, tmp_path, starts, kind, method, arguments, why):
    found, session = ran(IM(members=2, **arguments), starts, tmp_path / "a", prepared(kind), method=method)
    assert found == [] and len(session.generations) == 4
    assert session.warnings.count(f"Students start afresh: {why}.") == 1


def asked(method, *sets, **saved):
    return configure({"data": "nowhere", "out": "nowhere", "method": method, **saved}, list(sets), None, {})


@pytest.mark.parametrize(
    ("method", "sets", "weight"),
    [
        ("im", [], 0.3), ("ensemble", [], 0.3), ("self_training", [], 0.3), ("input_ensemble", [], 0.3),
        ("supervised", [], 1.0), ("noisy_student", [], 1.0), ("im_plus", [], 1.0),
        ("im", ["im.members_by=seed"], 1.0), ("im", ["im.start=fresh"], 1.0), ("im", ["im.preset=paper"], 1.0),
        ("im", ["im.label=extra"], 1.0), ("im", ["committee=a"], 1.0), ("im", ["supervised.weight=0.7"], 0.7),
        ("im", ["im.members_by=seed", "im.start=warm"], 0.3), ("fixmatch+im", [], 1.0), ("im", ["im.draw=pool"], 1.0),
        ("im", ["im.preset=paper", "im.start=warm"], 1.0),
    ],
)  # fmt: skip
def test_a_consensus_counts_less_for_who_goes_on(method, sets, weight):
    """At full weight a student unlearns what its teachers do not find, and it knows already what they know."""
    assert asked(method, *sets).method_args["weight"] == weight


def test_a_run_that_was_started_at_full_weight_stays_there():
    old = asked("im", "supervised.weight=1").to_json()
    assert configure({"data": "nowhere", "out": "nowhere"}, [], None, old).method_args["weight"] == 1.0


def test_the_weight_of_a_consensus_does_not_set_first_trainings_apart():
    """No committee is trained twice because its students will be taught otherwise."""
    prints = {asked(m, *s).shape((0, 0, 0), "supervised", "data") for m, s in
              [("im", []), ("im", ["supervised.weight=1"]), ("committee", []), ("supervised", [])]}  # fmt: skip
    assert len(prints) == 1
    other = [asked(m).shape((0,), "fixmatch", "data") for m in ("fixmatch", "fixmatch+im")]
    assert asked("fixmatch", "fixmatch.weight=2").shape((0,), "fixmatch", "data") not in other and len(set(other)) == 1


@pytest.mark.parametrize(
    ("program", "changes", "strong"),
    [
        (IM(), {}, True), (SelfTraining(), {}, True), (InputEnsemble(), {}, True), (Ensemble(members_by="seed"), {}, False),
        (IM(members_by="seed", view="strong"), {}, True), (IM(view="train"), {}, False), (IM(), {"augment": "none"}, False),
        (IM(preset="paper"), {}, False), (IM(label="extra"), {}, False), (IM(), {"method": "sufd"}, False),
    ],
)  # fmt: skip
def test_how_students_see_a_consensus(program, changes, strong, prepared, tmp_path):
    """In strong colours where they go on; the labels' images, and who is not taught, keep their own."""
    data = prepared("binary")
    data = replace(data, config=replace(data.config, **changes))
    school = program.school(tiny.session(tmp_path, data), Drawing())
    colors = school.data.drawing.colors
    assert colors == (VIEWS["strong"] if strong else None)
    planes = tuple(torch.ones(len(data.unlabeled.pixels), 1, dtype=torch.uint8) for _ in range(2))
    taught, plain = (school.data.feed((0, 0), unlabeled=True, planes=p) for p in (planes, None))
    seen, usual = (f.unlabeled(0, ("train",)) for f in (taught, plain))
    assert torch.equal(seen.weak, usual.weak) and torch.equal(seen.strong[0], usual.strong[0]) == (not strong)
    assert torch.equal(taught.labeled(0).image, plain.labeled(0).image)
