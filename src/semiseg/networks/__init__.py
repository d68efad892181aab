"""Networks by name: `unet1x1[:ALPHA]`, or `ARCHITECTURE/ENCODER` of segmentation-models-pytorch and timm."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from semiseg.errors import nearest, usage

if TYPE_CHECKING:  # torch is imported only when a network is built
    from semiseg.networks.base import Network

ARCHITECTURES = (
    "unet", "unetplusplus", "manet", "linknet", "fpn", "pspnet",
    "deeplabv3", "deeplabv3plus", "pan", "upernet", "segformer", "dpt",
)  # fmt: skip
_PYRAMID: dict[str, Any] = {"decoder_aspp_separable": False, "decoder_aspp_dropout": 0.0}
_STRIDE16 = {"encoder_output_stride": 16, "decoder_atrous_rates": (6, 12, 18), **_PYRAMID}
_READ = {"decoder_readout": "ignore"}
VARIANTS: dict[str, dict[str, Any]] = {
    "deeplabv3plus": _STRIDE16,
    "deeplabv3plus:16": _STRIDE16,
    "deeplabv3plus:8": {"encoder_output_stride": 8, "decoder_atrous_rates": (12, 24, 36), **_PYRAMID},
    "dpt:64": {"decoder_intermediate_channels": (48, 96, 192, 384), "decoder_fusion_channels": 64, **_READ},
    "dpt:128": {"decoder_intermediate_channels": (96, 192, 384, 768), "decoder_fusion_channels": 128, **_READ},
    "dpt:256": {"decoder_intermediate_channels": (256, 512, 1024, 1024), "decoder_fusion_channels": 256, **_READ},
    "dpt:384": {"decoder_intermediate_channels": (1536,) * 4, "decoder_fusion_channels": 384, **_READ},
}
"""Architectures as the papers of the field set them, instead of smp's defaults, e.g. `dpt:64/vit_small_patch14_dinov2`.

deeplabv3plus[:STRIDE of the encoder] of UniMatch (16) and CSL (8), without dropout: `decoders.plain_convolutions`;
dpt:WIDTH of UniMatch V2, for DINOv2 of size S, B, L and g: `decoders.plain_head`.
"""


def build(
    name: str,
    channels: int,
    classes: int,
    *,
    mean: Iterable[float] | None = None,
    std: Iterable[float] | None = None,
    pretrained: str | bool | None = None,
    alpha: float | None = None,
    **options: Any,
) -> Network:
    """A network by name, for (B,`channels`,H,W) in the unit range and `classes` logit channels.

    `mean`, `std`: of the inputs in the unit range, one number per channel; None is the encoder's own for pretrained
    weights and 3 channels, otherwise 0 and 1. What is given always wins. A name may carry a variant: `VARIANTS`.
    `pretrained`: None or False from scratch; True or "imagenet" the weights of smp or timm, from the local cache or the
    hub; otherwise the path of a .safetensors file or of a folder with model.safetensors.
    `alpha`: width of `unet1x1`, 0.5 when neither it nor a suffix (`unet1x1:1.0`) is given. `options` go to smp.
    Raises Refusal (exit 2) for an unknown name, a combination that does not work, and weights that cannot be had.
    """
    arch, slash, encoder = name.partition("/")
    if arch.partition(":")[0] == "unet1x1" and not slash:
        if options:
            raise usage("network unet1x1", f"has no option {', '.join(sorted(options))}", "leave it out")
        if pretrained is True or pretrained == "imagenet":
            raise usage("network unet1x1", "has no public pretrained weights", "train it from scratch")
        net = _unet1x1(arch, channels, classes, mean, std, alpha)
        if pretrained:
            from semiseg.networks.weights import load_encoder

            load_encoder(net, pretrained)
        return net
    arch, colon, _ = arch.lower().partition(":")
    if arch not in ARCHITECTURES or not encoder:
        raise _unknown(name)
    variant = name.partition("/")[0].lower()
    if colon and variant not in VARIANTS:
        known = ", ".join(f"{v}/{encoder}" for v in VARIANTS if v.startswith(f"{arch}:")) or f"{arch}/{encoder}"
        raise usage(f"network {name}", f"names a variant that {arch} does not have", expected=known)
    if alpha is not None:
        raise usage("alpha", f"is the width of unet1x1; {name} has none", "leave it out")
    from semiseg.networks.zoo import build_smp

    options = VARIANTS.get(variant, {}) | options
    return build_smp(variant, encoder, channels, classes, mean=mean, std=std, pretrained=pretrained, options=options)


def _unet1x1(
    name: str,
    channels: int,
    classes: int,
    mean: Iterable[float] | None,
    std: Iterable[float] | None,
    alpha: float | None,
) -> Network:
    from semiseg.networks.unet1x1 import UNet1x1

    _, colon, suffix = name.partition(":")
    try:
        width = float(suffix) if colon else 0.5
    except ValueError:
        width = float("nan")
    if not 1 / 16 <= (width if alpha is None else alpha) <= 64:
        found = f"asks for width {suffix if alpha is None else alpha}"
        raise usage(f"network {name}", found, "type unet1x1:0.5", "a number between 0.0625 and 64")
    return UNet1x1(channels, classes, alpha=width if alpha is None else alpha, mean=mean, std=std)


def _unknown(name: str) -> Exception:
    arch, _, encoder = name.partition("/")
    known = f"unet1x1[:WIDTH], or ARCHITECTURE/ENCODER with an architecture of {', '.join(ARCHITECTURES)}"
    if arch.lower() in ARCHITECTURES:
        return usage(f"network {name}", "names no encoder", f"type {arch.lower()}/resnet18", known)
    guess = nearest(arch.lower(), ["unet1x1", *ARCHITECTURES])
    if encoder and guess:
        guess = guess.replace("'?", f"/{encoder}'?") if "unet1x1" not in guess else guess
    return usage(f"network {name}", "is unknown", guess or "semiseg methods lists what there is", known)
