"""Options that may be set, and what they come to."""

import pytest
import torch

import tiny
from semiseg.batch import Clock
from semiseg.errors import Refusal
from semiseg.methods import method_class
from semiseg.methods.segkc import larger


@pytest.mark.parametrize("names", [("a", "b"), ("a", "b", "c")])
def test_crossmatch_without_background_counts_where_labels_are_on(names):
    """Dice of overlapping labels by hand: each label's foreground alone, weighed by that label."""
    from semiseg.task import Multilabel

    task = Multilabel(names)
    method = method_class("crossmatch")(tiny.make_of(task), task, background=False, threshold=0.0)
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(2, len(names), 4, 4, generator=g)
    target = task.target(torch.randn(2, len(names), 4, 4, generator=g), torch.ones(2, 1, 4, 4, dtype=torch.bool))
    target = target.replace(weight=torch.rand(2, len(names), 4, 4, generator=g))
    from semiseg import losses

    prob, truth = logits.sigmoid(), target.label.float()
    flat = [x.reshape(2, -1, 4, 4) for x in (prob, truth, target.weight)]
    want = losses.squared_dice_loss(*flat, absent=method.absent)
    torch.testing.assert_close(method.dice(logits, target), want)


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_crossmatch_without_background_takes_a_step(kind):
    task = tiny.task_of(kind)
    method = method_class("crossmatch")(tiny.make_of(task), task, background=False, threshold=0.0)
    losses = method.step(tiny.labeled(kind), tiny.unlabeled(kind, views=2), Clock(9, 10))
    assert losses["loss"].isfinite()


def test_csl_hides_cells_of_some_size():
    task = tiny.task_of("binary")
    with pytest.raises(Refusal, match="side is 0"):
        method_class("csl")(tiny.make_of(task), task, side=0)


@pytest.mark.parametrize("name", ["fixmatch", "unimatch"])
def test_classes_that_nothing_pastes_are_refused(name):
    task = tiny.task_of("multiclass")
    chosen = task.names[-1]
    with pytest.raises(Refusal, match="classes names classes, which mix=cutmix does not paste"):
        method_class(name)(tiny.make_of(task), task, classes=chosen, mix="cutmix")
    assert method_class(name)(tiny.make_of(task), task, classes=chosen, mix="supmix").classes


@pytest.mark.parametrize("name", ["cps", "fpl"])
def test_a_single_clean_image_goes_with_the_labeled_ones(name):
    """What is counted is what two networks are sent."""
    task = tiny.task_of("multiclass")
    method = method_class(name)(tiny.make_of(task), task)
    sent = []
    for net in (method.student, method.second):
        net.register_forward_pre_hook(lambda _, x: sent.append(len(x[0])))
    known = tiny.labeled("multiclass")
    for count in (1, 2):
        sent.clear()
        other = tiny.unlabeled("multiclass")
        cut = type(other)(other.weak[:count], tuple(s[:count] for s in other.strong), other.valid[:count], None)
        method.step(known, cut, Clock(0, 10))
        assert sum(sent) == method.images_per_step(len(known.image), count)


def test_a_senior_has_the_head_of_its_size():
    class Named(torch.nn.Module):
        name = "dpt:64/vit_small_patch14_dinov2"

    assert larger(Named()) == "dpt:128/vit_base_patch14_dinov2"
