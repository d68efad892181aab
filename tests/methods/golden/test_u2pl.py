"""U2PL by the rules of the paper in plain loops. The network is the identity: images are logits and decoder maps."""

import math

import pytest
import torch
from torch import nn

import tiny
from semiseg.batch import IGNORE, Clock, Labeled, Unlabeled, generator_of
from semiseg.methods._bank import Bank, draw, info_nce
from semiseg.methods.u2pl import U2PL, half_boxes
from semiseg.task import make_task

STEPS = [Clock(s, 20, (3,)) for s in (0, 1, 2)]  # with and without boxes
SMALL = {"anchors": 5, "negatives": 7, "bank": 16, "dims": 3, "stride": 2, "contrast": 0.5, "low_rank": 2}
BIAS = (-0.5, 0.3, 0.2, 0.0)  # of the teacher


class Identity(tiny.Pixelwise):
    """Logits = image, decoder map = image."""

    def __init__(self, k):
        super().__init__(k, k)
        with torch.no_grad():
            self.conv.weight.copy_(torch.eye(k)[:, :, None, None])
            self.conv.bias.zero_()


def softmax(values):
    exps = [math.exp(v) for v in values]
    return [e / sum(exps) for e in exps]


def entropy(prob):
    return -sum(p * math.log(p) for p in prob)


def percentile(values, share):
    values = sorted(values)
    low = int(share * (len(values) - 1))
    part = share * (len(values) - 1) - low
    return values[low] + part * (values[min(low + 1, len(values) - 1)] - values[low])


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def represented(head, x):
    """1x1, ReLU, 1x1 of one pixel."""
    for layer, last in ((head[0], False), (head[2], True)):
        rows, bias = layer.weight.flatten(1).tolist(), layer.bias.tolist()
        x = [sum(w * v for w, v in zip(row, x, strict=True)) + c for row, c in zip(rows, bias, strict=True)]
        x = x if last else [max(v, 0.0) for v in x]
    return x


def sample(seed=0, b=2, u=3, k=4, size=8):
    """Images in which class 0 is rare, and no mask has it."""
    g = generator_of("golden", seed)
    mask = torch.randint(1, k, (b, size, size), generator=g)
    mask[torch.rand(mask.shape, generator=g) < 0.2] = IGNORE
    image, weak, strong = (2 * torch.randn(n, k, size, size, generator=g) for n in (b, u, u))
    valid = torch.rand(u, 1, size, size, generator=g) < 0.8
    rare = torch.tensor([4.0, 0.0, 0.0, 0.0]).view(1, 4, 1, 1)
    return Labeled(image - rare, mask), Unlabeled(weak - rare, (strong - rare,), valid)


def build(task=None, **changes):
    torch.manual_seed(0)
    task = task or make_task("multiclass", "abcd", "ce")
    method = U2PL(lambda role: Identity(task.channels), task, **{**SMALL, **changes})
    with torch.no_grad():
        method.teacher.network.conv.bias += torch.tensor(BIAS[: task.channels])
        method.teacher.represent.network[0].weight += 0.2
    return method


class Authors:
    """The paper's loss, pixel by pixel; the banks are lists."""

    def __init__(self, method, wrong="", two_pass=False):
        self.method, self.wrong, self.two_pass = method, wrong, two_pass
        self.bank = [[] for _ in range(4)]
        self.written = [0] * 4

    def teacher(self, x):
        return softmax([v + c for v, c in zip(x, BIAS, strict=True)])

    def pixels(self, labeled, unlabeled, clock):
        """Every pixel of the mixed batch: what the student sees, what the teacher saw, label, entropy, position."""
        u, size = len(unlabeled.weak), unlabeled.size[0]
        box = half_boxes(u, (size, size), clock.generator("box"), 0.5)
        rows = []
        for i in range(len(labeled.image)):
            for y in range(size):
                for x in range(size):
                    seen = labeled.image[i, :, y, x].tolist()
                    label = int(labeled.mask[i, y, x])
                    rows.append({"known": True, "view": seen, "seen": seen, "label": label, "valid": label != IGNORE,
                                 "place": (y, x)})  # fmt: skip
        for i in range(u):
            for y in range(size):
                for x in range(size):
                    s = (i + 1) % u if box[i, 0, y, x] else i
                    weak, view = (v[s, :, y, x].tolist() for v in (unlabeled.weak, unlabeled.strong[0]))
                    taught = unlabeled.weak[i, :, y, x].tolist() if self.wrong == "labels are not pasted" else weak
                    prob = self.teacher(taught)
                    rows.append({"known": False, "view": view, "seen": view if self.two_pass else weak,
                                 "label": prob.index(max(prob)), "valid": bool(unlabeled.valid[s, 0, y, x]),
                                 "place": (y, x)})  # fmt: skip
        for row in rows:
            row["prob"] = self.teacher(row["seen"])
            row["entropy"] = entropy(row["prob"])
        if self.two_pass:
            inside = [r["entropy"] for r in rows if not r["known"] and r["valid"]]
        else:
            inside = [entropy(self.teacher(unlabeled.weak[i, :, y, x].tolist())) for i in range(u)
                      for y in range(size) for x in range(size) if unlabeled.valid[i, 0, y, x]]  # fmt: skip
        return rows, inside

    def loss(self, labeled, unlabeled, clock):
        rows, inside = self.pixels(labeled, unlabeled, clock)
        share = 0.2 * (1 - clock.step / clock.total)
        share = 0.2 if self.wrong == "the share is constant" else share
        low, high = percentile(inside, share), percentile(inside, 1 - share)
        known = [r for r in rows if r["known"] and r["valid"]]
        sup = sum(-math.log(softmax(r["view"])[r["label"]]) for r in known) / len(known)
        foreign = [r for r in rows if not r["known"] and r["valid"]]
        kept = [r for r in foreign if r["entropy"] <= high]
        total = sum(-math.log(softmax(r["view"])[r["label"]]) for r in kept)
        kept_share = sum(e <= high for e in inside) / len(inside)
        consistency = total / {"mean over the inside": len(foreign)}.get(self.wrong, len(kept))
        consistency /= 1.0 if self.wrong == "not divided by the share" else kept_share
        contrast = self.contrast([r for r in rows if not any(p % 2 for p in r["place"])], low, high, clock)
        return sup + consistency + 0.5 * contrast

    def rules(self, row, c, low, high):
        """Anchor, part of the mean, negative key of class c?"""
        rank = sorted(range(4), key=lambda k: -row["prob"][k]).index(c)
        own = row["label"] == c
        certain = row["valid"] and own and (row["known"] or row["entropy"] <= low)
        unsure = row["valid"] and not row["known"] and row["entropy"] > high
        if self.wrong == "as released: the key is labelled as its class":
            own = not own
        if row["known"]:
            negative = row["valid"] and not own and rank < 2 and self.wrong != "no labeled negatives"
        else:
            negative = unsure and not own and 2 <= rank < 20
            if self.wrong == "certain keys":
                negative = row["valid"] and not unsure and not own and rank >= 2
        sure = row["prob"][c] > (0.0 if self.wrong == "anchors of any probability" else 0.3)
        if self.wrong == "anchors are labeled" and not row["known"]:
            sure = False
        return certain and sure, certain, negative

    def contrast(self, rows, low, high, clock):
        m = self.method
        heads = (m.represent, m.teacher.represent.network)
        for row in rows:
            row["rep"] = represented(heads[0], row["view"])
            row["key"] = represented(heads[0 if self.wrong == "the student's keys" else 1], row["seen"])
        rules = [[self.rules(row, c, low, high) for row in rows] for c in range(4)]
        draws = {n: torch.rand(4, s, generator=clock.generator(n)) for n, s in (("keys", 7), ("anchors", 5))}
        picks = torch.rand(4, 5, 7, generator=clock.generator("negatives"))
        for c in range(4):
            found = [row["key"] for row, r in zip(rows, rules[c], strict=True) if r[2]]
            for n in range(min(7, len(found))):
                key = found[int(draws["keys"][c, n] * len(found))]
                if self.written[c] < 16:
                    self.bank[c].append(key)
                else:
                    self.bank[c][self.written[c] % 16] = key
                self.written[c] += 1
        valid = [c for c in range(4) if any(r[0] for r in rules[c]) and self.bank[c]]
        total = 0.0
        temperature = 1.0 if self.wrong == "temperature" else 0.5
        for i, c in enumerate(valid):
            at = i if self.wrong == "as released: position for class" else c
            anchors = [row for row, r in zip(rows, rules[at], strict=True) if r[0]]
            members = [row["key"] for row, r in zip(rows, rules[at], strict=True) if r[1]]
            if not anchors:
                continue
            mean = [sum(v) / len(members) for v in zip(*members, strict=True)]
            for a in range(5):
                row = anchors[int(draws["anchors"][c, a] * len(anchors))]
                bank = self.bank[c]
                others = [bank[int(picks[c, a, n] * len(bank))] for n in range(7)]
                positive = row["key"] if self.wrong == "its own key is the positive" else mean
                exps = [math.exp(cosine(row["rep"], k) / temperature) for k in [positive, *others]]
                total += -math.log(exps[0] / sum(exps))
        return total / ({"mean over all classes": 4}.get(self.wrong, len(valid)) * 5)


WRONG = [
    "labels are not pasted",
    "the share is constant",
    "mean over the inside",
    "not divided by the share",
    "as released: the key is labelled as its class",
    "as released: position for class",
    "no labeled negatives",
    "certain keys",
    "anchors of any probability",
    "anchors are labeled",
    "the student's keys",
    "temperature",
    "its own key is the positive",
    "mean over all classes",
]


def test_the_formula_of_the_paper():
    """Three steps, so that the ring turns over."""
    ours = build()
    theirs = Authors(ours)
    variants = {w: Authors(ours, w) for w in WRONG}
    apart = dict.fromkeys(WRONG, 0.0)
    for seed, clock in enumerate(STEPS):
        batch = sample(seed)
        loss = ours.step(*batch, clock)["loss"].item()
        assert loss == pytest.approx(theirs.loss(*batch, clock), abs=1e-6)
        for wrong, variant in variants.items():
            apart[wrong] = max(apart[wrong], abs(loss - variant.loss(*batch, clock)))
    assert min(apart.values()) > 1e-4, apart
    assert ours.bank.written.tolist() == theirs.written and max(theirs.written) > 16


def test_two_passes_as_in_the_code():
    """Entropies, ranks and keys of the mixed images; labels of the clean ones."""
    ours = build(two_pass=True)
    theirs, other = Authors(ours, two_pass=True), Authors(ours)
    for seed, clock in enumerate(STEPS):
        batch = sample(seed)
        loss = ours.step(*batch, clock)["loss"].item()
        assert loss == pytest.approx(theirs.loss(*batch, clock), abs=1e-6)
        assert abs(loss - other.loss(*batch, clock)) > 1e-4
    assert ours.images_per_step(2, 3) == 13 and build().images_per_step(2, 3) == 10


def test_by_hand():
    """Two pixels, two classes, half of them unreliable: the quantile of entropies log 2 and .562 lies between them.

    Weak logits (log 3, 0): p = (.75, .25), kept as class 0; (0, 0): rejected. Strong (0, log 3): CE log 4.
    L_u = log 4 / (1/2) = 2 log 4.
    """
    weak = torch.tensor([[math.log(3), 0.0], [0.0, 0.0]]).view(1, 2, 1, 2)
    strong = torch.tensor([[0.0, 5.0], [math.log(3), 0.0]]).view(1, 2, 1, 2)
    method = U2PL(lambda role: Identity(2), make_task("multiclass", "ab", "ce"), unreliable=0.5, contrast=0.0, mix=0.0)
    unlabeled = Unlabeled(weak, (strong,), torch.ones(1, 1, 1, 2).bool())
    losses = method.step(Labeled(weak, torch.zeros(1, 1, 2).long()), unlabeled, Clock(0, 10))
    assert losses["unsup"].item() == pytest.approx(2 * math.log(4), abs=1e-6)
    assert losses["kept"].item() == 0.5


def test_nothing_unreliable_is_the_mean_cross_entropy():
    labeled, unlabeled = sample()
    losses = build(unreliable=0.0, contrast=0.0, mix=0.0).step(labeled, unlabeled, STEPS[0])
    label = (unlabeled.weak + torch.tensor(BIAS).view(1, 4, 1, 1)).argmax(1)
    per = nn.functional.cross_entropy(unlabeled.strong[0], label, reduction="none")
    assert losses["unsup"].item() == pytest.approx(per[unlabeled.valid[:, 0]].mean().item(), abs=1e-6)


def test_the_share_of_unreliable_pixels_falls_to_zero():
    labeled, unlabeled = sample(size=32)
    unlabeled = unlabeled.replace(valid=torch.ones_like(unlabeled.valid))
    for step, kept in ((0, 0.8), (50, 0.9), (100, 1.0)):
        losses = build(mix=0.0).step(labeled, unlabeled, Clock(step, 100))
        assert losses["kept"].item() == pytest.approx(kept, abs=1e-3)


def test_equal_cosines():
    """One positive and 50 negatives: ln 51."""
    assert info_nce(torch.ones(1, 1), torch.ones(1, 1, 50), 0.5).item() == pytest.approx(3.93183, abs=1e-5)


def cards(k=21, n=4, size=16, **changes):
    """Masks by the rules for a teacher that agrees with itself: (labels, ranks, candidates of masks and of beliefs)."""
    g = generator_of("cards")
    task = make_task("multiclass", [str(c) for c in range(k)], "ce")
    method = U2PL(lambda role: Identity(k), task, **{"stride": 1, "dims": 4, "bank": 8, **changes})
    prob = (2 * torch.randn(n, k, size, size, generator=g)).softmax(1)
    target = task.target(prob.log(), torch.ones(n, 1, size, size, dtype=torch.bool))
    target, bounds, _ = method.select(target, prob, 0.2)
    mask = torch.randint(k, (n, size, size), generator=g)
    known = task.belief(Labeled(prob, mask))
    return method, target.label, mask, prob, method.candidates(target, prob, bounds), method.candidates(known, prob)


def test_keys_are_what_was_ruled_out():
    """A teacher that agrees with itself has keys (the public code: none), none of them labelled as their class."""
    method, label, mask, prob, guessed, known = cards()
    rank = prob.argsort(1, descending=True).argsort(1)
    for (_, _, keys), classes in ((guessed, label), (known, mask)):
        own = nn.functional.one_hot(classes, 21).permute(0, 3, 1, 2).bool()
        assert keys.any() and not (keys & own).any()
    unsure = guessed[2].any(1).float().mean().item()
    assert unsure == pytest.approx(0.2, abs=0.01)
    assert rank[guessed[2]].min() == 3 and rank[guessed[2]].max() == 19 and rank[known[2]].max() == 2
    anchors, members, _ = guessed
    assert (anchors <= members).all() and members.any(1).float().mean().item() == pytest.approx(0.2, abs=0.01)
    assert (method.per_class(prob)[anchors] > 0.3).all()


def test_anchors_of_a_class_move_its_pixels_only():
    """Classes 3, 4 and 5 alone are present (the public code: gradient of none)."""
    task = make_task("multiclass", "abcdef", "ce")
    method = U2PL(lambda role: Identity(6), task, stride=1, dims=4, bank=8)
    g = generator_of("present")
    mask = torch.randint(3, 6, (2, 6, 6), generator=g)
    prob = (torch.randn(2, 6, 6, 6, generator=g) + 3 * task.truth(mask)).softmax(1)
    rep, keys = (torch.randn(2, 4, 6, 6, generator=g) for _ in range(2))
    rep.requires_grad_()
    nce, foreign = method.contrast(
        rep, keys, list(method.candidates(task.belief(Labeled(prob, mask)), prob)), 2, STEPS[0]
    )
    assert not foreign.any() and not nce[:3].any()
    for c in (3, 4, 5):
        (grad,) = torch.autograd.grad(nce[c].sum(), [rep], retain_graph=True)
        moved = grad.abs().sum(1) > 0
        assert moved.any() and not (moved & (mask != c)).any()


def test_gradients_reach_the_student_and_its_head_only():
    method = build()
    losses = method.step(*sample(), STEPS[0])
    losses["loss"].backward()
    assert all(p.grad is not None for m in (method.student, method.represent) for p in m.parameters())
    assert all(p.grad is None and not p.requires_grad for p in method.teacher.parameters())
    assert not method.bank.keys.requires_grad and method.bank.keys.any()


def test_two_classes():
    """One label on or off, or two classes: the same loss, and a contrast that is there but said to be degenerate."""
    labeled, unlabeled = sample(k=4)
    binary, double = make_task("binary", "a", "ce"), make_task("multiclass", "ab", "ce")
    losses = []
    for task in (binary, double):
        torch.manual_seed(0)

        def make(role, task=task):
            net = tiny.Pixelwise(4, task.channels)
            with torch.no_grad():
                net.conv.weight.zero_()[-1, 1] = 1.0
                net.conv.bias.zero_()
            return net

        method = U2PL(make, task, **SMALL)
        torch.manual_seed(1)
        for layer in (method.represent[0], method.represent[2]):
            layer.reset_parameters()
        method.teacher.represent.network.load_state_dict(method.represent.state_dict())
        mask = (labeled.mask == 1).to(torch.uint8).masked_fill(labeled.mask == IGNORE, IGNORE)
        masks = Labeled(labeled.image, mask.unsqueeze(1) if task.multilabel else mask.long())
        for clock in STEPS:
            losses.append(method.step(masks, unlabeled, clock))
        assert method.low_rank == 1 and "two of them" in method.caveat()
    for one, two in zip(losses[:3], losses[3:], strict=True):
        assert one["contrast"].item() > 0
        assert all(one[k].item() == pytest.approx(two[k].item(), abs=1e-6) for k in one)
    assert build().caveat() == ""


def test_the_teacher_is_an_average_of_network_and_head():
    method = build()
    before = method.represent[0].bias.detach().clone()
    method.after_step(Clock(0, 40_000))  # decay 0
    assert torch.equal(method.teacher.represent.network[0].bias, before)
    with torch.no_grad():
        method.represent[0].bias += 1
        method.student.conv.bias += 1
    method.after_step(Clock(1, 40_000))  # decay 1/2
    assert torch.allclose(method.teacher.represent.network[0].bias, before + 0.5)
    assert torch.allclose(method.teacher.network.conv.bias, torch.full((4,), 0.5))
    assert method.predictor() is method.teacher.network


def test_the_second_pass_leaves_running_statistics_alone():
    task = tiny.task_of("multiclass")
    method = U2PL(tiny.make_of(task), task, two_pass=True, dims=8, bank=8).train()
    before = {k: v.clone() for k, v in method.teacher.state_dict().items()}
    method.step(tiny.labeled("multiclass"), tiny.unlabeled("multiclass"), STEPS[0])
    assert all(torch.equal(v, before[k]) for k, v in method.teacher.state_dict().items())
    assert not any(m.training for m in method.teacher.modules())


def test_any_size_and_stride():
    """Grids of sizes that the stride does not divide; keys and masks lie on the same pixels."""
    method = build(stride=4)
    x = torch.arange(4.0 * 10 * 7).view(1, 4, 10, 7)
    method.represent = nn.Identity()
    logits, rep = method.look(method.student, method.represent, x)
    assert torch.equal(rep, x[..., ::4, ::4]) and logits.shape == x.shape
    for k in ("binary", "multiclass", "multilabel"):
        task = tiny.task_of(k)
        other = U2PL(tiny.make_of(task), task, dims=8, bank=8, two_pass=k == "multilabel").train()
        losses = other.step(tiny.labeled(k, size=22), tiny.unlabeled(k, n=1, size=22), STEPS[0])
        losses["loss"].backward()
        assert torch.isfinite(losses["loss"])


def test_boxes_have_half_the_area():
    for size in ((64, 96), (33, 21), (8, 8)):
        boxes = half_boxes(200, size, generator_of("boxes"), 1.0)
        area = boxes.sum((1, 2, 3)) / (size[0] * size[1])
        assert boxes.any(2).sum(2).min() > size[1] // 2 and (area - 0.5).abs().max() <= 0.5 * size[1] / (
            size[0] * size[1]
        )
    drawn = [bool(half_boxes(3, (8, 8), generator_of("p", s), 0.5).any()) for s in range(300)]
    assert 0.4 < sum(drawn) / 300 < 0.6


def test_draws():
    mask = torch.tensor([[False, True, False, True, True], [False] * 5, [False, False, False, False, True]])
    chosen = draw(mask, 3000, generator_of("draw"))
    assert set(chosen[0].tolist()) == {1, 3, 4} and not chosen[1].any() and (chosen[2] == 4).all()
    assert chosen[0].bincount()[[1, 3, 4]].sub(1000).abs().max() < 100


def test_the_ring_overwrites_the_oldest():
    bank = Bank(2, 4, 1)
    for value in range(3):
        keys = torch.full((2, 3, 1), float(value + 1))
        bank.add(keys + torch.arange(3).view(1, 3, 1) / 10, torch.tensor([[True, False, True], [False, False, True]]))
    assert bank.keys[0].flatten().tolist() == pytest.approx([3.0, 3.2, 2.0, 2.2])
    assert bank.keys[1].flatten().tolist() == pytest.approx([1.2, 2.2, 3.2, 0.0])
    assert bank.written.tolist() == [6, 3] and bank.filled.tolist() == [4, 3]
    seen = bank.negatives(torch.ones(2, 1, 1), 500, generator_of("n"))
    assert set(seen[1].flatten().tolist()) == set(bank.keys[1, :3].flatten().tolist())
    assert not Bank(1, 4, 1).negatives(torch.ones(1, 1, 1), 5, generator_of("n")).any()


def test_banks_are_equal_in_all_processes(monkeypatch):
    """Two processes, played one after the other: what all_gather would give is known beforehand."""
    g = generator_of("ranks")
    keys = [torch.randn(3, 5, 2, generator=g) for _ in range(2)]
    real = [torch.rand(3, 5, generator=g) < 0.5 for _ in range(2)]
    alone = Bank(3, 8, 2)
    for k, r in zip(keys, real, strict=True):
        alone.add(k, r)

    def all_gather(parts, mine):
        sent = [torch.cat([k, r.unsqueeze(2).float()], 2) for k, r in zip(keys, real, strict=True)]
        assert any(torch.equal(mine, s) for s in sent)
        for part, s in zip(parts, sent, strict=True):
            part.copy_(s)

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_gather", all_gather)
    for k, r in zip(keys, real, strict=True):
        bank = Bank(3, 8, 2)
        bank.add(k, r)
        assert torch.equal(bank.written, alone.written) and torch.equal(bank.keys, alone.keys)


def test_weight_and_ramp():
    parts = build(weight=3.0, ramp=0.5).step(*sample(), Clock(5, 20, (3,)))  # t = .25 / .5: exp(-5 · .5²)
    theirs = build(weight=3.0).step(*sample(), Clock(5, 20, (3,)))
    gain = (theirs["loss"] - theirs["sup"]) * math.exp(-5 * 0.5**2)
    assert (parts["loss"] - parts["sup"]).item() == pytest.approx(gain.item(), abs=1e-6)
