"""FixMatch against fixmatch.py of UniMatch in plain loops. The network is the identity: images are logits."""

import math

import pytest
import torch
from torch import nn

from semiseg.batch import IGNORE, Clock, Labeled, Unlabeled, generator_of
from semiseg.data.mixing import cut_boxes
from semiseg.methods.fixmatch import FixMatch
from semiseg.task import make_task

CLOCK = Clock(5, 20, (3,))  # a step at which both images get a box
THRESHOLD = 0.6


def softmax(values):
    exps = [math.exp(v) for v in values]
    return [e / sum(exps) for e in exps]


def sample(seed=0, b=2, k=3, size=8):
    g = generator_of("golden", seed)
    mask = torch.randint(k, (b, size, size), generator=g)
    mask[torch.rand(mask.shape, generator=g) < 0.2] = IGNORE
    weak, strong = (2 * torch.randn(b, k, size, size, generator=g) for _ in range(2))
    valid = torch.rand(b, 1, size, size, generator=g) < 0.8
    return Labeled(torch.randn(b, k, size, size, generator=g), mask), Unlabeled(weak, (strong,), valid)


def authors(labeled, unlabeled, wrong=""):
    """fixmatch.py:132-166: pseudo-labels of the weak view, pasted like the image; Σ CE [conf >= t] / #inside; halved."""
    b, _, size, _ = unlabeled.weak.shape
    box = cut_boxes(b, (size, size), CLOCK.generator("box0"))
    known = [(i, y, x) for i in range(b) for y in range(size) for x in range(size) if labeled.mask[i, y, x] != IGNORE]
    sup = sum(-math.log(softmax(labeled.image[i, :, y, x].tolist())[labeled.mask[i, y, x]]) for i, y, x in known) / len(
        known
    )
    total, inside, kept = 0.0, 0, 0
    for i in range(b):
        for y in range(size):
            for x in range(size):
                source = (i + 1) % b if box[i, 0, y, x] else i
                view = unlabeled.strong[0][source, :, y, x].tolist()
                taught = i if wrong == "labels are not pasted" else source
                teacher = (unlabeled.strong[0] if wrong == "strong teaches" else unlabeled.weak)[taught, :, y, x]
                prob = softmax(teacher.tolist())
                ok = bool(unlabeled.valid[i if wrong == "padding is not pasted" else source, 0, y, x])
                keep = max(prob) > THRESHOLD if wrong == "threshold by label" else max(prob) >= THRESHOLD
                total += ok * keep * -math.log(softmax(view)[prob.index(max(prob))])
                inside, kept = inside + ok, kept + (ok and keep)
    count = {"mean over kept": kept, "mean over all": b * size * size}.get(wrong, inside)
    return (sup + total / count) / (1 if wrong == "not halved" else 2)


WRONG = [
    "labels are not pasted",
    "strong teaches",
    "padding is not pasted",
    "mean over kept",
    "mean over all",
    "not halved",
]


def ours(labeled, unlabeled, **changes):
    method = FixMatch(lambda role: nn.Identity(), make_task("multiclass", "abc", "ce"), threshold=THRESHOLD, **changes)
    return method.step(labeled, unlabeled, CLOCK)


@pytest.mark.parametrize("seed", range(3))
def test_the_authors_formula(seed):
    labeled, unlabeled = sample(seed)
    loss = ours(labeled, unlabeled)["loss"].item()
    assert loss == pytest.approx(authors(labeled, unlabeled), abs=1e-6)
    for wrong in WRONG:
        assert abs(loss - authors(labeled, unlabeled, wrong)) > 1e-3, wrong


def test_by_hand():
    """Two pixels, two classes, no boxes.

    Labeled logits (0, 0), class 0: CE log 2. Weak logits (log 3, 0): p = (.75, .25), kept as class 0; (log 1.2, 0):
    p = .545, rejected at .6 but counted. Strong logits (0, log 3): -log .25 = log 4.
    L = (log 2 + log 4 / 2) / 2 = log 2.
    """
    labeled = Labeled(torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1).long())
    weak = torch.tensor([[math.log(3), math.log(1.2)], [0.0, 0.0]]).view(1, 2, 1, 2)
    strong = torch.tensor([[0.0, 0.0], [math.log(3), 5.0]]).view(1, 2, 1, 2)
    labeled = Labeled(labeled.image.expand(1, 2, 1, 2), labeled.mask.expand(1, 1, 2))
    method = FixMatch(lambda role: nn.Identity(), make_task("multiclass", "ab", "ce"), threshold=THRESHOLD, mix="none")
    losses = method.step(labeled, Unlabeled(weak, (strong,), torch.ones(1, 1, 1, 2).bool()), CLOCK)
    assert losses["loss"].item() == pytest.approx(math.log(2), abs=1e-6)
    assert losses["kept"].item() == 0.5


def test_a_confidence_equal_to_the_threshold_is_kept():
    weak = torch.zeros(1, 2, 1, 1)  # p = (.5, .5)
    unlabeled = Unlabeled(weak, (weak,), torch.ones(1, 1, 1, 1).bool())
    labeled = Labeled(weak, torch.zeros(1, 1, 1).long())
    for threshold, kept in ((0.5, 1.0), (0.50001, 0.0)):
        method = FixMatch(lambda role: nn.Identity(), make_task("multiclass", "ab", "ce"), threshold=threshold)
        assert method.step(labeled, unlabeled, CLOCK)["kept"].item() == kept


def test_thresholds_at_the_ends():
    """0 is the mean CE over pixels inside the image, 1.01 is nothing."""
    labeled, unlabeled = sample()
    task = make_task("multiclass", "abc", "ce")
    make = lambda role: nn.Identity()  # noqa: E731
    every = FixMatch(make, task, threshold=0.0, mix="none").step(labeled, unlabeled, CLOCK)
    per = nn.functional.cross_entropy(unlabeled.strong[0], unlabeled.weak.argmax(1), reduction="none")
    assert every["strong"].item() == pytest.approx(per[unlabeled.valid[:, 0]].mean().item(), abs=1e-6)
    assert FixMatch(make, task, threshold=1.01).step(labeled, unlabeled, CLOCK)["strong"].item() == 0


def test_weight_and_ramp():
    labeled, unlabeled = sample()
    parts = ours(labeled, unlabeled, weight=3.0, ramp=0.5)  # t = .25 / .5: exp(-5 * .5²)
    want = (parts["sup"] + 3 * math.exp(-5 * 0.5**2) * parts["strong"]) / 2
    assert parts["loss"].item() == pytest.approx(want.item(), abs=1e-6)


def test_per_label_confidence_when_labels_overlap():
    """p = .9 and .3: both labels are sure at threshold .7 (max(p, 1-p)), at .8 only the first."""
    weak = torch.tensor([0.9, 0.3]).logit().view(1, 2, 1, 1)
    unlabeled = Unlabeled(weak, (torch.zeros(1, 2, 1, 1),), torch.ones(1, 1, 1, 1).bool())
    labeled = Labeled(weak, torch.zeros(1, 2, 1, 1, dtype=torch.uint8))
    for threshold, kept in ((0.69, 2), (0.8, 1)):
        method = FixMatch(lambda role: nn.Identity(), make_task("multilabel", "ab", "ce"), threshold=threshold)
        assert method.step(labeled, unlabeled, CLOCK)["strong"].item() == pytest.approx(
            kept * math.log(2) / 2, abs=1e-6
        )
