"""Dropout of channels: what is touched, what is scaled, and who gets which channel."""

import pytest
import torch

from semiseg.batch import generator_of
from semiseg.errors import Refusal
from semiseg.networks import build
from semiseg.networks.base import Features
from semiseg.networks.perturb import channel_dropout, chosen_levels, complementary_dropout


def ones(n, channels=(4, 6, 6), side=16):
    """Features that are 1 everywhere, of strides 2, 4, 8, … of an image."""
    levels = [torch.ones(n, c, side // 2**i, side // 2**i) for i, c in enumerate(channels)]
    return Features(levels, (2 * side, 2 * side), (2 * side, 2 * side), {"input": torch.ones(n, 1, 2 * side, 2 * side)})


def masks(features):
    """One number per image and channel; constant over the pixels of a level."""
    for level in features.levels:
        assert (level == level[..., :1, :1]).all()
    return [level[..., 0, 0] for level in features.levels]


def draw(seed=0):
    return generator_of("perturb", seed)


def test_names_of_levels():
    features = ones(1, (4, 4, 4, 4))
    assert chosen_levels(features, "ends") == {1, 3}  # stride 4 and the deepest
    assert chosen_levels(features, "deepest") == {3}
    assert chosen_levels(features, "all") == {0, 1, 2, 3}
    assert chosen_levels(ones(1, (4,)), "ends") == {0}
    with pytest.raises(Refusal, match="ends or deepest or all"):
        chosen_levels(features, "first")


def test_whole_channels_of_the_chosen_levels_are_dropped_and_the_others_scaled():
    before = ones(8, (32, 32, 64))
    fine, middle, deep = masks(channel_dropout(before, draw(), p=0.25))
    assert (fine == 1).all() and all((level == 1).all() for level in before.levels)
    for mask in (middle, deep):
        assert mask.unique().tolist() == [0.0, pytest.approx(1 / 0.75)]
        assert (mask == 0).float().mean().item() == pytest.approx(0.25, abs=0.08)
    assert not torch.equal(middle, deep[:, :32]) and not torch.equal(middle[0], middle[1])


def test_no_and_full_dropout():
    features = ones(2)
    same = channel_dropout(features, draw(), p=0)
    assert all(torch.equal(a, b) for a, b in zip(same.levels, features.levels, strict=True))
    assert all((m == 0).all() for m in masks(channel_dropout(features, draw(), p=1, levels="all")))


@pytest.mark.parametrize(("pairs", "alone"), [(1, 0), (2, 1), (3, 1), (5, 2), (8, 4)])
def test_two_views_share_the_channels(pairs, alone):
    """Each channel reaches one view, doubled; int(n/2) of the pairs are left alone."""
    for mask in masks(complementary_dropout(ones(2 * pairs, (16, 24)), draw(pairs))):
        first, second = mask.chunk(2)
        assert (first + second == 2).all()
        whole = (first == 1).all(1)
        assert whole.sum() == alone and ((first == 0) | (first == 2))[~whole].all()


def test_levels_of_equal_width_share_a_mask_and_all_the_pairs_left_alone():
    narrow, wide, wide_too = masks(complementary_dropout(ones(8, (6, 32, 32)), draw()))
    assert torch.equal(wide, wide_too) and not torch.equal(narrow, wide[:, :6])
    assert torch.equal((narrow == 1).all(1), (wide == 1).all(1))
    assert (wide[:4] == 2).float().mean().item() == pytest.approx(
        0.25, abs=0.12
    )  # half of the pairs, half of the channels


def test_spared_share_draws_and_the_rest():
    assert all((m == 1).all() for m in masks(complementary_dropout(ones(6), draw(), spared=1.0)))
    assert not any((m == 1).any() for m in masks(complementary_dropout(ones(6), draw(), spared=0.0)))
    features = ones(6)
    a, b, c = (masks(complementary_dropout(features, draw(seed))) for seed in (1, 1, 2))
    assert torch.equal(torch.cat(a, 1), torch.cat(b, 1)) and not torch.equal(torch.cat(a, 1), torch.cat(c, 1))
    assert torch.equal(complementary_dropout(features, draw()).rest["input"], features.rest["input"])
    with pytest.raises(ValueError, match="two views of each image expected, got 3"):
        complementary_dropout(ones(3), draw())


def test_on_a_network():
    torch.manual_seed(0)
    net = build("unet1x1:0.25", 1, 3).eval()
    x = torch.rand(1, 1, 24, 20)
    with torch.no_grad():
        features = net.encode(torch.cat([x, x]))
        plain = net.logits(features)
        for dropped in (complementary_dropout(features, draw()), channel_dropout(features, draw())):
            logits = net.logits(dropped)
            assert logits.shape == plain.shape and not torch.allclose(logits, plain)
        pair = net.logits(complementary_dropout(features, draw()))
    assert not torch.allclose(pair[0], pair[1])
