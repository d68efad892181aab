"""Every loss against plain loops; the denominators are part of the formula."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from semiseg import losses
from semiseg.batch import IGNORE


def random(seed, b=2, k=3, size=3, ignore=0.2):
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(b, k, size, size, generator=g, requires_grad=True)
    label = torch.randint(k, (b, size, size), generator=g)
    label[torch.rand(label.shape, generator=g) < ignore] = IGNORE
    plane = torch.randint(2, (b, k, size, size), generator=g, dtype=torch.uint8)
    plane[torch.rand(plane.shape, generator=g) < ignore] = IGNORE
    return logits, label, plane


def pixels(label):
    return [i for i in torch.cartesian_prod(*(torch.arange(n) for n in label.shape)).tolist() if label[tuple(i)] != 255]


@given(st.integers(0, 10**6))
def test_cross_entropy(seed):
    logits, label, _ = random(seed)
    got = losses.cross_entropy_map(logits, label)
    assert got.shape == (2, 1, 3, 3)
    for b, y, x in pixels(label):
        exps = [math.exp(v) for v in logits[b, :, y, x].tolist()]
        assert got[b, 0, y, x].item() == pytest.approx(-math.log(exps[label[b, y, x]] / sum(exps)), abs=1e-5)
    assert (got[:, 0][label == IGNORE] == 0).all()


@given(st.integers(0, 10**6))
def test_binary_cross_entropy(seed):
    logits, _, plane = random(seed)
    got = losses.bce_map(logits, plane)
    for b, k, y, x in pixels(plane):
        p = 1 / (1 + math.exp(-logits[b, k, y, x].item()))
        want = -math.log(p if plane[b, k, y, x] == 1 else 1 - p)
        assert got[b, k, y, x].item() == pytest.approx(want, abs=1e-5)
    assert (got[plane == IGNORE] == 0).all()


def test_squared_distance_sums_over_classes_or_stays_per_label():
    logits = torch.tensor([0.0, math.log(3.0)]).view(1, 2, 1, 1)  # softmax (.25, .75); sigmoid (.5, .75)
    target = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    assert losses.mse_map(logits, target, False).item() == pytest.approx(0.75**2 + 0.75**2)
    assert losses.mse_map(logits, target, True).flatten().tolist() == pytest.approx([0.25, 0.5625])


def test_masked_mean_counts_known_elements_not_weights():
    loss = torch.tensor([4.0, 2.0, 8.0, 100.0]).view(1, 1, 2, 2)
    known = torch.tensor([True, True, True, False]).view(1, 1, 2, 2)
    weight = torch.tensor([1.0, 0.5, 0.0, 1.0]).view(1, 1, 2, 2)
    assert losses.masked_mean(loss, known).item() == pytest.approx(14 / 3)
    assert losses.masked_mean(loss, known, weight).item() == pytest.approx((4 + 1 + 0) / 3)
    both = losses.masked_mean(loss.expand(1, 3, 2, 2), known)  # known is counted after broadcasting
    assert both.item() == pytest.approx(14 / 3)


def test_dice_by_hand():
    # channel 0: Σpt = .5 + .25, Σp = .5 + .25 + .25, Σt = 2 -> 1 - (1.5 + 1) / (3 + 1) = .375
    # channel 1 does not occur in the truth and is left out; the last pixel is unknown
    prob = torch.tensor([[0.5, 0.25, 0.25, 0.9], [0.5, 0.75, 0.75, 0.1]]).view(1, 2, 2, 2)
    truth = torch.tensor([[1.0, 1, 0, 1], [0, 0, 0, 0]]).view(1, 2, 2, 2)
    known = torch.tensor([True, True, True, False]).view(1, 1, 2, 2)
    assert losses.dice_loss(prob, truth, known).item() == pytest.approx(0.375)


def test_dice_is_pooled_over_the_batch():
    prob, truth = torch.rand(3, 2, 4, 4), (torch.rand(3, 2, 4, 4) < 0.5).float()
    pooled = losses.dice_loss(prob, truth, torch.ones(3, 1, 4, 4))
    flat = [t.transpose(0, 1).reshape(1, 2, 12, 4) for t in (prob, truth)]
    assert pooled.item() == pytest.approx(losses.dice_loss(*flat, torch.ones(1, 1, 12, 4)).item(), abs=1e-6)


def all_losses(logits, label, plane):
    known = (label != IGNORE).unsqueeze(1)
    hot = losses.one_hot(label, 3)
    return {
        "ce": losses.masked_mean(losses.cross_entropy_map(logits, label), known),
        "bce": losses.masked_mean(losses.bce_map(logits, plane), plane != IGNORE),
        "mse": losses.masked_mean(losses.mse_map(logits, hot, False) * known, known),
        "dice": losses.dice_loss(logits.softmax(1), hot, known),
        "ohem": losses.ohem(losses.cross_entropy_map(logits, label), known, kept=4 / 18),
        "ohem, none kept": losses.ohem(losses.cross_entropy_map(logits, label), known, kept=0.0),
    }


def test_nothing_known_is_zero_with_zero_gradient():
    logits, label, plane = random(0, ignore=1.1)
    for name, loss in all_losses(logits, label, plane).items():
        assert loss.item() == 0, name
        (grad,) = torch.autograd.grad(loss, logits)
        assert (grad == 0).all(), name


def test_an_unknown_pixel_never_gets_a_gradient():
    logits, label, plane = random(1, ignore=0.4)
    for name, loss in all_losses(logits, label, plane).items():
        (grad,) = torch.autograd.grad(loss, logits)
        unknown = plane == IGNORE if name == "bce" else (label == IGNORE).unsqueeze(1).expand_as(grad)
        assert (grad[unknown] == 0).all() and (grad != 0).any(), name


def test_half_precision_logits_are_computed_in_float32():
    logits, label, plane = random(2)
    for name, loss in all_losses(logits.half().detach().requires_grad_(), label, plane).items():
        assert name == "dice" or loss.dtype == torch.float32


def authors_ohem(logits, label, threshold, least):
    """util/ohem.py of UniMatch in loops: the loss over valid pixels with truth probability <= max(threshold, k-th)."""
    truth = {tuple(i): torch.softmax(logits[i[0], :, i[1], i[2]], 0)[label[tuple(i)]].item() for i in pixels(label)}
    if least > len(truth):
        kept = list(truth.values())
    else:
        limit = max(threshold, sorted(truth.values())[least - 1])
        kept = [p for p in truth.values() if p <= limit + 1e-7]
    return sum(-math.log(p) for p in kept) / max(1, len(kept))


@given(st.integers(0, 10**6), st.sampled_from([0.1, 0.3, 0.7]), st.sampled_from([1, 4, 12, 50]))
def test_ohem(seed, threshold, least):
    logits, label, _ = random(seed)
    known = (label != IGNORE).unsqueeze(1)
    got = losses.ohem(losses.cross_entropy_map(logits, label), known, threshold=threshold, kept=least / label.numel())
    least = min(least, label.numel())
    assert got.item() == pytest.approx(authors_ohem(logits.detach(), label, threshold, least), abs=1e-5)


def test_ohem_of_labels_that_overlap_and_of_weights_by_hand():
    # truth probabilities .9, .6, .5, .8 of four elements, the last unknown: all known ones up to .7 count, and the two
    # hardest at least
    prob = torch.tensor([0.9, 0.6, 0.5, 0.8]).view(1, 1, 2, 2)
    known = torch.tensor([True, True, True, False]).view(1, 1, 2, 2)
    hard = -(math.log(0.6) + math.log(0.5)) / 2
    assert losses.ohem(-prob.log(), known, kept=0.25).item() == pytest.approx(hard)
    assert losses.ohem(-prob.log(), known, threshold=0.55, kept=0.5).item() == pytest.approx(hard)
    assert losses.ohem(-prob.log(), known, threshold=0.55, kept=0.25).item() == pytest.approx(-math.log(0.5))
    every = -(math.log(0.9) + math.log(0.6) + math.log(0.5)) / 3
    assert losses.ohem(-prob.log(), known, threshold=0.55, kept=1.0).item() == pytest.approx(every)
    assert losses.ohem(-prob.log(), known, threshold=0.55, kept=0.75).item() == pytest.approx(every)  # .8 is no third
    weight = torch.tensor([1.0, 0.0, 1.0, 1.0]).view(1, 1, 2, 2)
    assert losses.ohem(-prob.log(), known, weight, kept=0.25).item() == pytest.approx(-math.log(0.5) * 2 / 3)


def test_ohem_does_not_look_at_the_label_of_what_has_no_weight():
    """A disputed pixel has some label; whichever it is, the loss of the others is the same, and so is its mean."""
    g = torch.Generator().manual_seed(0)
    loss, known = torch.rand(2, 1, 8, 8, generator=g), torch.ones(2, 1, 8, 8, dtype=torch.bool)
    weight = (torch.rand(2, 1, 8, 8, generator=g) < 0.6).float()
    other = torch.where(weight > 0, loss, 9 * torch.rand(loss.shape, generator=g))
    found = [losses.ohem(x, known, weight, threshold=0.5, kept=0.3) for x in (loss, other)]
    trusted = losses.ohem(loss, weight > 0, threshold=0.5, kept=0.3)
    assert found[0] == found[1] == pytest.approx((trusted * weight.mean()).item()) and trusted > 0
    assert losses.ohem(loss, known, torch.zeros_like(weight)) == 0


def test_one_hot():
    hot = losses.one_hot(torch.tensor([[[0, 2, IGNORE]]]), 3)
    assert hot.shape == (1, 3, 1, 3) and hot[0, :, 0].T.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]


@given(st.integers(0, 10**6), st.booleans())
def test_squared_dice(seed, absent):
    """Per channel over the weighted pixels of the batch; the mean over all channels, or those that occur."""
    logits, label, _ = random(seed, k=4)
    prob, truth = logits.softmax(1), losses.one_hot(label, 4)
    weight = torch.rand(2, 1, 3, 3, generator=torch.Generator().manual_seed(seed)).round(decimals=1)
    weight = weight * (label != IGNORE).unsqueeze(1)
    values = []
    for c in range(4):
        both = total = there = 0.0
        for b, y, x in pixels(label):
            p, t, w = prob[b, c, y, x].item(), float(label[b, y, x] == c), weight[b, 0, y, x].item()
            both, total, there = both + w * p * t, total + w * (p * p + t * t), there + w * t
        if absent or there:
            values.append(1 - (2 * both + 1e-4) / (total + 1e-4))
    want = sum(values) / max(len(values), 1)
    assert losses.squared_dice_loss(prob, truth, weight, absent=absent).item() == pytest.approx(want, abs=1e-5)


@pytest.mark.parametrize("absent", [True, False])
def test_squared_dice_of_pixels_without_weight(absent):
    """None known: 0 with zero gradients. Some: those without weight get exactly none."""
    logits, label, _ = random(1, ignore=0.4)
    hot, known = losses.one_hot(label, 3), (label != IGNORE).unsqueeze(1)
    for kept in (known & False, known):
        loss = losses.squared_dice_loss(logits.softmax(1), hot, kept, absent=absent)
        (grad,) = torch.autograd.grad(loss, logits)
        assert (grad[(~kept).expand_as(grad)] == 0).all() and torch.isfinite(grad).all()
        assert (loss.item() == 0) == (not kept.any())
