"""SegKC, as we read it, in plain loops. A network is one matrix on pixels, its deepest level the image itself."""

import math

import pytest
import torch
from torch import nn

import tiny
from semiseg.batch import IGNORE, Clock, Labeled, Target, Unlabeled, generator_of
from semiseg.data.mixing import cut_boxes
from semiseg.methods.segkc import SegKC, cells, evaluating, larger
from semiseg.networks import build
from semiseg.networks.base import Features
from semiseg.task import make_task

CLOCK = Clock(5, 20, (3,))  # a step at which both images get a box
THRESHOLD, BACK, HEAT, SIZE = 0.6, 0.4, 1.5, 8
NAMES = ("senior", "student")


def softmax(values):
    exps = [math.exp(v) for v in values]
    return [e / sum(exps) for e in exps]


def matrix_net(role, k=3, **_):
    net = tiny.Pixelwise(k, k)
    with torch.no_grad():
        net.conv.weight.copy_(MATRICES[role][:k, :k, None, None])
        net.conv.bias.zero_()
    return net


MATRICES = {role: torch.eye(3) + 0.8 * torch.randn(3, 3, generator=generator_of(role)) for role in NAMES}
PROJECTORS = {role: torch.randn(4, 3, generator=generator_of("project", role)) for role in NAMES}


def method_of(kind="multiclass", names="abc", make=matrix_net, **changes):
    task = make_task(kind, names, "ce")
    options = {"threshold": THRESHOLD, "back": BACK, "temperature": HEAT, "dim": 4, **changes}
    method = SegKC(lambda role, **o: make(role, len(names)), task, **options)
    with torch.no_grad():
        for role, projector in zip(NAMES, method.projectors, strict=True):
            projector.weight.copy_(PROJECTORS[role][:, : len(names), None, None])
            projector.bias.zero_()
    return method


def sample(seed=0, b=2, k=3):
    g = generator_of("golden", seed)
    mask = torch.randint(k, (b, SIZE, SIZE), generator=g)
    mask[torch.rand(mask.shape, generator=g) < 0.2] = IGNORE
    weak, strong = (1.5 * torch.randn(b, k, SIZE, SIZE, generator=g) for _ in range(2))
    valid = torch.rand(b, 1, SIZE, SIZE, generator=g) < 0.8
    return Labeled(torch.randn(b, k, SIZE, SIZE, generator=g), mask), Unlabeled(weak, (strong,), valid)


def times(matrix, pixel):
    return [sum(a * x for a, x in zip(row, pixel.tolist(), strict=True)) for row in matrix.tolist()]


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


def reading(labeled, unlabeled, wrong=""):
    """(L_sup + L_cps) / 2 + .1 L_pred + .1 L_feat, pixel by pixel."""
    b = len(labeled.image)
    box = cut_boxes(b, (SIZE, SIZE), CLOCK.generator("box"))
    pixels = [(i, y, x) for i in range(b) for y in range(SIZE) for x in range(SIZE)]
    known = [p for p in pixels if labeled.mask[p] != IGNORE]
    sup = 0.0
    for role in NAMES:
        for i, y, x in known:
            q = softmax(times(MATRICES[role], labeled.image[i, :, y, x]))
            sup -= math.log(q[labeled.mask[i, y, x]]) / len(known)
    cps = pred = feat = 0.0
    inside = kept = 0
    heat = 1.0 if wrong == "no temperature" else HEAT
    for i, y, x in pixels:
        source = (i + 1) % b if box[i, 0, y, x] else i
        if not unlabeled.valid[i if wrong == "padding is not pasted" else source, 0, y, x]:
            continue
        inside += 1
        told = i if wrong == "labels are not pasted" else source
        seen = unlabeled.strong[0][source, :, y, x]
        clean = (unlabeled.strong[0] if wrong == "the strong view labels" else unlabeled.weak)[told, :, y, x]
        logits = {role: times(MATRICES[role], seen) for role in NAMES}
        sure = {}
        for learner, teacher in (NAMES, NAMES[::-1]):
            q = softmax(times(MATRICES[learner if wrong == "own labels" else teacher], clean))
            sure[teacher] = max(q) >= THRESHOLD
            if sure[teacher]:
                cps -= math.log(softmax(logits[learner])[q.index(max(q))])
            kept += sure[teacher] / 2
        s, j = (softmax([v / heat for v in logits[role]]) for role in NAMES)
        if wrong == "the senior is consulted less":
            s, j = j, s
        if wrong != "confident pixels alone consult" or sure["senior"]:
            pred += kl(s, j) + BACK * kl(j, s)
        if wrong == "one way":
            pred -= BACK * kl(j, s)
        view = unlabeled.weak[source, :, y, x] if wrong == "features of the weak view" else seen
        f, g = (times(PROJECTORS[role], view) for role in NAMES)
        feat += (1 + BACK) * (1 - cosine(f, g))
    count = b * SIZE * SIZE if wrong == "mean over all" else inside
    cps /= kept if wrong == "mean over kept" else count
    half = 1 if wrong == "not halved" else 2
    return (sup + cps) / half + 0.1 * pred / count + 0.1 * feat / inside


WRONG = ["no temperature", "padding is not pasted", "labels are not pasted", "the strong view labels", "own labels",
         "the senior is consulted less", "confident pixels alone consult", "one way", "features of the weak view",
         "mean over all", "mean over kept", "not halved"]  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_our_reading(seed):
    labeled, unlabeled = sample(seed)
    loss = method_of().step(labeled, unlabeled, CLOCK)["loss"].item()
    assert loss == pytest.approx(reading(labeled, unlabeled), abs=1e-6)
    for wrong in WRONG:
        assert abs(loss - reading(labeled, unlabeled, wrong)) > 1e-4, wrong


def test_by_hand():
    """p_S = (.9, .1), p_J = (.5, .5), T = 1: KL(S||J) = .9 ln 1.8 + .1 ln .2 = .368064, KL(J||S) = .5 ln (.5/.9) +
    .5 ln 5 = .510826; back = .5 makes .623477.
    """
    method = method_of("multiclass", "ab", temperature=1.0)
    senior, junior = (torch.tensor(p).log().view(1, 2, 1, 1) for p in ((0.9, 0.1), (0.5, 0.5)))
    target = method.task.target(senior, torch.ones(1, 1, 1, 1).bool())
    there, back = method.divergence(senior, junior, target).item(), method.divergence(junior, senior, target).item()
    assert (there, back) == pytest.approx((0.368064, 0.510826), abs=1e-6)
    assert there + 0.5 * back == pytest.approx(0.623477, abs=1e-6)


def test_overlapping_labels_diverge_each_for_itself():
    """Two labels: (.9 against .5) as above, and .3 against .3, which is 0; the mean of both is half."""
    method = method_of("multilabel", "ab", temperature=1.0)
    senior, junior = (torch.tensor(p).logit().view(1, 2, 1, 1) for p in ((0.9, 0.3), (0.5, 0.3)))
    target = method.task.target(senior, torch.ones(1, 1, 1, 1).bool())
    assert method.divergence(senior, junior, target).item() == pytest.approx(0.368064 / 2, abs=1e-6)


def alike(**changes):
    """Both networks and both projectors the same."""
    method = method_of(make=lambda role, k: matrix_net("student", k), **changes)
    with torch.no_grad():
        method.projectors[0].weight.copy_(method.projectors[1].weight)
    return method


def test_networks_that_agree_have_nothing_to_consult():
    losses = alike().step(*sample(), CLOCK)
    assert losses["consult"].item() == pytest.approx(0, abs=1e-6)
    assert losses["feature"].item() == pytest.approx(0, abs=1e-6)


def test_thresholds_at_the_ends():
    """Above 1 no label is sure; at 0 two networks alike are each taught by themselves: twice the self-CE."""
    labeled, unlabeled = sample()
    assert method_of(threshold=1.01).step(labeled, unlabeled, CLOCK)["cps"].item() == 0
    method = alike(threshold=0.0)
    net = method.student
    box = cut_boxes(2, (SIZE, SIZE), CLOCK.generator("box"))
    mix = lambda x: torch.where(box, x.roll(-1, 0), x)  # noqa: E731
    per = nn.functional.cross_entropy(
        net(mix(unlabeled.strong[0])), mix(net(unlabeled.weak)).argmax(1), reduction="none"
    )
    want = 2 * per[mix(unlabeled.valid)[:, 0]].mean().item()
    assert method.step(labeled, unlabeled, CLOCK)["cps"].item() == pytest.approx(want, abs=1e-6)


def test_equal_ranks_are_interchangeable():
    """With back = 1, senior and junior of one architecture may swap places."""
    labeled, unlabeled = sample()
    losses = []
    for order in (1, -1):
        roles = dict(zip(NAMES, NAMES[::order], strict=True))
        method = method_of(make=lambda role, k, roles=roles: matrix_net(roles[role], k), back=1.0)
        with torch.no_grad():
            for name, projector in zip(NAMES[::order], method.projectors, strict=True):
                projector.weight.copy_(PROJECTORS[name][:, :, None, None])
        losses.append(method.step(labeled, unlabeled, CLOCK)["loss"].item())
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


@pytest.mark.parametrize("terms", [{"feature": 0.0}, {"prediction": 0.0}])
def test_what_is_consulted_gets_no_gradient(terms):
    """With back = 0 both terms go one way: the junior and its projector learn, the senior and its projector do not."""
    method = method_of(back=0.0, **terms)
    method.step(*sample(), CLOCK)["consult"].backward()
    assert method.senior.conv.weight.grad is None or not method.senior.conv.weight.grad.any()
    assert method.projectors[0].weight.grad is None or not method.projectors[0].weight.grad.any()
    learner = method.projectors[1].weight if "prediction" in terms else method.student.conv.weight
    assert learner.grad.abs().max() > 1e-4


def test_what_the_senior_takes_costs_the_junior_nothing():
    """The junior's gradient from consultation does not depend on `back`; the senior's does."""
    grads = []
    for back in (0.0, 2.0):
        method = method_of(back=back)
        method.step(*sample(), CLOCK)["consult"].backward()
        nets = (method.student.conv, method.projectors[1], method.senior.conv)
        grads.append([torch.zeros(1) if n.weight.grad is None else n.weight.grad for n in nets])
    (junior, ours, _), (junior_too, ours_too, senior) = grads
    assert torch.allclose(junior, junior_too, atol=1e-7) and torch.allclose(ours, ours_too, atol=1e-7)
    assert senior.abs().max() > 1e-4


def test_the_junior_alone_predicts():
    method = method_of()
    assert method.predictor() is method.student
    assert {k for k in method.state_dict() if not k.startswith("student.")} >= {
        "projectors.0.weight",
        "projectors.1.bias",
    }


@pytest.mark.parametrize(
    "name, senior",
    [("unet1x1:0.25", "unet1x1:0.5"), ("unet/resnet18", "unet/resnet50"), ("unet/mobilenet_v2", "")],
)
def test_the_next_larger_network(name, senior):
    net = build(name, 1, 2) if name.startswith("unet1x1") else nn.Identity()
    net.name = name
    assert larger(net) == senior


def test_names_of_vision_transformers_grow():
    net = nn.Identity()
    net.name = "dpt/vit_small_patch14_dinov2.lvd142m"
    assert larger(net) == "dpt/vit_base_patch14_dinov2.lvd142m"


def test_a_senior_is_twice_as_wide_or_named():
    task = tiny.task_of("multiclass")
    assert SegKC(tiny.make_of(task), task).senior.alpha == 0.5
    named = SegKC(tiny.make_of(task), task, senior="unet1x1:0.25")
    assert named.senior.alpha == 0.25 and "not larger" in named.caveat()
    assert SegKC(tiny.make_of(task), task).caveat() == ""


def test_a_cell_counts_as_its_least_trusted_pixel():
    """7 x 5 pixels padded to 8 x 8 on a grid of 2 x 2: replicated padding repeats the edge and adds no distrust."""
    weight = torch.ones(1, 1, 7, 5)
    weight[0, 0, 1, 2], weight[0, 0, 6, 4] = 0.0, 0.5
    features = Features([torch.zeros(1, 3, 2, 2)], (7, 5), (8, 8))
    assert cells(weight, features).tolist() == [[[[0.0, 1.0], [1.0, 0.5]]]]


def test_grids_and_widths_may_differ():
    """A senior with a coarser grid and more channels is compared on the junior's grid; a cell of weight 0 is silent."""
    method = method_of()
    method.projectors[0] = nn.Conv2d(5, 4, 1)
    deep = torch.randn(1, 3, 4, 4, generator=generator_of("deep")).requires_grad_()
    coarse = torch.randn(1, 5, 2, 2, generator=generator_of("coarse"))
    features = [Features([coarse], (8, 8), (8, 8)), Features([deep], (8, 8), (8, 8))]
    weight = torch.ones(1, 1, 8, 8)
    weight[..., 3, 3] = 0.0  # cell (1, 1) of the junior
    target = Target(torch.zeros(1, 3, 8, 8), torch.zeros(1, 8, 8).long(), weight, torch.ones(1, 1, 8, 8).bool())
    (grad,) = torch.autograd.grad(method.distance(features, [target, target]), deep)
    still = grad.abs().sum(1)[0] == 0
    assert still.nonzero().tolist() == [[1, 1]]


def test_labels_come_from_eval_mode_which_ends_with_the_pass():
    net = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout())
    net.train()
    net[0].eval()  # frozen by its owner
    with evaluating(net):
        assert not any(m.training for m in net.modules())
    assert net.training and net[1].training and not net[0].training
    task = tiny.task_of("multiclass")
    method = SegKC(tiny.make_of(task), task).train()
    method.step(tiny.labeled("multiclass"), tiny.unlabeled("multiclass"), CLOCK)
    counts = {int(v) for k, v in method.state_dict().items() if k.endswith("num_batches_tracked")}
    assert counts == {1} and method.student.training  # one tracked pass: labeled and mixed images
