import copy

import pytest
import torch
from torch import nn

from semiseg.networks import build
from semiseg.networks.base import Features, batch_stats, parameters_count

torch.set_num_threads(1)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return build("unet1x1:0.25", 2, 3, mean=[0.2, 0.6], std=[0.5, 2.0])


def statistics(net):
    return {k: v.clone() for k, v in net.state_dict().items() if "running" in k or "num_batches" in k}


def same(a, b):
    return all(torch.equal(a[k], b[k]) for k in a)


def test_forward_is_encode_and_logits(net):
    x = torch.rand(2, 2, 37, 21)
    assert torch.equal(net.eval()(x), net.logits(net.encode(x)))
    assert net(x).shape == (2, 3, 37, 21)


def test_every_size_down_to_one_pixel(net):
    for size in [(1, 1), (1, 40), (15, 17), (16, 32)]:
        assert net.eval()(torch.rand(1, 2, *size)).shape[-2:] == size


def test_padding_repeats_the_last_row_and_column(net):
    x = torch.rand(1, 2, 30, 20)
    padded = torch.nn.functional.pad(x, (0, 12, 0, 2), mode="replicate")
    assert torch.equal(net.eval()(x), net(padded)[..., :30, :20])


def test_another_size_on_demand(net):
    features = net.eval().encode(torch.rand(1, 2, 30, 20))
    assert net.logits(features, (60, 45)).shape == (1, 3, 60, 45)
    assert torch.equal(net.logits(features, (30, 20)), net.logits(features))


def test_normalises_inside(net):
    plain = build("unet1x1:0.25", 2, 3)
    plain.load_state_dict({**net.state_dict(), "mean": torch.zeros(1, 2, 1, 1), "std": torch.ones(1, 2, 1, 1)})
    x = torch.rand(1, 2, 16, 16)
    by_hand = (x - torch.tensor([0.2, 0.6]).view(1, 2, 1, 1)) / torch.tensor([0.5, 2.0]).view(1, 2, 1, 1)
    assert torch.allclose(net.eval()(x), plain.eval()(by_hand), atol=1e-6)


def test_wrong_input_is_named(net):
    with pytest.raises(ValueError, match=r"images \(B,2,H,W\) expected, got \(1, 3, 16, 16\)"):
        net(torch.rand(1, 3, 16, 16))
    with pytest.raises(ValueError, match="2 numbers expected"):
        build("unet1x1", 2, 1, mean=[0.5])
    with pytest.raises(ValueError, match="std must be positive"):
        build("unet1x1", 2, 1, std=[0.5, 0.0])


def test_features_slice_join_and_map(net):
    x = torch.rand(5, 2, 32, 16)
    net.eval()
    features = net.encode(x)
    whole = net.logits(features)
    assert len(features) == 5
    assert torch.allclose(net.logits(features[2:]), whole[2:], atol=1e-6)
    assert torch.allclose(net.logits(features[torch.tensor([4, 0])]), whole[[4, 0]], atol=1e-6)
    assert torch.allclose(net.logits(Features.cat([features[:2], features[2:]])), whole, atol=1e-6)
    assert torch.equal(net.logits(features.map(lambda i, level: level)), whole)
    seen = []
    dropped = features.map(lambda i, level: seen.append(i) or level * (i != 4))
    assert seen == [0, 1, 2, 3, 4]
    assert not torch.allclose(net.logits(dropped), whole)
    assert torch.equal(net.logits(features), whole)  # the first features were not changed by anything above
    assert not any(level.requires_grad for level in features.detach().levels)


def test_features_of_other_sizes_do_not_join(net):
    net.eval()
    with pytest.raises(ValueError, match="features of one size"):
        Features.cat([net.encode(torch.rand(1, 2, 16, 16)), net.encode(torch.rand(1, 2, 16, 15))])


def test_rest_is_sliced_and_joined_with_the_levels():
    f = Features([torch.arange(3.0).view(3, 1)], (1, 1), (1, 1), {"token0": torch.arange(3.0)})
    assert f[1:].rest["token0"].tolist() == [1.0, 2.0]
    assert Features.cat([f, f[:1]]).rest["token0"].tolist() == [0.0, 1.0, 2.0, 0.0]


def test_batch_stats_leaves_running_statistics_alone(net):
    x = torch.rand(4, 2, 16, 16)
    before = statistics(net)
    with batch_stats(net.train()):
        quiet = net(x)
    assert same(before, statistics(net))
    loud = net(x)
    assert torch.equal(quiet, loud)
    assert not same(before, statistics(net))


def test_batch_stats_of_an_eval_teacher(net):
    x = torch.rand(4, 2, 16, 16)
    by_running = net.eval()(x)
    before = statistics(net)
    with batch_stats(net, use_batch=True):
        by_batch = net(x)
    assert same(before, statistics(net)) and not net.encoder.stem[2].training
    assert torch.equal(net(x), by_running)
    with batch_stats(net):
        assert torch.equal(net(x), by_running)
    assert torch.equal(net.train()(x), by_batch) and not torch.allclose(by_batch, by_running)


def test_a_frozen_encoder_normalises_as_it_always_does(net):
    x = torch.rand(4, 2, 16, 16)
    own = net.freeze().eval().encode(x).levels[-1]
    by_running = net(x)
    with batch_stats(net, use_batch=True):
        assert net.encode(x).levels[-1].equal(own) and not net(x).equal(by_running)


def test_batch_stats_tracks_when_asked_and_restores_after_an_error(net):
    before = statistics(net)
    with batch_stats(net.eval(), track=True, use_batch=True):
        net(torch.rand(4, 2, 16, 16))
    assert not same(before, statistics(net))
    with pytest.raises(ZeroDivisionError), batch_stats(net.train()):
        _ = 1 / 0
    assert all(m.track_running_stats and m.training for m in net.modules() if isinstance(m, nn.BatchNorm2d))


def test_a_frozen_encoder_stays_as_it_is(net):
    before = {k: v.clone() for k, v in net.backbone().state_dict().items()}
    copied = copy.deepcopy(net.freeze())
    for frozen in (net, copied):
        optimizer = torch.optim.AdamW([p for p in frozen.parameters() if p.requires_grad], lr=0.1)
        head = frozen.last.weight.clone()
        frozen.train()
        frozen(torch.rand(4, 2, 16, 16)).sum().backward()
        optimizer.step()
        after = frozen.backbone().state_dict()
        assert all(torch.equal(after[k], v) for k, v in before.items()) and not torch.equal(frozen.last.weight, head)
        assert not any(m.training for m in frozen.backbone().modules())
        assert all(m.training for m in frozen.ups.modules())
        assert not frozen.eval().ups.training


def test_parameters_count_excludes_what_is_not_learned():
    module = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
    assert parameters_count(module, statistics=False) == 2 * 3 + 3 + 3 + 3
    assert parameters_count(module) == parameters_count(module, statistics=False) + 3 + 3


def test_same_seed_same_network():
    def states():
        torch.manual_seed(7)
        return build("unet1x1", 3, 1).state_dict()

    a, b = states(), states()
    assert all(torch.equal(a[k], b[k]) for k in a)
