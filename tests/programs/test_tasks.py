"""The extra class and the weighted label: the authors' losses in plain loops, and predictions that know nothing of them."""

import math

import pytest
import torch
from torch import nn

from semiseg.batch import IGNORE, Labeled
from semiseg.programs._tasks import ExtraClass, Weighted
from semiseg.task import Multiclass, Multilabel


def sample(k=3, most=4):
    g = torch.Generator().manual_seed(1)
    mask = torch.randint(most, (2, 4, 4), generator=g)
    mask[0, 0, 0] = IGNORE
    return torch.randn(2, k, 4, 4, generator=g), mask


def test_the_extra_class_is_a_softmax_over_one_more_logit():
    """Mean over known pixels of -log softmax over K + 1 logits, the last one 0, at labels 0..K."""
    logits, mask = sample()
    total = count = 0
    for i, y, x in ((i, y, x) for i in range(2) for y in range(4) for x in range(4) if mask[i, y, x] != IGNORE):
        z = [*logits[i, :, y, x].tolist(), 0.0]
        total += math.log(sum(map(math.exp, z))) - z[mask[i, y, x]]
        count += 1
    task, image = ExtraClass("abc", "ce"), torch.zeros(2, 1, 4, 4)
    assert task.supervised(logits, Labeled(image, mask)).item() == pytest.approx(total / count, abs=1e-6)
    assert task.loss_map(logits, mask).sum().item() == pytest.approx(total, abs=1e-5)
    for loss in ("mse", "ce+dice"):
        wide = Multiclass("abcd", loss).supervised(
            torch.cat([logits, torch.zeros(2, 1, 4, 4)], 1), Labeled(image, mask)
        )
        assert ExtraClass("abc", loss).supervised(logits, Labeled(image, mask)).item() == pytest.approx(wide.item())


def test_k_logits_express_what_one_more_can():
    """A shift of all K + 1 logits changes no probability: subtracting the last gives ours."""
    g = torch.Generator().manual_seed(2)
    wide, (_, mask) = torch.randn(2, 4, 4, 4, generator=g), sample()
    labeled = Labeled(torch.zeros(2, 1, 4, 4), mask)
    theirs = Multiclass("abcd", "ce").supervised(wide, labeled)
    ours = ExtraClass("abc", "ce").supervised(wide[:, :3] - wide[:, 3:], labeled)
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)


def test_nothing_predicts_the_extra_class():
    logits = torch.full((1, 3, 2, 2), -9.0)  # the extra class is by far the likeliest
    task = ExtraClass("abc", "ce")
    assert task.channels == 3 and task.label(task.prob(logits)).max() < 3
    metrics = task.metrics()
    metrics.update(torch.zeros(2, 2).long(), torch.zeros(2, 2).long())
    assert set(metrics.compute()["per_class"]) == {"a", "b", "c"}


def test_it_can_be_learned():
    torch.manual_seed(0)
    net, task = nn.Conv2d(1, 2, 1), ExtraClass("ab", "ce")
    image = torch.tensor([0.0, 1.0, 2.0]).repeat(2).view(1, 1, 2, 3)
    mask = torch.tensor([0, 1, 2]).repeat(2).view(1, 2, 3)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    for _ in range(400):
        loss = task.supervised(net(image), Labeled(image, mask))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    wide = torch.cat([net(image), torch.zeros(1, 1, 2, 3)], 1)
    assert torch.equal(wide.argmax(1), mask) and loss.item() < 0.3


@pytest.mark.parametrize("loss", ["mse", "ce"])
def test_a_weighted_label(loss):
    """Three times the squared error (or cross-entropy) of the second label, divided by the same number of elements."""
    g = torch.Generator().manual_seed(3)
    logits, mask = torch.randn(2, 2, 4, 4, generator=g), torch.randint(2, (2, 2, 4, 4), generator=g).to(torch.uint8)
    mask[0, 1, 0, 0] = IGNORE
    total = count = 0
    for place in torch.ones_like(mask).nonzero().tolist():
        i, k, y, x = place
        if mask[i, k, y, x] == IGNORE:
            continue
        p, t = 1 / (1 + math.exp(-logits[i, k, y, x])), int(mask[i, k, y, x])
        error = (p - t) ** 2 if loss == "mse" else -math.log(p if t else 1 - p)
        total += (3 if k == 1 else 1) * error
        count += 1
    labeled = Labeled(torch.zeros(2, 1, 4, 4), mask)
    got = Weighted(["a", "position"], loss, [1, 3]).supervised(logits, labeled).item()
    assert got == pytest.approx(total / count, abs=1e-5)
    assert abs(got - Multilabel(["a", "position"], loss).supervised(logits, labeled).item()) > 0.05
    half = Labeled(labeled.image, mask, torch.full((2, 1, 4, 4), 0.5))
    halved = Weighted(["a", "position"], loss, [1, 3]).supervised(logits, half).item()
    assert halved == pytest.approx(got / 2, abs=1e-6)
