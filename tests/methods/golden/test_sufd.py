"""The sup-unsup feature discriminator in plain loops (our reading: no public code). Decoder maps are images."""

import math

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import tiny
from semiseg.batch import IGNORE, Clock, Labeled, Planes, Unlabeled, generator_of
from semiseg.errors import Refusal
from semiseg.inconsistency import InconsistencyMask
from semiseg.methods.supmix import SUFD, Discriminator, SupMix, visible
from semiseg.networks.base import Features
from semiseg.task import make_task

CLOCK = Clock(5, 20, (3,))
THRESHOLD = 0.7
K = 3


def softmax(values):
    exps = [math.exp(v) for v in values]
    return [e / sum(exps) for e in exps]


def softplus(z):
    return math.log1p(math.exp(-abs(z))) + max(z, 0.0)


def pixels(*sizes):
    grid = [()]
    for n in sizes:
        grid = [(*before, i) for before in grid for i in range(n)]
    return grid


class Same(tiny.Pixelwise):
    """Decoder map = image, logits = image."""

    def __init__(self):
        super().__init__(K, K)
        with torch.no_grad():
            self.conv.weight.copy_(torch.eye(K)[:, :, None, None])
            self.conv.bias.zero_()


class OneLayer(Discriminator):
    """A discriminator that plain loops can follow: one convolution k4 s2."""

    least = 4

    def __init__(self):
        super().__init__(K)
        self.layers = nn.Conv2d(K, 1, 4, 2, 1)
        with torch.no_grad():
            self.layers.weight.copy_(0.4 * torch.randn(1, K, 4, 4, generator=generator_of("judge")))
            self.layers.bias.fill_(0.2)


def sample(seed=0, b=3, u=2, size=8):
    g = generator_of("sufd", seed)
    mask = torch.randint(K, (b, size, size), generator=g)
    mask[torch.rand(mask.shape, generator=g) < 0.2] = IGNORE
    views = [2 * torch.randn(u, K, size, size, generator=g) for _ in range(3)]
    valid = torch.rand(u, 1, size, size, generator=g) < 0.8
    return Labeled(2 * torch.randn(b, K, size, size, generator=g), mask), Unlabeled(views[0], tuple(views[1:]), valid)


def judge(layer, image, seen):
    """Patch logits of a map (K,8,8) whose unseen cells are 0: {(row, column): logit}."""
    out = {}
    for py, px in pixels(4, 4):
        z = layer.bias.item()
        for c, dy, dx in pixels(K, 4, 4):
            y, x = 2 * py + dy - 1, 2 * px + dx - 1
            if 0 <= y < 8 and 0 <= x < 8 and seen(y, x):
                z += layer.weight[0, c, dy, dx].item() * image[c, y, x].item()
        out[py, px] = z
    return out


def judged(layer, images, seen, real):
    """Σ share of the patch that is seen · BCE / Σ the same of what lies inside (here: all that is seen)."""
    total, below = 0.0, 0.0
    for i, image in enumerate(images):
        for (py, px), z in judge(layer, image, lambda y, x, i=i: seen(i, y, x)).items():
            share = sum(seen(i, 2 * py + dy, 2 * px + dx) for dy, dx in pixels(2, 2)) / 4
            total += share * (softplus(-z) if real else softplus(z))
            below += share
    return total / below


def reading(labeled, unlabeled, layer, weight, wrong=""):
    """L = CE(x_l) + q Σ CE(x_s) / #inside + λ BCE(D(F_u), 1) + BCE(D(F_l), 1) + BCE(D(F_u), 0)."""
    (b, _, size, _), u = labeled.image.shape, len(unlabeled.weak)
    ok = {at: bool(unlabeled.valid[at[0], 0, at[1], at[2]]) for at in pixels(u, size, size)}
    prob = {(i, y, x): softmax(unlabeled.weak[i, :, y, x].tolist()) for i, y, x in ok}
    q = sum(ok[at] and max(p) >= THRESHOLD for at, p in prob.items()) / sum(ok.values())
    known = [at for at in pixels(b, size, size) if labeled.mask[at] != IGNORE]
    sup = sum(-math.log(softmax(labeled.image[i, :, y, x].tolist())[labeled.mask[i, y, x]]) for i, y, x in known)
    strong = sum(
        ok[i, y, x] * -math.log(softmax(unlabeled.strong[0][i, :, y, x].tolist())[prob[i, y, x].index(max(p))])
        for (i, y, x), p in prob.items()
    ) / sum(ok.values())

    everywhere = wrong == "padding is seen"
    theirs = lambda i, y, x: everywhere or ok[i, y, x]  # noqa: E731
    ours = lambda i, y, x: wrong == "labeled maps have no holes" or theirs(i % u, y, x)  # noqa: E731
    view = {"strong view is judged": unlabeled.strong[0], "weak view is judged": unlabeled.weak}
    maps = view.get(wrong, unlabeled.strong[1])
    fooled = judged(layer, maps, theirs, real=wrong != "pushed to be told apart")
    told = judged(layer, labeled.image, ours, real=True) + judged(layer, maps, theirs, real=False)
    if wrong == "verdicts swapped":
        told = judged(layer, labeled.image, ours, real=False) + judged(layer, maps, theirs, real=True)
    if wrong == "half of the verdict":
        told = told / 2
    return sup / len(known) + q * strong + weight * fooled + told


WRONG = [
    "padding is seen",
    "labeled maps have no holes",
    "strong view is judged",
    "weak view is judged",
    "pushed to be told apart",
    "verdicts swapped",
    "half of the verdict",
]


def method_of(**changes):
    options = {"threshold": THRESHOLD, "discriminator": 0.5, **changes}
    method = SUFD(lambda role: Same(), make_task("multiclass", "abc", "ce"), **options)
    method.discriminator = OneLayer()
    return method


@pytest.mark.parametrize("seed", range(3))
def test_our_reading_of_the_paper(seed):
    labeled, unlabeled = sample(seed)
    method = method_of()
    layer = method.discriminator.layers
    loss = method.step(labeled, unlabeled, CLOCK)["loss"].item()
    assert loss == pytest.approx(reading(labeled, unlabeled, layer, 0.5), abs=1e-6)
    for wrong in WRONG:
        assert abs(loss - reading(labeled, unlabeled, layer, 0.5, wrong)) > 1e-4, wrong


def test_by_hand():
    """A discriminator of weight 0 and bias log 3 says p(labeled) = ¾ of everything.

    L_adv = -log ¾ = log 4/3; L_D = -log ¾ - log ¼ = log 16/3, whatever the images are.
    """
    labeled, unlabeled = sample()
    method = method_of()
    with torch.no_grad():
        method.discriminator.layers.weight.zero_()
        method.discriminator.layers.bias.fill_(math.log(3))
    losses = method.step(labeled, unlabeled, CLOCK)
    assert losses["adversarial"].item() == pytest.approx(math.log(4 / 3), abs=1e-6)
    assert losses["discriminator"].item() == pytest.approx(math.log(16 / 3), abs=1e-6)


def test_who_learns_from_what():
    """L_adv sends no gradient to the discriminator, L_D none to the segmenter: a missing detach would show here."""
    kind = "multiclass"
    torch.manual_seed(0)
    task = tiny.task_of(kind)
    method = SUFD(tiny.make_of(task), task, threshold=0.0).train()
    judge_, student = (list(m.parameters()) for m in (method.discriminator, method.student))
    losses = method.step(tiny.labeled(kind), tiny.unlabeled(kind, views=2), CLOCK)
    grad = lambda term, who: torch.autograd.grad(term, who, retain_graph=True, allow_unused=True)  # noqa: E731
    assert all(g is None for g in grad(losses["adversarial"], judge_))
    assert any(g is not None and g.abs().max() > 0 for g in grad(losses["adversarial"], student))
    own = losses["loss"] - losses["sup"] - losses["mixed"] - 0.001 * losses["adversarial"]
    assert own.item() == pytest.approx(losses["discriminator"].item(), abs=1e-5)
    assert all(g is not None and g.abs().max() > 0 for g in grad(losses["loss"], judge_))
    rest = torch.autograd.grad(own, student, retain_graph=True)
    assert all(g.abs().max() < 1e-6 for g in rest)
    assert not losses["discriminator"].requires_grad


def test_the_judge_does_not_move_while_it_judges():
    torch.manual_seed(0)
    net = Discriminator(3).train()
    x = torch.randn(2, 3, 24, 20)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    frozen = net.frozen(x)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert torch.allclose(frozen, net(x), atol=1e-6)  # then one power iteration is taken, as in the frozen copy
    assert not all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_the_discriminator():
    """Four convolutions k4 s2, LeakyReLU .2 between them, no direction amplified by more than 1; maps of any size."""
    torch.manual_seed(0)
    net = Discriminator(5).train()
    convs = [m for m in net.layers if isinstance(m, nn.Conv2d)]
    slopes = [m.negative_slope for m in net.layers if isinstance(m, nn.LeakyReLU)]
    assert slopes == [0.2] * 3 and len(net.layers) == 7
    assert [(m.kernel_size, m.stride) for m in convs] == [((4, 4), (2, 2))] * 4
    for _ in range(30):
        net(torch.randn(1, 5, 16, 16))
    for conv in convs:
        assert parametrize.is_parametrized(conv, "weight")
        assert torch.linalg.svdvals(conv.weight.flatten(1).detach())[0] == pytest.approx(1.0, abs=0.05)
    for size in ((1, 1), (7, 30), (64, 48)):
        shape = net(torch.zeros(2, 5, *size)).shape
        assert shape == (2, 1, max(size[0], 16) // 16, max(size[1], 16) // 16)


def test_cells_with_an_untrusted_pixel_are_hidden():
    """A map at half the resolution of a 5x4 image padded to 6x4; weight 0 at one pixel hides one cell, not less."""
    features = Features([], (5, 4), (6, 4))
    weight = torch.ones(1, 2, 5, 4)
    weight[0, 1, 2, 3] = 0
    weight[0, 0, 0, 0] = 0.01
    seen = visible(weight, features, torch.zeros(1, 7, 3, 2))
    assert seen.tolist() == [[[[1, 1], [1, 0], [1, 1]]]]
    weight[0, 0, 4, 0] = 0  # the padding below repeats it
    assert visible(weight, features, torch.zeros(1, 7, 3, 2)).tolist() == [[[[1, 1], [1, 0], [0, 1]]]]


def test_disputed_pixels_teach_nothing_through_the_receptive_field():
    """Neither do the values of disputed pixels change what the discriminator says of the others."""
    labeled, unlabeled = sample()
    agree = torch.ones(2, 1, 8, 8, dtype=torch.bool)
    agree[:, :, 2:5, 1:4] = False
    unlabeled = unlabeled.replace(planes=Planes(torch.zeros(2, 8, 8).long(), agree))
    grads, terms = [], []
    for noise in (0.0, 5.0):
        method = method_of()
        method.refine = InconsistencyMask(label="own")
        view = (unlabeled.strong[1] + noise * ~agree).requires_grad_()
        losses = method.step(labeled, unlabeled.replace(strong=(unlabeled.strong[0], view)), CLOCK)
        grads += torch.autograd.grad(losses["adversarial"], [view])
        terms.append((losses["adversarial"].item(), losses["discriminator"].item()))
    hidden = ~agree | ~unlabeled.valid
    assert (grads[0] * hidden == 0).all() and (grads[0] * ~hidden != 0).any() and terms[0] == terms[1]


def test_nothing_seen_is_zero():
    labeled, unlabeled = sample()
    method = method_of()
    view = unlabeled.strong[1].clone().requires_grad_()
    batch = unlabeled.replace(valid=torch.zeros_like(unlabeled.valid), strong=(unlabeled.strong[0], view))
    losses = method.step(labeled, batch, CLOCK)
    losses["loss"].backward()
    assert losses["adversarial"].item() == losses["discriminator"].item() == losses["mixed"].item() == 0
    assert (view.grad == 0).all() and (method.discriminator.layers.weight.grad == 0).all()


def test_weight_ramp_and_groups():
    labeled, unlabeled = sample()
    method = method_of(weight=3.0, ramp=0.5)
    parts = method.step(labeled, unlabeled, CLOCK)
    unsup = parts["mixed"] + 0.5 * parts["adversarial"]
    want = parts["sup"] + 3 * math.exp(-5 * 0.5**2) * unsup + parts["discriminator"]
    assert parts["loss"].item() == pytest.approx(want.item(), abs=1e-6)
    found = [(g["name"], g.get("lr_scale")) for g in method.groups()]
    assert found == [("head", None), ("discriminator", 0.1)]  # identities have no encoder


def test_it_learns_to_tell_them_apart():
    """Labeled maps are bright, unlabeled ones dark: the discriminator's loss falls below its start, 2 log 2 = chance."""
    torch.manual_seed(0)
    net = Discriminator(1, width=8).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(40):
        real, other = net(torch.ones(2, 1, 16, 16)), net(-torch.ones(2, 1, 16, 16))
        loss = nn.functional.softplus(-real).mean() + nn.functional.softplus(other).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 2 * math.log(2) - 0.3


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_both_together(kind):
    """SupMix with a discriminator: both its terms, the view for it, one backward pass, everything trained."""
    torch.manual_seed(0)
    task = tiny.task_of(kind)
    method = SupMix(tiny.make_of(task), task, threshold=0.0, discriminator=0.001).train()
    assert method.views == ("strong", "train") and SupMix(tiny.make_of(task), task).views == ("strong",)
    assert method.images_per_step(4, 6) == 4 + 3 * 6
    losses = method.step(tiny.labeled(kind), tiny.unlabeled(kind, views=2), CLOCK)
    assert {"sup", "mixed", "pasted", "adversarial", "discriminator"} <= set(losses)
    want = sum(losses[k] for k in ("sup", "mixed", "pasted", "discriminator")) + 0.001 * losses["adversarial"]
    assert losses["loss"].item() == pytest.approx(want.item(), abs=1e-5)
    losses["loss"].backward()
    assert all((p.grad is None) == k.startswith("teacher.") for k, p in method.named_parameters())
    grouped = sorted(id(p) for g in method.groups() for p in g["params"])
    assert grouped == sorted(id(p) for p in method.parameters() if p.requires_grad)


def test_without_a_weight_it_is_nothing():
    with pytest.raises(Refusal, match="above 0"):
        SUFD(lambda role: Same(), make_task("multiclass", "abc"), discriminator=0.0)
