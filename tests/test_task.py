"""Losses with stated denominators and metrics, against plain loops."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny
from semiseg.batch import IGNORE, Labeled, Target
from semiseg.errors import Refusal
from semiseg.task import LOSSES, Multiclass, Multilabel, make_task


def random(kind, seed=0, b=2, size=4, ignore=0.2):
    """Task, logits and mask of one kind, some pixels ignored."""
    g = torch.Generator().manual_seed(seed)
    task = tiny.task_of(kind)
    k = task.channels
    logits = torch.randn(b, k, size, size, generator=g, requires_grad=True)
    shape = (b, k, size, size) if task.multilabel else (b, size, size)
    mask = torch.randint(2 if task.multilabel else k, shape, generator=g)
    mask[torch.rand(shape, generator=g) < ignore] = IGNORE
    return task, logits, mask.to(torch.uint8) if task.multilabel else mask


def belief(task, logits, seed=0):
    """Detached belief with random weights, some pixels outside the image."""
    g = torch.Generator().manual_seed(seed + 1)
    b, _, h, w = logits.shape
    valid = torch.rand(b, 1, h, w, generator=g) < 0.7
    target = task.target(torch.randn(logits.shape, generator=g), valid)
    return target.replace(weight=torch.rand(b, 1, h, w, generator=g))


def ce(logits, label, b, k, y, x):
    """The loss of one element in plain numbers; k is None for classes."""
    if k is None:
        exps = [math.exp(v) for v in logits[b, :, y, x].tolist()]
        return -math.log(exps[int(label[b, y, x])] / sum(exps))
    p = 1 / (1 + math.exp(-logits[b, k, y, x].item()))
    return -math.log(p if label[b, k, y, x] == 1 else 1 - p)


def elements(task, shape):
    b, k, h, w = shape
    ks = range(k) if task.multilabel else (None,)
    return [(i, j, y, x) for i in range(b) for j in ks for y in range(h) for x in range(w)]


def at(label, b, k, y, x):
    return label[b, y, x] if k is None else label[b, k, y, x]


def test_kinds_and_channels(kind):
    task = tiny.task_of(kind)
    assert task.channels == {"multiclass": 3, "binary": 1, "multilabel": 2}[kind]
    assert task.multilabel == (kind != "multiclass")
    with pytest.raises(Refusal, match="'dice'") as refused:
        make_task(kind, ("a",), "dice")
    assert refused.value.exit == 2


def test_labels_and_ties():
    """A probability of exactly one half is not foreground: strict, as the paper's binary rule."""
    assert Multilabel(["a"]).label(torch.tensor([0.5, 0.51])).tolist() == [0, 1]
    assert Multiclass(["a", "b"]).label(torch.tensor([0.4, 0.6]).view(1, 2, 1, 1)).item() == 1


@pytest.mark.parametrize("seed", range(3))
def test_supervised_cross_entropy_is_the_mean_over_known_pixels(kind, seed):
    _, logits, mask = random(kind, seed)
    task = tiny.task_of(kind, "ce")
    values = [ce(logits, mask, *e) for e in elements(task, logits.shape) if at(mask, *e) != IGNORE]
    loss = task.supervised(logits, Labeled(torch.zeros(2, 1, 4, 4), mask))
    assert loss.item() == pytest.approx(sum(values) / len(values), abs=1e-5)


def test_supervised_weight_scales_the_numerator_only(kind):
    _, logits, mask = random(kind)
    task, image = tiny.task_of(kind, "ce"), torch.zeros(2, 1, 4, 4)
    plain = task.supervised(logits, Labeled(image, mask))
    half = task.supervised(logits, Labeled(image, mask, torch.full((2, 1, 4, 4), 0.5)))
    assert half.item() == pytest.approx(plain.item() / 2, abs=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_an_ignored_mask_gives_zero_and_no_gradient(kind, loss):
    _, logits, mask = random(kind, ignore=1.1)
    value = tiny.task_of(kind, loss).supervised(logits, Labeled(torch.zeros(2, 1, 4, 4), mask))
    (grad,) = torch.autograd.grad(value, logits)
    assert value.item() == 0 and (grad == 0).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_every_supervised_loss_falls_to_nothing_on_a_perfect_prediction(kind, loss):
    task, logits, mask = random(kind, ignore=0.1)
    task = tiny.task_of(kind, loss)
    perfect = (task.truth(mask) * 2 - 1) * 40
    data = Labeled(torch.zeros(2, 1, 4, 4), mask)
    assert task.supervised(perfect, data).item() < 1e-4 < 0.1 < task.supervised(logits, data).item()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("per", ["valid", "kept", "all"])
def test_consistency_denominators(kind, per, seed):
    task, logits, _ = random(kind, seed)
    target = belief(task, logits, seed)
    total = inside = weights = 0.0
    for e in elements(task, logits.shape):
        w, v = target.weight[e[0], 0, e[2], e[3]].item(), target.valid[e[0], 0, e[2], e[3]].item()
        total += w * v * ce(logits, target.label, *e)
        inside, weights = inside + v, weights + w * v
    count = {"valid": inside, "kept": weights, "all": len(elements(task, logits.shape))}[per]
    assert task.consistency(logits, target, per).item() == pytest.approx(total / count, abs=1e-5)


@pytest.mark.parametrize("per", ["valid", "kept", "all"])
def test_nothing_inside_the_image_is_zero(kind, per):
    task, logits, _ = random(kind)
    target = belief(task, logits)
    for empty in (target.replace(valid=target.valid & False), target.replace(weight=target.weight * 0)):
        for loss in (task.consistency(logits, empty, per), task.mse(logits, empty, per)):
            (grad,) = torch.autograd.grad(loss, logits)
            assert loss.item() == 0 and (grad == 0).all()


def test_unknown_denominator():
    task, logits, _ = random("binary")
    with pytest.raises(Refusal, match="valid, kept or all"):
        task.consistency(logits, belief(task, logits), "some")


def test_squared_distance_is_a_mean_over_classes(kind):
    task, logits, _ = random(kind)
    target = belief(task, logits).replace(weight=torch.ones(2, 1, 4, 4))
    difference = (task.prob(logits) - target.prob) ** 2
    want = difference[target.valid.expand_as(difference)].mean()
    assert task.mse(logits, target).item() == pytest.approx(want.item(), abs=1e-6)


def test_overlapping_labels_are_kept_apart():
    task = tiny.task_of("multilabel")
    target = task.target(torch.tensor([8.0, 8.0]).view(1, 2, 1, 1), torch.ones(1, 1, 1, 1).bool())
    assert target.label.flatten().tolist() == [1, 1]
    logits = torch.zeros(1, 2, 1, 1, requires_grad=True)
    for loss in (task.consistency(logits, target), task.supervised(logits, target.as_labeled(torch.zeros(1, 1, 1, 1)))):
        (grad,) = torch.autograd.grad(loss, logits)
        assert (grad < 0).all()  # both channels are pushed up


def test_a_target_is_detached(kind):
    task, logits, _ = random(kind)
    target = task.target(logits, torch.ones(2, 1, 4, 4).bool())
    assert not target.prob.requires_grad and torch.equal(target.weight, torch.ones(2, 1, 4, 4))
    assert target.label.dtype == (torch.uint8 if task.multilabel else torch.int64)


def test_categorical_sums_to_one(kind):
    task, logits, _ = random(kind)
    prob = task.categorical(logits)
    assert prob.shape == ((2 * task.channels, 2, 4, 4) if task.multilabel else (2, 3, 4, 4))
    torch.testing.assert_close(prob.sum(1), torch.ones_like(prob[:, 0]))
    if task.multilabel:  # image by image, label by label; channel 1 = on
        torch.testing.assert_close(prob[:, 1].view(2, task.channels, 4, 4), task.prob(logits))


def brute(kind, pairs):
    """IoU and Dice by counting pixels one by one; a class without true pixels says nothing, but in one image for labels."""
    names = tiny.NAMES[kind]

    def iou(chosen, k, predicted=False):
        hit = union = there = 0
        for label, mask in chosen:
            planes = (label[k] == 1, mask[k] == 1, mask[k] != IGNORE) if kind != "multiclass" else (
                label == k, mask == k, mask != IGNORE)  # fmt: skip
            for p, t, known in zip(*(x.flatten().tolist() for x in planes), strict=True):
                hit += known and p and t
                union += known and (p or t)
                there += known and (t or (predicted and p))
        return hit / union if there else None

    def mean(values):
        seen = [v for v in values if v is not None]
        return sum(seen) / len(seen) if seen else None

    ious = [iou(pairs, k) for k in range(len(names))]
    dices = [None if v is None else 2 * v / (1 + v) for v in ious]
    labels = kind != "multiclass"
    per_image = [mean([iou([pair], k, labels) for k in range(len(names))]) for pair in pairs]
    per_class = {n: {"iou": i, "dice": d} for n, i, d in zip(names, ious, dices, strict=True)}
    return {"miou": mean(ious), "dice": mean(dices), "iou_per_image": mean(per_image), "per_class": per_class}


def same(got, want):
    if isinstance(want, dict):
        return got.keys() == want.keys() and all(same(got[k], want[k]) for k in want)
    return got is None if want is None else got == pytest.approx(want, abs=1e-9)


@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.3, 1.1]), st.integers(1, 3), st.sampled_from(tiny.KINDS))
def test_metrics_equal_counting(seed, ignore, present, kind):
    """`present` classes occur, so that some are absent from truth and prediction."""
    g = torch.Generator().manual_seed(seed)
    task = tiny.task_of(kind)
    k = task.channels
    metrics, pairs = task.metrics(), []
    for i in range(3):
        shape = (k, 3, 2 + i) if task.multilabel else (3, 2 + i)
        top = min(present, 2 if task.multilabel else k)
        label, mask = (torch.randint(top, shape, generator=g, dtype=torch.uint8) for _ in range(2))
        mask[torch.rand(shape, generator=g) < ignore] = IGNORE
        pairs.append((label, mask))
        ious = metrics.update(label if task.multilabel else label.long(), mask)
        assert tuple(ious) == tiny.NAMES[kind]
    want = brute(kind, pairs)
    assert same(metrics.compute(), want), (metrics.compute(), want)


def test_iou_per_image_by_hand():
    """Image 1: cell IoU 1/2; image 2 is empty in truth and prediction and says nothing; image 3: 0/1. Mean 1/4."""
    metrics = Multilabel(["cell"]).metrics()
    for label, mask in (([1, 1, 0], [1, 0, 0]), ([0, 0, 0], [0, 0, 0]), ([0, 0, 1], [0, 0, 0])):
        metrics.update(torch.tensor([[label]]), torch.tensor([[mask]]))
    got = metrics.compute()
    assert got["iou_per_image"] == pytest.approx(0.25) and got["miou"] == pytest.approx(1 / 3)


def test_an_absent_class_is_none_and_left_out():
    metrics = Multiclass(["a", "b", "c"]).metrics()
    row = metrics.update(torch.tensor([[0, 1, 1]]), torch.tensor([[0, 1, IGNORE]]))
    got = metrics.compute()
    assert row == {"a": 1.0, "b": 1.0, "c": None} and got["per_class"]["c"] == {"iou": None, "dice": None}
    assert got["miou"] == got["dice"] == got["iou_per_image"] == 1


def test_what_is_predicted_only_does_not_score_a_class(kind):
    """The last class is in no mask and in one prediction: it is left out, as it is where nobody predicts it."""
    task = tiny.task_of(kind)
    k, wrong = task.channels, task.metrics()
    shape = (k, 1, 3) if task.multilabel else (1, 3)
    mask, label = (torch.zeros(shape, dtype=torch.uint8) for _ in range(2))
    if kind == "multiclass":
        mask[0, 1] = label[0, 1] = 1
        label[0, 2] = k - 1
        want = (1 / 2 + 1) / 2
    else:
        mask[: k - 1, 0, 0] = label[: k - 1, 0, 0] = label[k - 1, 0, 2] = 1
        want = 1 if k > 1 else None
    wrong.update(label if task.multilabel else label.long(), mask)
    got = wrong.compute()
    assert got["miou"] == want and got["per_class"][task.names[-1]] == {"iou": None, "dice": None}
    assert got["iou_per_image"] == (want if kind == "multiclass" else (k - 1) / k)


def test_iou_per_image_of_classes_is_the_papers():
    """Facts of the IM paper's code: classes of the image's own truth. Image 1 is all class 0 and a tenth is called 1."""
    metrics = Multiclass(["a", "b"]).metrics()
    one, two = torch.zeros(1, 10, dtype=torch.long), torch.ones(1, 10, dtype=torch.long)
    called = one.clone()
    called[0, 0] = 1
    assert metrics.update(called, one) == {"a": 0.9, "b": None}
    metrics.update(two, two)
    assert metrics.compute()["iou_per_image"] == pytest.approx((0.9 + 1) / 2)
    assert metrics.compute()["miou"] == pytest.approx((0.9 + 10 / 11) / 2)


def test_a_target_of_classes_knows_its_confidence(kind):
    task, logits, _ = random(kind)
    confidence = task.target(logits, torch.ones(2, 1, 4, 4).bool()).confidence
    assert isinstance(task.target(logits, torch.ones(2, 1, 4, 4).bool()), Target)
    assert confidence.shape == (2, task.channels if task.multilabel else 1, 4, 4)
    assert (confidence >= (0.5 if task.multilabel else 1 / 3) - 1e-6).all()
