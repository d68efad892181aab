"""Several processes training one member, one per device: what Fabric leaves to us.

Each process is to see its own part of the global batch, which a `Feed` does not deal out yet: `train` refuses several.
Gradients are averaged by DDP, and loss denominators by `losses.count`, so that both together give the mean over the global
batch. The running statistics of batch normalisation are averaged here after every step, so that students, and with them
their teachers, stay equal everywhere without SyncBatchNorm, which CPUs do not have.
"""

from __future__ import annotations

import os
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from semiseg.training.config import Config


def fabric_of(config: Config) -> Fabric:
    """One device, or as many processes as a launcher such as torchrun has started (WORLD_SIZE)."""
    accelerator = "auto" if config.device == "auto" else config.device
    precision = cast(Any, config.precision)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return Fabric(accelerator=accelerator, devices=1, precision=precision)
    local = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    # buffers are ours to average (a broadcast would undo it); some terms touch a part of the parameters only
    strategy = DDPStrategy(broadcast_buffers=False, find_unused_parameters=True)
    fabric = Fabric(
        accelerator=accelerator, devices=local, num_nodes=world // local, strategy=strategy, precision=precision
    )
    fabric.launch()
    return fabric


@torch.no_grad()
def average_norms(module: nn.Module) -> None:
    """Running means and variances become their mean over processes; a no-op for one process, and in eval mode."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    norms = [m for m in module.modules() if isinstance(m, _NormBase) and m.training]
    buffers = [b for m in norms for b in (m.running_mean, m.running_var) if b is not None]
    if not buffers:
        return
    flat = torch.cat([b.flatten() for b in buffers])
    torch.distributed.all_reduce(flat)
    flat /= torch.distributed.get_world_size()
    for buffer, part in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
        buffer.copy_(part.view_as(buffer))


def key_of(key: tuple[object, ...], rank: int) -> tuple[object, ...]:
    """The key of a process's own draws: that of a single process for the first, its own for each other one."""
    return key if rank == 0 else (*key, "rank", rank)
