"""`InconsistencyMask`, the refiner: each of its switches, on each kind of task."""

import pytest
import torch

import tiny
from semiseg.batch import IGNORE, Clock
from semiseg.errors import Refusal
from semiseg.inconsistency import FILLS, InconsistencyMask, inconsistency_mask


def scene(kind, size=8):
    """Unlabeled images with planes, and a method's own belief of random labels and weights."""
    task = tiny.task_of(kind)
    planes = tiny.planes(kind, size=size)
    unlabeled = tiny.unlabeled(kind, size=size, planes=planes)
    g = torch.Generator().manual_seed(1)
    own = task.target(torch.randn(3, task.channels, size, size, generator=g), unlabeled.valid)
    return unlabeled, own.replace(weight=torch.rand(own.weight.shape, generator=g))


def known_label(planes):
    return planes.label.masked_fill(planes.label == IGNORE, 0)


CLOCK = Clock(0, 10)


def test_refine_to_the_consensus(kind):
    unlabeled, own = scene(kind)
    for before in (own, None):
        images, target = InconsistencyMask()(unlabeled, before, CLOCK)
        assert torch.equal(target.weight, unlabeled.planes.agree.float())
        silent = unlabeled.planes.label == IGNORE
        spared = (
            known_label(unlabeled.planes) if before is None else torch.where(silent, own.label, unlabeled.planes.label)
        )
        assert torch.equal(target.label, spared) and target.label.dtype == own.label.dtype
        assert images.strong[0] is unlabeled.strong[0]
        if before is None:  # a supervised student reads labels and weights only
            assert target.prob.shape == (3, 0, 8, 8)
        else:
            assert (tiny.task_of(kind).label(target.prob) == target.label).all()


def test_refine_the_own_belief(kind):
    unlabeled, own = scene(kind)
    _, target = InconsistencyMask(label="own")(unlabeled, own, CLOCK)
    assert torch.equal(target.label, own.label) and torch.equal(target.prob, own.prob)
    assert torch.equal(target.weight, own.weight * unlabeled.planes.agree)


def test_veto_keeps_what_both_say(kind):
    unlabeled, own = scene(kind)
    _, target = InconsistencyMask(label="veto")(unlabeled, own, CLOCK)
    same = unlabeled.planes.label == own.label
    same = same if own.multilabel else same.unsqueeze(1)
    assert torch.equal(target.label, own.label)
    assert torch.equal(target.weight > 0, (own.weight > 0) & unlabeled.planes.agree & same) and same.any()


@pytest.mark.parametrize("label", ["own", "veto"])
def test_weights_are_never_raised(kind, label):
    unlabeled, own = scene(kind)
    _, target = InconsistencyMask(label=label)(unlabeled, own, CLOCK)
    assert (target.weight <= own.weight).all() and (target.weight < own.weight).any()


def test_background_teaches_class_0_where_the_committee_disagrees(kind):
    unlabeled, own = scene(kind)
    _, target = InconsistencyMask(background=True)(unlabeled, own, CLOCK)
    assert (target.weight == 1).all()
    hidden = ~unlabeled.planes.agree
    assert (target.label[hidden.expand_as(target.label) if own.multilabel else hidden[:, 0]] == 0).all()
    mask = target.as_labeled(unlabeled.strong[0])
    assert (mask.mask != IGNORE).all() and (mask.weight == 1).all()


def test_an_extra_class_is_taught_where_the_committee_disagrees():
    unlabeled, _ = scene("multiclass")
    _, target = InconsistencyMask(background=True, extra=3)(unlabeled, None, CLOCK)
    hidden = ~unlabeled.planes.agree[:, 0]
    assert (target.label[hidden] == 3).all() and (target.label[~hidden] < 3).all() and (target.weight == 1).all()


@pytest.mark.parametrize("how", FILLS)
@pytest.mark.parametrize("label", ["consensus", "own"])
def test_fill_touches_every_strong_view_and_only_there(kind, how, label):
    unlabeled, own = scene(kind)
    unlabeled = unlabeled.replace(strong=(unlabeled.strong[0], unlabeled.strong[0] + 0.1))
    images, _ = InconsistencyMask(fill=how, label=label)(unlabeled, own, CLOCK)
    hidden = ~unlabeled.planes.agree
    for before, after in zip(unlabeled.strong, images.strong, strict=True):
        assert torch.equal(before[~hidden], after[~hidden])
        assert (how == "none") == torch.equal(before[hidden], after[hidden])
    assert images.weak is unlabeled.weak and images.planes is unlabeled.planes


def test_share_of_the_steps_and_the_rest():
    unlabeled, own = scene("multiclass")
    used = []
    for step in range(200):
        clock = Clock(step, 200, (3,))
        images, target = InconsistencyMask(share=0.3, fill="zero")(unlabeled, own, clock)
        used.append(target is not own)
        assert used[-1] or images is unlabeled
        _, rest = InconsistencyMask(share=0.3, rest="own")(unlabeled, own, clock)
        assert torch.equal(rest.weight, unlabeled.planes.agree * (1.0 if used[-1] else own.weight))
    assert 0.2 < sum(used) / 200 < 0.4
    again = [InconsistencyMask(share=0.3)(unlabeled, own, Clock(s, 200, (3,)))[1] is not own for s in range(200)]
    assert again == used


def test_per_channel_agreement_keeps_the_agreed_channel():
    unlabeled, own = scene("multilabel")
    votes = torch.stack([tiny.truth("multilabel", 3, 8), tiny.truth("multilabel", 3, 8, 7)])
    made = inconsistency_mask(votes, reduce="channel")
    planes = type(unlabeled.planes)(made.label, made.agree)
    images, target = InconsistencyMask(fill="zero")(unlabeled.replace(planes=planes), own, CLOCK)
    assert torch.equal(target.weight, made.agree.float()) and target.weight.shape[1] == 2
    assert torch.equal(target.label[~made.agree], own.label[~made.agree])
    assert (images.strong[0][made.inconsistent] == 0).all()


def test_without_planes_nothing_changes_and_nothing_to_learn_is_refused():
    unlabeled, own = scene("binary")
    bare = unlabeled.replace(planes=None)
    assert InconsistencyMask(fill="zero")(bare, own, CLOCK) == (bare, own)
    with pytest.raises(Refusal, match="without a consensus"):
        InconsistencyMask()(bare, None, CLOCK)


def test_switches_are_checked():
    for options in ({"label": "mine"}, {"fill": "black"}, {"rest": "some"}, {"share": 1.5}):
        with pytest.raises(Refusal, match=f"is '{next(iter(options.values()))}'") as refused:
            InconsistencyMask(**options)
        assert refused.value.exit == 2
