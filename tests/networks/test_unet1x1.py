import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from semiseg.errors import Refusal
from semiseg.networks import build
from semiseg.networks.base import parameters_count

torch.set_num_threads(1)

COUNTS = [
    (0.5, 3, 1, 171_561, 170_809),
    (0.75, 3, 1, 384_301, 383_173),
    (1.0, 1, 3, 681_683, 680_179),
    (1.0, 3, 9, 681_817, 680_313),
    (1.0, 3, 35, 682_259, 680_755),
    (1.25, 3, 1, 1_063_701, None),
    (1.5, 3, 1, 1_530_361, None),
    (1.75, 3, 9, 2_081_893, None),
    (2.0, 3, 9, 2_717_865, None),
]
"""alpha, channels, classes, numbers with and without moving statistics; counted in the authors' Keras code."""


@pytest.mark.parametrize(("alpha", "channels", "classes", "numbers", "trainable"), COUNTS)
def test_counts_of_the_paper(alpha, channels, classes, numbers, trainable):
    net = build("unet1x1", channels, classes, alpha=alpha)
    assert parameters_count(net) == numbers
    assert trainable is None or parameters_count(net, statistics=False) == trainable


def reference(x, layers):
    """unet.py of the paper, written down once more as functions; `layers` in the order of use."""
    convs = (m for m in layers if isinstance(m, nn.Conv2d))
    norms = (m for m in layers if isinstance(m, nn.BatchNorm2d))

    def conv(x, kernel):
        layer = next(convs)
        assert layer.kernel_size == (kernel, kernel)
        return F.relu(F.conv2d(x, layer.weight, layer.bias, padding=kernel // 2))

    def norm(x):
        n = next(norms)
        scale = n.weight / torch.sqrt(n.running_var + 1e-3)
        return x * scale.view(1, -1, 1, 1) + (n.bias - n.running_mean * scale).view(1, -1, 1, 1)

    def block(x):
        return norm(conv(conv(x, 3), 1))

    x = norm(conv(x, 1))
    skips = []
    for _ in range(4):
        skips.append(block(x))
        x = F.max_pool2d(skips[-1], 2)
    x = block(x)
    for skip in reversed(skips):
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3) + skip
        x = block(norm(conv(x, 1)))
    last = next(convs)
    assert next(convs, None) is None and next(norms, None) is None
    return F.conv2d(x, last.weight, last.bias)


def test_forward_is_the_papers():
    torch.manual_seed(0)
    net = build("unet1x1", 3, 2).eval()
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            for values in (m.weight, m.bias, m.running_mean, m.running_var):
                nn.init.uniform_(values, 0.5, 1.5)
    x = torch.rand(2, 3, 32, 48)
    assert torch.allclose(net(x), reference(x, list(net.modules())), atol=1e-4, rtol=1e-4)


def test_initial_weights_are_keras_he_normal():
    torch.manual_seed(0)
    convs = [m for m in build("unet1x1", 3, 35, alpha=2.0).modules() if isinstance(m, nn.Conv2d)]
    for m in convs:
        wanted = math.sqrt(2.0 / (m.in_channels * m.kernel_size[0] ** 2))
        assert m.weight.abs().max() <= 2 * wanted / 0.8796
        assert m.bias.abs().max() == 0
        if m.weight.numel() > 1000:
            assert m.weight.std().item() == pytest.approx(wanted, rel=0.06)
    assert convs[-1].weight.numel() > 1000  # the head is among them


def test_norms_have_the_defaults_of_keras():
    norms = [m for m in build("unet1x1", 3, 1).modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 14 and {(m.eps, m.momentum) for m in norms} == {(1e-3, 0.1)}


def test_levels_decoder_map_and_head():
    net = build("unet1x1:1.0", 3, 4)
    features = net.encode(torch.rand(1, 3, 20, 40))
    assert [tuple(x.shape[1:]) for x in features.levels] == [
        (16, 32, 48), (32, 16, 24), (64, 8, 12), (128, 4, 6), (128, 2, 3),
    ]  # fmt: skip
    assert net.level_channels == tuple(x.shape[1] for x in features.levels)
    decoded = net.decode(features)
    assert decoded.shape == (1, net.decoded_channels, 32, 48) and net.head(decoded).shape == (1, 4, 32, 48)
    assert torch.equal(net.mean, torch.zeros(1, 3, 1, 1)) and torch.equal(net.std, torch.ones(1, 3, 1, 1))


def test_every_parameter_learns():
    net = build("unet1x1", 1, 3)
    net(torch.rand(2, 1, 16, 16)).square().mean().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_width_by_suffix_and_by_keyword():
    assert build("unet1x1:0.75", 3, 1).alpha == 0.75 and build("unet1x1", 3, 1).alpha == 0.5
    assert build("unet1x1:0.75", 3, 1, alpha=1.5).alpha == 1.5


@pytest.mark.parametrize("name", ["unet1x1:x", "unet1x1:0.01", "unet1x1:nan", "unet1x1:"])
def test_a_width_that_is_none(name):
    with pytest.raises(Refusal, match=r"a number between 0\.0625 and 64") as caught:
        build(name, 3, 1)
    assert caught.value.exit == 2


def test_what_it_has_not():
    with pytest.raises(Refusal, match="unet1x1 has no public pretrained weights"):
        build("unet1x1", 3, 1, pretrained=True)
    with pytest.raises(Refusal, match="has no option depth"):
        build("unet1x1", 3, 1, depth=3)
