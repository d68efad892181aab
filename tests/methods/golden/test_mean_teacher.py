"""Mean Teacher against train_mean_teacher_2D.py of SSL4MIS in plain loops; the student and teacher are given logits."""

import math

import pytest
import torch
from torch import nn

from semiseg.batch import IGNORE, Clock, Labeled, Unlabeled, generator_of
from semiseg.methods.mean_teacher import MeanTeacher
from semiseg.task import make_task

CLOCK = Clock(2, 10)  # t = .2 / .4: ramp exp(-5 · .5²)


def softmax(values):
    exps = [math.exp(v) for v in values]
    return [e / sum(exps) for e in exps]


class Scale(nn.Module):
    """Logits = w · image."""

    def __init__(self, w=1.0):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w))

    def forward(self, x):
        return self.w * x


def sample(seed=0, b=2, k=3, size=4):
    g = generator_of("golden", seed)
    mask = torch.randint(k, (b, size, size), generator=g)
    mask[torch.rand(mask.shape, generator=g) < 0.2] = IGNORE
    weak, strong = (2 * torch.randn(b, k, size, size, generator=g) for _ in range(2))
    valid = torch.rand(b, 1, size, size, generator=g) < 0.8
    return Labeled(torch.randn(b, k, size, size, generator=g), mask), Unlabeled(weak, (strong,), valid)


def authors(labeled, unlabeled, wrong=""):
    """:161-181: L_sup + w · ramp · mean (softmax student - softmax teacher)²; the teacher's network is w = .5."""
    b, k, size, _ = unlabeled.weak.shape
    pixels = [(i, y, x) for i in range(b) for y in range(size) for x in range(size)]
    known = [p for p in pixels if labeled.mask[p] != IGNORE]
    sup = sum(-math.log(softmax(labeled.image[i, :, y, x].tolist())[labeled.mask[i, y, x]]) for i, y, x in known) / len(
        known
    )
    total, count = 0.0, 0
    for i, y, x in pixels:
        if not unlabeled.valid[i, 0, y, x] and wrong != "padding counts":
            continue
        view = unlabeled.strong[0] if wrong == "the teacher sees the strong view" else unlabeled.weak
        w = 1.0 if wrong == "the student teaches itself" else 0.5
        p = softmax(unlabeled.strong[0][i, :, y, x].tolist())
        q = softmax((w * view[i, :, y, x]).tolist())
        if wrong == "cross-entropy":
            total += -sum(b * math.log(a) for a, b in zip(p, q, strict=True))
        else:
            total += sum((a - b) ** 2 for a, b in zip(p, q, strict=True)) / (1 if wrong == "sum over classes" else k)
        count += 1
    ramp = 1.0 if wrong == "no ramp" else math.exp(-5 * (1 - 0.5) ** 2)
    return sup + 10 * ramp * total / count


WRONG = ["padding counts", "the teacher sees the strong view", "the student teaches itself", "cross-entropy",
         "sum over classes", "no ramp"]  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_the_authors_formula(seed):
    labeled, unlabeled = sample(seed)
    method = MeanTeacher(lambda role: Scale(), make_task("multiclass", "abc", "ce"))
    method.teacher.network.w.fill_(0.5)
    loss = method.step(labeled, unlabeled, CLOCK)["loss"].item()
    assert loss == pytest.approx(authors(labeled, unlabeled), abs=1e-6)
    for wrong in WRONG:
        assert abs(loss - authors(labeled, unlabeled, wrong)) > 1e-3, wrong


def test_by_hand():
    """One pixel, two classes. Labeled logits (0, 0): log 2. Student p = (.5, .5), teacher q = (.75, .25): the mean of
    .25² twice is .0625; weight 10, ramp exp(-1.25) = .286505. L = .693147 + 10 · .286505 · .0625 = .872213.
    """
    zero, one = torch.zeros(1, 2, 1, 1), torch.ones(1, 1, 1, 1).bool()
    weak = torch.tensor([math.log(3), 0.0]).view(1, 2, 1, 1)
    method = MeanTeacher(lambda role: Scale(), make_task("multiclass", "ab", "ce"))
    losses = method.step(Labeled(zero, torch.zeros(1, 1, 1).long()), Unlabeled(weak, (zero,), one), CLOCK)
    assert losses["loss"].item() == pytest.approx(0.872213, abs=1e-6)
    assert losses["consistency"].item() == pytest.approx(0.0625, abs=1e-6)


def test_overlapping_labels_use_sigmoids():
    """p = (.5, .5) and q = (.75, .5): the mean over labels is .03125."""
    zero, one = torch.zeros(1, 2, 1, 1), torch.ones(1, 1, 1, 1).bool()
    weak = torch.tensor([math.log(3), 0.0]).view(1, 2, 1, 1)
    method = MeanTeacher(lambda role: Scale(), make_task("multilabel", "ab", "ce"))
    labeled = Labeled(zero, torch.zeros(1, 2, 1, 1, dtype=torch.uint8))
    assert method.step(labeled, Unlabeled(weak, (zero,), one), CLOCK)["consistency"].item() == pytest.approx(0.03125)


def test_the_teacher_follows_after_the_step():
    method = MeanTeacher(lambda role: Scale(1.0), make_task("multiclass", "ab"), ema=0.6)
    seen = []
    for value in (2.0, 4.0, 9.0):  # decays 0, 1/2, .6: 2, 3, .6 · 3 + .4 · 9
        with torch.no_grad():
            method.student.w.fill_(value)
        method.after_step(Clock(5, 40_000))
        seen.append(method.predictor()(torch.ones(1)).item())
    assert seen == pytest.approx([2.0, 3.0, 5.4])
