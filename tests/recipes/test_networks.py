"""Each network that a recipe names answers, as large as it is; without weights, on two small images."""

from pathlib import Path

import pytest
import torch

from semiseg.networks import build
from semiseg.training.recipe import read_recipe

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
NAMES = sorted({found[key] for found in map(read_recipe, RECIPES) for key in ("network", "senior") if key in found})


def test_all_are_looked_at():
    assert {name.partition("/")[0] for name in NAMES} >= {"deeplabv3plus:16", "deeplabv3plus:8", "dpt:64", "dpt:256"}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_answers(name):
    torch.manual_seed(0)
    net = build(name, 3, 21).eval()
    images = torch.rand(2, 3, 45, 30) * torch.tensor([1, 0.2]).view(2, 1, 1, 1)  # no multiple of any stride
    with torch.no_grad():
        features = net.encode(images)
        logits = net.resize(net.head(net.decode(features)), features)
        alone = net(images[1:])
    assert logits.shape == (2, 21, 45, 30) and logits.isfinite().all()
    scale = logits.std().item()  # 0.03 to 30 in networks that have learned nothing
    assert torch.allclose(alone, logits[1:], atol=1e-4 * scale, rtol=1e-4)  # in eval mode no image sees another
    for varied in (logits[0] - logits[1], logits.diff(dim=1), logits.diff(dim=2), logits.diff(dim=3)):
        assert varied.abs().max() > 1e-3 * scale > 0
