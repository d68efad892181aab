"""CPS with CutMix against TorchSemiSeg in plain loops. A branch is one matrix: logits = W · pixel."""

import math

import pytest
import torch
from torch import nn

from semiseg.batch import IGNORE, Clock, Labeled, Unlabeled, generator_of
from semiseg.methods._boxes import box_masks
from semiseg.methods.cps import CPS
from semiseg.task import make_task

CLOCK = Clock(5, 20, (3,))
SIZE = 8


def softmax(values):
    exps = [math.exp(v) for v in values]
    return [e / sum(exps) for e in exps]


class Matrix(nn.Module):
    """Logits = W · pixel."""

    def __init__(self, w):
        super().__init__()
        self.w = nn.Parameter(w)

    def forward(self, x):
        return torch.einsum("kc,bchw->bkhw", self.w, x)


WEIGHTS = {role: torch.eye(3) + 0.8 * torch.randn(3, 3, generator=generator_of(role)) for role in ("student", "second")}


def sample(seed=0, b=2, k=3):
    g = generator_of("golden", seed)
    mask = torch.randint(k, (b, SIZE, SIZE), generator=g)
    mask[torch.rand(mask.shape, generator=g) < 0.2] = IGNORE
    weak = 2 * torch.randn(b, k, SIZE, SIZE, generator=g)
    valid = torch.rand(b, 1, SIZE, SIZE, generator=g) < 0.8
    return Labeled(torch.randn(b, k, SIZE, SIZE, generator=g), mask), Unlabeled(weak, (weak,), valid)


def logits_of(branch, pixel):
    return [sum(a * x for a, x in zip(row, pixel.tolist(), strict=True)) for row in WEIGHTS[branch].tolist()]


def mixed_pixels(unlabeled, wrong=""):
    """(branch taught, its teacher, pixel it sees, pixel its label comes from) for every pixel inside the image."""
    b, stream = len(unlabeled.weak), CLOCK.generator("box")
    box = box_masks(b, (SIZE, SIZE), stream)
    for branch, teacher in (("student", "second"), ("second", "student")):
        if wrong == "boxes of its own for each branch" and branch == "second":
            box = box_masks(b, (SIZE, SIZE), stream)
        if wrong == "own labels":
            teacher = branch
        if wrong == "one direction" and branch == "second":
            continue
        for i in range(b):
            for y in range(SIZE):
                for x in range(SIZE):
                    inside = bool(box[i, 0, y, x]) != (wrong == "pasted outside the boxes")
                    source = (i + 1) % b if inside else i
                    if unlabeled.valid[i if wrong == "padding is not pasted" else source, 0, y, x]:
                        told = i if wrong == "labels are not pasted" else source
                        yield branch, teacher, unlabeled.weak[source, :, y, x], unlabeled.weak[told, :, y, x]


def authors(labeled, unlabeled, wrong=""):
    """train.py: the labels of both images by each branch, mixed as the images are; CE + CE; both branches supervised."""
    b = len(labeled.image)
    known = [(i, y, x) for i in range(b) for y in range(SIZE) for x in range(SIZE) if labeled.mask[i, y, x] != IGNORE]
    sup = 0.0
    for branch in ("student",) if wrong == "one branch supervised" else ("student", "second"):
        for i, y, x in known:
            sup -= math.log(softmax(logits_of(branch, labeled.image[i, :, y, x]))[labeled.mask[i, y, x]]) / len(known)
    total, count = 0.0, 0
    for branch, teacher, seen, told in mixed_pixels(unlabeled, wrong):
        p, q = softmax(logits_of(branch, seen)), softmax(logits_of(teacher, told))
        label = q.index(max(q))
        count += 1
        if wrong == "soft labels":
            total -= sum(t * math.log(a) for a, t in zip(p, q, strict=True))
        else:
            total -= math.log(p[label])
    count = count if wrong == "one direction" else count / 2
    if wrong == "mean over all":
        count = b * SIZE * SIZE
    return sup + 1.5 * total / count * (0.5 if wrong == "mean of the two" else 1)


WRONG = ["labels are not pasted", "own labels", "boxes of its own for each branch", "pasted outside the boxes",
         "padding is not pasted", "one direction", "one branch supervised", "soft labels", "mean over all",
         "mean of the two"]  # fmt: skip


def method_of(swapped=False, task=None, **changes):
    other = {"student": "second", "second": "student"}
    make = lambda role: Matrix(WEIGHTS[other[role] if swapped else role].clone())  # noqa: E731
    return CPS(make, task or make_task("multiclass", "abc", "ce"), weight=1.5, **changes)


@pytest.mark.parametrize("seed", range(3))
def test_the_authors_formula(seed):
    labeled, unlabeled = sample(seed)
    loss = method_of().step(labeled, unlabeled, CLOCK)["loss"].item()
    assert loss == pytest.approx(authors(labeled, unlabeled), abs=1e-6)
    for wrong in WRONG:
        assert abs(loss - authors(labeled, unlabeled, wrong)) > 1e-3, wrong


def test_by_hand():
    """One pixel, two classes; branch 2 reads the channels in reverse. Labeled (0, 0): log 2 for each branch.

    Unlabeled (log 3, 0): branch 1 has p = (.75, .25), label 0; branch 2 p = (.25, .75), label 1. Each has 1/4 for the
    other's label: CE log 4 twice. L = 2 log 2 + 2 log 4 = 6 log 2.
    """
    matrices = {"student": torch.eye(2), "second": torch.eye(2).flip(0)}
    method = CPS(lambda role: Matrix(matrices[role]), make_task("multiclass", "ab", "ce"))
    labeled = Labeled(torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1).long())
    weak = torch.tensor([math.log(3), 0.0]).view(1, 2, 1, 1)
    losses = method.step(labeled, Unlabeled(weak, (weak,), torch.ones(1, 1, 1, 1).bool()), CLOCK)
    assert losses["loss"].item() == pytest.approx(6 * math.log(2), abs=1e-6)
    assert losses["sup"].item() == pytest.approx(2 * math.log(2), abs=1e-6)


def test_the_branches_are_interchangeable():
    labeled, unlabeled = sample()
    losses = [method_of(swapped).step(labeled, unlabeled, CLOCK)["loss"].item() for swapped in (False, True)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_no_gradient_reaches_the_branch_that_labels():
    """d cross / d W of the student is that of CE(1, labels of 2) alone: Σ (p - onehot) · pixel / #pixels."""
    labeled, unlabeled = sample()
    method = method_of()
    method.step(labeled, unlabeled, CLOCK)["cross"].backward()
    want, count = torch.zeros(3, 3, dtype=torch.float64), 0
    for branch, teacher, seen, told in mixed_pixels(unlabeled):
        if branch == "student":
            p, q = softmax(logits_of(branch, seen)), softmax(logits_of(teacher, told))
            p[q.index(max(q))] -= 1
            want += torch.outer(torch.tensor(p, dtype=torch.float64), seen.double())
            count += 1
    assert torch.allclose(method.student.w.grad.double(), want / count, atol=1e-6)
    assert all(not t.requires_grad for t in vars(method.believe(unlabeled, method.student(unlabeled.weak))).values())


def test_overlapping_labels_are_taught_each_for_itself():
    """W = 1 and -1 on one pixel of two labels with logits (2, -1): CE log(1 + e^2) and log(1 + e) for both branches."""
    task = make_task("multilabel", "ab", "ce")
    make = lambda role: Matrix(torch.eye(2) * (1 if role == "student" else -1))  # noqa: E731
    weak = torch.tensor([2.0, -1.0]).view(1, 2, 1, 1)
    labeled = Labeled(weak, torch.zeros(1, 2, 1, 1, dtype=torch.uint8))
    losses = CPS(make, task).step(labeled, Unlabeled(weak, (weak,), torch.ones(1, 1, 1, 1).bool()), CLOCK)
    want = math.log(1 + math.exp(2)) + math.log(1 + math.e)  # two branches, mean of two labels
    assert losses["cross"].item() == pytest.approx(want, abs=1e-6)


def test_a_lone_image_is_enough_for_networks_that_pool_globally():
    """One value per channel has no variance: its clean view is labeled in the company of the labeled image."""
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3), nn.Upsample(size=SIZE))
    method = CPS(lambda role: net, make_task("multiclass", "abc", "ce")).train()
    assert method.step(*sample(b=1), CLOCK)["cross"].isfinite()


def test_the_network_that_predicts_is_branch_one():
    method = method_of()
    assert method.predictor() is method.student and method.images_per_step(4, 6) == 2 * (4 + 6 + 6)


@pytest.mark.parametrize("boxes, area", [(3, (0.25, 0.5)), (1, (0.5, 0.5))])
def test_boxes_in_plain_loops(boxes, area):
    """mask_gen.py: sides p^u and p^(1-u), scaled by sqrt(1/n), rounded, inside the image, toggled."""
    size, batch = (20, 31), 6
    g = generator_of("boxes")
    share, aspect = torch.rand(2, batch, boxes, generator=g).double()
    place = torch.rand(batch, boxes, 2, generator=g).double()
    want = torch.zeros(batch, 1, *size, dtype=torch.bool)
    for i in range(batch):
        for n in range(boxes):
            p = area[0] + (area[1] - area[0]) * float(share[i, n])
            h = round(p ** float(aspect[i, n]) / math.sqrt(boxes) * size[0])
            w = round(p ** (1 - float(aspect[i, n])) / math.sqrt(boxes) * size[1])
            y, x = round((size[0] - h) * float(place[i, n, 0])), round((size[1] - w) * float(place[i, n, 1]))
            assert 0 <= y and y + h <= size[0] and 0 <= x and x + w <= size[1]
            for row in range(y, y + h):
                for col in range(x, x + w):
                    want[i, 0, row, col] ^= True
    assert torch.equal(box_masks(batch, size, generator_of("boxes"), boxes=boxes, area=area), want)


def test_the_area_of_boxes():
    """One box has a share of U(.25, .5); three have that between them, less where two overlap and undo each other."""
    one, three = (box_masks(500, (96, 96), generator_of("area"), boxes=n).float().mean((1, 2, 3)) for n in (1, 3))
    assert one.min() > 0.235 and one.max() < 0.515 and abs(one.mean() - 0.375) < 0.01  # rounding of the sides
    assert three.max() < 0.515 and three.mean() < 0.365 and three.min() > 0


def test_without_pasting_each_image_is_taught_as_it_is():
    """paste=no: no box, so the mixed image is the image; the loss is that of a step whose boxes are empty."""
    labeled, unlabeled = sample()
    losses = method_of(paste=False).step(labeled, unlabeled, CLOCK)
    total, inside = 0.0, 0
    for i, y, x in [
        (i, y, x) for i in range(2) for y in range(SIZE) for x in range(SIZE) if unlabeled.valid[i, 0, y, x]
    ]:
        pixel = unlabeled.weak[i, :, y, x]
        one, two = (softmax(logits_of(branch, pixel)) for branch in ("student", "second"))
        total -= math.log(one[two.index(max(two))]) + math.log(two[one.index(max(one))])
        inside += 1
    assert losses["cross"].item() == pytest.approx(total / inside, abs=1e-5)
