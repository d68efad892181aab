"""Any architecture of segmentation-models-pytorch over any encoder of smp or timm, in the shape of `Network`.

The split follows smp's own forward (encoder, decoder, segmentation_head); the up-sampling inside smp's head moves into
`Network.resize`, so that a representation head, or a loss, may work at the resolution of the decoder.
Whether a combination works is not guessed: it is built, and run on two tiny images, when it is asked for.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import segmentation_models_pytorch as smp
import timm
import torch
from segmentation_models_pytorch.decoders.dpt.decoder import DPTDecoder
from torch import Tensor, nn

from semiseg.errors import Refusal, nearest, usage
from semiseg.networks.base import Features, Network, bilinear
from semiseg.networks.decoders import plain_convolutions, plain_head
from semiseg.networks.weights import find_weights, load_encoder, own_mean_std

FLEXIBLE: tuple[dict[str, bool], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})
"""How encoders of timm are asked for images of any size: plain ViTs, window transformers, everything else."""


class SmpNetwork(Network):
    """A model of smp. `model` is that model, so `model.*` of the weights loads into plain smp.

    `rebuilt`: its decoder is not the one smp would have built, and smp's own forward may miss the size of the input.
    Raises Refusal when the model cannot run on images of any size, or its parts do not add up to its own forward.
    """

    model: Any  # smp's models carry their parts as plain attributes

    def __init__(
        self,
        name: str,
        model: nn.Module,
        channels: int,
        classes: int,
        *,
        mean: Iterable[float] | None = None,
        std: Iterable[float] | None = None,
        rebuilt: bool = False,
    ) -> None:
        super().__init__(channels, classes, 1, mean, std)
        self.name, self.model, self.rebuilt, self.dpt = name, model, rebuilt, isinstance(model, smp.DPT)
        errors = []
        output = self.model.encoder.output_strides[-1] if self.dpt else int(self.model.encoder.output_stride)
        for self.stride in dict.fromkeys((output, 2 * output, 32)):
            # pan's attention pools the coarsest map three times more
            self.least = (8 if isinstance(model, smp.PAN) else 1) * self.stride
            try:
                self._probe()
                return
            except (RuntimeError, ValueError, TypeError, AssertionError) as error:
                errors.append(error)
        raise _refuse(name, f"does not run on images of any size ({_line(errors[-1])})")

    def extract(self, x: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
        """The maps of the encoder; the input, empty maps and prefix tokens go to `rest`."""
        maps = self.model.encoder(x)
        rest: dict[str, Tensor] = {}
        if self.dpt:
            maps, tokens = maps
            rest = {f"token{i}": t for i, t in enumerate(tokens) if t is not None}
        carried = [m is x or m.shape[1] == 0 for m in maps]
        rest |= {f"map{i}": m for i, m in enumerate(maps) if carried[i]}
        return [m for i, m in enumerate(maps) if not carried[i]], rest

    def decode(self, features: Features) -> Tensor:
        """The decoder of smp, at its own resolution."""
        levels = iter(features.levels)
        count = len(features.levels) + sum(key.startswith("map") for key in features.rest)
        maps = [features.rest[f"map{i}"] if f"map{i}" in features.rest else next(levels) for i in range(count)]
        if self.dpt:
            return self._fuse(maps, [features.rest.get(f"token{i}") for i in range(count)])
        return self.model.decoder(maps)

    def head(self, decoded: Tensor) -> Tensor:
        """The head of smp without its up-sampling (and without an activation: logits)."""
        head = self.model.segmentation_head
        return head.head(decoded) if self.dpt else head[0](decoded)

    def _fuse(self, maps: list[Tensor], tokens: list[Tensor | None]) -> Tensor:
        """smp's DPT decoder, but each level grows to the size of the next: 37 x 37 patches are 518 px of 14."""
        decoder = self.model.decoder
        read = [block(m, t) for block, m, t in zip(decoder.projection_blocks, maps, tokens, strict=True)]
        levels = [block(m) for block, m in zip(decoder.reassemble_blocks, read, strict=True)][::-1]
        sizes = [level.shape[-2:] for level in levels[1:]] + [[2 * s for s in levels[-1].shape[-2:]]]
        fused: Tensor | None = None
        for block, level, size in zip(decoder.fusion_blocks, levels, sizes, strict=True):
            level = block.residual_conv_block1(level)
            level = block.residual_conv_block2(level if fused is None else level + fused)
            fused = block.project(bilinear(level, tuple(size)))
        assert fused is not None
        return fused

    def backbone(self) -> nn.Module:
        """The encoder of smp."""
        return self.model.encoder

    @torch.no_grad()
    def _probe(self) -> None:
        if self.mean.is_meta:
            return
        training = self.training
        self.eval()  # no dropout, no running statistics: a probe changes nothing and draws nothing
        try:
            s, least = self.stride, self.least
            sizes = [(least, least), (least + 2 * s, least + s), (2 * s, 4 * s)]
            for height, width in sizes if self.dpt else sizes[:2]:
                ramp = torch.linspace(0, 1, height * width, device=self.mean.device, dtype=self.mean.dtype)
                x = ramp.view(1, 1, height, width).expand(1, self.channels, -1, -1)
                features = self.encode(x)
                decoded = self.decode(features)
                logits = self.logits(features)
                if logits.shape != (1, self.classes, height, width):
                    raise ValueError(f"logits of shape {tuple(logits.shape)}")
                if self.dpt and (height % (2 * s) or width % (2 * s)):
                    continue  # smp's own forward knows an even number of patches only
                own = self.model((x - self.mean) / self.std)
                if own.shape == logits.shape:
                    if not torch.allclose(own, logits, rtol=1e-3, atol=1e-5):
                        raise ValueError("encoder, decoder and head do not add up to the model")
                elif not self.rebuilt:
                    raise ValueError(f"smp answers {tuple(own.shape)} for {tuple(logits.shape)}")
        finally:
            self.train(training)
        self.level_channels = tuple(x.shape[1] for x in features.levels)
        self.decoded_channels = decoded.shape[1]


def build_smp(
    arch: str,
    encoder: str,
    channels: int,
    classes: int,
    *,
    mean: Iterable[float] | None = None,
    std: Iterable[float] | None = None,
    pretrained: str | bool | None = None,
    options: Mapping[str, Any] | None = None,
) -> SmpNetwork:
    """`build` for "arch/encoder"; see there. Raises Refusal (exit 2)."""
    name = f"{arch}/{encoder}"
    arch, variant, _ = arch.partition(":")
    known = resolve_encoder(arch, encoder)
    weights = find_weights(known, pretrained) if pretrained else None  # before anything slow
    if weights and channels == 3 and mean is None and std is None:
        mean, std = own_mean_std(known, weights)
    model = _model(name, arch, known, channels, classes, dict(options or {}))
    rebuilt = arch == "dpt" and _rebuild(model, (options or {}).get("decoder_readout", "cat"))
    if arch == "dpt" and variant:
        plain_head(model)
    if arch == "deeplabv3plus":
        plain_convolutions(model)
    net = SmpNetwork(name, model, channels, classes, mean=mean, std=std, rebuilt=rebuilt)
    if weights:
        load_encoder(net, weights)
    return net


def resolve_encoder(arch: str, encoder: str) -> str:
    """The name smp knows an encoder by: its own, or "tu-" and a name of timm. DPT takes encoders of timm only."""
    plain = encoder.removeprefix("tu-")
    if arch != "dpt" and plain == encoder and encoder in smp.encoders.encoders:
        return encoder
    if timm.is_model(plain.split(".")[0]):
        return f"tu-{plain}"
    name = f"{arch}/{encoder}"
    if arch == "dpt" and encoder in smp.encoders.encoders:
        raise _refuse(name, "does not exist: dpt takes encoders of timm, and timm has none of this name")
    guess = nearest(plain, [*smp.encoders.encoders, *timm.list_models()])
    expected = "an encoder of segmentation-models-pytorch or timm"
    raise usage(f"network {name}", f"has an unknown encoder, {encoder}", guess or f"type {arch}/resnet18", expected)


def _model(name: str, arch: str, encoder: str, channels: int, classes: int, options: dict[str, Any]) -> nn.Module:
    """The smp model from scratch, whatever it takes to accept images of any size."""
    create = smp.MODEL_ARCHITECTURES_MAPPING[arch]
    attempts = FLEXIBLE if encoder.startswith("tu-") else ({},)
    for extra in attempts:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # smp's advice on names and on encoders without prefix tokens
                model = create(
                    encoder, encoder_weights=None, in_channels=channels, classes=classes, **(dict(extra) | options)
                )
        except TypeError as error:
            if extra and any(key in str(error) for key in extra):
                continue
            raise _refuse(name, f"cannot be built ({_line(error)})") from error
        except (ValueError, RuntimeError, KeyError, AttributeError, NotImplementedError, AssertionError) as error:
            raise _refuse(name, f"cannot be built ({_line(error)})") from error
        return model
    raise _refuse(name, "cannot be built")


def _rebuild(model: Any, readout: str) -> bool:
    """Patches of 14 pixels (DINOv2): the decoder of the DPT paper (x4, x2, x1, x1/2), as UniMatch V2 uses it.

    smp derives the factors from the stride and truncates them, which leaves maps that cannot be added.
    """
    strides = model.encoder.output_strides
    if all(stride & (stride - 1) == 0 for stride in strides):
        return False
    blocks = model.decoder.reassemble_blocks
    model.decoder = DPTDecoder(
        encoder_out_channels=model.encoder.out_channels,
        encoder_output_strides=[16] * len(strides),
        encoder_has_prefix_tokens=model.encoder.has_prefix_tokens,
        readout=readout,
        intermediate_channels=[block.project_to_out_channel.out_channels for block in blocks],
        fusion_channels=blocks[0].project_to_feature_dim.out_channels,
    )
    model.initialize()
    return True


def _refuse(name: str, found: str) -> Refusal:
    arch, _, encoder = name.partition("/")
    arch = arch.partition(":")[0]
    if arch == "dpt":
        fix = f"use dpt/vit_tiny_patch16_224, or segformer/{encoder}"
    elif encoder.removeprefix("tu-").startswith(("vit_", "deit", "eva", "beit")):
        fix = f"use dpt/{encoder}, or {arch}/resnet18"
    elif arch in ("unet", "segformer") or "any size" in found:
        fix = f"use {arch}/resnet18"
    else:
        fix = f"use {arch}/resnet18, or unet/{encoder}"
    return usage(f"network {name}", found, fix)


def _line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."
