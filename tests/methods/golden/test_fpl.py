"""FPL: the numbers of the formulas, and the gradient of a step in plain loops (its value is that of CPS by design)."""

import math

import pytest
import torch
from torch import nn

from semiseg.batch import Clock, Labeled, Unlabeled, generator_of
from semiseg.errors import Refusal
from semiseg.methods._boxes import box_masks
from semiseg.methods.cps import CPS
from semiseg.methods.fpl import FPL, assign, fuzzy
from semiseg.task import make_task

CLOCK = Clock(5, 20, (3,))
K, SIZE, MASS, MOST = 5, 6, 0.9, 3


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


WEIGHTS = {role: torch.eye(K) + 0.4 * torch.randn(K, K, generator=generator_of(role)) for role in ("student", "second")}


def sample(seed=0, b=2, k=K):
    g = generator_of("golden", seed)
    weak = 1.2 * torch.randn(b, k, SIZE, SIZE, generator=g)
    valid = torch.rand(b, 1, SIZE, SIZE, generator=g) < 0.8
    mask = torch.randint(k, (b, SIZE, SIZE), generator=g)
    return Labeled(torch.randn(b, k, SIZE, SIZE, generator=g), mask), Unlabeled(weak, (weak,), valid)


def fpa(q, wrong=""):
    """Positive classes in order, the sorted probabilities and the sums S_1.. of them."""
    order = sorted(range(len(q)), key=lambda c: -q[c])
    top = [q[c] for c in order]
    n = 1
    while n < MOST and sum(top[: n + 1]) < MASS:
        n += 1
    if wrong == "the class that crosses is positive":
        n = min(n + (n < MOST), len(q) - 1)
    if wrong == "one positive":
        n = 1
    if wrong == "always three":
        n = MOST
    return order[:n], top, n


def weigh(top, n, wrong=""):
    a, b = sum(top[: n + 1]) / (n + 1), top[n]
    if wrong == "linear weight":
        return (a - b) / a
    if wrong == "no weight":
        return 1.0
    if wrong == "a of the positives alone":
        a = sum(top[:n]) / n
    return math.log(1 + 50 * (a - b)) / math.log(1 + 50 * a)


def authors(unlabeled, wrong=""):
    """d FPL(student taught by second) / d W: the gradient of FPR, weighted, scaled by CE / FPR of the whole batch."""
    b = len(unlabeled.weak)
    box = box_masks(b, (SIZE, SIZE), CLOCK.generator("box"))
    grad = torch.zeros(K, K, dtype=torch.float64)
    fuzzy_sum = plain = count = 0.0
    for i in range(b):
        for y in range(SIZE):
            for x in range(SIZE):
                source = (i + 1) % b if box[i, 0, y, x] else i
                if not unlabeled.valid[source, 0, y, x] and wrong != "padding counts":
                    continue
                pixel = unlabeled.weak[source, :, y, x].double()
                told = unlabeled.weak[i if wrong == "labels are not pasted" else source, :, y, x].double()
                z = (WEIGHTS["student"].double() @ pixel).tolist()
                teacher = WEIGHTS["student" if wrong == "own labels" else "second"].double()
                q = softmax((teacher @ told).tolist())
                positive, top, n = fpa(q, wrong)
                weight = weigh(top, n, wrong)
                pos = sum(math.exp(-z[p]) for p in positive)
                neg = sum(math.exp(z[m]) for m in range(K) if m not in positive)
                if wrong == "largest positive":
                    pos = 1 / sum(math.exp(z[p]) for p in positive)
                fuzzy_sum += weight * math.log(1 + pos * neg)
                plain -= math.log(softmax(z)[positive[0]])
                slope = pos * neg / (1 + pos * neg)
                for c in range(K):
                    share = -math.exp(-z[c]) / pos if c in positive else math.exp(z[c]) / neg
                    if wrong == "largest positive" and c in positive:
                        share = -math.exp(z[c]) * pos
                    grad[c] += weight * slope * share * pixel
                count += 1
    return grad / count * (1 if wrong == "not balanced" else plain / fuzzy_sum)


WRONG = ["the class that crosses is positive", "one positive", "always three", "linear weight", "no weight",
         "a of the positives alone", "labels are not pasted", "own labels", "padding counts", "largest positive",
         "not balanced"]  # fmt: skip


def method_of(cls=FPL, **changes):
    return cls(lambda role: Matrix(WEIGHTS[role].clone()), make_task("multiclass", "abcde", "ce"), **changes)


@pytest.mark.parametrize("seed", range(3))
def test_the_authors_gradient(seed):
    labeled, unlabeled = sample(seed)
    method = method_of()
    method.step(labeled, unlabeled, CLOCK)["cross"].backward()
    grad = method.student.w.grad.double()
    assert torch.allclose(grad, authors(unlabeled), atol=1e-6)
    for wrong in WRONG:
        assert (grad - authors(unlabeled, wrong)).abs().max() > 1e-4, wrong


def test_the_value_is_that_of_cps():
    labeled, unlabeled = sample()
    plain, ours = (method_of(cls).step(labeled, unlabeled, CLOCK) for cls in (CPS, FPL))
    assert ours["loss"].item() == pytest.approx(plain["loss"].item(), abs=1e-6)


ASSIGNED = [((0.95, 0.03, 0.02), 1), ((0.85, 0.1, 0.05), 1), ((0.5, 0.3, 0.15, 0.05), 2), ((0.05, 0.3, 0.5, 0.15), 2),
            ((0.4, 0.2, 0.15, 0.15, 0.1), 3), ((0.3, 0.2, 0.15, 0.15, 0.1, 0.1), 3), ((0.6, 0.4), 1)]  # fmt: skip


@pytest.mark.parametrize("q, n", ASSIGNED)
def test_positives(q, n):
    positive, _ = assign(torch.tensor(q).view(1, -1, 1, 1), MASS, min(MOST, len(q) - 1), "none")
    chosen = torch.tensor(q)[positive.flatten()].tolist()  # of classes alike, either may be positive
    assert sorted(chosen) == pytest.approx(sorted(sorted(q, reverse=True)[:n]))


def test_a_sum_equal_to_the_mass_reaches_it():
    """Powers of two add without rounding: S_2 = .75 at mass .75 leaves one positive, just above it two."""
    q = torch.tensor([0.5, 0.25, 0.125, 0.125]).view(1, -1, 1, 1)
    assert [int(assign(q, mass, 3, "none")[0].sum()) for mass in (0.75, 0.7501)] == [1, 2]


@pytest.mark.parametrize(
    "q, linear, convex, concave",
    [((0.5, 0.3, 0.15, 0.05), 0.526316, 0.357143, 0.791111), ((0.95, 0.03, 0.02), 0.938776, 0.884615, 0.981281)],
)
def test_weights(q, linear, convex, concave):
    prob = torch.tensor(q).view(1, -1, 1, 1)
    want = {"linear": linear, "convex": convex, "concave": concave, "none": 1.0}
    for pixels, value in want.items():
        assert assign(prob, MASS, min(MOST, len(q) - 1), pixels)[1].item() == pytest.approx(value, abs=1e-6)


def test_by_hand():
    """z = (2, 1, 0, -1). P = {0}: e^-2 (e^1 + 1 + e^-1) = .553, log 1.553 = .440190, which is CE.
    P = {0, 1}: (e^-2 + e^-1)(1 + e^-1) = .688335, log 1.688335 = .523744.
    """
    z = torch.tensor([2.0, 1.0, 0.0, -1.0]).view(1, 4, 1, 1).requires_grad_()
    for positive, value in (([1, 0, 0, 0], 0.440190), ([1, 1, 0, 0], 0.523744)):
        mask = torch.tensor(positive).bool().view(1, 4, 1, 1)
        loss = fuzzy(z, mask)
        assert loss.item() == pytest.approx(value, abs=1e-6)
        (grad,) = torch.autograd.grad(loss.sum(), z)
        assert (grad[mask] <= 0).all() and (grad[~mask] >= 0).all() and grad.isfinite().all()
    assert fuzzy(z, torch.tensor([1, 0, 0, 0]).bool().view(1, 4, 1, 1)).item() == pytest.approx(
        nn.functional.cross_entropy(z, torch.zeros(1, 1, 1).long()).item(), abs=1e-6
    )


@pytest.mark.parametrize("kind, names", [("multiclass", "ab"), ("binary", "a"), ("multilabel", "ab")])
def test_two_classes_are_weighted_cross_entropy(kind, names):
    """One positive whatever the mass: FPL without weights is CPS, gradient included; with weights it is not."""
    task = make_task(kind, names, "ce")
    k = len(names)
    _, unlabeled = sample(k=k)
    labeled = Labeled(unlabeled.weak, task.label(task.prob(unlabeled.weak)))
    grads = []
    for cls, changes in ((CPS, {}), (FPL, {"pixels": "none"}), (FPL, {})):
        method = cls(lambda role: Matrix(torch.eye(k) * (1 if role == "student" else -2)), task, **changes)
        method.step(labeled, unlabeled, CLOCK)["cross"].backward()
        grads.append(method.student.w.grad)
    assert torch.allclose(grads[0], grads[1], atol=1e-6) and (grads[0] - grads[2]).abs().max() > 1e-3
    assert "one positive class" in method.caveat() and "weighted" in method.caveat()
    assert "weighted" not in FPL(lambda role: Matrix(torch.eye(k)), task, pixels="none").caveat()
    assert method_of().caveat() == ""


def test_branches_that_agree_perfectly_are_not_divided_by_zero():
    weak = torch.zeros(1, K, 2, 2)
    weak[:, 0] = 200.0  # cross-entropy underflows to 0
    unlabeled = Unlabeled(weak, (weak,), torch.ones(1, 1, 2, 2).bool())
    labeled = Labeled(weak, torch.zeros(1, 2, 2).long())
    method = FPL(lambda role: Matrix(torch.eye(K)), make_task("multiclass", "abcde", "ce"))
    losses = method.step(labeled, unlabeled, CLOCK)
    losses["loss"].backward()
    assert losses["cross"].item() == 0 and method.student.w.grad.isfinite().all()


def test_unknown_options_are_refused():
    with pytest.raises(Refusal, match="Did you mean 'concave'"):
        method_of(pixels="concav")
    with pytest.raises(Refusal, match="at least 1"):
        method_of(positives=0)
