"""CrossMatch against ACDC/train_cross_match.py in plain loops. The network is the identity: images are logits."""

import math

import pytest
import torch
from torch import nn

import tiny
from semiseg import losses as house
from semiseg.batch import IGNORE, Clock, Labeled, Target, Unlabeled, generator_of
from semiseg.data.mixing import cut_boxes
from semiseg.methods.crossmatch import CrossMatch
from semiseg.task import make_task

CLOCK = Clock(2, 20, (669,))  # a step with boxes in all four strong images, and heads that lose unlike channels
THRESHOLD, SMOOTH, ETA = 0.6, 1e-4, 0.3


def identity(role="student", k=3):
    net = tiny.Pixelwise(k, k)
    net.level_channels = (64,)  # wide enough for the strong dropout of the paper
    nn.init.dirac_(net.conv.weight)
    nn.init.zeros_(net.conv.bias)
    return net


def softmax(values):
    exps = [math.exp(v) for v in values]
    return [e / sum(exps) for e in exps]


def sample(seed=0, b=2, k=3, size=8):
    g = generator_of("golden", seed)
    mask = torch.randint(k, (b, size, size), generator=g)
    mask[torch.rand(mask.shape, generator=g) < 0.2] = IGNORE
    known, weak, first, second = (2 * torch.randn(b, k, size, size, generator=g) for _ in range(4))
    valid = torch.rand(b, 1, size, size, generator=g) < 0.8
    return Labeled(known, mask), Unlabeled(weak, (first, second), valid)


def dice(probs, labels, kept, k, wrong=""):
    """util/soft_dice_loss.py: per class over all kept pixels of the batch, the mean over all classes."""
    smooth = 1.0 if wrong == "smooth 1" else SMOOTH
    power = 1 if wrong == "no squares" else 2
    values = []
    for c in range(1 if wrong == "no background" else 0, k):
        both = sum(probs[i][c] * (labels[i] == c) for i in kept)
        total = sum(probs[i][c] ** power + (labels[i] == c) for i in kept)
        if wrong != "present classes" or any(labels[i] == c for i in kept):
            values.append(1 - (2 * both + smooth) / (total + smooth))
    return sum(values) / max(len(values), 1)


def drawn(b, k, wrong=""):
    """Channel scales of the weak and the strong head on the weak view, and of both on the second strong view."""
    g = CLOCK.generator("drop")
    rates = (0.25, 0.75, 0.25, 0.75) if wrong != "equal dropout" else (0.5,) * 4
    scales = [(torch.rand(b, k, generator=g) >= p) / (1 - p) for p in rates]
    return scales[:2] * 2 if wrong == "one dropout for both views" else scales


def authors(labeled, unlabeled, wrong="", distill=0.5):
    """1/2 [L_x + .25 s1 + .25 s2 + .5 ((1-eta) tkd + eta dkd)], T(head) pasted like the view that it teaches."""
    b, k, size, _ = unlabeled.weak.shape
    every = [(i, y, x) for i in range(b) for y in range(size) for x in range(size)]
    one = torch.ones(b, k)
    weak1, strong1, weak2, strong2 = drawn(b, k, wrong)
    boxes = [cut_boxes(b, (size, size), CLOCK.generator(f"box{j}")) for j in (0, 1)]
    if wrong == "one box":
        boxes[1] = boxes[0]

    def source(p, view):
        return ((p[0] + 1) % b, *p[1:]) if view is not None and boxes[view][p[0], 0, p[1], p[2]] else p

    def predict(image, scale, view=None):
        """Probabilities of a head; whole channels of the (pasted) image are scaled."""
        return {p: softmax([image[q[0], c, q[1], q[2]].item() * scale[p[0], c].item() for c in range(k)])
                for p in every for q in [source(p, view)]}  # fmt: skip

    def believe(probs):
        kept = {p for p in every if max(probs[p]) >= THRESHOLD}
        if wrong != "padding counts":
            kept = {p for p in kept if unlabeled.valid[p[0], 0, p[1], p[2]]}
        return {p: probs[p].index(max(probs[p])) for p in every}, kept

    def taught(probs, belief, view=None):
        """Dice of a head's probabilities against a belief that is pasted as the view was."""
        labels, kept = belief
        where = {p: p if wrong == "labels are not pasted" else source(p, view) for p in every}
        keep = {p for p in every if (p if wrong == "kept is not pasted" else source(p, view)) in kept}
        label = {p: labels[where[p]] for p in every}
        if wrong == "every pixel":
            keep = every
        if wrong == "image by image":
            return sum(dice(probs, label, [p for p in keep if p[0] == i], k) for i in range(b)) / b
        return dice(probs, label, keep, k, wrong)

    on_weak = [predict(unlabeled.weak, scale) for scale in (one, weak1, strong1)]
    on_s2 = [predict(unlabeled.strong[1], scale, 1) for scale in (one, weak2, strong2)]
    on_s1 = predict(unlabeled.strong[0], one, 0)
    clean, *own = [believe(probs) for probs in on_weak]
    if wrong == "the strong view teaches":
        clean = believe(predict(unlabeled.strong[0], one))
    image = (taught(on_s1, clean, 0) + taught(on_s2[0], clean, 1)) / 4
    tkd = sum(taught(on_weak[h], clean) + taught(on_s2[h], clean, 1) for h in (1, 2)) / 4
    if wrong == "heads only on the weak view":
        tkd = sum(taught(on_weak[h], clean) for h in (1, 2)) / 2
    if wrong == "the clean head teaches all":
        own = [clean, clean]
    if wrong == "heads are swapped":
        own = own[::-1]
    dkd = sum(taught(on_s2[h], own[h - 1], 1) for h in (1, 2)) / 2
    eta = 1 - ETA if wrong == "eta is swapped" else ETA
    known = [p for p in every if labeled.mask[p] != IGNORE]
    sup = sum(-math.log(softmax(labeled.image[i, :, y, x].tolist())[labeled.mask[i, y, x]]) for i, y, x in known)
    total = sup / len(known) + image + distill * ((1 - eta) * tkd + eta * dkd)
    return total / (1 if wrong == "not halved" else 2)


WRONG = [
    "smooth 1",
    "no squares",
    "no background",
    "image by image",
    "every pixel",
    "padding counts",
    "equal dropout",
    "one dropout for both views",
    "one box",
    "labels are not pasted",
    "kept is not pasted",
    "the strong view teaches",
    "heads only on the weak view",
    "the clean head teaches all",
    "heads are swapped",
    "eta is swapped",
    "not halved",
]


def ours(labeled, unlabeled, loss="ce", **changes):
    method = CrossMatch(identity, make_task("multiclass", "abc", loss), **{"threshold": THRESHOLD, **changes})
    return method.step(labeled, unlabeled, CLOCK)


@pytest.mark.parametrize("seed", range(3))
def test_the_authors_formula(seed):
    labeled, unlabeled = sample(seed)
    loss = ours(labeled, unlabeled)["loss"].item()
    assert loss == pytest.approx(authors(labeled, unlabeled), abs=1e-6)
    for wrong in WRONG:
        assert abs(loss - authors(labeled, unlabeled, wrong)) > 1e-4, wrong
    assert ours(labeled, unlabeled, distill=1.0)["loss"].item() == pytest.approx(
        authors(labeled, unlabeled, distill=1.0), abs=1e-6
    )  # LA


@pytest.mark.parametrize(("choice", "reading"), [("background", "no background"), ("halved", "not halved")])
def test_what_the_paper_or_its_reading_does_otherwise(choice, reading):
    labeled, unlabeled = sample()
    loss = ours(labeled, unlabeled, **{choice: False})["loss"].item()
    assert loss == pytest.approx(authors(labeled, unlabeled, reading), abs=1e-6)


def test_a_relaxed_threshold_rises_to_what_it_is():
    """LA: (.75 + .25 exp(-5 (1-t)²)) ln 2: .521028 at first, .693147 at the end."""
    weak = torch.zeros(1, 3, 8, 8)
    weak[:, 0] = 1.0  # confidence e / (e + 2) = .576: kept at first, not in the end
    unlabeled = Unlabeled(weak, (weak, weak), torch.ones(1, 1, 8, 8).bool())
    labeled, _ = sample(b=1)
    method = CrossMatch(identity, make_task("multiclass", "abc", "ce"), threshold=math.log(2), relax=0.25)
    kept = [method.step(labeled, unlabeled, Clock(step, 100, (6,)))["kept"].item() for step in (0, 99)]
    assert kept == [1, 0] and 0.521 < math.e / (math.e + 2) < math.log(2)
    seen = []
    method.refine = lambda unlabeled, target, clock: (seen.append(target), (unlabeled, target))[1]
    rising = torch.linspace(0.08, 0.09, 64).view(1, 1, 8, 8)
    low = torch.cat([rising, 0 * rising, 0 * rising - 30], 1)
    method.step(labeled, unlabeled.replace(weak=low), Clock(0, 100, (6,)))
    assert torch.equal(seen[0].weight > 0, seen[0].confidence >= (0.75 + 0.25 * math.exp(-5)) * math.log(2))
    assert 0 < (seen[0].weight > 0).float().mean() < 1


def test_the_draws_of_this_step_show_every_rule():
    boxes = [cut_boxes(2, (8, 8), CLOCK.generator(f"box{j}")) for j in (0, 1)]
    assert all(box.flatten(1).any(1).all() for box in boxes) and not torch.equal(*boxes)
    assert len({tuple(scale.bool().flatten().tolist()) for scale in drawn(2, 3)}) == 4


def test_by_hand():
    """Two classes, nothing dropped, one pixel, no boxes: p = (.75, .25) on the weak view, class 0, kept.

    Strong views (.5, .5): class 0: 1 - 2·.5/(.25 + 1) = .2, class 1: 1 - s/(.25 + s) = .9996; mean .59988 to 1e-4.
    The heads on the weak view: 1 - 2·.75/(.5625 + 1) = .04 and 1 - s/(.0625 + s); mean .5192. image = .5999, tkd =
    (.5192 + .5999)/2 = .5596, dkd = .5999, KD = .7·.5596 + .3·.5999 = .5717. L = (log 2 + .29995 + .28583)/2 = .6395.
    """
    weak = torch.tensor([math.log(3), 0.0]).view(1, 2, 1, 1)
    flat = torch.zeros(1, 2, 1, 1)
    method = CrossMatch(
        lambda role: identity(k=2), make_task("multiclass", "ab", "ce"), threshold=0.7, weak=0, strong=0
    )
    unlabeled = Unlabeled(weak, (flat, flat), torch.ones(1, 1, 1, 1).bool())
    losses = method.step(Labeled(flat, torch.zeros(1, 1, 1).long()), unlabeled, CLOCK)
    assert losses["loss"].item() == pytest.approx(0.6395, abs=2e-4)
    assert losses["image"].item() == pytest.approx(0.5999, abs=2e-4)
    assert losses["tkd"].item() == pytest.approx(0.5596, abs=2e-4)
    assert losses["dkd"].item() == pytest.approx(losses["image"].item(), abs=1e-6) and losses["kept"].item() == 1


def test_terms_of_one_make_one():
    """ACDC (1 + .5 + .5)/2 = 1, LA (1 + .5 + 1)/2 = 1.25, whatever eta: the weights of the terms in the loss."""
    labeled, unlabeled = sample()
    for distill, total in ((0.5, 1.0), (1.0, 1.25)):
        for eta in (0.0, 0.3, 1.0):
            parts = ours(labeled, unlabeled, distill=distill, eta=eta)
            shares = {"sup": 0.5, "image": 0.25, "tkd": distill * (1 - eta) / 2, "dkd": distill * eta / 2}
            assert sum(shares.values()) == pytest.approx(total)
            want = sum(share * parts[name].item() for name, share in shares.items())
            assert parts["loss"].item() == pytest.approx(want, abs=1e-6)


def test_the_supervised_term_is_the_mean_of_two():
    """With "ce+dice" it is half of the task's sum, as in the authors' code; other losses are taken whole."""
    labeled, unlabeled = sample()
    for loss, share in (("ce+dice", 0.5), ("ce", 1.0), ("mse", 1.0)):
        want = make_task("multiclass", "abc", loss).supervised(labeled.image, labeled) * share
        assert ours(labeled, unlabeled, loss)["sup"].item() == pytest.approx(want.item(), abs=1e-6)


def test_weight_and_ramp():
    labeled, unlabeled = sample()
    parts = ours(labeled, unlabeled, weight=3.0, ramp=0.2)  # t = .1 / .2: exp(-5 * .5²)
    taught = parts["image"] / 2 + (0.7 * parts["tkd"] + 0.3 * parts["dkd"]) / 2
    want = (parts["sup"] + 3 * math.exp(-5 * 0.5**2) * taught) / 2
    assert parts["loss"].item() == pytest.approx(want.item(), abs=1e-6)


def test_the_heads_in_order():
    """[A, B, B weak, B strong]; without dropout the three heads are one; the drop is active in eval mode, too."""
    method = CrossMatch(identity, make_task("multiclass", "abc")).eval()
    plain, other = torch.randn(3, 3, 4, 4, generator=generator_of("a")), torch.ones(2, 3, 4, 4)
    known, clean, weak, strong = method.heads(plain, other, CLOCK.generator("drop"))
    assert torch.equal(known, plain) and torch.equal(clean, other) and len(weak) == len(strong) == 2
    for head, scale in zip((weak, strong), drawn(2, 3)[:2], strict=True):
        assert torch.equal(head, scale[:, :, None, None].expand(2, 3, 4, 4))
    method.rates = (0.0, 0.0)
    _, clean, weak, strong = method.heads(plain, other, CLOCK.generator("drop"))
    assert torch.equal(clean, weak) and torch.equal(clean, strong)


def test_a_pixel_below_the_threshold_and_a_batch_of_them():
    labeled, unlabeled = sample()
    image = unlabeled.strong[0].clone().requires_grad_()
    losses = ours(labeled, unlabeled.replace(strong=(image, unlabeled.strong[1])))
    (grad,) = torch.autograd.grad(losses["image"], image)
    box = cut_boxes(2, (8, 8), CLOCK.generator("box0"))
    kept = (unlabeled.weak.softmax(1).amax(1, keepdim=True) >= THRESHOLD) & unlabeled.valid
    shown = torch.stack([~box[i] | box[i - 1] for i in range(2)])  # each image's pixels that are seen in some sample
    assert (grad.abs().sum(1, keepdim=True)[~kept] == 0).all() and (grad[(kept & shown).expand_as(grad)] != 0).all()
    nothing = ours(labeled, unlabeled, threshold=1.01)
    assert all(nothing[name].item() == 0 for name in ("image", "tkd", "dkd", "kept"))


def test_beliefs_are_detached():
    """With nothing dropped for the strong views' sake: the weak view is reached through its dropped heads only."""
    labeled, unlabeled = sample()
    weak = unlabeled.weak.clone().requires_grad_()
    losses = ours(labeled, unlabeled.replace(weak=weak))
    for name in ("image", "dkd"):
        assert losses[name].requires_grad
        (grad,) = torch.autograd.grad(losses[name], weak, retain_graph=True, allow_unused=True)
        assert grad is None, name
    (grad,) = torch.autograd.grad(losses["tkd"], weak)
    lost = ~sum(drawn(2, 3)[:2]).bool()
    assert lost.any() and (grad[lost] == 0).all() and (grad[~lost] != 0).any()


def test_absent_classes_can_be_left_out():
    """A weak view of class 0 alone: with absent=False only its Dice counts, which is the first of three."""
    labeled, unlabeled = sample()
    weak = torch.tensor([4.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(2, 3, 8, 8)
    every, present = (
        ours(labeled, unlabeled.replace(weak=weak), absent=absent)["dkd"].item() for absent in (True, False)
    )
    assert 0 < present < every - 0.05


@pytest.mark.parametrize("kind", ["binary", "multilabel"])
def test_overlapping_labels_are_two_classes_each(kind):
    """Per label: Dice of on and of off, over the pixels where this label is sure (p or 1-p at least .7)."""
    task = make_task(kind, tiny.NAMES[kind])
    k = task.channels
    g = generator_of("overlap", kind)
    logits, weight = torch.randn(2, k, 4, 4, generator=g), torch.rand(2, k, 4, 4, generator=g) < 0.6
    label = (torch.rand(2, k, 4, 4, generator=g) < 0.5).byte()
    valid = torch.rand(2, 1, 4, 4, generator=g) < 0.8
    target = Target(label.float(), label, weight.float(), valid)
    method = CrossMatch(lambda role: identity(k=k), task)
    want = 0.0
    for c in range(k):
        kept = [p for p in torch.cartesian_prod(*(torch.arange(n) for n in (2, 4, 4))).tolist()
                if weight[p[0], c, p[1], p[2]] and valid[p[0], 0, p[1], p[2]]]  # fmt: skip
        on = [logits[i, c, y, x].sigmoid().item() for i, y, x in kept]
        truth = [int(label[i, c, y, x]) for i, y, x in kept]
        want += dice([(1 - p, p) for p in on], truth, range(len(kept)), 2) / k
    assert method.dice(logits, target).item() == pytest.approx(want, abs=1e-6)
    both = torch.cat([torch.zeros_like(logits), logits], 1)  # for one label: a softmax over (off, on)
    if k == 1:
        two = make_task("multiclass", "ab")
        twin = Target(label.float().expand(-1, 2, -1, -1), label[:, 0].long(), weight.float(), valid)
        as_classes = CrossMatch(lambda role: identity(k=2), two).dice(both, twin)
        assert as_classes.item() == pytest.approx(want, abs=1e-6)


def test_narrow_networks_lose_at_most_half():
    """The widest level decides; what was asked for, when it is less, is left alone, and nothing is said."""
    task = tiny.task_of("multiclass")
    for width, strong, rate in ((64, 0.75, 0.75), (32, 0.75, 0.5), (32, 0.4, 0.4)):
        net = identity()
        net.level_channels = (8, width)
        method = CrossMatch(lambda role, net=net: net, task, strong=strong)
        assert method.rates == (0.25, rate) and bool(method.caveat()) == (rate != strong)
    assert method.images_per_step(4, 6) == 22


def test_dice_of_the_facts():
    """A perfect prediction: 0. p = .5 at all of n pixels of class 0: .2 and 1, less O(s). Nothing there: 0."""
    for n, want in ((4, 0.59995), (100, 0.599998)):
        prob, truth = torch.full((1, 2, 1, n), 0.5), torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, n)
        every = torch.ones(1, 1, 1, n)
        assert house.squared_dice_loss(truth, truth, every).item() == pytest.approx(0, abs=1e-7)
        assert house.squared_dice_loss(prob, truth, every).item() == pytest.approx(want, abs=3e-6)
        assert house.squared_dice_loss(prob, truth, every, absent=False).item() == pytest.approx(0.2, abs=1e-4)
        assert house.squared_dice_loss(0 * prob, 0 * truth, every).item() == 0
