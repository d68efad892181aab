"""UniMatch against unimatch.py in plain loops. Every layer is the identity: images are features are logits."""

import math

import pytest
import torch
from torch import nn

import tiny
from semiseg.batch import IGNORE, Clock, Labeled, Unlabeled, generator_of
from semiseg.data.mixing import cut_boxes
from semiseg.errors import Refusal
from semiseg.methods.unimatch import UniMatch
from semiseg.networks.base import Features
from semiseg.networks.perturb import channel_dropout
from semiseg.task import make_task

CLOCK = Clock(5, 20, (10,))  # a step at which both views get boxes, in different images
THRESHOLD = 0.6


def identity(role="student", channels=3):
    net = tiny.Pixelwise(channels, channels)
    with torch.no_grad():
        net.conv.weight.copy_(torch.eye(channels)[:, :, None, None])
        net.conv.bias.zero_()
    return net


def ours(labeled, unlabeled, classes="abc", clock=CLOCK, **changes):
    make = lambda role: identity(role, len(classes))  # noqa: E731
    method = UniMatch(make, make_task("multiclass", classes, "ce"), **{"threshold": THRESHOLD, **changes})
    return method.step(labeled, unlabeled, clock)


def sample(seed=0, n=3, k=3, size=8):
    g = generator_of("golden", seed)
    mask = torch.randint(k, (2, size, size), generator=g)
    mask[torch.rand(mask.shape, generator=g) < 0.2] = IGNORE
    weak, first, second = (2 * torch.randn(n, k, size, size, generator=g) for _ in range(3))
    valid = torch.rand(n, 1, size, size, generator=g) < 0.8
    return Labeled(torch.randn(2, k, size, size, generator=g), mask), Unlabeled(weak, (first, second), valid)


def ce(values, label):
    return math.log(sum(math.exp(v) for v in values)) - values[label]


def supervised(labeled):
    """Mean CE over the pixels that are not 255."""
    pixels = [tuple(i) for i in (labeled.mask != IGNORE).nonzero().tolist()]
    return sum(ce(labeled.image[i, :, y, x].tolist(), labeled.mask[i, y, x]) for i, y, x in pixels) / len(pixels)


def kept_mask(channels, n):
    """What this step's channel dropout multiplies features of ones with."""
    ones = Features([torch.ones(n, channels, 1, 1)], (1, 1), (1, 1))
    return channel_dropout(ones, CLOCK.generator("drop")).levels[0][:, :, 0, 0]


def term(unlabeled, view, box, wrong=""):
    """Σ CE [conf >= t] [not padded] / #not padded, with image, label, confidence and padding from one source."""
    n, _, size, _ = unlabeled.weak.shape
    step = -1 if wrong == "the partner is the previous image" else 1
    total, inside, kept = 0.0, 0, 0
    for i in range(n):
        for y in range(size):
            for x in range(size):
                source = (i + step) % n if box is not None and box[i, 0, y, x] else i
                taught = i if wrong == "labels are not pasted" else source
                teacher = (view if wrong == "strong teaches" else unlabeled.weak)[taught, :, y, x].tolist()
                label = teacher.index(max(teacher))
                ok = bool(unlabeled.valid[i if wrong == "padding is not pasted" else source, 0, y, x])
                keep = math.exp(-ce(teacher, label)) >= THRESHOLD
                total += ok * keep * ce(view[source, :, y, x].tolist(), label)
                inside, kept = inside + ok, kept + (ok and keep)
    return total / {"mean over kept": kept, "mean over all": n * size * size}.get(wrong, inside)


def authors(labeled, unlabeled, wrong=""):
    """unimatch.py:142-188: (L_x + .25 L_s1 + .25 L_s2 + .5 L_fp) / 2; the feature branch knows no CutMix."""
    n, k, size, _ = unlabeled.weak.shape
    names = ["box0", "box0"] if wrong == "one box for both views" else ["box0", "box1"]
    boxes = [cut_boxes(n, (size, size), CLOCK.generator(name)) for name in names]
    s1, s2 = (term(unlabeled, view, box, wrong) for view, box in zip(unlabeled.strong, boxes, strict=True))
    mask = kept_mask(k, n)
    scale = {"dropout does not scale": 0.5, "no dropout": 0.0}.get(wrong, 1.0)
    mask = torch.ones_like(mask) if wrong == "no dropout" else mask * scale
    box = boxes[0] if wrong == "the feature branch is pasted over" else None
    quiet = wrong if wrong in ("mean over kept", "mean over all") else ""
    fp = term(unlabeled, unlabeled.weak * mask[:, :, None, None], box, quiet)
    weights = {"a quarter for features": (0.25, 0.25, 0.25), "views not averaged": (0.5, 0.5, 0.5)}
    w1, w2, w3 = weights.get(wrong, (0.25, 0.25, 0.5))
    return (supervised(labeled) + w1 * s1 + w2 * s2 + w3 * fp) / (1 if wrong == "not halved" else 2)


WRONG = [
    "labels are not pasted",
    "padding is not pasted",
    "the partner is the previous image",
    "one box for both views",
    "strong teaches",
    "mean over kept",
    "mean over all",
    "the feature branch is pasted over",
    "dropout does not scale",
    "no dropout",
    "a quarter for features",
    "views not averaged",
    "not halved",
]


@pytest.mark.parametrize("seed", range(3))
def test_the_authors_formula(seed):
    labeled, unlabeled = sample(seed)
    loss = ours(labeled, unlabeled)["loss"].item()
    assert loss == pytest.approx(authors(labeled, unlabeled), abs=1e-6)
    for wrong in WRONG:
        assert abs(loss - authors(labeled, unlabeled, wrong)) > 1e-4, wrong


def two_pixels(strong=(0.0, math.log(3))):
    """Weak logits (log 3, 0), p = (.75, .25), class 0; and (log 1.2, 0), p = .545, rejected at .6 but counted."""
    weak = torch.tensor([[math.log(3), math.log(1.2)], [0.0, 0.0]]).view(1, 2, 1, 2)
    view = torch.tensor([[strong[0], 0.0], [strong[1], 5.0]]).view(1, 2, 1, 2)
    labeled = Labeled(torch.zeros(1, 2, 1, 2), torch.zeros(1, 1, 2).long())
    return labeled, Unlabeled(weak, (view, view), torch.ones(1, 1, 1, 2).bool())


def test_by_hand():
    """Nothing pasted, every channel dropped.

    Labeled logits (0, 0): CE log 2. Strong logits (0, log 3) at the one kept pixel of two: log 4 / 2 = log 2 in both
    views. Features without channels give (0, 0): log 2 / 2. L = (log 2 + log 2 / 2 + log 2 / 4) / 2 = .875 log 2.
    """
    losses = ours(*two_pixels(), "ab", mix="none", dropout=1.0)
    assert losses["loss"].item() == pytest.approx(0.875 * math.log(2), abs=1e-6)
    assert losses["kept"].item() == 0.5


def test_equal_losses_give_that_loss():
    """Logits of 0 everywhere, or no channels: all four cross-entropies are log 3, so is the total."""
    labeled, unlabeled = sample()
    zero = torch.zeros_like(unlabeled.weak)
    labeled = Labeled(torch.zeros_like(labeled.image), labeled.mask)
    losses = ours(labeled, unlabeled.replace(strong=(zero, zero)), threshold=0.0, dropout=1.0)
    assert losses["loss"].item() == pytest.approx(math.log(3), abs=1e-6)


def test_without_dropout_the_feature_term_is_the_weak_views_own():
    labeled, unlabeled = sample()
    every = ours(labeled, unlabeled, threshold=0.0, dropout=0.0)["feature"].item()
    per = nn.functional.cross_entropy(unlabeled.weak, unlabeled.weak.argmax(1), reduction="none")
    assert every == pytest.approx(per[unlabeled.valid[:, 0]].mean().item(), abs=1e-6)
    nothing = ours(labeled, unlabeled, threshold=1.01)
    assert nothing["strong"].item() == 0 and nothing["feature"].item() == 0 and nothing["kept"].item() == 0


def test_gradients_pass_the_dropped_features_and_no_target():
    """d L_fp / d weak = mask · (softmax - one-hot) · [kept] / #inside; the strong views say nothing to the weak one."""
    labeled, unlabeled = sample()
    leaf = unlabeled.weak.clone().requires_grad_()
    seen = []

    def watch(images, target, clock):
        seen.append(target)
        return images, target

    method = UniMatch(identity, make_task("multiclass", "abc", "ce"), threshold=THRESHOLD)
    method.refine = watch
    losses = method.step(labeled, unlabeled.replace(weak=leaf), CLOCK)
    assert not seen[0].prob.requires_grad and not seen[0].weight.requires_grad
    for name in ("strong", "sup"):
        (grad,) = torch.autograd.grad(losses[name], leaf, retain_graph=True, allow_unused=True)
        assert grad is None or (grad == 0).all()
    (grad,) = torch.autograd.grad(losses["feature"], leaf, retain_graph=True)
    mask = kept_mask(3, 3)[:, :, None, None]
    prob, label = unlabeled.weak.softmax(1), unlabeled.weak.argmax(1)
    hot = nn.functional.one_hot(label, 3).permute(0, 3, 1, 2)
    kept = (prob.amax(1, keepdim=True) >= THRESHOLD) & unlabeled.valid
    want = mask * ((unlabeled.weak * mask).softmax(1) - hot) * kept / unlabeled.valid.sum()
    assert torch.allclose(grad, want, atol=1e-6)
    also_clean = want + (prob - hot) * kept / unlabeled.valid.sum()  # the branch that teaches would be taught
    assert not torch.allclose(grad, also_clean, atol=1e-4)
    for name in ("sup", "strong", "feature"):
        (grad,) = torch.autograd.grad(losses[name], method.student.conv.weight, retain_graph=True)
        assert grad.abs().max() > 0


def test_weight_and_ramp():
    labeled, unlabeled = sample()
    parts = ours(labeled, unlabeled, weight=3.0, ramp=0.5)  # t = .25 / .5: exp(-5 * .5²)
    want = parts["sup"] + 3 * math.exp(-5 * 0.5**2) * (parts["strong"] + parts["feature"]) / 2
    assert parts["loss"].item() == pytest.approx(want.item() / 2, abs=1e-6)


def test_a_level_nobody_knows():
    with pytest.raises(Refusal, match="Did you mean 'deepest'"):
        ours(*sample(), levels="deepst")
