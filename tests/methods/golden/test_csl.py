"""CSL against its training file and PCOS in plain loops. The network is the identity: normalised images are logits."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import tiny
from semiseg.batch import IGNORE, Clock, Labeled, Target, Unlabeled, generator_of
from semiseg.data.mixing import cut_boxes
from semiseg.errors import Refusal
from semiseg.methods._separation import dominant, features, separation
from semiseg.methods.csl import CSL, cells, trusted
from semiseg.task import make_task

CLOCK = Clock(2, 20, (6,))  # a step at which both images get a box, and one of the two coins says "hidden"
MEAN, EPS = 0.25, 1e-8
TASK = make_task("multiclass", "abc", "ce")


def identity(role="student", k=3):
    net = tiny.Pixelwise(k, k)
    net.mean.fill_(MEAN)
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
    known, weak, strong, mild = (2 * torch.randn(b, k, size, size, generator=g) for _ in range(4))
    valid = torch.rand(b, 1, size, size, generator=g) < 0.8
    return Labeled(known, mask), Unlabeled(weak, (strong, mild), valid)


def pcos(probs, valid, wrong="", version="code"):
    """util/PCOS.py for one image: probs (P,K), valid (P): the weights (P)."""
    k = len(probs[0])
    rows = []
    for p in probs:
        c, top = max(p), p.index(max(p))
        m = (1 - c) / (k - 1)
        v = sum((p[j] - m) ** 2 for j in range(k) if j != top) / (k - 1)
        rows.append((c, -v if version == "paper" else v + m * m / (k - 1)))
    inside = [i for i in range(len(rows)) if valid[i] or wrong == "padding in the statistics"]
    x = np.array([rows[i] for i in inside])
    centred = x - x.mean(0) if wrong == "centred" else x
    vectors = np.linalg.svd(centred.T, full_matrices=False)[2].T  # (P,2) right singular vectors
    first = np.abs(vectors).argmax(1) == 0
    means = [x[s, 0].mean() if s.any() else 0.0 for s in (first, ~first)]
    reliable = x[first if (means[0] >= means[1]) != (wrong == "less confident cluster") else ~first]
    reliable = x if wrong == "one cluster" else reliable
    mu, variance = reliable.mean(0), reliable.var(0, ddof=1)
    if wrong == "no epsilon":
        variance = variance - EPS
    out = []
    for (c, v), ok in zip(rows, valid, strict=True):
        zc = (c - mu[0]) / math.sqrt(variance[0] + EPS)
        zv = (v - mu[1] if version == "paper" else mu[1] - v) / math.sqrt(variance[1] + EPS)
        sure = (zc > 0 and zv > 0) if wrong == "and for or" else (zc > 0 or zv > 0)
        alpha = 1 if wrong == "alpha" else 8
        out.append(ok * (1.0 if sure else math.exp(-zc * zc / alpha) * math.exp(-zv * zv / alpha)))
    return out


def logits(image, i, y, x):
    return [v - MEAN for v in image[i, :, y, x].tolist()]


def authors(labeled, unlabeled, wrong=""):
    """semi_supervised_train.py: .5 [L_x + .25 L_s + .25 L_m + .5 L_fp], every L_u = Σ w·CE / #valid."""
    b, k, size, _ = unlabeled.weak.shape
    grid = [(y, x) for y in range(size) for x in range(size)]
    strong, mild = unlabeled.strong
    ok = {(i, y, x): bool(unlabeled.valid[i, 0, y, x]) for i in range(b) for y, x in grid}
    weight, label = {}, {}
    for i in range(b):
        probs = [softmax(logits(unlabeled.weak, i, y, x)) for y, x in grid]
        version = "paper" if wrong == "the paper's dispersion" else "code"
        weights = pcos(probs, [ok[i, y, x] for y, x in grid], wrong, version)
        for (y, x), p, w in zip(grid, probs, weights, strict=True):
            weight[i, y, x], label[i, y, x] = w, p.index(max(p))

    box = cut_boxes(b, (size, size), CLOCK.generator("box"))
    hide = CLOCK.generator("hide")
    coin = torch.rand(b, 1, 1, 1, generator=hide) < 0.5
    cover = torch.rand(b, 1, size, size, generator=hide) < 0.7  # 8 cells a side: one pixel each
    keep = torch.rand(b, k, generator=CLOCK.generator("drop")) >= 0.5

    def nll(values, c):
        return -math.log(softmax(values)[c])

    known = [p for p in ((i, y, x) for i in range(b) for y, x in grid) if labeled.mask[p] != IGNORE]
    sup = sum(nll(logits(labeled.image, *p), labeled.mask[p]) for p in known) / len(known)
    sums, inside = [0.0, 0.0, 0.0], [0, 0, 0]
    for i in range(b):
        for y, x in grid:
            own = (i, y, x)
            source = ((i + 1) % b, y, x) if box[i, 0, y, x] else own
            taught = own if wrong == "labels are not pasted" else source
            w = weight[own if wrong == "weights are not pasted" else source]
            sums[0] += w * nll(logits(strong, *source), label[taught])
            covered = cover[own[0], 0, y, x] and (weight[own] == 1 or wrong == "everything hidden")
            masked = [0.0] * k if covered else logits(mild, *own)
            heads = coin[i] or wrong == "no coin"
            sums[1] += weight[own] * nll(masked if heads else logits(strong, *own), label[own])
            weak = [2 * v * float(keep[i, c]) for c, v in enumerate(logits(unlabeled.weak, *own))]
            sums[2] += weight[own] * nll(weak, label[own])
            inside = [inside[0] + ok[source], inside[1] + ok[own], inside[2] + ok[own]]
    if wrong == "mean over weights":
        inside = [sum(weight.values())] * 3
    strong_, hidden, feature = (s / n for s, n in zip(sums, inside, strict=True))
    parts = (strong_ + hidden + feature) / 3 if wrong == "equal weights" else strong_ / 4 + hidden / 4 + feature / 2
    return (sup + parts) / (1 if wrong == "not halved" else 2)


WRONG = [
    "and for or",
    "alpha",
    "one cluster",
    "less confident cluster",
    "centred",
    "padding in the statistics",
    "the paper's dispersion",
    "labels are not pasted",
    "weights are not pasted",
    "everything hidden",
    "no coin",
    "mean over weights",
    "equal weights",
    "not halved",
]


def ours(labeled, unlabeled, **changes):
    return CSL(identity, TASK, **changes).step(labeled, unlabeled, CLOCK)


@pytest.mark.parametrize("seed", range(3))
def test_the_authors_formula(seed):
    labeled, unlabeled = sample(seed)
    loss = ours(labeled, unlabeled)["loss"].item()
    assert loss == pytest.approx(authors(labeled, unlabeled), abs=1e-6)
    for wrong in WRONG:
        assert abs(loss - authors(labeled, unlabeled, wrong)) > 1e-4, wrong


def test_the_draws_of_this_step_show_every_rule():
    box = cut_boxes(2, (8, 8), CLOCK.generator("box"))
    coin = torch.rand(2, generator=CLOCK.generator("hide")) < 0.5
    assert box.flatten(1).any(1).all() and coin.sum() == 1


def belief(prob, valid=None):
    """A Target of K-class probabilities (U,K,H,W)."""
    valid = torch.ones_like(prob[:, :1]).bool() if valid is None else valid
    return Target(prob, prob.argmax(1), torch.ones_like(prob[:, :1]), valid)


def dirichlet(n, k, seed=0, concentration=0.3):
    """(1,K,1,n) from normalised gammas, of a seed."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.dirichlet([concentration] * k, n)).float().T.reshape(1, k, 1, n)


@pytest.mark.parametrize("version", ["code", "paper"])
@pytest.mark.parametrize("k", [3, 21])
def test_weights_of_each_image_in_loops(version, k):
    prob = torch.cat([dirichlet(200, k, seed) for seed in range(2)])
    valid = torch.rand(2, 1, 1, 200, generator=generator_of("v")) < 0.7
    weight = separation(belief(prob, valid), make_task("multiclass", "x" * k), version=version)
    for i in range(2):
        want = pcos(prob[i, :, 0].T.tolist(), valid[i].flatten().tolist(), version=version)
        assert weight[i].flatten().tolist() == pytest.approx(want, abs=2e-5)
        assert [w == 1 for w in weight[i].flatten().tolist()] == [w == 1 for w in want]


TABLE = [
    ((0.7, 0.2, 0.05, 0.05), 0.005, 0.0083333),
    ((0.7, 0.1, 0.1, 0.1), 0.0, 0.0033333),
    ((0.7, 0.3, 0.0, 0.0), 0.02, 0.0233333),
    ((0.8, 0.2), 0.0, 0.04),
]


@pytest.mark.parametrize(("p", "paper", "code"), TABLE)
def test_confidence_and_dispersion(p, paper, code):
    prob = torch.tensor(p).view(1, -1, 1, 1)
    for version, want in (("paper", paper), ("code", code)):
        c, v = features(prob, version)
        assert c.item() == pytest.approx(p[0]) and v.item() == pytest.approx(want, abs=1e-6)


def test_the_two_dispersions_differ_by_the_square_of_the_mean():
    for k in (2, 3, 21):
        prob = dirichlet(300, k)
        (c, code), (_, paper) = features(prob, "code"), features(prob, "paper")
        m = (1 - c) / (k - 1)
        assert torch.allclose(code - paper, m**2 / (k - 1), atol=1e-6)
        if k == 2:
            assert torch.allclose(code, (1 - c) ** 2, atol=1e-6) and (paper == 0).all()


@pytest.mark.parametrize("version", ["code", "paper"])
def test_the_gram_matrix_gives_the_clusters_of_the_singular_vectors(version):
    c, v = features(dirichlet(3000, 21), version)
    x = torch.cat([c, v]).double()
    vectors = torch.linalg.svd(x, full_matrices=False).Vh.T
    assert torch.equal(vectors.abs().argmax(1) == 0, dominant(c, v, torch.ones_like(c))[0])


def test_saturated_confidences_are_separated_as_well():
    """Most pixels above .95: the clusters are still those of double precision, and most pixels are trusted."""
    logits = 4 * torch.randn(1, 21, 1, 2000, generator=generator_of("s")) + 14 * (torch.arange(21) == 3).view(
        1, -1, 1, 1
    )
    prob = logits.softmax(1)
    c, v = features(prob)
    vectors = torch.linalg.svd(torch.cat([c, v]).double(), full_matrices=False).Vh.T
    same = (vectors.abs().argmax(1) == 0) == dominant(c, v, torch.ones_like(c))[0]
    assert (c > 0.95).float().mean() > 0.7 and same.float().mean() > 0.995
    weight = separation(belief(prob), make_task("multiclass", "x" * 21))
    rows = prob[0, :, 0].T.tolist()
    want, without = (torch.tensor(pcos(rows, [1] * len(rows), wrong)) for wrong in ("", "no epsilon"))
    assert 0.5 < (weight == 1).float().mean() < 1 and torch.allclose(weight.flatten(), want, atol=1e-3)
    assert not torch.allclose(want, without, atol=1e-2)  # variances are as small as the epsilon


def test_a_soft_weight_by_hand():
    """Paper's dispersion of two classes: 0, one cluster. c = .6 and .8: μ = .7, σ² = .02, z = -.7071 and .7071.

    w = exp(-.5 / 8) = .9394 and 1. Strong and mild logits 0: CE log 2 at both. Features, nothing dropped: -log .6 and
    -log .8. Labeled logits 0: log 2. L = (log 2 + (.9394 + 1)/2 · log 2 / 2 + (.9394 · .5108 + .2231)/2 / 2) / 2.
    """
    weak = torch.tensor([[0.6, 0.8], [0.4, 0.2]]).log().view(1, 2, 1, 2) + MEAN
    flat = torch.full_like(weak, MEAN)
    task = make_task("multiclass", "ab", "ce")
    method = CSL(lambda role: identity(k=2), task, version="paper", dropout=0.0)
    unlabeled = Unlabeled(weak, (flat, flat), torch.ones(1, 1, 1, 2).bool())
    losses = method.step(Labeled(flat, torch.zeros(1, 1, 2).long()), unlabeled, CLOCK)
    soft = math.exp(-1 / 16)
    feature = (soft * -math.log(0.6) - math.log(0.8)) / 2
    want = (math.log(2) + (soft + 1) / 2 * math.log(2) / 2 + feature / 2) / 2
    assert losses["loss"].item() == pytest.approx(want, abs=1e-6)
    assert losses["kept"].item() == pytest.approx((soft + 1) / 2, abs=1e-6) and losses["trusted"].item() == 0.5


def test_degenerate_images_are_finite():
    """Nothing valid: 0. One pixel or one colour: 1. Two classes, all equal, saturated: within [0,1]."""
    task = make_task("multiclass", "abc")
    prob = torch.randn(1, 3, 4, 4, generator=generator_of("d")).softmax(1)
    none, one = torch.zeros(1, 1, 4, 4).bool(), torch.zeros(1, 1, 4, 4).bool()
    one[0, 0, 2, 1] = True
    flat = prob[:, :, :1, :1].expand(-1, -1, 4, 4)
    sure = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(-1, -1, 4, 4)
    for version in ("code", "paper"):
        assert (separation(belief(prob, none), task, version=version) == 0).all()
        assert torch.equal(separation(belief(prob, one), task, version=version), one.float())
        for uniform in (flat, sure):
            assert (separation(belief(uniform), task, version=version) == 1).all()
        both = separation(belief(prob[:, :2].softmax(1)), make_task("multiclass", "ab"), version=version)
        assert torch.isfinite(both).all() and (both > 0).all() and (both <= 1).all() and (both == 1).any()
    with pytest.raises(Refusal, match="code or paper"):
        separation(belief(prob), task, version="book")


def test_weights_follow_their_pixels():
    """Invariant to the order of pixels; padding takes no part, whatever is predicted there."""
    task, prob = make_task("multiclass", "abc"), dirichlet(100, 3)
    order = torch.randperm(100, generator=generator_of("p"))
    weight = separation(belief(prob), task)
    assert torch.allclose(separation(belief(prob[..., order]), task), weight[..., order], atol=1e-5)
    padded = torch.cat([prob, dirichlet(50, 3, seed=1, concentration=9.0)], 3)
    valid = (torch.arange(150) < 100).view(1, 1, 1, -1)
    weight_padded = separation(belief(padded, valid), task)
    assert torch.allclose(weight_padded[..., :100], weight, atol=1e-5) and (weight_padded[..., 100:] == 0).all()


def test_overlapping_labels_are_separated_one_by_one():
    """Each label of each image is a problem of two classes: v = (1-c)², nothing of the other label or image."""
    task = make_task("multilabel", "ab")
    prob = torch.rand(2, 2, 5, 5, generator=generator_of("m"))
    valid = torch.rand(2, 1, 5, 5, generator=generator_of("v")) < 0.8
    target = Target(prob, (prob > 0.5).byte(), torch.ones(2, 1, 5, 5), valid)
    weight = separation(target, task)
    assert weight.shape == (2, 2, 5, 5)
    for i in range(2):
        for k in range(2):
            pairs = [(1 - p, p) for p in prob[i, k].flatten().tolist()]
            want = pcos(pairs, valid[i, 0].flatten().tolist())
            assert weight[i, k].flatten().tolist() == pytest.approx(want, abs=1e-5)


def test_only_trusted_pixels_are_erased_and_are_0_for_the_network():
    _, unlabeled = sample()
    method = CSL(identity, TASK)
    target = method.believe(unlabeled, unlabeled.weak - MEAN)
    target = target.replace(weight=separation(target, TASK))
    seen = method.hide(unlabeled, target, CLOCK)
    coin = torch.rand(2, 1, 1, 1, generator=CLOCK.generator("hide")) < 0.5
    erased = (seen != torch.where(coin, unlabeled.strong[1], unlabeled.strong[0])).any(1, keepdim=True)
    assert erased.any() and not (erased & ~trusted(target)).any() and (target.weight[erased] == 1).all()
    assert (trusted(target) & ~erased & coin).any() and not (erased & ~coin).any()
    assert (method.student.encode(seen).levels[0] * erased == 0).all()


def test_cells():
    """801 px: 25 cells of 32; 64 px: 8 of 8; a side of 4 px has 4. Two thirds and more of them are hidden."""
    g = generator_of("cells")
    for side, count in ((801, 25), (321, 10), (64, 8), (4, 4)):
        hidden = cells(16, (side, side), g)
        assert hidden.shape == (16, 1, side, side)
        changes = (hidden[..., 1:] != hidden[..., :-1]).flatten(0, 2).any(0)
        assert changes.sum() == count - 1
        assert hidden.float().mean().item() == pytest.approx(0.7, abs=0.08)


def test_one_weight_everywhere_is_the_mean_over_pixels_inside():
    labeled, unlabeled = sample()
    weak = torch.tensor([3.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(2, 3, 8, 8)
    losses = ours(labeled, unlabeled.replace(weak=weak), cover=0.0)
    coin = torch.rand(2, 1, 1, 1, generator=CLOCK.generator("hide")) < 0.5
    view = torch.where(coin, unlabeled.strong[1], unlabeled.strong[0])
    per = nn.functional.cross_entropy(view, torch.zeros(2, 8, 8).long(), reduction="none")
    assert losses["hidden"].item() == pytest.approx(per[unlabeled.valid[:, 0]].mean().item(), abs=1e-6)


def test_weight_ramp_and_terms():
    """Terms of 1 each make 1: (1 + 1/4 + 1/4 + 1/2) / 2."""
    labeled, unlabeled = sample()
    parts = ours(labeled, unlabeled, weight=3.0, ramp=0.2)  # t = .1 / .2: exp(-5 * .5²)
    taught = 0.25 * parts["strong"] + 0.25 * parts["hidden"] + 0.5 * parts["feature"]
    want = (parts["sup"] + 3 * math.exp(-5 * 0.5**2) * taught) / 2
    assert parts["loss"].item() == pytest.approx(want.item(), abs=1e-6)


def test_the_belief_is_detached():
    """The weak view gets a gradient through its dropped features, and through nothing that it teaches."""
    labeled, unlabeled = sample()
    weak = unlabeled.weak.clone().requires_grad_()
    strong, mild = (v.clone().requires_grad_() for v in unlabeled.strong)
    losses = ours(labeled, unlabeled.replace(weak=weak, strong=(strong, mild)))
    taught = losses["strong"] + losses["hidden"]
    grads = torch.autograd.grad(taught, (weak, strong, mild), retain_graph=True, allow_unused=True)
    assert grads[0] is None and all(g.abs().max() > 0 for g in grads[1:])
    keep = torch.rand(2, 3, generator=CLOCK.generator("drop")) >= 0.5
    (grad,) = torch.autograd.grad(losses["feature"], weak)
    assert (grad[~keep] == 0).all() and (grad[keep] != 0).any()  # a missing detach would reach dropped channels


def test_one_pass_moves_the_running_statistics():
    """The pass of clean and dropped images; neither the strong nor the hidden view, nor evaluation."""
    method = CSL(tiny.make_of(tiny.task_of("multiclass")), tiny.task_of("multiclass")).train()
    labeled, unlabeled = tiny.labeled("multiclass"), tiny.unlabeled("multiclass", views=2)
    norms = [m for m in method.student.modules() if isinstance(m, nn.BatchNorm2d)]
    states = []
    for scale in (1.0, 5.0):
        other = CSL(tiny.make_of(method.task), method.task).train()
        other.load_state_dict(method.state_dict())
        other.step(labeled, unlabeled.replace(strong=tuple(scale * v for v in unlabeled.strong)), CLOCK)
        states.append(other.state_dict())
        assert all(m.num_batches_tracked == 1 for m in other.student.modules() if isinstance(m, nn.BatchNorm2d))
    assert norms and all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_what_is_said_before_training():
    for kind, said in (("multiclass", ""), ("binary", "follows from the confidence")):
        method = CSL(tiny.make_of(tiny.task_of(kind)), tiny.task_of(kind))
        assert said in method.caveat() and bool(method.caveat()) == bool(said)
    assert "is 0" in CSL(tiny.make_of(tiny.task_of("binary")), tiny.task_of("binary"), version="paper").caveat()
    assert method.images_per_step(4, 6) == 22
