"""CSL and CrossMatch label the weak view in train mode, as their authors do, or in eval mode."""

import pytest
import torch

import tiny
from semiseg.batch import Clock
from semiseg.errors import Refusal
from semiseg.methods import method_class
from semiseg.networks.base import evaluating

CLOCK = Clock(3, 10, (7,))


@pytest.mark.parametrize("name", ["csl", "crossmatch"])
def test_labels_come_from_the_mode_that_is_asked_for(name, kind):
    task, unlabeled = tiny.task_of(kind), tiny.unlabeled(kind, views=2)
    probs = {}
    for mode in ("train", "eval"):
        torch.manual_seed(0)
        method = method_class(name)(tiny.make_of(task), task, believed=mode).train()
        method.student(unlabeled.strong[0])  # running statistics that are not those of a new network
        for module in method.student.modules():
            if hasattr(module, "momentum"):
                module.momentum = 0.0  # and stay what they are
        with torch.no_grad(), evaluating(method.student):
            want = task.prob(method.student(unlabeled.weak))
        seen = []
        method.refine = lambda unlabeled, target, clock, seen=seen: (seen.append(target), (unlabeled, target))[1]
        method.step(tiny.labeled(kind), unlabeled, CLOCK)["loss"].backward()
        probs[mode] = seen[0].prob
        assert torch.allclose(seen[0].prob, want, atol=1e-6) == (mode == "eval")
        assert all(m.training for m in method.student.modules())
        assert method.images_per_step(4, 6) == (4 + 24 if mode == "eval" else 4 + 18)
    assert not torch.equal(probs["train"], probs["eval"])


@pytest.mark.parametrize("name", ["csl", "crossmatch"])
def test_other_modes_are_refused(name):
    task = tiny.task_of("binary")
    with pytest.raises(Refusal, match=r"believed is 'evl'\. Did you mean 'eval'"):
        method_class(name)(tiny.make_of(task), task, believed="evl")
