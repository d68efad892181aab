"""The whole state of a member's training as plain tensors and JSON, so that a resumed run is the same run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from semiseg import storage

KEEP = 2


def save(folder: Path, step: int, modules: dict[str, nn.Module], optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Write `folder/step-XXXXXXXX` after `step` steps; keeps the newest two. `state` is JSON."""
    tensors = {f"{name}.{k}": v for name, module in modules.items() for k, v in module.state_dict().items()}
    groups = []
    packed = optimizer.state_dict()
    for index, entries in packed["state"].items():
        for key, value in entries.items():
            tensors[f"optimizer.{index}.{key}"] = value if isinstance(value, Tensor) else torch.tensor(value)
    for group in packed["param_groups"]:
        groups.append({k: v for k, v in group.items() if isinstance(v, int | float | str | bool | list | tuple)})
    body = json.dumps({**state, "step": step, "groups": groups})
    target = folder / f"step-{step:08d}"
    storage.save_folder(target, {"state.safetensors": tensors, "state.json": body}, {"step": step})
    for old in sorted(folder.glob("step-????????"))[:-KEEP]:
        storage.remove(old)


def load(path: Path, modules: dict[str, nn.Module], optimizer: Optimizer) -> dict[str, Any]:
    """Restore modules and optimizer from a verified checkpoint; returns its JSON state. Missing keys are an error."""
    tensors = storage.read_tensors(path / "state.safetensors")
    state = storage.read_json(path / "state.json")
    for name, module in modules.items():
        prefix = f"{name}."
        module.load_state_dict({k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}, strict=True)
    entries: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            entries.setdefault(int(index), {})[name] = value
    packed = optimizer.state_dict()
    for group, saved in zip(packed["param_groups"], state["groups"], strict=True):
        group.update({k: tuple(v) if isinstance(group.get(k), tuple) else v for k, v in saved.items()})
    optimizer.load_state_dict({"state": entries, "param_groups": packed["param_groups"]})
    return state


class Best(nn.Module):
    """A copy of the best network so far, kept in the checkpoint like any other module."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        for i, value in enumerate(network.state_dict().values()):
            self.register_buffer(f"t{i}", value.detach().clone())

    @torch.no_grad()
    def keep(self, network: nn.Module) -> None:
        """Remember this state."""
        for mine, value in zip(self.buffers(), network.state_dict().values(), strict=True):
            mine.copy_(value)

    def restore(self, network: nn.Module) -> dict[str, Tensor]:
        """The remembered state under the network's own names."""
        return {k: mine.clone() for k, mine in zip(network.state_dict(), self.buffers(), strict=True)}
