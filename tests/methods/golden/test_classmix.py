"""ClassMix against trainSSL.py of its authors in plain loops. The network is the identity: images are logits."""

import math

import pytest
import torch
from torch import nn

import tiny
from semiseg.batch import IGNORE, Clock, Labeled, Planes, Unlabeled, generator_of
from semiseg.errors import Refusal
from semiseg.inconsistency import InconsistencyMask
from semiseg.methods.classmix import ClassMix
from semiseg.task import make_task

CLOCK = Clock(5, 20, (3,))
THRESHOLD = 0.8
K = 4


def softmax(values):
    exps = [math.exp(v) for v in values]
    return [e / sum(exps) for e in exps]


def sample(seed=0, b=2, u=3, size=6):
    g = generator_of("classmix", seed)
    mask = torch.randint(K, (b, size, size), generator=g)
    mask[torch.rand(mask.shape, generator=g) < 0.2] = IGNORE
    weak, strong = (2 * torch.randn(u, K, size, size, generator=g) for _ in range(2))
    valid = torch.rand(u, 1, size, size, generator=g) < 0.8
    return Labeled(torch.randn(b, K, size, size, generator=g), mask), Unlabeled(weak, (strong,), valid)


def pixels(*sizes):
    grid = [()]
    for n in sizes:
        grid = [(*before, i) for before in grid for i in range(n)]
    return grid


def chosen_classes(labels, draws, wrong):
    """trainSSL.py:396-458: of the classes an image shows, those with the smallest draws, half of them rounded down."""
    out = []
    for image, draw in zip(labels, draws, strict=True):
        present = sorted(set(image) - {None}, key=lambda c: draw[c])
        half = len(present) / 2
        out.append(set(present[: math.ceil(half) if wrong == "rounded up" else math.floor(half)]))
        if wrong == "other half":
            out[-1] = set(present) - out[-1]
        if wrong == "without background":
            out[-1] -= {0}
    return out


def authors(labeled, unlabeled, wrong=""):
    u, _, size, _ = unlabeled.weak.shape
    inside = lambda i, y, x: bool(unlabeled.valid[i, 0, y, x])  # noqa: E731
    teacher = unlabeled.strong[0] if wrong == "strong teaches" else unlabeled.weak
    prob = {(i, y, x): softmax(teacher[i, :, y, x].tolist()) for i, y, x in pixels(u, size, size)}
    label = {at: p.index(max(p)) for at, p in prob.items()}
    shown = [[label[i, y, x] if inside(i, y, x) else None for y, x in pixels(size, size)] for i in range(u)]
    chosen = chosen_classes(shown, torch.rand(u, K, generator=CLOCK.generator("classes")).tolist(), wrong)

    known = [at for at in pixels(len(labeled.image), size, size) if labeled.mask[at] != IGNORE]
    sup = sum(-math.log(softmax(labeled.image[i, :, y, x].tolist())[labeled.mask[i, y, x]]) for i, y, x in known)
    source = {}
    for i, y, x in pixels(u, size, size):
        mine = label[i, y, x] in chosen[i] and inside(i, y, x)
        if wrong == "previous image":
            other = (i - 1) % u
        else:
            other = (i + 1) % u
        source[i, y, x] = i if mine else other
    taught, sure, counted = {}, {}, {}
    for at, s in source.items():
        i, y, x = at
        ok = inside(s, y, x)
        origin = i if wrong == "labels are not mixed" else s
        p = softmax(unlabeled.strong[0][s, :, y, x].tolist())
        taught[at] = ok * -math.log(p[label[origin, y, x]])
        of = (i, y, x) if wrong == "share before mixing" else (s, y, x)
        sure[at] = max(prob[of]) >= THRESHOLD
        counted[at] = inside(*of)
    if wrong == "padding counts":
        counted = dict.fromkeys(source, True)
    total = sum(counted.values())
    share = sum(sure[at] and counted[at] for at in source) / total
    weight = dict.fromkeys(source, share)
    if wrong == "share per image":
        for i in range(u):
            mine = [at for at in source if at[0] == i]
            one = sum(sure[at] and counted[at] for at in mine) / sum(counted[at] for at in mine)
            weight |= dict.fromkeys(mine, one)
    if wrong == "per pixel":
        weight = {at: float(ok) for at, ok in sure.items()}
    if wrong == "no weight":
        weight = dict.fromkeys(source, 1.0)
    ok = sum(inside(s, y, x) for (_, y, x), s in source.items())
    below = len(source) if wrong == "mean over all" else ok
    unsup = sum(weight[at] * taught[at] for at in source) / below
    return sup / len(known) + unsup


WRONG = [
    "labels are not mixed",
    "strong teaches",
    "other half",
    "rounded up",
    "without background",
    "previous image",
    "share before mixing",
    "share per image",
    "per pixel",
    "no weight",
    "padding counts",
    "mean over all",
]


def method_of(task=None, **changes):
    task = task or make_task("multiclass", "abcd", "ce")
    return ClassMix(lambda role: nn.Identity(), task, **{"threshold": THRESHOLD, **changes})


def drop_class(unlabeled, image, kept):
    """Only the first `kept` classes are predicted in one image."""
    weak = unlabeled.weak.clone()
    weak[image, kept:] -= 50
    return unlabeled.replace(weak=weak)


@pytest.mark.parametrize("seed", range(3))
def test_the_authors_formula(seed):
    labeled, unlabeled = sample(seed)
    unlabeled = drop_class(unlabeled, 1, 3)  # an odd number of classes
    loss = method_of().step(labeled, unlabeled, CLOCK)["loss"].item()
    assert loss == pytest.approx(authors(labeled, unlabeled), abs=1e-6)
    for wrong in WRONG:
        if wrong == "without background" and abs(loss - authors(labeled, unlabeled, wrong)) < 1e-4:
            continue  # when the draw chose no background; test_background_is_a_class covers it
        assert abs(loss - authors(labeled, unlabeled, wrong)) > 1e-4, wrong


def test_the_named_variants_of_the_share():
    labeled, unlabeled = sample()
    for per, name in (("image", "share per image"), ("pixel", "per pixel")):
        loss = method_of(per=per).step(labeled, unlabeled, CLOCK)["loss"].item()
        assert loss == pytest.approx(authors(labeled, unlabeled, name), abs=1e-6)
    with pytest.raises(Refusal, match="batch or image or pixel"):
        method_of(per="class")


def test_by_hand():
    """One image of two pixels (its own neighbour), two classes: mixing changes nothing.

    Labeled logits (0, 0): CE log 2. Weak p = (.9, .1) and (.5, .5) → labels 0, 0; at threshold .8 one of two is sure: w = ½.
    Strong logits (0, 0) twice: CE log 2. L = log 2 + ½ log 2 = 1.5 log 2.
    """
    weak = torch.tensor([[math.log(9), 0.0], [0.0, 0.0]]).view(1, 2, 1, 2)
    labeled = Labeled(torch.zeros(1, 2, 1, 2), torch.zeros(1, 1, 2).long())
    unlabeled = Unlabeled(weak, (torch.zeros(1, 2, 1, 2),), torch.ones(1, 1, 1, 2).bool())
    losses = method_of(make_task("multiclass", "ab", "ce")).step(labeled, unlabeled, CLOCK)
    assert losses["loss"].item() == pytest.approx(1.5 * math.log(2), abs=1e-6)
    assert losses["kept"].item() == 0.5


def belief_of(labels, task):
    """A certain belief (U,K,H,W) of these label maps."""
    labels = torch.as_tensor(labels)
    return task.target(20 * nn.functional.one_hot(labels, task.channels).movedim(-1, 1).float(), labels[:, None] >= 0)


@pytest.mark.parametrize(("present", "chosen"), [(1, 0), (2, 1), (3, 1), (5, 2)])
def test_how_many_classes_are_chosen(present, chosen):
    """5 predicted classes: 2 chosen; 1: none, and the mixed image is its neighbour."""
    method = method_of(make_task("multiclass", "abcdef", "ce"))
    labels = torch.stack([torch.arange(6) % present, torch.full((6,), 5)]).view(2, 1, 6)
    image = torch.stack([torch.zeros(1, 1, 6), torch.ones(1, 1, 6)])
    mixed, target = method.mix(image, belief_of(labels, method.task), CLOCK)
    own = mixed[0, 0, 0] == 0
    assert len(set(labels[0, 0][own].tolist())) == chosen
    assert (target.label[0, 0] == torch.where(own, labels[0, 0], 5)).all()
    assert chosen or (mixed[0] == 1).all()
    for c in range(present):  # a class is taken whole or not at all
        assert len(set(own[labels[0, 0] == c].tolist())) == 1


def test_background_is_a_class():
    """Over many steps class 0 is chosen as often as any other."""
    method = method_of()
    labels = torch.arange(4).view(1, 1, 4).repeat(2, 1, 1)
    image = torch.stack([torch.zeros(1, 1, 4), torch.ones(1, 1, 4)])
    target = belief_of(labels, method.task)
    chosen = sum((method.mix(image, target, Clock(i, 400, (1,)))[0][0, 0, 0] == 0).float() for i in range(400)) / 400
    assert ((chosen - 0.5).abs() < 0.1).all()


def test_the_mix_of_labels_is_the_label_of_the_mix():
    _, unlabeled = sample()
    method = method_of()
    _, target = method.mix(unlabeled.strong[0], method.believe(unlabeled, unlabeled.weak), CLOCK)
    assert (target.prob.argmax(1) == target.label).all()


def test_what_a_committee_disputes_is_pasted_by_the_own_label():
    """It has no weight, and is not taken for class 0: where nothing else is 0, no 0 can be drawn."""
    method = method_of()
    own = belief_of(torch.tensor([1, 1, 2, 2, 3, 3]).expand(2, 1, 6), method.task)
    agree = torch.tensor([1, 0, 1, 0, 1, 0]).bool().expand(2, 1, 1, 6)
    planes = Planes(own.label.masked_fill(~agree[:, 0], 255), agree)
    image = torch.stack([torch.zeros(4, 1, 6), torch.ones(4, 1, 6)])
    unlabeled = Unlabeled(image, (image,), torch.ones(2, 1, 1, 6).bool(), planes=planes)
    for step in range(20):
        clock = Clock(step, 20)
        refined, target = InconsistencyMask()(unlabeled, own, clock)
        mixed, target = method.mix(refined.strong[0], target, clock)
        assert torch.equal(target.weight.bool(), agree) and torch.equal(target.label, own.label)
        mine = (mixed[0, 0, 0] == 0).view(3, 2)
        assert torch.equal(mine[:, 0], mine[:, 1])  # disputed pixels go with those of their class


def test_one_share_for_the_whole_batch():
    """3 of 12 sure pixels weigh every pixel of the batch by .25, also in an image that has none."""
    method = method_of(threshold=0.968)
    weak = torch.zeros(2, 4, 1, 6)
    weak[0, 0, 0, :3] = 20.0
    labeled, _ = sample()
    unlabeled = Unlabeled(weak, (torch.zeros_like(weak),), torch.ones(2, 1, 1, 6).bool())
    losses = method.step(labeled, unlabeled, CLOCK)
    assert losses["kept"].item() == pytest.approx(0.25)
    assert losses["mixed"].item() == pytest.approx(0.25 * math.log(4), abs=1e-6)


def test_the_decay_of_the_teacher():
    """min(1 - 1/(it+1), .99): 0, .5, .6667, .75, ..., .99 from it = 99 on."""
    method = ClassMix(tiny.make_of(tiny.task_of("binary")), tiny.task_of("binary"))
    (mine, *_), (theirs, *_) = (list(n.parameters()) for n in (method.teacher.network, method.student))
    for it in range(103):
        with torch.no_grad():
            mine.zero_()
            theirs.fill_(1.0)
        method.after_step(Clock(5, 40_000))
        assert 1 - mine.flatten()[0].item() == pytest.approx(min(1 - 1 / (it + 1), 0.99), abs=1e-6)


def test_gradients_reach_the_student_only():
    """A missing detach would send a gradient through the share of sure pixels, or through the teacher's probabilities."""
    labeled, unlabeled = sample()
    views = [v.clone().requires_grad_() for v in (unlabeled.weak, unlabeled.strong[0])]
    loss = method_of().step(labeled, unlabeled.replace(weak=views[0], strong=(views[1],)), CLOCK)["loss"]
    weak, strong = torch.autograd.grad(loss, views, allow_unused=True)
    assert weak is None and strong.abs().max() > 0


def test_a_teacher_in_batch_statistics():
    """The option changes what the teacher says, and moves none of its statistics."""
    task = tiny.task_of("multiclass")
    said = []
    for option in (False, True):
        torch.manual_seed(0)
        method = ClassMix(tiny.make_of(task), task, threshold=0.0, teacher_batch=option).train()
        before = {k: v.clone() for k, v in method.teacher.state_dict().items()}
        said.append(method.step(tiny.labeled("multiclass"), tiny.unlabeled("multiclass"), CLOCK)["mixed"].item())
        assert all(torch.equal(v, before[k]) for k, v in method.teacher.state_dict().items())
    assert abs(said[0] - said[1]) > 1e-6


def test_a_lone_label_is_pasted():
    """Binary: the foreground always; nothing is pasted from an image that shows none."""
    method = method_of(make_task("binary", "a", "ce"))
    logits = torch.tensor([[9.0, -9.0, -9.0], [-9.0, -9.0, -9.0]]).view(2, 1, 1, 3)
    target = method.task.target(logits, torch.ones(2, 1, 1, 3).bool())
    mixed, belief = method.mix(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 1, 3), target, CLOCK)
    assert mixed[:, 0, 0].tolist() == [[0, 1, 1], [0, 0, 0]]
    assert belief.label[:, 0, 0].tolist() == [[1, 0, 0], [1, 0, 0]]


def test_weight_and_ramp():
    labeled, unlabeled = sample()
    parts = method_of(weight=3.0, ramp=0.5).step(labeled, unlabeled, CLOCK)
    want = parts["sup"] + 3 * math.exp(-5 * 0.5**2) * parts["mixed"]
    assert parts["loss"].item() == pytest.approx(want.item(), abs=1e-6)
