"""The consistency loss against functions.py:367-476 of the authors in plain loops; the student is given logits."""

import math

import pytest
import torch
from torch import nn

from semiseg.batch import IGNORE, Clock, Labeled, Unlabeled, generator_of
from semiseg.methods.consistency import Consistency
from semiseg.task import make_task

CLOCK = Clock(2, 10)


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
    weak, one, two = (2 * torch.randn(b, k, size, size, generator=g) for _ in range(3))
    valid = torch.rand(b, 1, size, size, generator=g) < 0.8
    return Labeled(torch.randn(b, k, size, size, generator=g), mask), Unlabeled(weak, (one, two), valid)


def authors(labeled, unlabeled, wrong=""):
    """Task loss of labeled images + MSE of the predictions of two augmented copies, mean over all elements."""
    b, k, size, _ = unlabeled.weak.shape
    pixels = [(i, y, x) for i in range(b) for y in range(size) for x in range(size)]
    known = [p for p in pixels if labeled.mask[p] != IGNORE]
    sup = [-math.log(softmax(labeled.image[i, :, y, x].tolist())[labeled.mask[i, y, x]]) for i, y, x in known]
    total, count = 0.0, 0
    for i, y, x in pixels:
        if not unlabeled.valid[i, 0, y, x] and wrong != "padding counts":
            continue
        first = unlabeled.weak if wrong == "the clean view takes part" else unlabeled.strong[0]
        p, q = (softmax(view[i, :, y, x].tolist()) for view in (first, unlabeled.strong[1]))
        if wrong == "logits":
            p, q = first[i, :, y, x].tolist(), unlabeled.strong[1][i, :, y, x].tolist()
        power = 1 if wrong == "absolute" else 2
        total += sum(abs(a - c) ** power for a, c in zip(p, q, strict=True)) / (1 if wrong == "sum over classes" else k)
        count += 1
    return sum(sup) / len(sup) + total / count / (2 if wrong == "half" else 1)


WRONG = ["padding counts", "the clean view takes part", "logits", "absolute", "sum over classes", "half"]


@pytest.mark.parametrize("seed", range(3))
def test_the_authors_formula(seed):
    labeled, unlabeled = sample(seed)
    method = Consistency(lambda role: nn.Identity(), make_task("multiclass", "abc", "ce"))
    loss = method.step(labeled, unlabeled, CLOCK)["loss"].item()
    assert loss == pytest.approx(authors(labeled, unlabeled), abs=1e-6)
    for wrong in WRONG:
        assert abs(loss - authors(labeled, unlabeled, wrong)) > 1e-4, wrong


def one_pixel(first, second):
    views = tuple(torch.tensor([math.log(p / (1 - p)), 0.0]).view(1, 2, 1, 1) for p in (first, second))
    zero, mask = torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1).long()
    return Labeled(zero, mask), Unlabeled(zero, views, torch.ones(1, 1, 1, 1).bool())


def test_by_hand():
    """Labeled logits (0, 0): log 2. p(a) = (.75, .25), p(b) = (.5, .5): .25² twice, mean .0625. L = .693147 + .0625."""
    labeled, unlabeled = one_pixel(0.75, 0.5)
    task = make_task("multiclass", "ab", "ce")
    losses = Consistency(lambda role: nn.Identity(), task).step(labeled, unlabeled, CLOCK)
    assert losses["loss"].item() == pytest.approx(0.755647, abs=1e-6)
    again = Consistency(lambda role: nn.Identity(), task, weight=2.0, ramp=0.4).step(labeled, unlabeled, CLOCK)
    assert again["loss"].item() == pytest.approx(math.log(2) + 2 * math.exp(-1.25) * 0.0625, abs=1e-6)


def test_gradients_go_through_both_views():
    """d/dw of (p(w a) - p(w b))² moves with both: central differences of the value say so, one detached side does not."""
    labeled, unlabeled = sample()
    method = Consistency(lambda role: Scale(), make_task("multiclass", "abc", "ce"))
    term = method.step(labeled, unlabeled, CLOCK)["consistency"]
    (grad,) = torch.autograd.grad(term, [method.student.w])

    def value(w):
        with torch.no_grad():
            method.student.w.fill_(w)
        return method.step(labeled, unlabeled, CLOCK)["consistency"].item()

    assert grad.item() == pytest.approx((value(1 + 5e-3) - value(1 - 5e-3)) / 1e-2, abs=1e-3)
    with torch.no_grad():
        method.student.w.fill_(1.0)
    fixed = method.task.prob(unlabeled.strong[0])
    half = ((method.task.prob(method.student(unlabeled.strong[1])) - fixed) ** 2).mean(1, keepdim=True)
    half = (half * unlabeled.valid).sum() / unlabeled.valid.sum()
    (other,) = torch.autograd.grad(half, [method.student.w])
    assert half.item() == pytest.approx(term.item(), abs=1e-6) and abs(other.item() - grad.item()) > 1e-3


def test_overlapping_labels_use_sigmoids():
    """p(a) = (.75, .5), p(b) = (.5, .5): the mean over labels is .03125."""
    _, unlabeled = one_pixel(0.75, 0.5)
    labeled = Labeled(torch.zeros(1, 2, 1, 1), torch.zeros(1, 2, 1, 1, dtype=torch.uint8))
    method = Consistency(lambda role: nn.Identity(), make_task("multilabel", "ab", "ce"))
    assert method.step(labeled, unlabeled, CLOCK)["consistency"].item() == pytest.approx(0.03125, abs=1e-6)
