"""SupMix in plain loops (our reading: no public code). The network is the identity: images are logits."""

import math

import pytest
import torch
from torch import nn

import tiny
from semiseg.batch import IGNORE, Clock, Labeled, Unlabeled, generator_of
from semiseg.errors import Refusal
from semiseg.inconsistency import InconsistencyMask
from semiseg.methods._supmix import sources, supmix
from semiseg.methods.supmix import SupMix
from semiseg.task import make_task

CLOCK = Clock(5, 20, (3,))
THRESHOLD = 0.7
K = 4


def softmax(values):
    exps = [math.exp(v) for v in values]
    return [e / sum(exps) for e in exps]


def sample(seed=0, b=2, u=3, size=6):
    g = generator_of("supmix", seed)
    mask = torch.randint(K, (b, size, size), generator=g)
    mask[0].clamp_(max=K - 2)  # an odd number of classes
    mask[torch.rand(mask.shape, generator=g) < 0.2] = IGNORE
    weak, strong = (2 * torch.randn(u, K, size, size, generator=g) for _ in range(2))
    valid = torch.rand(u, 1, size, size, generator=g) < 0.8
    return Labeled(2 * torch.randn(b, K, size, size, generator=g), mask), Unlabeled(weak, (strong,), valid)


def pixels(*sizes):
    grid = [()]
    for n in sizes:
        grid = [(*before, i) for before in grid for i in range(n)]
    return grid


def region_of(mask, draw, wrong):
    """Half of the classes of a mask, rounded down, those with the smallest draws; class 0 is one like any other."""
    present = set(mask.flatten().tolist()) - {IGNORE}
    if wrong == "class 0 is left out":
        present -= {0}
    order = sorted(present, key=lambda c: draw[c])
    chosen = order[: math.ceil(len(order) / 2) if wrong == "rounded up" else len(order) // 2]
    if wrong == "all classes":
        chosen = order
    if wrong == "ignored pixels are pasted":
        chosen.append(IGNORE)
    return chosen


def reading(labeled, unlabeled, wrong=""):
    """x~ = M x_l + (1-M) x_u, y~ and weight likewise; L = CE(x_l) + Σ q CE(x~, y~) / #inside, q = 1 on M."""
    b, (u, _, size, _) = len(labeled.image), unlabeled.weak.shape
    draws = torch.rand(u, K, generator=CLOCK.generator("classes")).tolist()
    view = unlabeled.strong[0]
    teacher = view if wrong == "strong teaches" else unlabeled.weak
    ok = {at: bool(unlabeled.valid[at[0], 0, at[1], at[2]]) for at in pixels(u, size, size)}
    prob = {(i, y, x): softmax(teacher[i, :, y, x].tolist()) for i, y, x in ok}
    sure = {at: ok[at] and max(p) >= THRESHOLD for at, p in prob.items()}
    q = {i: sum(sure.values()) / sum(ok.values()) for i in range(u)}
    if wrong == "share per image":
        q = {i: sum(sure[at] for at in ok if at[0] == i) / sum(ok[at] for at in ok if at[0] == i) for i in range(u)}

    known = [at for at in pixels(b, size, size) if labeled.mask[at] != IGNORE]
    sup = sum(-math.log(softmax(labeled.image[i, :, y, x].tolist())[labeled.mask[i, y, x]]) for i, y, x in known)
    total, inside = 0.0, 0
    for i in range(u):
        j = 0 if wrong == "one labeled image only" else i % b
        mask = labeled.mask[j]
        if wrong == "regions of predictions":
            mask = unlabeled.weak[(i + 1) % u].argmax(0)
        chosen = region_of(mask, draws[i], wrong)
        for y, x in pixels(size, size):
            at, label = (i, y, x), labeled.mask[j, y, x].item()
            if mask[y, x].item() in chosen:
                logits, weight, valid = labeled.image[j, :, y, x], 1.0, True
                if wrong == "labels are not pasted":
                    label = prob[at].index(max(prob[at]))
                if wrong == "pasted pixels count as the others":
                    weight = q[i]
                if wrong == "pasted onto padding counts nothing":
                    valid = ok[at]
            else:
                logits, weight, valid = view[i, :, y, x], q[i], ok[at]
                label = prob[at].index(max(prob[at]))
            taught = 0.0 if label == IGNORE else -math.log(softmax(logits.tolist())[label])
            total += valid * weight * taught
            inside += valid
    return sup / len(known) + total / (u * size * size if wrong == "mean over all" else inside)


WRONG = [
    "class 0 is left out",
    "rounded up",
    "all classes",
    "ignored pixels are pasted",
    "strong teaches",
    "share per image",
    "one labeled image only",
    "regions of predictions",
    "labels are not pasted",
    "pasted pixels count as the others",
    "pasted onto padding counts nothing",
    "mean over all",
]


def method_of(task=None, **changes):
    task = task or make_task("multiclass", "abcd", "ce")
    return SupMix(lambda role: nn.Identity(), task, **{"threshold": THRESHOLD, **changes})


@pytest.mark.parametrize("seed", range(3))
def test_our_reading_of_the_paper(seed):
    labeled, unlabeled = sample(seed)
    loss = method_of().step(labeled, unlabeled, CLOCK)["loss"].item()
    assert loss == pytest.approx(reading(labeled, unlabeled), abs=1e-6)
    for wrong in WRONG:
        assert abs(loss - reading(labeled, unlabeled, wrong)) > 1e-4, wrong


def test_by_hand():
    """Two pixels, two classes; the mask is (0, 1), so the second pixel is pasted.

    Labeled logits (0, 0) twice: CE log 2. Weak p = (.9, .1), (.5, .5): one of two is sure at .7, q = ½. First pixel, strong
    logits (0, log 3), label 0: log 4, counts ½. Second, labeled logits, label 1: log 2, counts 1.
    L = log 2 + (½ log 4 + log 2) / 2 = 2 log 2.
    """
    weak = torch.tensor([[math.log(9), 0.0], [0.0, 0.0]]).view(1, 2, 1, 2)
    strong = torch.tensor([[0.0, 7.0], [math.log(3), 0.0]]).view(1, 2, 1, 2)
    labeled = Labeled(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]]))
    unlabeled = Unlabeled(weak, (strong,), torch.ones(1, 1, 1, 2).bool())
    losses = method_of(make_task("multiclass", "ab", "ce")).step(labeled, unlabeled, CLOCK)
    assert losses["loss"].item() == pytest.approx(2 * math.log(2), abs=1e-6)
    assert losses["mixed"].item() == pytest.approx(math.log(2) / 2, abs=1e-6)
    assert losses["pasted"].item() == pytest.approx(math.log(2) / 2, abs=1e-6)


def test_what_is_pasted(kind):
    """On a region: the labeled pixels and exactly their masks, of full weight and valid. Elsewhere: nothing changes."""
    task, labeled, unlabeled = tiny.task_of(kind), tiny.labeled(kind, n=2), tiny.unlabeled(kind, n=5)
    ignored = torch.zeros_like(labeled.mask, dtype=torch.bool)
    ignored[..., 5:9] = True
    labeled = Labeled(labeled.image, labeled.mask.masked_fill(ignored, IGNORE))
    target = task.target(torch.randn(5, task.channels, 16, 16, generator=generator_of(1)), unlabeled.valid)
    target = target.replace(weight=0.3 * target.weight, valid=unlabeled.valid.clone())
    target.valid[:, :, :8] = False
    strong = unlabeled.strong[0]
    region, _, _ = sources(labeled, 5, task, CLOCK.generator("a"))
    mixed, belief = supmix(labeled, strong, target, task, CLOCK.generator("a"))
    assert region.flatten(1).any(1).all() and not region[..., 5:9].any()
    order = torch.arange(5) % 2
    at = region.expand_as(labeled.mask[order]) if task.multilabel else region[:, 0]
    assert torch.equal(mixed[region], labeled.image[order][region]) and torch.equal(mixed[~region], strong[~region])
    assert torch.equal(belief.label[at], labeled.mask[order][at]) and torch.equal(belief.label[~at], target.label[~at])
    outside = ~region.expand_as(belief.weight)
    assert (belief.weight[~outside] == 1).all() and (belief.weight[outside] == 0.3).all()
    assert belief.valid[region].all() and torch.equal(belief.valid[~region], target.valid[~region])
    assert torch.equal(belief.prob.argmax(1)[region[:, 0]], task.truth(labeled.mask[order]).argmax(1)[region[:, 0]])


def test_no_foreground_no_paste(kind):
    task, unlabeled = tiny.task_of(kind), tiny.unlabeled(kind)
    labeled = tiny.labeled(kind)
    for value in (0, IGNORE):
        empty = Labeled(labeled.image, torch.full_like(labeled.mask, value))
        target = task.target(torch.randn(3, task.channels, 16, 16, generator=generator_of(1)), unlabeled.valid)
        mixed, belief = supmix(empty, unlabeled.strong[0], target, task, CLOCK.generator("a"))
        assert torch.equal(mixed, unlabeled.strong[0])
        for name, part in vars(target).items():
            assert torch.equal(getattr(belief, name), part.expand_as(getattr(belief, name)))


def test_classes_chosen_by_hand(kind):
    """Every pixel of a named class is pasted, and no other, whatever is drawn."""
    task, labeled = tiny.task_of(kind), tiny.labeled(kind, n=2)
    name = task.names[-1]
    method = SupMix(tiny.make_of(task), task, classes=f" {name},")
    region, _, _ = sources(labeled, 3, task, CLOCK.generator("a"), method.classes)
    mask = labeled.mask[torch.arange(3) % 2]
    where = mask[:, -1] == 1 if task.multilabel else mask == len(task.names) - 1
    assert torch.equal(region[:, 0], where) and where.any()
    with pytest.raises(Refusal, match=f"names 'x{name}'. Did you mean '{name}'"):
        SupMix(tiny.make_of(task), task, classes=f"x{name}")


def test_masks_that_count_nothing_are_not_pasted():
    task, labeled = tiny.task_of("binary"), tiny.labeled("binary")
    weight = torch.ones(2, 1, 16, 16)
    weight[..., :6] = 0
    region, _, belief = sources(
        Labeled(labeled.image, torch.ones_like(labeled.mask), weight), 3, task, CLOCK.generator("a")
    )
    assert not region[..., :6].any() and region[..., 6:].all()
    assert belief.weight.shape == (3, 1, 16, 16)


def test_gradients_reach_the_student_only():
    """Neither the teacher's view nor, where something is pasted, the unlabeled image gets any."""
    labeled, unlabeled = sample()
    views = [v.clone().requires_grad_() for v in (unlabeled.weak, unlabeled.strong[0])]
    method = method_of()
    losses = method.step(labeled, unlabeled.replace(weak=views[0], strong=(views[1],)), CLOCK)
    weak, strong = torch.autograd.grad(losses["loss"], views, allow_unused=True)
    region, _, _ = sources(labeled, 3, method.task, CLOCK.generator("classes"))
    assert weak is None and strong.abs().max() > 0
    assert (strong * region == 0).all() and not losses["pasted"].requires_grad


def test_pasted_masks_teach_where_unlabeled_pixels_may_not():
    """All disputed: no unlabeled pixel counts, the pasted ones do."""
    unlabeled = tiny.unlabeled("binary", planes=tiny.planes("binary"))
    unlabeled.planes.agree.zero_()
    task = tiny.task_of("binary")
    method = SupMix(lambda role: tiny.Pixelwise(1, 1), task, threshold=0.0)
    method.refine = InconsistencyMask()
    losses = method.step(tiny.labeled("binary"), unlabeled, CLOCK)
    assert losses["mixed"].item() == 0 and losses["pasted"].item() > 0
    want = losses["sup"] + losses["pasted"]
    assert losses["loss"].item() == pytest.approx(want.item(), abs=1e-6)


def test_weight_and_ramp():
    labeled, unlabeled = sample()
    parts = method_of(weight=3.0, ramp=0.5).step(labeled, unlabeled, CLOCK)
    want = parts["sup"] + 3 * math.exp(-5 * 0.5**2) * (parts["mixed"] + parts["pasted"])
    assert parts["loss"].item() == pytest.approx(want.item(), abs=1e-6)


def test_a_negative_discriminator_is_refused():
    with pytest.raises(Refusal, match="a weight of 0 or more"):
        method_of(discriminator=-1.0)
