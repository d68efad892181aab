"""Where the papers' decoders differ from those of segmentation-models-pytorch: these modules are exchanged, no others."""

from __future__ import annotations

from typing import Any

import torch
from segmentation_models_pytorch.base.initialization import initialize_decoder
from segmentation_models_pytorch.decoders.dpt.decoder import ResidualConvBlock
from segmentation_models_pytorch.encoders.timm_vit import TimmViTEncoder
from torch import Tensor, nn


def plain_convolutions(model: Any) -> None:
    """UniMatch `model/semseg/deeplabv3plus.py`: nothing after the pyramid, and two full 3 x 3 convolutions that fuse.

    smp puts a separable convolution after the pyramid and fuses by another one. Expects a pyramid of full convolutions.
    """
    decoder = model.decoder
    separable, norm, _ = decoder.block2
    width, layers = norm.num_features, []
    for channels in (separable[0].in_channels, width):
        conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        layers += [conv, nn.BatchNorm2d(width), nn.ReLU()]
    decoder.aspp, decoder.block2 = decoder.aspp[0], nn.Sequential(*layers)
    initialize_decoder(decoder.block2)


class _Normed(TimmViTEncoder):
    """The same encoder with its last norm on every level, as DINOv2 hands out intermediate layers."""

    def _forward_with_prefix_tokens(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        out = self.model.forward_intermediates(
            x, indices=self._output_indices, norm=True, intermediates_only=True, return_prefix_tokens=True
        )
        return [m for m, _ in out], [t for _, t in out]

    def _forward_without_prefix_tokens(self, x: Tensor) -> list[Tensor]:
        return self.model.forward_intermediates(x, indices=self._output_indices, norm=True, intermediates_only=True)


def plain_head(model: Any) -> None:
    """UniMatch V2 `model/semseg/dpt.py`: normed levels, no batch norm and no dropout after the encoder.

    Differs from it: smp lets the coarsest level pass two residual units, of which one has parameters but no part there.
    """
    model.encoder.__class__ = _Normed
    for module in model.decoder.modules():
        if isinstance(module, ResidualConvBlock):
            module.batch_norm_1 = module.batch_norm_2 = nn.Identity()
            module.conv_1, module.conv_2 = _biased(module.conv_1), _biased(module.conv_2)
    first, _, relu, _, last = model.segmentation_head.head
    model.segmentation_head.head = nn.Sequential(_biased(first), relu, last)


def _biased(conv: nn.Conv2d) -> nn.Conv2d:
    conv.bias = nn.Parameter(torch.zeros(conv.out_channels))
    return conv
