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
NETWORKS = ("unet1x1", *(f"{arch}/ENCODER" for arch in ARCHITECTURES))
"""What `build` knows; ENCODER is any encoder of smp or timm, for example resnet50."""


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
    weights and 3 channels, otherwise 0 and 1. What is given always wins.
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
    if arch.lower() not in ARCHITECTURES or not encoder:
        raise _unknown(name)
    if alpha is not None:
        raise usage("alpha", f"is the width of unet1x1; {name} has none", "leave it out")
    from semiseg.networks.zoo import build_smp

    arch = arch.lower()
    return build_smp(arch, encoder, channels, classes, mean=mean, std=std, pretrained=pretrained, options=options)


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
