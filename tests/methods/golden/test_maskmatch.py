"""MaskMatch in plain loops (our reading: no public code). Logits are the pixels of the image."""

import math

import pytest
import torch

import tiny
from semiseg.batch import IGNORE, Clock, Labeled, Unlabeled, generator_of
from semiseg.data.mixing import cut_boxes
from semiseg.errors import Refusal
from semiseg.methods._patches import hide, patch_side, patches
from semiseg.methods.fixmatch import FixMatch
from semiseg.methods.maskmatch import MaskMatch, scaled_prob
from semiseg.task import make_task

CLOCK = Clock(5, 20, (3,))  # a step at which both images get a box
THRESHOLD = 0.6
K = 3
SIDE = 2


def softmax(values):
    exps = [math.exp(v) for v in values]
    return [e / sum(exps) for e in exps]


def pixels(*sizes):
    grid = [()]
    for n in sizes:
        grid = [(*before, i) for before in grid for i in range(n)]
    return grid


def resized(image, size):
    """{(y, x): channels} of one side to another, bilinear with corners aligned; image is such a dictionary."""
    old = math.isqrt(len(image))
    out = {}
    for y, x in pixels(size, size):
        at = [v * (old - 1) / (size - 1) for v in (y, x)]
        low = [min(int(v), old - 2) for v in at]
        fy, fx = (v - f for v, f in zip(at, low, strict=True))
        corners = [((1 - fy, fy)[dy] * (1 - fx, fx)[dx], image[low[0] + dy, low[1] + dx]) for dy, dx in pixels(2, 2)]
        out[y, x] = [sum(w * v[c] for w, v in corners) for c in range(len(corners[0][1]))]
    return out


MEAN = torch.tensor([0.6, -0.4, 0.1]).view(-1, 1, 1)


class Same(tiny.Pixelwise):
    """Logits = image - mean."""

    def __init__(self, channels=K, stride=1):
        super().__init__(channels, channels)
        self.stride = self.least = stride
        with torch.no_grad():
            self.conv.weight.copy_(torch.eye(channels)[:, :, None, None])
            self.conv.bias.zero_()
            self.mean.copy_(MEAN[:channels])


def sample(seed=0, b=2, size=8):
    g = generator_of("maskmatch", seed)
    mask = torch.randint(K, (b, size, size), generator=g)
    mask[torch.rand(mask.shape, generator=g) < 0.2] = IGNORE
    weak, strong = (3 * torch.randn(b, K, size, size, generator=g) for _ in range(2))
    valid = torch.rand(b, 1, size, size, generator=g) < 0.8
    return Labeled(torch.randn(b, K, size, size, generator=g), mask), Unlabeled(weak, (strong,), valid)


def believed(image, wrong):
    """{(y, x): probabilities}: mean over the scales ½, 1 and 1½ of softmax, resized back."""
    size = image.shape[-1]
    start = {(y, x): image[:, y, x].tolist() for y, x in pixels(size, size)}
    scales = {"one scale": [size], "narrow scales": [6, 8, 10]}.get(wrong, [size // 2, size, size * 3 // 2])
    total = {at: [0.0] * K for at in start}
    for side in scales:
        view = resized(start, side) if side != size else start
        if wrong != "logits averaged":
            view = {at: softmax(v) for at, v in view.items()}
        back = resized(view, size) if side != size else view
        total = {at: [t + v / len(scales) for t, v in zip(total[at], back[at], strict=True)] for at in start}
    return {at: softmax(v) for at, v in total.items()} if wrong == "logits averaged" else total


def reading(labeled, unlabeled, wrong=""):
    """L = (L_x + ½ CE(cutmix(A_s x), mixed labels) + ½ CE(mask(A_s x), labels)) / 2, CE [c >= t] / #inside."""
    b, _, size, _ = unlabeled.weak.shape
    view, known_view = unlabeled.strong[0] - MEAN, labeled.image - MEAN
    box = cut_boxes(b, (size, size), CLOCK.generator("box0"))
    hidden = torch.rand(b, 1, size // SIDE, size // SIDE, generator=CLOCK.generator("patches")) < 0.7
    teacher = view if wrong == "strong teaches" else unlabeled.weak - MEAN
    prob = [believed(image, wrong) for image in teacher]
    known = [at for at in pixels(b, size, size) if labeled.mask[at] != IGNORE]
    sup = sum(-math.log(softmax(known_view[i, :, y, x].tolist())[labeled.mask[i, y, x]]) for i, y, x in known)
    terms = []
    for masked in (False, True):
        total, inside, kept = 0.0, 0, 0
        for i, y, x in pixels(b, size, size):
            paste = box[i, 0, y, x] and (not masked or wrong == "masked view is mixed")
            source = (i + 1) % b if paste else i
            away = masked and bool(hidden[i, 0, y // SIDE, x // SIDE])
            logits = view[source, :, y, x]
            if away:
                away_as = {"hidden pixels are black": -MEAN[:, 0, 0], "an image's own mean": view[i].mean((1, 2))}
                logits = away_as.get(wrong, 0 * logits)
            p = prob[i if wrong == "labels are not pasted" else source][y, x]
            ok = bool(unlabeled.valid[source, 0, y, x])
            ok = ok and not (wrong == "visible pixels only" and away)
            ok = ok and not (wrong == "hidden pixels only" and masked and not away)
            keep = max(p) >= THRESHOLD
            total += ok * keep * -math.log(softmax(logits.tolist())[p.index(max(p))])
            inside, kept = inside + ok, kept + (ok and keep)
        terms.append(total / {"mean over kept": kept, "mean over all": b * size * size}.get(wrong, inside))
    unsup = sum(terms) if wrong == "sum of the two" else sum(terms) / 2
    return (sup / len(known) + unsup) / (1 if wrong == "not halved" else 2)


WRONG = [
    "one scale",
    "narrow scales",
    "logits averaged",
    "strong teaches",
    "masked view is mixed",
    "hidden pixels are black",
    "an image's own mean",
    "labels are not pasted",
    "visible pixels only",
    "hidden pixels only",
    "mean over kept",
    "mean over all",
    "sum of the two",
    "not halved",
]


def method_of(task=None, **changes):
    task = task or make_task("multiclass", "abc", "ce")
    options = {"threshold": THRESHOLD, "side": SIDE, **changes}
    return MaskMatch(lambda role: Same(task.channels), task, **options)


@pytest.mark.parametrize("seed", range(3))
def test_our_reading_of_the_paper(seed):
    labeled, unlabeled = sample(seed)
    loss = method_of().step(labeled, unlabeled, CLOCK)["loss"].item()
    assert loss == pytest.approx(reading(labeled, unlabeled), abs=1e-6)
    for wrong in WRONG:
        assert abs(loss - reading(labeled, unlabeled, wrong)) > 1e-4, wrong


def test_by_hand():
    """A constant image of two classes: every scale says the same; all patches are hidden, so that nothing is known.

    Labeled logits (0, 0): log 2. Weak p = (.75, .25): class 0, kept. Strong logits (0, log 3): -log .25 = log 4; hidden
    ones (0, 0): log 2. L = (log 2 + ½ log 4 + ½ log 2) / 2 = 1.25 log 2.
    """
    plane = lambda a, b: torch.tensor([a, b]).view(1, 2, 1, 1).expand(1, 2, 8, 8) + MEAN[:2]  # noqa: E731
    labeled = Labeled(plane(0.0, 0.0), torch.zeros(1, 8, 8).long())
    unlabeled = Unlabeled(plane(math.log(3), 0.0), (plane(0.0, math.log(3)),), torch.ones(1, 1, 8, 8).bool())
    losses = method_of(make_task("multiclass", "ab", "ce"), hidden=1.0).step(labeled, unlabeled, CLOCK)
    assert losses["loss"].item() == pytest.approx(1.25 * math.log(2), abs=1e-6)
    assert losses["kept"].item() == 1


def test_all_losses_of_1_are_1_in_total():
    """(1 + ½ + ½) / 2, with the ramp and the weight in their places."""
    labeled, unlabeled = sample()
    parts = method_of(weight=3.0, masked=0.25, ramp=0.5).step(labeled, unlabeled, CLOCK)
    unsup = 0.75 * parts["strong"] + 0.25 * parts["masked"]
    want = (parts["sup"] + 3 * math.exp(-5 * 0.5**2) * unsup) / 2
    assert parts["loss"].item() == pytest.approx(want.item(), abs=1e-6)
    parts = method_of().step(labeled, unlabeled, CLOCK)
    want = parts["sup"] / 2 + parts["strong"] / 4 + parts["masked"] / 4
    assert parts["loss"].item() == pytest.approx(want.item(), abs=1e-6)


def test_two_scales_that_differ():
    """p = (.98, .02) at one scale, (.90, .10) at the other: .94, rejected at .95 though one alone would be kept."""

    class Fickle(Same):
        """Sure of large images, less so of small ones."""

        def forward(self, x):
            p = 0.98 if x.shape[-1] > 8 else 0.90
            return torch.tensor([p, 1 - p]).log().view(1, 2, 1, 1).expand(len(x), 2, *x.shape[-2:])

    prob = scaled_prob(Fickle(2), torch.zeros(1, 2, 8, 8), (1.0, 1.5), make_task("multiclass", "ab"))
    assert torch.allclose(prob, torch.tensor([0.94, 0.06]).view(1, 2, 1, 1).expand(1, 2, 8, 8), atol=1e-6)
    assert (prob.amax(1) < 0.95).all()


def test_probabilities_of_several_scales_sum_to_1():
    task = tiny.task_of("multiclass")
    torch.manual_seed(0)
    net = tiny.make_of(task)().eval()
    image = torch.rand(2, 1, 21, 30, generator=generator_of(1))
    assert torch.allclose(scaled_prob(net, image, (0.5, 1.0, 1.5), task).sum(1), torch.ones(2, 21, 30), atol=1e-5)
    assert torch.equal(scaled_prob(net, image, (1.0,), task), task.prob(net(image)))


def test_without_spread_and_masked_view_it_is_fixmatch():
    """Scale 1 alone gives FixMatch's labels and confidences exactly; so does its loss."""
    labeled, unlabeled = sample()
    task = make_task("multiclass", "abc", "ce")
    losses = method_of(spread=0.0, masked=0.0).step(labeled, unlabeled, CLOCK)
    fix = FixMatch(lambda role: Same(), task, threshold=THRESHOLD).step(labeled, unlabeled, CLOCK)
    for key in ("loss", "sup", "strong"):
        assert losses[key].item() == pytest.approx(fix[key].item(), abs=1e-6)


def test_sides_are_multiples_of_the_stride():
    sizes = []

    class Recorder(Same):
        def forward(self, x):
            sizes.append(tuple(x.shape[-2:]))
            return super().forward(x)

    scaled_prob(Recorder(stride=8), torch.zeros(1, K, 40, 20), (0.5, 1.0, 1.5), make_task("multiclass", "abc"))
    assert sizes == [(16, 8), (40, 20), (64, 32)]  # 20 → 2.5 strides, rounded to even; 10 → 8; 60 → 64; 30 → 32
    scaled_prob(Recorder(stride=32), torch.zeros(1, K, 16, 16), (0.5,), make_task("multiclass", "abc"))
    assert sizes[-1] == (32, 32)


@pytest.mark.parametrize(("spread", "cost"), [(0.5, 3.5), (0.25, 3.125), (0.0, 1.0)])
def test_cost(spread, cost):
    assert method_of(spread=spread).images_per_step(8, 16) == 8 + 16 * (2 + cost)


def test_the_share_of_hidden_patches():
    g = generator_of(1)
    for share, tolerance in ((0.0, 0), (0.3, 0.01), (0.7, 0.01), (1.0, 0)):
        hidden = patches(500, (64, 64), g, side=8, share=share)
        assert hidden.shape == (500, 1, 64, 64) and hidden.dtype == torch.bool
        assert hidden.float().mean().item() == pytest.approx(share, abs=tolerance + 1e-9)
        blocks = hidden.view(500, 8, 8, 8, 8).float()
        assert (blocks.amax((2, 4)) == blocks.amin((2, 4))).all()  # constant inside a patch


def test_sides_of_patches():
    """A sixteenth up to 256, 32 above, 64 from 800 on; a grid that does not fit is cut off."""
    found = [patch_side((n, n)) for n in (8, 16, 100, 256, 257, 321, 512, 799, 800, 1024)]
    assert found == [1, 1, 6, 16, 32, 32, 32, 32, 64, 64] and patch_side((256, 300)) == 32
    hidden = patches(1, (7, 5), generator_of(2), side=3, share=0.5)
    assert hidden.shape == (1, 1, 7, 5)
    coarse = hidden[0, 0, ::3, ::3]
    assert torch.equal(hidden[0, 0], coarse.repeat_interleave(3, 0).repeat_interleave(3, 1)[:7, :5])


def test_hidden_pixels_show_the_mean_colour():
    """For all channels alike; hiding nothing changes nothing, hiding all leaves one colour; no gradient from there."""
    image = torch.rand(2, 3, 6, 6, generator=generator_of(1)).requires_grad_()
    where = patches(2, (6, 6), generator_of(2), side=2, share=0.5)
    network = Same()
    shown, mean = hide(image, where, network), MEAN.expand_as(image)
    at = where.expand_as(image)
    assert torch.equal(shown[at], mean[at]) and torch.equal(shown[~at], image[~at])
    assert torch.equal(hide(image, torch.zeros_like(where), network), image)
    assert torch.equal(hide(image, torch.ones_like(where), network), mean)
    (grad,) = torch.autograd.grad(shown.sum(), [image])
    assert (grad[at] == 0).all() and (grad[~at] == 1).all()


def test_gradients_reach_the_student_only():
    labeled, unlabeled = sample()
    views = [v.clone().requires_grad_() for v in (unlabeled.weak, unlabeled.strong[0])]
    loss = method_of().step(labeled, unlabeled.replace(weak=views[0], strong=(views[1],)), CLOCK)["loss"]
    weak, strong = torch.autograd.grad(loss, views, allow_unused=True)
    assert weak is None and strong.abs().max() > 0


def test_running_statistics_do_not_see_the_masked_view():
    """They are those of a step without it, bit for bit; with a share of 0 it is an untracked strong view."""
    task = tiny.task_of("multiclass")
    seen = []
    for hidden in (0.7, 0.0):
        torch.manual_seed(0)
        method = MaskMatch(tiny.make_of(task), task, threshold=0.0, hidden=hidden).train()
        start = {k: v.clone() for k, v in method.student.named_buffers()}
        method.step(tiny.labeled("multiclass"), tiny.unlabeled("multiclass"), CLOCK)
        seen.append(dict(method.student.named_buffers()))
    moved = [k for k in start if "running" in k]
    assert moved and all(torch.equal(seen[0][k], seen[1][k]) for k in moved)
    assert any(not torch.equal(seen[0][k], start[k]) for k in moved)
    assert all(seen[0][k] == 2 for k in start if "num_batches" in k)  # labeled and strong


def test_per_label_confidence_when_labels_overlap():
    """p = .9 and .3 at every scale: both labels are sure at threshold .69 (max(p, 1-p)), at .8 only the first."""
    weak = torch.tensor([0.9, 0.3]).logit().view(1, 2, 1, 1).expand(1, 2, 8, 8) + MEAN[:2]
    unlabeled = Unlabeled(weak, (MEAN[:2].expand(1, 2, 8, 8),), torch.ones(1, 1, 8, 8).bool())
    labeled = Labeled(weak, torch.zeros(1, 2, 8, 8, dtype=torch.uint8))
    for threshold, kept in ((0.69, 2), (0.8, 1)):
        losses = method_of(make_task("multilabel", "ab", "ce"), threshold=threshold).step(labeled, unlabeled, CLOCK)
        for term in ("strong", "masked"):
            assert losses[term].item() == pytest.approx(kept * math.log(2) / 2, abs=1e-6)


def test_a_spread_that_leaves_no_image_is_refused():
    with pytest.raises(Refusal, match="0 to below 1"):
        method_of(spread=1.0)
