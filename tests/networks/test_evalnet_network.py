"""EvalNet: the paper's parameter counts, two heads for several classes, images of any size."""

import pytest
import torch

from semiseg.networks.base import parameters_count
from semiseg.networks.evalnet import EvalNet

PAPER = [(3, 1, 1.0, 492_353), (1, 3, 2.0, 1_964_678), (3, 9, 2.0, 1_971_090), (3, 35, 2.0, 1_998_598)]


@pytest.mark.parametrize(("channels", "classes", "alpha", "count"), PAPER)
def test_the_papers_parameter_counts(channels, classes, alpha, count):
    assert parameters_count(EvalNet(channels, classes, alpha)) == count


@pytest.mark.parametrize("size", [(64, 64), (24, 40), (5, 7)])
def test_any_size(size):
    torch.manual_seed(0)
    one, many = EvalNet(1, 1, 0.25).eval(), EvalNet(3, 4, 0.25).eval()
    iou, seen = one(torch.rand(2, 1, *size), torch.ones(2, 1, *size))
    assert iou.shape == (2, 1) and seen is None
    iou, seen = many(torch.rand(2, 3, *size), torch.ones(2, 4, *size))
    assert iou.shape == seen.shape == (2, 4)


def test_both_inputs_matter():
    torch.manual_seed(0)
    net = EvalNet(1, 1, 0.25).eval()
    image, mask = torch.rand(1, 1, 64, 64), (torch.rand(1, 1, 64, 64) > 0.5).float()
    values = [net(*pair)[0].item() for pair in ((image, mask), (1 - image, mask), (image, 1 - mask))]
    assert len(set(values)) == 3
