"""CutMix-Seg against train_seg_semisup_mask_mt.py in plain loops; the student and teacher are given logits."""

import math

import pytest
import torch
from torch import nn

from semiseg.batch import IGNORE, Clock, Labeled, Unlabeled, generator_of
from semiseg.methods._boxes import box_masks
from semiseg.methods.cutmix_seg import CutMixSeg
from semiseg.task import make_task

CLOCK = Clock(5, 20, (3,))
THRESHOLD, SIZE = 0.6, 8


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


def sample(seed=0, b=3, k=3):
    g = generator_of("golden", seed)
    mask = torch.randint(k, (b, SIZE, SIZE), generator=g)
    mask[torch.rand(mask.shape, generator=g) < 0.2] = IGNORE
    weak, strong = (2 * torch.randn(b, k, SIZE, SIZE, generator=g) for _ in range(2))
    weak = weak * torch.linspace(0.5, 2, b).view(-1, 1, 1, 1)  # images of unlike confidence
    valid = torch.rand(b, 1, SIZE, SIZE, generator=g) < 0.8
    return Labeled(torch.randn(b, k, SIZE, SIZE, generator=g), mask), Unlabeled(weak, (strong,), valid)


def authors(labeled, unlabeled, wrong=""):
    """:407-451: teacher probabilities mixed as the images, Σ_k (p - q)², one confident share for the batch."""
    b, k, _, _ = unlabeled.weak.shape
    box = box_masks(b, (SIZE, SIZE), CLOCK.generator("box"), area=(0.5, 0.5), boxes=1)
    pixels = [(i, y, x) for i in range(b) for y in range(SIZE) for x in range(SIZE)]
    known = [p for p in pixels if labeled.mask[p] != IGNORE]
    sup = sum(-math.log(softmax(labeled.image[i, :, y, x].tolist())[labeled.mask[i, y, x]]) for i, y, x in known) / len(
        known
    )
    confident, terms = [], []
    for i, y, x in pixels:
        inside = bool(box[i, 0, y, x]) != (wrong == "pasted outside the box")
        source = (i + 1) % b if inside else i
        if (
            not unlabeled.valid[i if wrong == "padding is not pasted" else source, 0, y, x]
            and wrong != "padding counts"
        ):
            continue
        told = i if wrong == "probabilities are not pasted" else source
        view = unlabeled.strong[0] if wrong == "the teacher sees the strong view" else unlabeled.weak
        w = 1.0 if wrong == "the student teaches itself" else 0.5
        p = softmax(unlabeled.strong[0][source, :, y, x].tolist())
        q = softmax((w * view[told, :, y, x]).tolist())
        sure = max(q) >= THRESHOLD
        if wrong == "hard labels":
            q = [float(v == max(q)) for v in q]
        distance = sum((a - c) ** 2 for a, c in zip(p, q, strict=True))
        terms.append((i, distance / k if wrong == "mean over classes" else distance))
        confident.append((i, sure))
    share = sum(s for _, s in confident) / len(confident)
    if wrong == "a share for each image":
        shares = {i: [s for j, s in confident if j == i] for i in range(b)}
        return sup + sum(d * sum(shares[i]) / len(shares[i]) for i, d in terms) / len(terms)
    if wrong == "confidence per pixel":
        return sup + sum(d * s for (_, d), (_, s) in zip(terms, confident, strict=True)) / len(terms)
    if wrong == "share before mixing":
        inside = [p for p in pixels if unlabeled.valid[p[0], 0, p[1], p[2]]]
        qs = [softmax((0.5 * unlabeled.weak[i, :, y, x]).tolist()) for i, y, x in inside]
        share = sum(max(q) >= THRESHOLD for q in qs) / len(qs)
    if wrong == "no share":
        share = 1.0
    return sup + share * sum(d for _, d in terms) / len(terms)


WRONG = ["pasted outside the box", "padding is not pasted", "padding counts", "probabilities are not pasted",
         "the teacher sees the strong view", "the student teaches itself", "hard labels", "mean over classes",
         "a share for each image", "confidence per pixel", "share before mixing", "no share"]  # fmt: skip


def method_of(kind="multiclass", names="abc", **changes):
    method = CutMixSeg(lambda role: Scale(), make_task(kind, names, "ce"), threshold=THRESHOLD, **changes)
    method.teacher.network.w.fill_(0.5)
    return method


@pytest.mark.parametrize("seed", [0, 2, 3])  # at 1 the shares before and after mixing happen to be equal
def test_the_authors_formula(seed):
    labeled, unlabeled = sample(seed)
    loss = method_of().step(labeled, unlabeled, CLOCK)["loss"].item()
    assert loss == pytest.approx(authors(labeled, unlabeled), abs=1e-6)
    for wrong in WRONG:
        assert abs(loss - authors(labeled, unlabeled, wrong)) > 1e-4, wrong


def one(values, kind="multiclass", names="ab", strong=0.0, **changes):
    """A step on pixels of one row: teacher logits `values` (after its w = .5), student logits all `strong`."""
    weak = 2 * torch.tensor(values).t().reshape(1, -1, 1, len(values))
    unlabeled = Unlabeled(weak, (torch.full_like(weak, strong),), torch.ones(1, 1, 1, len(values)).bool())
    shape = (1, 1, len(values)) if kind == "multiclass" else (1, len(names), 1, len(values))
    mask = torch.zeros(shape, dtype=torch.long if kind == "multiclass" else torch.uint8)
    return method_of(kind, names, **changes).step(Labeled(torch.zeros_like(weak), mask), unlabeled, CLOCK)


def test_by_hand():
    """Two pixels, two classes. Teacher q = (.75, .25) and (.5, .5); one of two reaches .6: r = .5.

    The student says (.5, .5): squares .125 and 0, mean .0625. Labeled logits are 0: log 2. L = log 2 + .5 · .0625.
    """
    losses = one([[math.log(3), 0.0], [0.0, 0.0]])
    assert losses["loss"].item() == pytest.approx(math.log(2) + 0.03125, abs=1e-6)
    assert losses["confident"].item() == 0.5


def test_overlapping_labels_are_problems_of_two_classes():
    """q = .75 for one label: on and off both differ by .25, .125 in sum, as for a softmax over two classes."""
    for kind, value in (("binary", [math.log(3)]), ("multiclass", [math.log(3), 0.0])):
        losses = one([value], kind, "a" if kind == "binary" else "ab")
        assert losses["consistency"].item() == pytest.approx(0.125, abs=1e-6)


def test_one_share_for_every_image():
    """3 of 12 pixels of the batch are sure, all of one image: the other image counts a quarter, too."""
    weak = torch.zeros(2, 2, 2, 3)
    weak[0, 0, 0] = 10.0
    unlabeled = Unlabeled(weak, (torch.ones_like(weak) * torch.tensor([1.0, 0.0]).view(1, 2, 1, 1),),
                          torch.ones(2, 1, 2, 3).bool())  # fmt: skip
    labeled = Labeled(torch.zeros(2, 2, 2, 3), torch.zeros(2, 2, 3).long())
    losses = method_of().step(labeled, unlabeled, CLOCK)
    assert losses["confident"].item() == 0.25
    assert losses["consistency"].item() > 0


def test_a_threshold_no_pixel_reaches():
    losses = one([[9.0, 0.0]])
    assert losses["confident"].item() == 1 and losses["consistency"].item() > 0
    method = CutMixSeg(lambda role: Scale(), make_task("multiclass", "abc", "ce"), threshold=1.01)
    assert method.step(*sample(), CLOCK)["consistency"].item() == 0


def test_gradient_reaches_the_student_only():
    labeled, unlabeled = sample()
    method = method_of()
    method.step(labeled, unlabeled, CLOCK)["consistency"].backward()
    assert method.student.w.grad.abs() > 0 and method.teacher.network.w.grad is None
    # with teacher and student the same network and view, only a missing detach would make the gradient vanish
    same = unlabeled.replace(strong=(unlabeled.weak * 1.5,))
    method.student.w.grad = None
    method.step(labeled, same, CLOCK)["consistency"].backward()
    assert method.student.w.grad.abs() > 1e-4


def test_the_teacher_follows_and_predicts():
    method = CutMixSeg(lambda role: Scale(), make_task("multiclass", "abc", "ce"))
    seen = []
    for value in (2.0, 4.0):
        with torch.no_grad():
            method.student.w.fill_(value)
        method.after_step(Clock(5, 40_000))
        seen.append(method.predictor()(torch.ones(1)).item())
    assert seen == [2.0, 3.0] and method.images_per_step(4, 6) == 16


@pytest.mark.parametrize("seed", range(3))
def test_the_box_has_half_of_the_area(seed):
    area = box_masks(100, (96, 128), generator_of("area", seed), area=(0.5, 0.5), boxes=1).float().mean((1, 2, 3))
    assert (area - 0.5).abs().max() < 0.012  # rounding of the sides
