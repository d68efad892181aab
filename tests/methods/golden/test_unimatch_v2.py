"""UniMatch V2 against unimatch_v2.py in plain loops. Layers are identities: images are features are logits."""

import math

import pytest
import torch

import tiny
from semiseg.batch import IGNORE, Clock, Labeled, Unlabeled, generator_of
from semiseg.data.mixing import cut_boxes
from semiseg.methods.unimatch_v2 import UniMatchV2
from semiseg.networks.base import Features
from semiseg.networks.perturb import complementary_dropout
from semiseg.task import make_task

CLOCK = Clock(5, 20, (10,))  # a step at which both views get boxes, in different images
THRESHOLD = 0.6


def identity(role="student", channels=3):
    net = tiny.Pixelwise(channels, channels)
    with torch.no_grad():
        net.conv.weight.copy_(torch.eye(channels)[:, :, None, None])
        net.conv.bias.zero_()
    return net


def build(classes="abc", **changes):
    make = lambda role: identity(role, len(classes))  # noqa: E731
    method = UniMatchV2(make, make_task("multiclass", classes, "ce"), **{"threshold": THRESHOLD, **changes})
    with torch.no_grad():  # a teacher with a mind of its own: it prefers the first class
        method.teacher.network.conv.bias[0] += BIAS
    return method


BIAS = 0.7


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


def channel_masks(channels, n):
    """What this step's dropout multiplies features of ones with, one (n,K) per view."""
    ones = Features([torch.ones(2 * n, channels, 1, 1)], (1, 1), (1, 1))
    return complementary_dropout(ones, CLOCK.generator("drop")).levels[0][:, :, 0, 0].chunk(2)


def term(unlabeled, view, box, mask, wrong):
    """Σ CE [conf >= t] [not padded] / #not padded of the mixed map; dropout acts on the features of the mixed image."""
    n, _, size, _ = unlabeled.weak.shape
    step = -1 if wrong == "the partner is the previous image" else 1
    total, inside, kept = 0.0, 0, 0
    for i in range(n):
        for y in range(size):
            for x in range(size):
                source = (i + step) % n if box[i, 0, y, x] else i
                teacher = unlabeled.weak[i if wrong == "labels are not pasted" else source, :, y, x].tolist()
                teacher[0] += 0 if wrong == "the student teaches" else BIAS
                label = teacher.index(max(teacher))
                ok = bool(unlabeled.valid[i if wrong == "padding is not pasted" else source, 0, y, x])
                keep = math.exp(-ce(teacher, label)) >= THRESHOLD
                dropped = mask[source if wrong == "dropout moves with the box" else i]
                student = (view[source, :, y, x] * dropped).tolist()
                total += ok * keep * ce(student, label)
                inside, kept = inside + ok, kept + (ok and keep)
    return total / {"mean over kept": kept, "mean over all": n * size * size}.get(wrong, inside)


def authors(labeled, unlabeled, wrong=""):
    """unimatch_v2.py:170-204: (L_x + (L_s1 + L_s2) / 2) / 2."""
    n, k, size, _ = unlabeled.weak.shape
    names = ["box0", "box0"] if wrong == "one box for both views" else ["box0", "box1"]
    boxes = [cut_boxes(n, (size, size), CLOCK.generator(name)) for name in names]
    first, second = channel_masks(k, n)
    masks = {
        "both views get the same channels": (first, first),
        "dropout does not scale": ((first > 0).float(), (second > 0).float()),
        "no dropout": (torch.ones_like(first), torch.ones_like(second)),
        "views change places": (second, first),
    }.get(wrong, (first, second))
    terms = [term(unlabeled, *views, wrong) for views in zip(unlabeled.strong, boxes, masks, strict=True)]
    strong = sum(terms) / (1 if wrong == "views not averaged" else 2)
    return (supervised(labeled) + strong) / (1 if wrong == "not halved" else 2)


WRONG = [
    "labels are not pasted",
    "padding is not pasted",
    "the partner is the previous image",
    "one box for both views",
    "the student teaches",
    "mean over kept",
    "mean over all",
    "dropout moves with the box",
    "both views get the same channels",
    "dropout does not scale",
    "no dropout",
    "views change places",
    "views not averaged",
    "not halved",
]


@pytest.mark.parametrize("seed", range(3))
def test_the_authors_formula(seed):
    labeled, unlabeled = sample(seed)
    loss = build().step(labeled, unlabeled, CLOCK)["loss"].item()
    assert loss == pytest.approx(authors(labeled, unlabeled), abs=1e-6)
    for wrong in WRONG:
        assert abs(loss - authors(labeled, unlabeled, wrong)) > 1e-4, wrong


def test_by_hand():
    """One image of one pixel, two classes, no dropout of channels; a batch of one is its own partner.

    The teacher says (log 3 - .7 + .7, 0): p = (.75, .25), class 0. Labeled logits (0, 0): log 2. Strong logits
    (0, log 3): log 4, and (0, 0): log 2. L = (log 2 + (log 4 + log 2) / 2) / 2 = 1.25 log 2.
    """
    weak = torch.tensor([math.log(3) - BIAS, 0.0]).view(1, 2, 1, 1)
    strong = torch.tensor([0.0, math.log(3)]).view(1, 2, 1, 1)
    zero = torch.zeros(1, 2, 1, 1)
    unlabeled = Unlabeled(weak, (strong, zero), torch.ones(1, 1, 1, 1).bool())
    losses = build("ab", spared=1.0).step(Labeled(zero, torch.zeros(1, 1, 1).long()), unlabeled, CLOCK)
    assert losses["loss"].item() == pytest.approx(1.25 * math.log(2), abs=1e-6)
    assert losses["kept"].item() == 1


def test_equal_losses_give_that_loss():
    """Logits of 0 everywhere: all three cross-entropies are log 3, so is the total."""
    labeled, unlabeled = sample()
    zero = torch.zeros_like(unlabeled.weak)
    labeled = Labeled(torch.zeros_like(labeled.image), labeled.mask)
    losses = build(threshold=0.0).step(labeled, unlabeled.replace(strong=(zero, zero)), CLOCK)
    assert losses["loss"].item() == pytest.approx(math.log(3), abs=1e-6)


def test_thresholds_at_the_ends():
    """1.01 is nothing; at 0 every pixel inside counts."""
    labeled, unlabeled = sample()
    nothing = build(threshold=1.01).step(labeled, unlabeled, CLOCK)
    assert nothing["strong"].item() == 0 and nothing["kept"].item() == 0
    every = build(threshold=0.0).step(labeled, unlabeled, CLOCK)["kept"].item()
    assert every == pytest.approx(unlabeled.valid.float().mean().item())


def test_gradients_reach_the_student_only():
    labeled, unlabeled = sample()
    leaf = unlabeled.weak.clone().requires_grad_()
    seen = []

    def watch(images, target, clock):
        seen.append(target)
        return images, target

    method = build()
    method.refine = watch
    losses = method.step(labeled, unlabeled.replace(weak=leaf), CLOCK)
    assert not seen[0].prob.requires_grad and not seen[0].weight.requires_grad  # they would be, without no_grad
    losses["loss"].backward()
    assert leaf.grad is None and method.student.conv.weight.grad.abs().max() > 0
    assert all(p.grad is None and not p.requires_grad for p in method.teacher.parameters())


def test_the_teacher_follows_predicts_and_warms_up():
    """Decays 0, 1/2, 2/3, …: after n updates towards 1, 2, 3, … from anywhere the teacher is their mean."""
    method = build()
    assert method.predictor() is method.teacher.network
    for n in range(1, 6):
        with torch.no_grad():
            method.student.conv.bias.fill_(float(n))
        method.after_step(Clock(5, 40_000))
        assert method.teacher.network.conv.bias[0].item() == pytest.approx((n + 1) / 2)


def test_a_normalised_student_sees_the_clean_view():
    """Its statistics come from labeled and clean images together; an unnormalised one is spared the images."""
    task = tiny.task_of("multiclass")
    clean, other = (tiny.unlabeled("multiclass", views=2, seed=seed) for seed in (1, 2))
    images = [clean, other.replace(strong=clean.strong)]
    runs = []
    for unlabeled in images:
        torch.manual_seed(0)
        method = UniMatchV2(tiny.make_of(task), task, threshold=1.01).train()
        method.step(tiny.labeled("multiclass"), unlabeled, CLOCK)
        runs.append(next(b for k, b in method.student.named_buffers() if "running_mean" in k))
    assert method.images_per_step(4, 6) == 4 + 4 * 6 and build().images_per_step(4, 6) == 4 + 3 * 6
    assert not torch.equal(*runs)


def test_weight_and_ramp():
    parts = build(weight=3.0, ramp=0.5).step(*sample(), CLOCK)  # t = .25 / .5: exp(-5 * .5²)
    want = (parts["sup"] + 3 * math.exp(-5 * 0.5**2) * parts["strong"]) / 2
    assert parts["loss"].item() == pytest.approx(want.item(), abs=1e-6)
