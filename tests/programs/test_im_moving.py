"""A committee that moves with the student: its votes re-derived in loops, and whole runs around every method."""

import copy
import csv
import itertools
import json

import pytest
import torch

import semiseg
import tiny
from semiseg.batch import Clock
from semiseg.errors import Refusal
from semiseg.methods import METHODS, method_class
from semiseg.programs.im_moving import IMMoving, MovingCommittee
from semiseg.storage import read_tensors


def belief(task, unlabeled):
    g = torch.Generator().manual_seed(2)
    own = task.target(torch.randn(3, task.channels, 8, 8, generator=g), unlabeled.valid)
    return own.replace(weight=torch.rand(own.weight.shape, generator=g))


def student_of(task, seed):
    torch.manual_seed(seed)
    return tiny.Pixelwise(1, task.channels).eval()


def test_votes_in_loops(kind):
    """Average i after n updates has moved by 1 - min(1 - 1/(n+1), 1 - 10^-i): .9 and .99 are still warming up here."""
    task, unlabeled = tiny.task_of(kind), tiny.unlabeled(kind, size=8)
    own, student = belief(task, unlabeled), student_of(task, 0)
    committee = MovingCommittee(student, task, 3)
    weights = [copy.deepcopy(student.state_dict()) for _ in range(2)]
    for n in range(3):
        torch.manual_seed(n)
        for p in student.parameters():
            torch.nn.init.normal_(p)
        same, target = committee(unlabeled, own, Clock(n, 10**6))
        assert same is unlabeled and torch.equal(target.label, own.label) and not target.weight.requires_grad
        labels = []
        for i, mine in enumerate(weights, 1):
            decay = min(1 - 1 / (n + 1), 1 - 0.1**i)
            for key, value in student.state_dict().items():
                mine[key] = decay * mine[key] + (1 - decay) * value
            other = copy.deepcopy(student)
            other.load_state_dict(mine)
            labels.append(task.label(task.prob(other(unlabeled.weak))))
        for b, y, x in itertools.product(range(3), range(8), range(8)):
            alike = all(torch.equal(label[b, ..., y, x].long(), own.label[b, ..., y, x].long()) for label in labels)
            want = own.weight[b, :, y, x] * alike
            torch.testing.assert_close(target.weight[b, :, y, x], want, rtol=0, atol=1e-6)
    assert (target.weight < own.weight).any() and (target.weight > 0).any()


@pytest.mark.parametrize("total", [200, 500, 2000])
@pytest.mark.parametrize("members", [3, 4, 6])
def test_no_two_members_remember_alike(total, members):
    student = student_of(tiny.task_of("binary"), 0)
    committee = MovingCommittee(student, tiny.task_of("binary"), members)
    for n in range(60):
        torch.manual_seed(n)
        for p in student.parameters():
            torch.nn.init.normal_(p)
        for average in committee.averages:
            average.update(student, total)
    said = [torch.cat([p.flatten() for p in m.parameters()]) for m in (student, *committee.averages)]
    assert all(not torch.allclose(a, b, atol=1e-3) for a, b in itertools.combinations(said, 2))


def test_once_in_a_step_whatever_is_asked(prepared, tmp_path):
    """A method of two beliefs refines both of the same images: averages move once, and are asked once."""
    task, unlabeled = tiny.task_of("binary"), tiny.unlabeled("binary", size=8)
    own, student = belief(task, unlabeled), student_of(task, 0)
    committee = MovingCommittee(student, task, 2)
    asked = []
    committee.averages[0].register_forward_hook(lambda *_: asked.append(1))
    for step in range(3):
        first, again = (committee(unlabeled, own, Clock(step, 9))[1].weight for _ in range(2))
        assert torch.equal(first, again)
    assert len(asked) == 3 and int(committee.averages[0].updates) == 3
    committee(tiny.unlabeled("binary", size=8), own, Clock(2, 9))  # other images in the same step
    assert len(asked) == 4 and int(committee.averages[0].updates) == 3


def test_it_is_part_of_the_method_and_never_trained(prepared, tmp_path):
    session = tiny.session(tmp_path, prepared("binary"), method="fixmatch")
    method = session.data.method()
    method.refine = MovingCommittee(method.student, method.task, 4)
    names = [k for k in method.state_dict() if k.startswith("refine")]
    assert len([k for k in names if k.endswith("updates")]) == 3  # saved with the method, the student not once more
    assert not any("student" in k for k in names)
    trained = {id(p) for g in method.groups() for p in g["params"]}
    assert not trained & {id(p) for p in method.refine.parameters()}


SMALL = {"size": 16, "steps": 4, "batch": 2, "network": "unet1x1:0.25", "device": "cpu", "threads": 1, "workers": 1,
         "unlabeled_batch": 2, "checkpoint_every": 2, "eval_every": 4, "quiet": True}  # fmt: skip


def test_a_whole_run_counts_what_it_asks(folders, tmp_path):
    """2 labeled, 2 weak, 2 strong and 2 for each average a step; the arm has the program's name."""
    for members, images in ((3, 10), (5, 14)):
        summary = semiseg.train(folders["multiclass"], tmp_path / str(members), method="fixmatch+im_moving",
                                sets=[f"im_moving.members={members}", "baseline=no"], **SMALL)  # fmt: skip
        assert summary["images_forwarded"] == 4 * images
        assert summary["arms"][-1]["name"] == "fixmatch+im_moving"
    a, b = (read_tensors(tmp_path / n / "generation-0/member-0/final/weights.safetensors") for n in "35")
    assert a.keys() == b.keys()  # the committee is not shipped


def test_snapshots_of_the_training_map_where_it_was_unsure(folders, tmp_path):
    """The model is the end; with its snapshots it ranks images, and predicts disagreement and together."""
    run = tmp_path / "run"
    summary = semiseg.train(folders["binary"], run, method="mean_teacher+im_moving", sets=["baseline=no"], **SMALL)
    first = "generation-0/member-0"
    assert summary["committee"] == [first, f"{first}/snapshot-0", f"{first}/snapshot-1"]
    assert summary["model"]["folder"] == first and summary["models_trained"] == 1
    rows = list(csv.DictReader((run / "label_next.csv").open()))
    assert len(rows) == 5 and all(float(r["inconsistent_share"]) >= 0 for r in rows)
    found = semiseg.load(run).predict(folders["binary"] / "unlabeled/00.png", inconsistency=True).inconsistency
    assert found is not None and found.shape == (24, 24)


def test_a_training_of_one_step_has_no_snapshots(folders, tmp_path):
    options = {**SMALL, "steps": 1, "eval_every": 1}
    summary = semiseg.train(
        folders["binary"], tmp_path / "r", method="fixmatch+im_moving", sets=["baseline=no"], **options
    )
    assert summary["committee"] == ["generation-0/member-0"]


def test_a_model_of_the_plain_method_is_another_one(folders, tmp_path):
    """Neither is taken over for the other; what labels alone give is the same for both."""
    plain, ours = (semiseg.train(folders["binary"], tmp_path / name, method=name, **SMALL,
                                 sets=["threshold=0", f"reuse={tmp_path / other}"])
                   for name, other in (("fixmatch", "nothing"), ("fixmatch+im_moving", "fixmatch")))  # fmt: skip
    again = semiseg.train(folders["binary"], tmp_path / "again", method="fixmatch", **SMALL,
                          sets=["threshold=0", f"reuse={tmp_path / 'fixmatch+im_moving'}"])  # fmt: skip
    first, second, third = (s["generations"][0]["members"][0]["hash"] for s in (plain, ours, again))
    assert first == third != second
    taken = [
        json.loads(line)["event"] for line in (tmp_path / "fixmatch+im_moving/events.jsonl").read_text().splitlines()
    ]
    assert taken.count("taken over") == 1  # the labels-only baseline


@pytest.mark.parametrize("name", [n for n in METHODS if method_class(n).uses_unlabeled])
def test_it_attaches_to_every_method(name, prepared, tmp_path, kind):
    config = {"method": name, "method_args": tiny.easy(method_class(name)), "steps": 2, "eval_every": 2}
    session = tiny.session(tmp_path, prepared(kind), program="im_moving", baseline=False, **config)
    model = IMMoving(members=2).run(session).model
    assert torch.tensor(float(model.val["miou"] or 0)).isfinite()


def test_who_believes_nothing_has_nothing_to_refine(folders, tmp_path):
    with pytest.raises(Refusal, match="believes nothing"):
        semiseg.train(folders["binary"], tmp_path / "r", method="im_moving", **SMALL)
    with pytest.raises(Refusal, match="cannot disagree with itself"):
        IMMoving(members=1)
