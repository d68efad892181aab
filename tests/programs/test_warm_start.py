"""Students that go on from the weights of the generation before: one training that runs through all generations."""

from dataclasses import replace

import pytest
import torch

import tiny
from semiseg.errors import Refusal
from semiseg.programs import _generations
from semiseg.programs import session as session_module
from semiseg.programs.im import IM
from semiseg.programs.im_plus import IMPlus
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
    session = tiny.session(tmp_path, data, steps=8, **changes)
    program.run(session)
    return [s for s in begun(starts, tmp_path) if s]


def test_each_goes_on_from_the_member_in_its_place(prepared, tmp_path, starts):
    program = IM(members=2, generations=2, patience=2, students=3, warm_start=True)
    assert trained(program, starts, tmp_path, prepared("binary")) == [
        "generation-0/member-0", "generation-0/member-1",
        "generation-1/member-0", "generation-1/member-1", "generation-1/member-0",
    ]  # fmt: skip


@pytest.fixture
def jobs(monkeypatch):
    """What was trained, in order."""
    seen = []
    original = session_module.fit

    def spy(job):
        seen.append(job)
        return original(job)

    monkeypatch.setattr(session_module, "fit", spy)
    monkeypatch.setattr(_generations, "judge", lambda *_: (False, "worse"))
    return seen


def labeled(job):
    return [job.feed.labeled(step) for step in range(job.config.steps)]


def rates(job):
    rows = (job.folder / "metrics.csv").read_text().splitlines()[1:]
    return [float(row.split(",")[3]) for row in rows if row.split(",")[1] == "train"]


@pytest.mark.parametrize(("steps", "parts"), [(8, [2, 3, 3]), (9, [3, 3, 3]), (3, [1, 1, 1])])
def test_the_generations_are_one_training_with_the_batches_and_rates_of_labels_only(
    prepared, tmp_path, jobs, steps, parts
):
    session = tiny.session(tmp_path, prepared("binary"), steps=steps)
    IM(members=2, generations=2, patience=2, warm_start=True).run(session)
    baseline, *chain = [j for j in jobs if j.folder.name in ("baseline", "member-0")]
    assert (baseline.folder.name, baseline.config.steps) == ("baseline", steps)
    assert [j.config.steps for j in chain] == parts
    for ours, theirs in zip([b for job in chain for b in labeled(job)], labeled(baseline), strict=True):
        assert torch.equal(ours.image, theirs.image) and torch.equal(ours.mask, theirs.mask)
    assert [r for job in chain for r in rates(job)] == rates(baseline) and len(set(rates(baseline))) > 1


def test_labels_only_is_trained_as_long_and_generation_0_is_not_called_so(prepared, tmp_path):
    session = tiny.session(tmp_path, prepared("multiclass"), steps=8)
    outcome = SelfTraining(warm_start=True).run(session)
    assert outcome.baseline.folder == "baseline" and outcome.baseline.result["steps"] == 8
    assert [a["name"] for a in session.arms][:2] == ["labels only", "supervised, generation 0"]
    bare = tiny.session(tmp_path / "bare", prepared("multiclass"), steps=8, baseline=False)
    assert SelfTraining(warm_start=True).run(bare).baseline is None  # `compare` has a cell of its own for it


@pytest.mark.parametrize(
    ("arguments", "models"),
    [
        ({"members_by": "snapshots", "generations": 3}, 1), ({"members": 3}, 2), ({"members": 3, "generations": 2}, 3),
        ({"members": 3, "warm_start": False}, 4),
    ],
)  # fmt: skip
def test_models_are_counted_in_trainings_of_all_steps(arguments, models):
    assert IM(**{"warm_start": True, **arguments}).models == models


def test_a_training_too_short_to_be_divided(prepared, tmp_path):
    program = IM(members=2, members_by="snapshots", generations=2, warm_start=True)
    with pytest.raises(Refusal, match="use 12 or more") as refused:
        program.run(tiny.session(tmp_path, prepared("binary"), steps=11))
    assert refused.value.exit == 2 and not list(tmp_path.glob("generation-*"))


def test_by_default_students_start_afresh(prepared, tmp_path, starts):
    assert trained(IM(members=2), starts, tmp_path, prepared("binary")) == []


@pytest.mark.parametrize(
    ("program", "first"),
    [
        (IM(members=2, members_by="snapshots", warm_start=True), "generation-0/member-0"),  # the end of the training
        (SelfTraining(warm_start=True), "generation-0/member-0"),
    ],
)
def test_other_committees(prepared, tmp_path, starts, program, first):
    assert trained(program, starts, tmp_path, prepared("multiclass")) == [first]


def test_another_method_goes_on_too(prepared, tmp_path, starts):
    found = trained(IM(members=2, warm_start=True), starts, tmp_path, prepared("binary"), method="fixmatch")
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
        program(generations=2, warm_start=True).fits(config)
    assert refused.value.exit == 2
    program(generations=2, warm_start=True, grow=0).fits(config)
    program(generations=1, warm_start=True).fits(config)  # the first students are no wider
    program(generations=2, warm_start=True).fits(replace(config, network="unet/resnet18"))  # which never grows


def test_a_given_committee_has_no_weights_of_ours(prepared):
    with pytest.raises(Refusal, match="needs a generation of our own") as refused:
        IM(warm_start=True).fits(replace(prepared("binary").config, committee="a,b"))
    assert refused.value.exit == 2


@pytest.mark.parametrize(("method", "number"), [("cps", 2), ("segkc", 2)])
def test_of_two_networks_only_one_was_kept(prepared, tmp_path, method, number):
    with pytest.raises(Refusal, match=f"{method} trains {number}"):
        IM(members=2, warm_start=True).run(tiny.session(tmp_path, prepared("binary"), method=method))
    assert not list(tmp_path.glob("generation-*"))


def test_a_class_that_the_weights_do_not_know(prepared, tmp_path):
    session = tiny.session(tmp_path, prepared("multiclass"))
    with pytest.raises(Refusal, match="warm_start goes on from weights that do not know"):
        IM(members=2, preset="paper", warm_start=True).run(session)
    assert not list(tmp_path.glob("generation-*"))
