"""What every method is: networks it makes, one step that returns losses, and a predictor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor, nn

from semiseg.batch import Clock, Labeled, Target, Unlabeled
from semiseg.task import Task

Make = Callable[..., nn.Module]
"""make(role, **override) -> a fresh network; override changes its name, e.g. make("senior", name="unet/resnet50")."""


class Refiner(Protocol):
    """Makes a belief more trustworthy: inconsistency masks, a method's selection. Weights are never raised."""

    def __call__(self, unlabeled: Unlabeled, target: Target | None, clock: Clock) -> tuple[Unlabeled, Target]:
        """Unlabeled images and what is believed about them, refined."""
        ...


class Identity:
    """The refiner of a method that nobody attached anything to."""

    def __call__(self, unlabeled: Unlabeled, target: Target | None, clock: Clock) -> tuple[Unlabeled, Target]:
        """Unchanged."""
        assert target is not None, "a method without a belief of its own needs a refiner that has one"
        return unlabeled, target


class Method(nn.Module):
    """Subclass, name your views, write `step`. Keyword-only arguments of `__init__` become configuration.

    views: the strong views that `step` wants of each unlabeled image, of "strong", "mild", "train" (coloured as labeled
    images are) or "weak" (clean). `student` is what is trained and, unless `predictor` says otherwise, what predicts.
    """

    views: tuple[str, ...] = ("strong",)
    uses_unlabeled = True  # False: unlabeled images are drawn only when a refiner brings their consensus

    def __init__(self, make: Make, task: Task) -> None:
        super().__init__()
        self.task = task
        self.student = make("student")
        self.refine: Refiner = Identity()  # set here: a class attribute would shadow an attached submodule

    def believe(self, unlabeled: Unlabeled, logits: Tensor) -> Target:
        """A detached target from logits on the weak view."""
        return self.task.target(logits, unlabeled.valid)

    def step(self, labeled: Labeled, unlabeled: Unlabeled | None, clock: Clock) -> dict[str, Tensor]:
        """Losses of one step: "loss" is minimised, every other entry is logged under its name."""
        raise TypeError(f"{type(self).__name__} must write step(labeled, unlabeled, clock)")

    def after_step(self, clock: Clock) -> None:
        """Called after the optimiser's step: moving averages, memory banks."""

    def groups(self) -> list[dict[str, Any]]:
        """Parameter groups for the optimiser: {"params", "lr_scale", "name"}."""
        return [{"params": [p for p in self.parameters() if p.requires_grad], "lr_scale": 1.0, "name": "all"}]

    def predictor(self) -> nn.Module:
        """The network that is evaluated and shipped; its forward gives (B,K,H,W) logits."""
        return self.student

    def images_per_step(self, labeled: int, unlabeled: int) -> int:
        """Images sent forward through networks in a step, for honest cost tables."""
        return labeled + unlabeled * (1 + len(self.views))
