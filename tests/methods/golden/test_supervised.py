"""The supervised loss, and the student of a consensus, in plain loops. The network is the identity: images are logits."""

import math

import pytest
import torch
from torch import nn

from semiseg.batch import IGNORE, Clock, Labeled, Planes, Unlabeled, generator_of
from semiseg.data.mixing import cut_boxes
from semiseg.inconsistency import InconsistencyMask
from semiseg.methods.supervised import Supervised
from semiseg.task import make_task

CLOCK = Clock(0, 10)
K = 3


def softmax(values):
    exps = [math.exp(v) for v in values]
    return [e / sum(exps) for e in exps]


def random(g, b=2, size=4, unknown=0.2):
    mask = torch.randint(2, (b, size, size), generator=g)  # class 2 never occurs
    hidden = torch.rand(mask.shape, generator=g) < unknown
    return torch.randn(b, K, size, size, generator=g), mask, hidden


def loss_of(logits, mask, weight, outside, wrong=""):
    """CE, mean over known pixels (outside = 255), weighted; plus Dice pooled over the batch, over classes that occur."""
    b, _, h, w = logits.shape
    pixels = [(i, y, x) for i in range(b) for y in range(h) for x in range(w)]
    known = [p for p in pixels if not outside[p]]
    prob = {p: softmax(logits[p[0], :, p[1], p[2]].tolist()) for p in pixels}
    count = len(pixels) if wrong == "mean over all" else len(known)
    if wrong == "mean over weights":
        count = sum(float(weight[p]) for p in known)
    ce = sum(float(weight[p]) * -math.log(prob[p][mask[p]]) for p in known) / count
    groups = [[p for p in known if p[0] == i] for i in range(b)] if wrong == "dice per image" else [known]
    smooth = 0.0 if wrong == "dice without smoothing" else 1.0
    dices = []
    for group in groups:
        for k in range(K):
            both = sum(float(weight[p]) * prob[p][k] * (mask[p] == k).item() for p in group)
            total = sum(float(weight[p]) * (prob[p][k] + (mask[p] == k).item()) for p in group)
            if any(weight[p] and mask[p] == k for p in group) or wrong == "dice of absent classes":
                dices.append(1 - (2 * both + smooth) / (total + smooth))
    return ce + (0.0 if wrong == "no dice" else sum(dices) / len(dices))


WRONG = ["mean over all", "dice per image", "dice without smoothing", "dice of absent classes", "no dice"]


def method(**changes):
    made = Supervised(lambda role: nn.Identity(), make_task("multiclass", "abc"), **changes)
    made.refine = InconsistencyMask()
    return made


@pytest.mark.parametrize("seed", range(3))
def test_labels(seed):
    logits, mask, hidden = random(generator_of("golden", seed))
    labeled = Labeled(logits, mask.masked_fill(hidden, IGNORE))
    loss = method().step(labeled, None, CLOCK)["loss"].item()
    ones = torch.ones(mask.shape)
    assert loss == pytest.approx(loss_of(logits, mask, ones, hidden), abs=1e-6)
    for wrong in WRONG:
        assert abs(loss - loss_of(logits, mask, ones, hidden, wrong)) > 1e-3, wrong


@pytest.mark.parametrize("seed", range(3))
def test_a_student_of_a_consensus(seed):
    """Disputed pixels stay in the denominator with weight 0; pixels outside the image do not count at all."""
    g = generator_of("student", seed)
    (logits, mask, hidden), (view, label, disputed) = random(g), random(g, unknown=0.3)
    outside = torch.rand(label.shape, generator=g) < 0.3
    agree = (~disputed & ~outside).unsqueeze(1)
    planes = Planes(label.masked_fill(disputed | outside, IGNORE), agree)
    unlabeled = Unlabeled(torch.zeros_like(view), (view,), ~outside.unsqueeze(1), planes)
    losses = method(weight=2.0).step(Labeled(logits, mask.masked_fill(hidden, IGNORE)), unlabeled, CLOCK)
    sup = loss_of(logits, mask, torch.ones(mask.shape), hidden)
    trusted = agree[:, 0].float()
    student = loss_of(view, label, trusted, outside)
    assert losses["loss"].item() == pytest.approx((sup + 2 * student) / 3, abs=1e-6)
    assert losses["kept"].item() == pytest.approx(trusted.mean().item())
    nothing = torch.zeros_like(outside)
    wrongs = {
        "padding counts": loss_of(view, label, trusted, nothing),
        "mean over weights": loss_of(view, label, trusted, outside, "mean over weights"),
        "disputed pixels teach class 0": loss_of(view, label * agree[:, 0], torch.ones(label.shape), outside),
        "disputed pixels teach their label": loss_of(view, label, torch.ones(label.shape), outside),
        "not divided": student + student / 2 + sup / 2,
    }
    for name, wrong in wrongs.items():
        assert abs(losses["loss"].item() - (sup + 2 * wrong) / 3) > 1e-3, name


def test_a_student_of_a_consensus_that_is_cut_and_mixed():
    """In its box each image shows the next one, with what is taught there, what is disputed and what is padding."""
    g = generator_of("mixed", 0)
    (logits, mask, hidden), (view, label, disputed) = random(g, b=6, size=8), random(g, b=6, size=8, unknown=0.3)
    outside = torch.rand(label.shape, generator=g) < 0.3
    agree = (~disputed & ~outside).unsqueeze(1)
    planes = Planes(label.masked_fill(disputed | outside, IGNORE), agree)
    unlabeled = Unlabeled(torch.zeros_like(view), (view,), ~outside.unsqueeze(1), planes)
    known = Labeled(logits, mask.masked_fill(hidden, IGNORE))
    losses = method(weight=2.0, mix="cutmix").step(known, unlabeled, CLOCK)
    box = cut_boxes(6, (8, 8), CLOCK.generator("box"))[:, 0]
    assert box.any() and not box.all()
    parts = view.clone(), label.clone(), agree[:, 0].float(), outside.clone()
    trusted = agree[:, 0].float()
    for i in range(6):
        for y in range(8):
            for x in range(8):
                if box[i, y, x]:
                    for mine, theirs in zip(parts, (view, label, trusted, outside), strict=True):
                        mine[i, ..., y, x] = theirs[(i + 1) % 6, ..., y, x]
    sup = loss_of(logits, mask, torch.ones(mask.shape), hidden)
    assert losses["loss"].item() == pytest.approx((sup + 2 * loss_of(*parts)) / 3, abs=1e-6)
    assert abs(loss_of(*parts) - loss_of(view, label, trusted, outside)) > 1e-3


def test_by_hand():
    """Two pixels of class 0 and 1, logits (log 3, 0): p = (.75, .25) at both.

    CE = (-log .75 - log .25) / 2 = .836988. Dice 0: 1 - (2 · .75 + 1) / (1.5 + 1 + 1) = .285714; Dice 1: 1 - (2 · .25
    + 1) / (.5 + 1 + 1) = .4; their mean is .342857. L = 1.179845.
    """
    logits = torch.tensor([math.log(3), 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 2)
    made = Supervised(lambda role: nn.Identity(), make_task("multiclass", "ab"))
    loss = made.step(Labeled(logits, torch.tensor([[[0, 1]]])), None, CLOCK)["loss"]
    assert loss.item() == pytest.approx(1.179845, abs=1e-6)
