"""The optimiser over a method's parameter groups, and how its learning rate moves."""

from __future__ import annotations

import math
from typing import Any

import torch

from semiseg.methods.base import Method
from semiseg.training.config import Config


def rate(step: int, config: Config) -> float:
    """The learning rate's factor at a step: linear warm-up, then cosine to 0, poly (power .9) or constant."""
    warm = int(config.lr_warmup * config.steps)
    if step < warm:
        return (step + 1) / warm
    t = (step - warm) / max(1, config.steps - warm)
    return {"cosine": 0.5 * (1 + math.cos(math.pi * t)), "poly": (1 - t) ** 0.9, "constant": 1.0}[config.schedule]


def make_optimizer(method: Method, config: Config) -> torch.optim.Optimizer:
    """The optimiser over the method's groups; each group's lr_scale, or else head_lr, multiplies the learning rate."""
    groups = [{"params": g["params"], "lr_scale": g.get("lr_scale", config.head_lr)} for g in method.groups()]
    shared: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay, "foreach": True}
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=0.9, **shared)
    return {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[config.optimizer](groups, eps=config.eps, **shared)
