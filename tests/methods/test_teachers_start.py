"""How far a teacher looks back, and how long it is the student; who else is scored beside the predictor."""

import pytest
import torch

import tiny
from semiseg.batch import Clock
from semiseg.ema import Average
from semiseg.methods import method_class
from semiseg.programs.base import Single
from semiseg.programs.im_moving import IMMoving


def distance(method):
    mine, theirs = method.teacher.network.state_dict(), method.student.state_dict()
    return max((mine[k] - theirs[k]).abs().max().item() for k in mine if mine[k].is_floating_point())


@pytest.mark.parametrize("name", ["imas", "u2pl"])
def test_the_teacher_is_the_student_for_as_long_as_asked(name):
    """Of 8 steps the first 4; then it moves by the decay that the count of all steps gives, 1 - 1/5."""
    task = tiny.task_of("binary")
    method = method_class(name)(tiny.make_of(task), task, alone=0.5, ema=0.9)
    for step in range(4):
        with torch.no_grad():
            for p in method.student.parameters():
                p += 1
        method.after_step(Clock(step, 8))
        assert distance(method) == 0
    for average in method.modules():
        if isinstance(average, Average):
            average.window = 0
    with torch.no_grad():
        for p in method.student.parameters():
            p += 1
    method.after_step(Clock(4, 8))
    assert distance(method) == pytest.approx(1 - 1 / 5, rel=1e-4)


@pytest.mark.parametrize("window", [0.02, 0.0])
def test_the_window_is_a_setting_of_every_average(prepared, tmp_path, monkeypatch, window):
    """A method's teacher, the average that is evaluated, and a moving committee's."""
    seen = []
    real = Average.update
    monkeypatch.setattr(
        Average, "update", lambda self, *a, **k: seen.append((self.decay, self.window)) or real(self, *a, **k)
    )
    changes = {"steps": 1, "eval_every": 1, "baseline": False, "ema_window": window}
    for program, extra in (
        (Single(), {"method": "mean_teacher", "average": 0.5}),
        (IMMoving(), {"method": "fixmatch"}),
    ):
        program.run(tiny.session(tmp_path / program.__class__.__name__, prepared("binary"), **changes, **extra))
    assert sorted(seen) == [(0.5, window), (0.9, window), (0.99, window), (0.99, window)]


def test_a_window_of_zero_has_the_published_sequence():
    """min(1 - 1/(it + 1), .99) at it = 0, 1, 98, 99, 120, whatever the length of the training."""
    one, zero = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(one.weight)
    average, found = Average(zero, 0.99), {}
    average.window = 0.0
    for it in range(121):
        with torch.no_grad():
            average.network.weight.zero_()
        average.update(one, 500)
        found[it] = 1 - average.network.weight.item()
    assert [found[it] for it in (0, 1, 98, 99, 120)] == pytest.approx([0, 0.5, 98 / 99, 0.99, 0.99], abs=1e-6)


def test_the_senior_has_a_row(prepared, tmp_path):
    session = tiny.session(tmp_path, prepared("binary"), method="segkc", steps=2, eval_every=2, baseline=False)
    Single().run(session)
    assert [a["name"] for a in session.arms] == ["segkc", "segkc, its senior"]
    assert 0 <= session.arms[1]["val"]["miou"] <= 1 and session.arms[1]["val"] != session.arms[0]["val"]


@pytest.mark.parametrize("name", ["supmix", "fixmatch", "unimatch"])
def test_supmix_pastes_the_classes_that_are_named(name):
    """Everywhere a plug-in: with all classes named more is pasted than with one of them."""
    task = tiny.task_of("multiclass")
    given = {} if name == "supmix" else {"mix": "supmix"}
    torch.manual_seed(0)
    losses = {}
    for classes in (task.names[1], ",".join(task.names)):
        torch.manual_seed(0)
        method = method_class(name)(tiny.make_of(task), task, classes=classes, **given)
        losses[classes] = method.step(tiny.labeled("multiclass"), tiny.unlabeled("multiclass", views=2), Clock(3, 10))[
            "loss"
        ]
    assert len({v.item() for v in losses.values()}) == 2
