"""Tensors to and from bytes, by safetensors: nothing is ever unpickled. torch is imported when it is needed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from semiseg.storage.files import damaged

if TYPE_CHECKING:
    from torch import Tensor


def tensors_to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """The tensors (any device; tied ones are written twice) as a safetensors file."""
    from safetensors.torch import save

    return save({n: t.detach().to("cpu", copy=True).contiguous() for n, t in tensors.items()})


def tensors_from_bytes(data: bytes, where: Path | str = "safetensors") -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU. Refusal exit 4 naming `where` when it is none."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(data)
    except (SafetensorError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise damaged(where, f"is not a safetensors file: {error}") from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """`tensors_from_bytes` of a file. safetensors finds broken headers only: `verify` the folder first."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise damaged(path, f"cannot be read: {error}") from error
    return tensors_from_bytes(data, path)


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over sorted names with dtype, shape and bytes: equal only if all are equal to the last bit."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
