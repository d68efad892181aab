import pytest
import torch
from torch import nn

from semiseg.ema import Average


class Number(nn.Module):
    """One parameter, a float buffer, an integer buffer."""

    def __init__(self, value=0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(value))
        self.register_buffer("mean", torch.tensor(value))
        self.register_buffer("count", torch.tensor(int(value)))


def decays(cap, n):
    """Read off: a teacher at 0 that sees 1 moves by 1 - decay."""
    average, seen = Average(Number(), cap), []
    for _ in range(n):
        for value in average.network.state_dict().values():
            value.zero_()
        average.update(Number(1.0))
        seen.append(1 - average.network.weight.item())
    return seen


def test_the_decay_warms_up_to_the_cap():
    assert decays(0.99, 5) == pytest.approx([0, 1 / 2, 2 / 3, 3 / 4, 4 / 5], abs=1e-6)
    assert decays(0.6, 5) == pytest.approx([0, 0.5, 0.6, 0.6, 0.6], abs=1e-6)


@pytest.mark.parametrize(("cap", "reached"), [(0.996, 249), (0.99, 99)])
def test_when_the_cap_is_reached(cap, reached):
    seen = decays(cap, reached + 2)
    assert seen[reached - 1] < cap - 1e-6 and seen[reached : reached + 2] == pytest.approx([cap, cap], abs=1e-6)


@pytest.mark.parametrize(("total", "cap"), [(500, 0.9), (2000, 0.975), (5000, 0.99), (40_000, 0.99), (40, 0.0)])
def test_a_short_training_shortens_the_window(total, cap):
    """.99 looks back 100 steps: a fifth of 500, but at most 2 % of a training are looked back: 10 steps, .9."""
    average, steps = Average(Number(), 0.99), 130
    for _ in range(steps):
        for value in average.network.state_dict().values():
            value.zero_()
        average.update(Number(1.0), total)
    assert 1 - average.network.weight.item() == pytest.approx(cap, abs=1e-6)


def test_averages_of_one_short_training_stay_apart():
    """500 steps allow a window of 10: the first of two averages has its square root, as far from 1 as from 10."""
    for total, windows in ((500, (10**0.5, 10)), (2000, (40**0.5, 40)), (10**6, (10, 100))):
        for decay, reach, window in ((0.9, 0.5, windows[0]), (0.99, 1.0, windows[1])):
            average = Average(Number(), decay, reach)
            for _ in range(130):
                average.network.load_state_dict(Number().state_dict() | {"weight": torch.tensor(0.0)}, strict=False)
                average.update(Number(1.0), total)
            assert 1 - average.network.weight.item() == pytest.approx(1 - 1 / window, abs=1e-6)


def test_floats_are_averaged_and_integers_copied():
    average = Average(Number(4.0))
    for value in (2.0, 6.0):  # 2, then 2 + (6 - 2) / 2
        average.update(Number(value))
    state = average.network.state_dict()
    assert (state["weight"].item(), state["mean"].item(), state["count"].item()) == (4.0, 4.0, 6)
    assert state["count"].dtype == torch.int64 and average.updates.item() == 2


def test_no_number_is_fetched_from_the_device(monkeypatch):
    """A step that asks a GPU for a value waits for it."""
    average = Average(Number())
    average.update(Number(1.0))
    for name in ("__int__", "__float__", "__bool__", "item", "tolist", "cpu"):
        monkeypatch.setattr(torch.Tensor, name, lambda self: pytest.fail("a value was fetched"))
    average.update(Number(2.0), 100)


def test_it_stays_in_eval_mode_and_has_no_gradients():
    parent = nn.Module()
    parent.student = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    parent.teacher = Average(parent.student)
    parent.train()
    assert parent.student.training and not any(m.training for m in parent.teacher.modules())
    before = parent.teacher.network[1].running_mean.clone()
    parent.student(torch.randn(2, 1, 4, 4) + 3)
    parent.teacher(torch.randn(2, 1, 4, 4) + 3)
    assert torch.equal(parent.teacher.network[1].running_mean, before)
    assert not any(p.requires_grad for p in parent.teacher.parameters())
    parent.teacher.update(parent.student)
    torch.testing.assert_close(parent.teacher.network[1].running_mean, parent.student[1].running_mean)
    assert parent.student[0].weight.requires_grad


def test_it_is_a_copy_and_goes_through_a_state_dict():
    student = Number(1.0)
    average = Average(student)
    average.update(Number(3.0))
    assert student.weight.item() == 1
    other = Average(Number(0.0))
    other.load_state_dict(average.state_dict())
    for a in (average, other):
        a.update(Number(5.0))
    assert other.network.weight.item() == average.network.weight.item() == 4
    assert other.updates.item() == 2
