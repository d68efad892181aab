"""What other papers bring to FixMatch and UniMatch: CSL's selection, MaskMatch's masked view, mixing of four kinds."""

import pytest
import torch

import tiny
from semiseg.batch import IGNORE, Clock, Labeled, Planes, Target
from semiseg.errors import Refusal
from semiseg.inconsistency import InconsistencyMask
from semiseg.methods import method_class
from semiseg.methods._choices import mask_view, mixed, select
from semiseg.methods._separation import separation
from semiseg.storage import hash_tensors

CLOCK = Clock(3, 10, (7,))
CHOICES = [
    {"refine": "csl"},
    {"view": "masked"},
    {"mix": "none"},
    {"mix": "classmix"},
    {"mix": "supmix"},
    {"refine": "csl", "view": "masked", "mix": "supmix"},
]


@pytest.fixture(params=["fixmatch", "unimatch"])
def name(request):
    return request.param


@pytest.fixture(params=CHOICES, ids=lambda c: "-".join(c.values()))
def choice(request):
    return request.param


def build(name, kind, *, pixelwise=False, masks=False, **changes):
    task = tiny.task_of(kind)
    torch.manual_seed(0)
    pixels = lambda role="student": tiny.Pixelwise(1, task.channels)  # noqa: E731
    method = method_class(name)(pixels if pixelwise else tiny.make_of(task), task, **{"threshold": 0.0, **changes})
    if masks:
        method.refine = InconsistencyMask(label="own")
    return method.train()


def images(name, kind, **options):
    return tiny.unlabeled(kind, views=2, **options)


def train(method, labeled, unlabeled, steps=2):
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-2)
    for step in range(steps):
        losses = method.step(labeled, unlabeled, Clock(step, steps, (7,)))
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
    return hash_tensors(dict(method.student.named_parameters()))


def terms(losses):
    return [v for k, v in losses.items() if v.requires_grad and k not in ("loss", "sup")]


def test_each_choice_changes_what_is_trained(name, kind):
    labeled, unlabeled = tiny.labeled(kind), images(name, kind)
    seen = [train(build(name, kind, **choice), labeled, unlabeled) for choice in ({}, *CHOICES, {})]
    assert len(set(seen)) == len(CHOICES) + 1 and seen[0] == seen[-1]


@pytest.mark.parametrize(("size", "number"), [(13, 5), (21, 1)])
def test_finite_on_batches_and_sizes_of_all_kinds(name, kind, choice, size, number):
    method = build(name, kind, **choice)
    losses = method.step(tiny.labeled(kind, n=2, size=size), images(name, kind, n=number, size=size), CLOCK)
    losses["loss"].backward()
    assert all(torch.isfinite(v) and v.ndim == 0 for v in losses.values())
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in method.student.parameters())


def test_disputed_pixels_teach_nothing(name, kind, choice):
    planes = tiny.planes(kind)
    unlabeled = images(name, kind, planes=planes)
    views = [v.clone().requires_grad_() for v in (unlabeled.weak, *unlabeled.strong)]
    method = build(name, kind, pixelwise=True, masks=True, **choice)
    losses = method.step(tiny.labeled(kind), unlabeled.replace(weak=views[0], strong=tuple(views[1:])), CLOCK)
    grads = torch.autograd.grad(sum(terms(losses)), views, allow_unused=True)
    grads = torch.stack([g for g in grads if g is not None])
    disputed = ~planes.agree.expand(len(grads), *planes.agree.shape)
    assert (grads[disputed] == 0).all() and (grads[~disputed] != 0).any()


def test_nothing_to_learn_from_gives_zero(name, kind, choice):
    """All padding, all disputed. SupMix still pastes labeled pixels, which may teach; unlabeled ones never do."""
    planes = tiny.planes(kind)
    nowhere = torch.zeros_like(planes.agree)
    unlabeled = images(name, kind, planes=planes)
    for batch in (
        unlabeled.replace(valid=nowhere),
        unlabeled.replace(planes=Planes(torch.full_like(planes.label, IGNORE), nowhere)),
    ):
        views = [v.clone().requires_grad_() for v in batch.strong]
        method = build(name, kind, pixelwise=True, masks=True, **choice)
        found = terms(method.step(tiny.labeled(kind), batch.replace(strong=tuple(views)), CLOCK))
        inputs = [*views, *([] if choice.get("mix") == "supmix" else method.student.parameters())]
        grads = torch.autograd.grad(sum(found), inputs, allow_unused=True)
        assert all(g is None or (g == 0).all() for g in grads)
        assert choice.get("mix") == "supmix" or all(t.item() == 0 for t in found)


@pytest.mark.parametrize(
    ("option", "typed", "near"),
    [("refine", "cls", "csl"), ("view", "mask", "masked"), ("mix", "supmx", "supmix"), ("mix", "clasmix", "classmix")],
)
def test_wrong_names_are_refused_with_the_nearest_one(name, option, typed, near):
    with pytest.raises(Refusal, match=rf"{option} is '{typed}'\. Did you mean '{near}'\? Expected: ") as refused:
        build(name, "binary", **{option: typed})
    assert refused.value.exit == 2


def test_the_weights_are_those_of_the_rule(name, kind):
    """csl: the separation of the belief, whatever the threshold; confidence: 0 or 1."""
    seen = []
    for options in ({"refine": "csl"}, {"refine": "csl", "threshold": 1.01}, {"threshold": 0.6}):
        method = build(name, kind, **options)
        method.refine = lambda unlabeled, target, clock: (seen.append(target), (unlabeled, target))[1]
        method.step(tiny.labeled(kind), images(name, kind), CLOCK)
    csl, same, confident = seen
    assert torch.equal(csl.weight, separation(csl, tiny.task_of(kind))) and torch.equal(csl.weight, same.weight)
    assert 0 < ((csl.weight > 0) & (csl.weight < 1)).float().mean() < 1
    assert torch.equal(confident.weight, (confident.confidence >= 0.6).float())
    assert not csl.weight.requires_grad


def test_a_choice_says_what_it_cannot_do(name):
    for kind in tiny.KINDS:
        assert ("two classes" in build(name, kind, refine="csl").caveat()) == (kind != "multiclass")
        assert build(name, kind).caveat() == ""


def statistics(method):
    return {k: v.clone() for k, v in method.student.named_buffers() if "running" in k or "num_batches" in k}


def test_a_masked_view_leaves_running_statistics_alone(name, kind):
    """Statistics after a step do not depend on the last view if it is masked, and do otherwise."""
    unlabeled = images(name, kind)
    for view, equal in (("masked", True), ("strong", False)):
        last = len(build(name, kind, view=view).views) - 1
        strong = [1 - v if i == last else v for i, v in enumerate(unlabeled.strong)]
        others = unlabeled.replace(strong=tuple(strong))
        after = []
        for batch in (unlabeled, others):
            method = build(name, kind, view=view)
            method.step(tiny.labeled(kind), batch, CLOCK)
            after.append(statistics(method))
        assert all(torch.equal(after[0][k], after[1][k]) for k in after[0]) == equal
        assert all(m.track_running_stats for m in method.modules() if hasattr(m, "track_running_stats"))


def test_the_masked_view_is_not_pasted_into_and_stands_beside_a_whole_one(name, kind):
    """Loss = mean of a pasted whole view and of the last one with patches hidden, which keeps its own labels."""
    labeled, unlabeled = tiny.labeled(kind), images(name, kind)
    method = build(name, kind, view="masked", pixelwise=True)
    beliefs = []
    method.refine = lambda unlabeled, target, clock: (beliefs.append(target), (unlabeled, target))[1]
    found = method.step(labeled, unlabeled, CLOCK)["strong"]
    pasted, belief = mixed("cutmix", unlabeled.strong[0], beliefs[0], labeled, method.task, CLOCK, "box0")
    shown = mask_view(unlabeled.strong[1], method.student, CLOCK)
    whole = method.task.consistency(method.student(pasted), belief)
    part = method.task.consistency(method.student(shown), beliefs[0])
    assert found.item() == pytest.approx((whole + part).item() / 2, abs=1e-6) and whole.item() != part.item()
    assert len(method.views) == 2 and len(method_class("fixmatch").views) == 1


def test_most_of_a_masked_view_is_one_colour():
    image, network = torch.rand(64, 2, 32, 32), tiny.Pixelwise(2, 2)
    network.mean.copy_(torch.tensor([0.25, 0.75]).view(-1, 1, 1))
    shown = mask_view(image, network, CLOCK)
    hidden = (shown == network.mean).all(1, keepdim=True)
    assert hidden.float().mean().item() == pytest.approx(0.7, abs=0.02)
    assert torch.where(hidden, image, shown).equal(image)


def numbered(kind, n=4, size=12):
    """Images that are their own number, with a belief whose probabilities tell it, too, and half-trusted pixels."""
    label = tiny.truth(kind, n, size, 5)
    number = torch.arange(1.0, n + 1).view(-1, 1, 1, 1)
    k = tiny.task_of(kind).channels
    target = Target(
        number.expand(n, k, size, size) / 10,
        label,
        torch.full((n, 1, size, size), 0.5),
        torch.rand(n, 1, size, size, generator=torch.Generator().manual_seed(0)) < 0.9,
    )
    return number.expand(n, 1, size, size), target


@pytest.mark.parametrize("mix", ["cutmix", "classmix", "supmix"])
def test_image_and_belief_are_pasted_together(kind, mix):
    """Every pixel tells which image it comes from; label, probability, weight and validity come from the same one."""
    image, target = numbered(kind)
    truth = tiny.truth(kind, 2, 12, 6)
    labeled = Labeled(torch.tensor([11.0, 12.0]).view(2, 1, 1, 1).expand(2, 1, 12, 12), truth)
    out, belief = mixed(mix, image, target, labeled, tiny.task_of(kind), CLOCK, "box0")
    sources = set()
    for i in range(4):
        for y in range(12):
            for x in range(12):
                who = int(out[i, 0, y, x])
                sources.add((who - i - 1) % 4 if who < 11 else who)
                at = (who - 1 if who < 11 else who - 11, ..., y, x)
                assert torch.equal(belief.label[i, ..., y, x], (target.label if who < 11 else truth)[at])
                assert (belief.weight[i, :, y, x] == (0.5 if who < 11 else 1)).all()
                assert belief.valid[i, 0, y, x] == (who >= 11 or target.valid[who - 1, 0, y, x])
                if who < 11:
                    assert (belief.prob[i, :, y, x] == target.prob[who - 1, :, y, x]).all()
    assert sources == ({0, 11, 12} if mix == "supmix" else {0, 1})
    streams = [mixed(mix, image, target, labeled, tiny.task_of(kind), CLOCK, f"box{i}")[0] for i in range(8)]
    lone = mix != "cutmix" and kind == "binary"  # a lone class leaves nothing to draw
    assert all(torch.equal(other, out) for other in streams) == lone


@pytest.mark.parametrize("mix", ["cutmix", "classmix", "supmix"])
def test_labels_without_probabilities_are_pasted_alike(kind, mix):
    """A committee's, for a method that has no belief of its own."""
    image, target = numbered(kind)
    labeled, task = tiny.labeled(kind, size=12), tiny.task_of(kind)
    out, belief = mixed(mix, image, target, labeled, task, CLOCK, "box")
    told, alone = mixed(mix, image, target.replace(prob=target.prob[:, :0]), labeled, task, CLOCK, "box")
    assert told.equal(out) and alone.prob.shape[1] == 0
    assert all(getattr(alone, part).equal(getattr(belief, part)) for part in ("label", "weight", "valid"))


def test_disputed_pixels_are_no_class_of_a_committees():
    """They hold class 0 for want of another label, and weight 0: of the classes 1 and 2 one is pasted, always whole."""
    image, target = numbered("multiclass", n=2, size=3)
    label = torch.tensor([[0, 0, 1], [1, 2, 2], [2, 2, 2]]).expand(2, 3, 3)
    target = target.replace(prob=target.prob[:, :0], label=label, weight=(label > 0).float().unsqueeze(1),
                            valid=torch.ones(2, 1, 3, 3).bool())  # fmt: skip
    for stream in "abcdefgh":
        out, _ = mixed("classmix", image, target, tiny.labeled("multiclass"), tiny.task_of("multiclass"), CLOCK, stream)
        for i in range(2):
            own = out[i, 0] == i + 1
            assert own.equal(label[i] == 1) or own.equal(label[i] == 2)


def test_classmix_pastes_half_of_the_classes_onto_the_next_image():
    """An image of classes 0, 1, 2 and padding: one class of three, nowhere else."""
    image, target = numbered("multiclass", n=2, size=3)
    label = torch.tensor([[0, 0, 1], [1, 2, 2], [2, 2, 2]])
    target = target.replace(label=torch.stack([label, label]), valid=torch.ones(2, 1, 3, 3).bool())
    target.valid[:, :, 2] = False
    out, _ = mixed("classmix", image, target, tiny.labeled("multiclass"), tiny.task_of("multiclass"), CLOCK, "box")
    for i in range(2):
        own = out[i, 0] == i + 1
        assert not own[2].any() and own.any() and len(label[own].unique()) == 1
        assert own[:2].equal(label[:2] == label[own][0])


def test_no_mixing_returns_what_came():
    image, target = numbered("binary")
    assert mixed("none", image, target, tiny.labeled("binary"), tiny.task_of("binary"), CLOCK, "box") == (image, target)


def test_selection_never_raises_a_weight(kind):
    task = tiny.task_of(kind)
    target = task.target(torch.randn(3, task.channels, 8, 8), torch.ones(3, 1, 8, 8).bool())
    half = target.replace(weight=target.weight * 0.5)
    for rule in ("confidence", "csl"):
        assert (select(rule, half, task, 0.0).weight <= 0.5).all()
