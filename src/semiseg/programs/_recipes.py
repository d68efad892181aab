"""What arguments of programs that are left empty become, by preset, and the training of preset=paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from semiseg.training.config import Config

PAPER = {
    "loss": "paper", "augment": "none", "optimizer": "adamw", "lr": 0.003, "weight_decay": 1e-4 / 0.003, "eps": 1e-7,
    "schedule": "constant", "lr_warmup": 0.0, "clip": 0.0, "average": 0.0,
}  # fmt: skip
"""Training as in the IM paper, for preset=paper. It takes 1e-4 off every weight a step; here the rate multiplies it."""
DRAWS = ("even", "pool")


@dataclass(frozen=True)
class Start:
    """What a consensus counts beside the labels (`supervised.weight`), and how students see its images."""

    weight: float
    view: str


STARTS = {"fresh": Start(1.0, "train"), "warm": Start(0.3, "strong")}
"""What students begin with. Who goes on knows what his teachers know: at full weight he unlearns what they do not find, and
from images as he knows them he learns little (docs/explanation/what-the-mask-leaves.md)."""
VIEWED = ("train", "strong")


@dataclass(frozen=True)
class Recipe:
    """Who forms a committee, how often students are taught, and what they begin with."""

    members_by: str = "seed"
    generations: int = 1
    patience: int = 1
    start: str = "fresh"
    draw: str = "even"


FRESH: Mapping[str, Recipe] = {"default": Recipe(), "paper": Recipe(draw="pool")}
"""Of members that are trained apart, and of the paper's schemes: one generation of students that start afresh."""
PRESETS: Mapping[str, Recipe] = {**FRESH, "default": Recipe("snapshots", 3, 3, "warm")}
"""default: one network that goes on and on, taught by what its own last snapshots agree about: docs/methods/im.md."""


def unlike_paper(config: Config, same_loss: bool) -> list[str]:
    """In one sentence what somebody set otherwise than preset=paper does; nothing where all is as there."""
    mine = {k: getattr(config, k) for k in PAPER} | ({"loss": "paper"} if same_loss else {})
    others = [f"{k}={v} (there {PAPER[k]})" for k, v in mine.items() if v != PAPER[k]]
    return [f"preset=paper trains otherwise than the paper: {', '.join(others)}."] if others else []
