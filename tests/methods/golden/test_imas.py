"""iMAS against train_semi.py and loss_helper.py of ZhenZHAO/iMAS in plain loops. Images are logits, plus a bias."""

import math

import pytest
import torch
from torch import nn

from semiseg.batch import IGNORE, Clock, Labeled, Unlabeled, generator_of
from semiseg.methods.imas import IMAS, centred_boxes, opposites
from semiseg.task import make_task

MIXED, PLAIN = Clock(1, 20, (3,)), Clock(10, 20, (3,))  # steps at which the batch is mixed, and is not
THRESHOLD = 0.6
BIAS = (0.7, -0.4, 0.2)  # of the teacher


class Shift(nn.Module):
    """Logits = image + b."""

    def __init__(self, k):
        super().__init__()
        self.b = nn.Parameter(torch.zeros(k, 1, 1))

    def forward(self, x):
        return x + self.b


def softmax(values):
    exps = [math.exp(v) for v in values]
    return [e / sum(exps) for e in exps]


def ce(logits, label):
    return -math.log(softmax(logits)[label])


def sample(seed=0, b=2, u=4, k=3, size=8):
    g = generator_of("golden", seed)
    mask = torch.randint(k, (b, size, size), generator=g)
    mask[torch.rand(mask.shape, generator=g) < 0.2] = IGNORE
    weak, strong = (2 * torch.randn(u, k, size, size, generator=g) for _ in range(2))
    weak = weak * torch.tensor([1.5, 0.5, 1.0, 2.0]).view(4, 1, 1, 1)[:u]  # images of different easiness
    weak[:, 0] += 1.5  # classes of different size
    valid = torch.rand(u, 1, size, size, generator=g) < 0.8
    return Labeled(torch.randn(b, k, size, size, generator=g), mask), Unlabeled(weak, (strong, weak), valid)


def ours(labeled, unlabeled, clock=MIXED, bias=BIAS, **changes):
    task = make_task("multiclass", "abc", "ce")
    method = IMAS(lambda role: Shift(3), task, **{"threshold": THRESHOLD, **changes})
    with torch.no_grad():
        method.teacher.network.b += torch.tensor(bias).view(3, 1, 1)
    return method, method.step(labeled, unlabeled, clock)


def easiness(weak, valid, wrong="", skip=()):
    """loss_helper.py:377-419 for one image: mean over both sides of (IoU weighted by class share) · (confident share)."""
    k, size, _ = weak.shape
    pixels = [(y, x) for y in range(size) for x in range(size) if valid[0, y, x]]
    probs = [[softmax([v + c for v, c in zip(weak[:, y, x].tolist(), bias, strict=True)]) for y, x in pixels]
             for bias in (BIAS, (0.0,) * k)]  # fmt: skip
    maps = [[p.index(max(p)) for p in side] for side in probs]
    iou = []
    for c in range(k):
        union = sum(c in pair for pair in zip(*maps, strict=True))
        iou.append(sum(pair == (c, c) for pair in zip(*maps, strict=True)) / union if union else 0.0)
    sides = []
    for side, labels in zip(probs, maps, strict=True):
        share = [0 if c in skip else labels.count(c) for c in range(k)]
        if wrong == "classes weigh the same":
            share = [1] * k
        sure = sum(max(p) >= THRESHOLD for p in side) / len(pixels)
        sides.append(sum(i * n for i, n in zip(iou, share, strict=True)) / max(sum(share), 1) * sure)
    return sides[0] if wrong == "the teacher's side alone" else sum(sides) / 2


def authors(labeled, unlabeled, clock, wrong=""):
    """train_semi.py:405-460: blend by γ, CutMix of weak views by reversed rank, per-image mean over all pixels times γ."""
    strong, weak = unlabeled.strong
    u, _, size, _ = weak.shape
    gamma = [easiness(weak[i], unlabeled.valid[i], wrong) for i in range(u)]
    g = clock.generator("box")
    drawn = float(torch.rand((), generator=g)) < sum(gamma) / u
    box = centred_boxes(u, (size, size), g)
    order = sorted(range(u), key=lambda i: gamma[i])
    partner = {i: j for i, j in zip(order, reversed(order), strict=True)}
    if wrong == "the next image is pasted":
        partner = {i: (i + 1) % u for i in range(u)}
    known = [(i, y, x) for i in range(len(labeled.mask)) for y in range(size) for x in range(size)]
    known = [p for p in known if labeled.mask[p] != IGNORE]
    sup = sum(ce(labeled.image[i, :, y, x].tolist(), labeled.mask[i, y, x]) for i, y, x in known) / len(known)
    total = [0.0, 0.0]
    kept = 0
    for i in range(u):
        for y in range(size):
            for x in range(size):
                source = partner[i] if box[i, 0, y, x] else i
                for part, s in ((0, i), (1, source)):
                    taught = i if wrong == "labels are not pasted" else s
                    teacher = [v + c for v, c in zip(weak[taught, :, y, x].tolist(), BIAS, strict=True)]
                    if wrong == "the student teaches":
                        teacher = weak[taught, :, y, x].tolist()
                    prob = softmax(teacher)
                    if max(prob) < THRESHOLD or not unlabeled.valid[taught, 0, y, x]:
                        continue
                    share = 1 - gamma[i] if wrong == "easy images are weak" else gamma[i]
                    blend = share * strong[i, :, y, x] + (1 - share) * weak[i, :, y, x]
                    views = {"strong views are mixed": strong}.get(wrong, weak)
                    view = blend if part == 0 else views[s, :, y, x]
                    counts = gamma[s] if wrong == "γ is pasted" else gamma[i]
                    counts = 1.0 if wrong == "all images count the same" else counts
                    total[part] += counts * ce(view.tolist(), prob.index(max(prob)))
                    kept += part == 0
    every = {"mean over kept": kept, "mean over the inside": int(unlabeled.valid.sum())}.get(wrong, u * size * size)
    halves = drawn != (wrong == "mixing is never drawn" or wrong == "mixing is always drawn")
    unsup = (total[0] + total[1]) / 2 if halves else total[0]
    return sup + 3 * unsup / every


WRONG = [
    "classes weigh the same",
    "the teacher's side alone",
    "the student teaches",
    "easy images are weak",
    "all images count the same",
    "mean over kept",
    "mean over the inside",
]
PASTED = [
    "the next image is pasted",
    "labels are not pasted",
    "strong views are mixed",
    "γ is pasted",
    "mixing is never drawn",
]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("clock", "wrongs"), [(MIXED, WRONG + PASTED), (PLAIN, [*WRONG, "mixing is always drawn"])])
def test_the_authors_formula(seed, clock, wrongs):
    labeled, unlabeled = sample(seed)
    loss = ours(labeled, unlabeled, clock)[1]["loss"].item()
    assert loss == pytest.approx(authors(labeled, unlabeled, clock), abs=1e-6)
    for wrong in wrongs:
        assert abs(loss - authors(labeled, unlabeled, clock, wrong)) > 1e-4, wrong


def one_hot(label, k=2, sure=True):
    """Probabilities of a map: 1, or .6 where it is not sure."""
    sure = torch.as_tensor(sure).expand(len(label))
    high = torch.where(sure, 1.0, 0.6)
    prob = ((1 - high) / (k - 1)).repeat(k, 1)
    prob[torch.tensor(label), torch.arange(len(label))] = high
    return prob.view(1, k, 1, -1)


def gamma_of(student, teacher, valid=None, kind="multiclass", **changes):
    k = student.shape[1]
    method = IMAS(lambda role: Shift(k), make_task(kind, "abcdef"[:k], "ce"), **changes)
    valid = torch.ones_like(student[:, :1], dtype=torch.bool) if valid is None else valid
    return method.easiness(student, teacher, valid)


def test_by_hand():
    """t = 0011, s = 0111, all sure: IoU 1/2 and 2/3; wIoU_t = (1/2 + 2/3) / 2 = .583333, wIoU_s = 1/8 + 3/4 · 2/3 = .625;
    γ = .604167. With half of the teacher's pixels sure .583333 / 2 + .625 over 2 = .458333."""
    s, t = one_hot([0, 1, 1, 1]), one_hot([0, 0, 1, 1])
    assert gamma_of(s, t).item() == pytest.approx(0.604167, abs=1e-6)
    half = one_hot([0, 0, 1, 1], sure=[True, False, True, False])
    assert gamma_of(s, half).item() == pytest.approx(0.458333, abs=1e-6)
    assert gamma_of(half, s).item() == gamma_of(s, half).item()


def test_one_only_for_equal_and_confident_maps():
    same = one_hot([0, 1, 2, 0], 3)
    assert gamma_of(same, same).item() == 1
    assert gamma_of(same, one_hot([0, 1, 2, 1], 3)).item() < 1
    assert gamma_of(same, one_hot([0, 1, 2, 0], 3, [True, True, True, False])).item() < 1
    g = generator_of("gamma")
    pairs = torch.randn(2, 5, 4, 6, 6, generator=g).mul(3).softmax(2)
    gamma = gamma_of(*pairs)
    assert gamma.shape == (5, 1) and (gamma >= 0).all() and (gamma <= 1).all()
    assert torch.equal(gamma, gamma_of(*pairs.flip(0)))


def test_pixels_outside_count_nothing():
    s, t = one_hot([0, 1, 1, 1]), one_hot([1, 1, 1, 0])
    valid = torch.tensor([False, True, True, False]).view(1, 1, 1, 4)
    assert gamma_of(s, t, valid).item() == 1
    assert gamma_of(s, t, torch.zeros_like(valid)).item() == 0


def test_background_can_be_ignored():
    """t = 0011, s = 0111 without class 0: both sides are IoU_1 = 2/3. Nothing but background: 0, not NaN."""
    s, t = one_hot([0, 1, 1, 1]), one_hot([0, 0, 1, 1])
    assert gamma_of(s, t, ignore_background=True).item() == pytest.approx(2 / 3, abs=1e-6)
    assert gamma_of(one_hot([0] * 4), one_hot([0] * 4), ignore_background=True).item() == 0
    assert gamma_of(one_hot([0] * 4), one_hot([0] * 4)).item() == 1


def test_overlapping_labels_are_judged_one_by_one():
    """Each is a problem of two classes: the first as by hand above, the second agreed upon."""
    teacher = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0]]).view(1, 2, 1, 4)
    student = torch.tensor([[0.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0]]).view(1, 2, 1, 4)
    gamma = gamma_of(student, teacher, kind="multilabel")
    assert gamma.tolist() == [pytest.approx([0.604167, 1.0], abs=1e-6)]
    assert gamma_of(student.flip(1), teacher.flip(1), kind="multilabel")[0, 1] == gamma[0, 0]


def test_partners_by_reversed_rank():
    assert opposites(torch.tensor([0.9, 0.1, 0.5])).tolist() == [1, 0, 2]
    assert opposites(torch.tensor([0.1, 0.2, 0.3, 0.4])).tolist() == [3, 2, 1, 0]
    assert opposites(torch.tensor([0.5])).tolist() == [0]


def test_boxes_keep_the_shape_of_the_image():
    sides = set()
    for step in range(200):
        box = centred_boxes(3, (64, 128), generator_of("b", step))
        rows, cols = box.any(3).sum(2).flatten(), box.any(2).sum(2).flatten()
        assert (rows <= 0.9 * 64).all() and (cols <= 0.9 * 128).all()
        whole = (
            box.any(3)[:, 0, [0, -1]].logical_not().all(1) & box.any(2)[:, 0, [0, -1]].logical_not().all(1) & (rows > 0)
        )
        sides |= set(zip(rows[whole].tolist(), cols[whole].tolist(), strict=True))
    assert len(sides) > 10 and all(abs(2 * h - w) <= 4 for h, w in sides)


def test_the_share_of_mixed_batches_is_the_mean_easiness():
    """Seen in the loss: L_strong alone, or half of it and half of L_mixed."""
    labeled, unlabeled = sample(size=4)
    alone, rows = strong_term(unlabeled), [ours(labeled, unlabeled, Clock(s, 1000, (1,)))[1] for s in range(200)]
    mixed = [abs(r["unsup"].item() - alone) > 1e-6 for r in rows]
    ease = rows[0]["easiness"].item()
    assert 0.2 < ease < 0.8 and sum(mixed) / 200 == pytest.approx(ease, abs=0.08)


def strong_term(unlabeled):
    """L_strong of a batch in which nothing is mixed."""
    method, _ = ours(*sample(size=4), PLAIN)
    target = method.believe(unlabeled, method.teacher(unlabeled.weak))
    gamma = method.easiness(method.task.prob(unlabeled.weak), target.prob, target.valid).view(-1, 1, 1, 1)
    view = gamma * unlabeled.strong[0] + (1 - gamma) * unlabeled.strong[1]
    per = nn.functional.cross_entropy(view, target.label, reduction="none").unsqueeze(1)
    return (per * gamma * target.valid * (target.confidence >= THRESHOLD)).mean().item()


def test_thresholds_at_the_ends():
    """Equal networks that are always sure: the plain mean CE of the strong view; nothing is sure: 0."""
    labeled, unlabeled = sample()
    unlabeled = unlabeled.replace(valid=torch.ones_like(unlabeled.valid))
    losses = ours(labeled, unlabeled, bias=(0.0, 0.0, 0.0), threshold=0.0)[1]
    assert losses["easiness"].item() == 1
    first = nn.functional.cross_entropy(unlabeled.strong[0], unlabeled.weak.argmax(1)).item()
    g = MIXED.generator("box")
    assert float(torch.rand((), generator=g)) < 1  # always mixed
    box = centred_boxes(4, (8, 8), g)
    mixed = torch.where(box, unlabeled.weak.flip(0), unlabeled.weak)  # ties: 0123 reversed
    second = nn.functional.cross_entropy(mixed, mixed.argmax(1)).item()
    assert losses["unsup"].item() == pytest.approx((first + second) / 2, abs=1e-6)
    assert ours(labeled, unlabeled, threshold=1.01)[1]["unsup"].item() == 0


def test_only_the_student_learns_and_γ_is_a_number():
    """The gradient of the student's bias is that of γ held fixed: p - y over the views, weighted by γ."""
    labeled, unlabeled = sample()
    method, losses = ours(labeled, unlabeled, PLAIN)
    (grad,) = torch.autograd.grad(losses["unsup"], [method.student.b])
    target = method.believe(unlabeled, method.teacher(unlabeled.weak))
    gamma = method.easiness(method.task.prob(unlabeled.weak), target.prob, target.valid).view(-1, 1, 1, 1)
    view = gamma * unlabeled.strong[0] + (1 - gamma) * unlabeled.strong[1]
    weight = gamma * target.valid * (target.confidence >= THRESHOLD)
    want = ((view.softmax(1) - method.task.truth(target.label)) * weight).sum((0, 2, 3)) / weight.numel()
    assert torch.allclose(grad.flatten(), want, atol=1e-6)
    assert method.teacher.network.b.grad is None and not method.teacher.network.b.requires_grad


def test_the_students_mode_is_left_as_it_was():
    class Net(Shift):
        def __init__(self, k):
            super().__init__(k)
            self.drop, self.norm = nn.Dropout(0.5), nn.BatchNorm2d(k)

        def forward(self, x):
            return super().forward(self.norm(self.drop(x)))

    labeled, unlabeled = sample()
    method = IMAS(lambda role: Net(3), make_task("multiclass", "abc", "ce")).train()
    method.student.norm.eval()
    method.step(labeled, unlabeled, MIXED)
    assert method.student.drop.training and not method.student.norm.training
    assert not method.student.norm.num_batches_tracked


def test_weight_ramp_and_cost():
    labeled, unlabeled = sample()
    method, parts = ours(labeled, unlabeled, Clock(5, 20, (3,)), weight=2.0, ramp=0.5)
    want = parts["sup"] + 2 * math.exp(-5 * 0.5**2) * parts["unsup"]
    assert parts["loss"].item() == pytest.approx(want.item(), abs=1e-6)
    assert method.images_per_step(4, 6) == 4 + 5 * 6
