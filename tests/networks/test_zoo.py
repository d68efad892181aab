import re

import pytest
import torch
from torch.nn import functional as F

from semiseg.errors import Refusal
from semiseg.networks import ARCHITECTURES, build
from semiseg.networks.base import Features, batch_stats

torch.set_num_threads(1)

SMALL_DPT = {"decoder_intermediate_channels": (8, 12, 16, 16), "decoder_fusion_channels": 16}
ENCODERS = ("resnet18", "mobilenetv3_small_100", "mit_b0", "vit_tiny_patch16_224")
REFUSED = {
    "unetplusplus/mit_b0": "cannot be built .*mit_b0",
    "linknet/mit_b0": "cannot be built .*mit_b0",
    "dpt/mit_b0": "dpt takes encoders of timm",
    **{f"{a}/vit_tiny_patch16_224": "cannot be built .*downsampling pattern" for a in ARCHITECTURES if a != "dpt"},
}
"""Every combination of the matrix that does not exist, and why; everything else must work."""
PAIRS = [f"{arch}/{encoder}" for arch in ARCHITECTURES for encoder in ENCODERS]
WORKING = [pair for pair in PAIRS if pair not in REFUSED]
STRIDE8 = [pair.replace("plus/", "plus:8/") for pair in WORKING if pair.startswith("deeplabv3plus/")]
FAST = [
    ("unet/mobilenetv3_small_100", 1), ("unetplusplus/mobilenetv3_small_100", 3), ("manet/mit_b0", 5),
    ("linknet/resnet18", 1), ("fpn/mit_b0", 3), ("pspnet/mit_b0", 1), ("deeplabv3/mobilenetv3_small_100", 5),
    ("deeplabv3plus/resnet18", 3), ("deeplabv3plus:8/mobilenetv3_small_100", 5), ("pan/mobilenetv3_small_100", 1),
    ("upernet/mit_b0", 5), ("segformer/mit_b0", 3), ("dpt/vit_tiny_patch16_224", 5),
]  # fmt: skip
assert {re.split("[:/]", name)[0] for name, _ in FAST} == set(ARCHITECTURES)


def check(name, channels):
    """The split adds up to smp's own forward, whatever the size, and a decoder changes nothing it is given."""
    torch.manual_seed(0)
    mean, std = [0.1 * (i + 1) for i in range(channels)], [0.2 + 0.1 * i for i in range(channels)]
    options = SMALL_DPT if name.startswith("dpt/") else {}
    net = build(name, channels, 3, mean=mean, std=std, **options).eval()
    own = net.model  # its forward is smp's, untouched
    with torch.no_grad():
        unit = 2 if net.dpt else 1  # smp's DPT wants an even number of patches
        divisible = torch.rand(2, channels, unit * (net.least + net.stride), unit * net.least)
        assert torch.allclose(net(divisible), own((divisible - net.mean) / net.std), atol=1e-6, rtol=1e-6)
        x = torch.rand(2, channels, 50, 90)
        features = net.encode(x)
        logits = net.logits(features)
        assert logits.shape == (2, 3, 50, 90)
        assert torch.equal(net(x), logits) and torch.equal(net.logits(features), logits)
        height, width = features.padded
        assert height % net.stride == width % net.stride == 0 and height >= 50 and width >= 90
        padded = F.pad((x - net.mean) / net.std, (0, width - 90, 0, height - 50), mode="replicate")
        assert torch.allclose(logits, own(padded)[..., :50, :90], atol=1e-6, rtol=1e-6)
        parts = net.logits(Features.cat([features[1:], features[:1]]))
        assert torch.allclose(parts, logits[[1, 0]], atol=1e-5, rtol=1e-4)
        assert not torch.allclose(net.logits(features.map(lambda i, level: level * 0)), logits)
    assert net.level_channels == tuple(level.shape[1] for level in features.levels)
    assert net.decode(features).shape[1] == net.decoded_channels
    assert all(level.shape[1] > 0 and level.shape[1] != channels for level in features.levels)


@pytest.mark.parametrize(("name", "channels"), FAST)
def test_split_adds_up(name, channels):
    check(name, channels)


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("name", [*WORKING, *STRIDE8])
def test_split_adds_up_everywhere(name, channels):
    check(name, channels)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_does_not_exist_says_so_and_offers_what_does(name):
    with pytest.raises(Refusal, match=REFUSED[name]) as caught:
        build(name, 3, 2)
    assert caught.value.exit == 2 and len(caught.value.problems) == 1
    text = str(caught.value)
    assert text.startswith(f"C01: network {name} ") and "\n" not in text
    offered = re.findall(r"[a-z0-9]+/[A-Za-z0-9_]+", text.partition("Fix: ")[2])
    assert offered and all(pair in WORKING for pair in offered)


def test_an_encoder_of_fixed_size_is_refused():
    with pytest.raises(Refusal, match=r"does not run on images of any size .*window.*Fix: use unet/resnet18\.$"):
        build("unet/maxvit_pico_rw_256", 3, 1)


def test_patches_of_14_pixels():
    torch.manual_seed(0)
    net = build("dpt/vit_tiny_patch16_224", 3, 2, patch_size=14, **SMALL_DPT).eval()
    assert net.stride == 14 and net.rebuilt
    kernels = [getattr(b.upsample, "kernel_size", None) for b in net.model.decoder.reassemble_blocks]
    assert kernels[0] == (4, 4) and kernels[1] == (2, 2) and kernels[3] == (3, 3)
    assert net(torch.rand(1, 3, 30, 57)).shape == (1, 2, 30, 57)


@pytest.mark.parametrize(
    ("name", "stride", "encoder", "head"),
    [
        ("dpt:64/vit_small_patch14_dinov2.lvd142m", 14, 22.1, 2.74),
        ("dpt:64/vit_small_patch14_reg4_dinov2", 14, 22.1, 2.74),
        ("dpt:64/vit_small_patch16_dinov3", 16, 21.6, 2.74),
    ],
)
def test_dpt_over_dino(name, stride, encoder, head):
    """The heads of UniMatch V2 have 2.74 M parameters over DINOv2-S (24.8 M in all) and 21 classes."""
    torch.manual_seed(0)
    net = build(name, 3, 21).eval()
    counts = [sum(p.numel() for p in part.parameters()) / 1e6 for part in (net.backbone(), net)]
    assert counts[0] == pytest.approx(encoder, abs=0.05) and counts[1] - counts[0] == pytest.approx(head, abs=0.005)
    assert net.stride == net.least == stride
    norms = (torch.nn.BatchNorm2d, torch.nn.Dropout)
    assert not any(isinstance(m, norms) for part in (net.model.decoder, net.model.segmentation_head)
                   for m in part.modules())  # fmt: skip
    x = torch.rand(2, 3, 3 * stride, stride + 1)  # an odd number of patches, and a side that is no multiple
    with torch.no_grad():
        features = net.encode(x)
        assert features.padded == (3 * stride, 2 * stride)
        assert [tuple(level.shape) for level in features.levels] == [(2, 384, 3, 2)] * 4
        logits = net.logits(features)
        assert logits.shape == (2, 21, 3 * stride, stride + 1) and torch.equal(net(x), logits)
        # the last norm of the encoder has been applied: at its start it leaves mean 0 and variance 1 in every patch
        assert all(level.mean(1).abs().max() < 1e-4 for level in features.levels)
        assert all((level.var(1, unbiased=False) - 1).abs().max() < 1e-2 for level in features.levels)
    assert logits.std() > 0 and not torch.allclose(logits[0], logits[1])


def test_a_crop_of_37_patches_is_not_padded():
    """518 px and 798 px are the crops of UniMatch V2; 37 and 57 patches are odd."""
    net = build("dpt:64/vit_tiny_patch16_224", 3, 2, patch_size=14)
    assert [net._padding(length) for length in (518, 798, 519, 7)] == [0, 0, 13, 7]
    assert build("dpt/vit_tiny_patch16_dinov3_qkvb", 3, 2, **SMALL_DPT).stride == 16


@pytest.mark.parametrize(
    ("name", "stride", "rates"), [("", 16, (6, 12, 18)), (":16", 16, (6, 12, 18)), (":8", 8, (12, 24, 36))]
)
def test_deeplab_over_a_deep_stem(name, stride, rates):
    torch.manual_seed(0)
    net = build(f"deeplabv3plus{name}/resnet50s.gluon_in1k", 3, 21).eval()
    assert net.stride == stride and net.level_channels == (128, 256, 512, 1024, 2048)
    stem = [m for m in net.model.encoder.model.conv1 if isinstance(m, torch.nn.Conv2d)]
    assert [(m.out_channels, m.kernel_size, m.stride) for m in stem] == [
        (64, (3, 3), (2, 2)), (64, (3, 3), (1, 1)), (128, (3, 3), (1, 1))]  # fmt: skip
    pyramid = [(2048, 256, 1, 1), *((2048, 256, 3, rate) for rate in rates), (2048, 256, 1, 1), (1280, 256, 1, 1)]
    decoder = [*pyramid, (256, 48, 1, 1), (304, 256, 3, 1), (256, 256, 3, 1)]
    found = [m for m in net.model.decoder.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [(m.in_channels, m.out_channels, m.kernel_size[0], m.dilation[0]) for m in found] == decoder
    assert all(m.groups == 1 and m.bias is None for m in found)
    kinds = [type(m).__name__ for m in net.model.decoder.block2.modules() if not list(m.children())]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU"] * 2
    assert not any(isinstance(m, torch.nn.Dropout) and m.p for m in net.model.modules())
    with torch.no_grad():
        x = torch.rand(1, 3, 3 * stride, stride + 1)
        features = net.encode(x)
        assert features.padded == (3 * stride, 2 * stride)
        assert torch.equal(net.logits(features), net(x)) and net(x).shape == (1, 21, 3 * stride, stride + 1)


@pytest.mark.parametrize(
    ("encoder", "classes", "count", "published"),
    [
        ("resnet50s.gluon_in1k", 21, 23_631_808, 40.5), ("resnet101s.gluon_in1k", 21, 42_623_936, 59.5),
        ("xception65", 81, 37_867_312, 54.7),
    ],
)  # fmt: skip
def test_deeplab_has_the_parameters_that_the_authors_report(encoder, classes, count, published):
    """Logs of UniMatch: 40.5, 59.5 and 54.7 million.

    Deep stem of ResNet-50: 9 (3 64 + 64 64 + 64 128) + 2 (64 + 64 + 128) = 112,832; its stages, of which the first sees
    128 channels instead of 64: 23,498,496 + 64 (64 + 256) = 23,518,976.
    Pyramid: 2048 256 (1 + 3 9 + 1) + 1280 256 = 15,532,032, normalisations 6 512 = 3,072; low level 256 48 + 96 =
    12,384; 9 (304 + 256) 256 + 2 512 = 1,291,264; head 257 a class.
    """
    with torch.device("meta"):
        net = build(f"deeplabv3plus:16/{encoder}", 3, classes)
    encoded = sum(p.numel() for p in net.backbone().parameters())
    whole = sum(p.numel() for p in net.parameters())
    assert encoded == count
    assert whole - encoded == 15_532_032 + 3_072 + 12_384 + 1_291_264 + 257 * classes
    assert whole / 1e6 == pytest.approx(published, abs=0.05)


def test_deeplab_keeps_the_width_and_the_dropout_it_is_asked_for():
    torch.manual_seed(0)
    net = build("deeplabv3plus/resnet18", 3, 2, decoder_channels=32, decoder_aspp_dropout=0.25)
    assert net.decoded_channels == 32
    assert [m.p for m in net.model.decoder.modules() if isinstance(m, torch.nn.Dropout)] == [0.25]
    # drawn as smp draws its decoders: uniform within sqrt(6 / fan in)
    for conv in (net.model.decoder.block2[0], net.model.decoder.block2[3]):
        bound = (6 / (9 * conv.in_channels)) ** 0.5
        assert 0.99 * bound < conv.weight.abs().max() <= bound


def test_an_unknown_variant_names_the_known_ones():
    with pytest.raises(Refusal, match=r"dpt:32/vit_tiny.*dpt:64/vit_tiny_patch16_224, dpt:128/"):
        build("dpt:32/vit_tiny_patch16_224", 3, 2)
    with pytest.raises(Refusal, match=r"Expected: unet/resnet18|expected"):
        build("unet:8/resnet18", 3, 2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("unt/resnet18", "Did you mean 'unet/resnet18'"),
        ("unet/resnet17", "Did you mean 'resnet18'"),
        ("unet", "names no encoder.*type unet/resnet18"),
        ("unet1x2", "Did you mean 'unet1x1'"),
        ("zzzzzz", "an architecture of unet, unetplusplus, manet"),
    ],
)
def test_unknown_names(name, message):
    with pytest.raises(Refusal, match=message) as caught:
        build(name, 3, 1)
    assert caught.value.exit == 2


def test_options_reach_smp_and_wrong_ones_are_named():
    net = build("unet/mobilenetv3_small_100", 3, 1, decoder_channels=(64, 32, 16, 8, 4))
    assert net.decoded_channels == 4
    with pytest.raises(Refusal, match="colour"):
        build("unet/mobilenetv3_small_100", 3, 1, colour="red")
    with pytest.raises(Refusal, match="alpha is the width of unet1x1"):
        build("unet/resnet18", 3, 1, alpha=0.5)


def test_building_is_deterministic_and_leaves_running_statistics_fresh():
    def state():
        torch.manual_seed(3)
        return build("fpn/mobilenetv3_small_100", 3, 2).state_dict()

    a, b = state(), state()
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert all(v == 0 for k, v in a.items() if k.endswith("num_batches_tracked"))


def test_batch_stats_knows_the_norms_of_timm():
    net = build("unet/mobilenetv3_small_100", 3, 1).train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with batch_stats(net):
        net(torch.rand(2, 3, 64, 64))
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    net(torch.rand(2, 3, 64, 64))
    key = "model.encoder.model.bn1.running_mean"
    assert not torch.equal(net.state_dict()[key], before[key])
