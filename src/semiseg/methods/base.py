"""What every method is: networks it makes, one step that returns losses, and a predictor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from semiseg.batch import Clock, Labeled, Target, Unlabeled
from semiseg.networks.base import Network
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
    Three arguments mean the same in every method that has them: `weight` of the unlabeled terms, `warmup`, the share of
    the training in which they count 0, and `ramp`, the share over which they then rise.
    """

    weight = 1.0
    warmup = 0.0
    ramp = 0.0
    views: tuple[str, ...] = ("strong",)
    uses_unlabeled = True  # False: unlabeled images are drawn only when a refiner brings their consensus
    students: ClassVar[tuple[str, ...]] = ()  # arguments that mean something under a consensus only

    def __init__(self, make: Make, task: Task) -> None:
        super().__init__()
        self.task = task
        self.student = make("student")
        self.refine: Refiner = Identity()  # set here: a class attribute would shadow an attached submodule

    def believe(self, unlabeled: Unlabeled, logits: Tensor) -> Target:
        """A detached target from logits on the weak view."""
        return self.task.target(logits, unlabeled.valid)

    def strength(self, clock: Clock) -> float:
        """What unlabeled terms count at this step: weight · ramp, 0 during the warm-up."""
        return self.weight * clock.ramp(self.ramp, self.warmup)

    def step(self, labeled: Labeled, unlabeled: Unlabeled | None, clock: Clock) -> dict[str, Tensor]:
        """Losses of one step: "loss" is minimised, every other entry is logged under its name."""
        raise TypeError(f"{type(self).__name__} must write step(labeled, unlabeled, clock)")

    def after_step(self, clock: Clock) -> None:
        """Called after the optimiser's step: moving averages, memory banks."""

    def groups(self) -> list[dict[str, Any]]:
        """Parameter groups for the optimiser: {"name", "params"} and, unless it is the configured head_lr, "lr_scale".

        By default the encoders of all networks, which move at the learning rate itself, and everything else.
        """
        nets = [m for m in self.modules() if isinstance(m, Network)]
        encoders = {id(p) for net in nets for p in net.backbone().parameters()}
        trained = [p for p in self.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [
            {"name": "encoder", "params": [p for p in trained if id(p) in encoders], "lr_scale": 1.0},
            {"name": "head", "params": [p for p in trained if id(p) not in encoders]},
        ]
        return [group for group in groups if group["params"]]

    def predictor(self) -> nn.Module:
        """The network that is evaluated and shipped; its forward gives (B,K,H,W) logits."""
        return self.student

    def companions(self) -> dict[str, nn.Module]:
        """Networks beside the predictor, by their names, whose score is noted at the end of the training."""
        return {}

    def caveat(self) -> str:
        """What the method cannot do on this task, in a sentence that is said before training; "" when there is nothing."""
        return ""

    def images_per_step(self, labeled: int, unlabeled: int) -> int:
        """Images sent forward through networks in a step, for honest cost tables."""
        return labeled + unlabeled * (1 + len(self.views))


def trained_networks(method: Method) -> int:
    """How many networks the optimiser moves; averages of them do not count."""
    nets = [m for m in method.modules() if isinstance(m, Network)]
    return sum(any(p.requires_grad for p in net.parameters()) for net in nets)
