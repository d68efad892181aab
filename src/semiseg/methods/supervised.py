"""Supervised training: labels only; and, when a program brings a committee's consensus, a student of it.

LDT, ALDT, FDT and AFDT of the inconsistency-mask paper are this method: `--augment none|default`, `--labels`, `--oracle`.
[0] Vorndran and Roeck, arXiv 2401.14387, section on baselines and students
Differs from [0]: augmentation is drawn on the fly; consensus images carry weight 0 where the committee disagrees, and may
be mixed.
Batch normalisation: every pass updates running statistics.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from semiseg.batch import Clock, Labeled, Unlabeled
from semiseg.methods import _choices
from semiseg.methods.base import Make, Method
from semiseg.task import Task


class Supervised(Method):
    """L = L_sup(labeled); as a student (L_sup(labeled) + weight · L_sup(unlabeled, consensus)) / (1 + weight).

    weight: what the consensus counts; 0.3 under programs whose students go on from their teacher's weights. mix: what is
    pasted into consensus images, with its consensus: none, cutmix, classmix or supmix (from labeled images).
    """

    views = ("train",)
    uses_unlabeled = False
    students: ClassVar[tuple[str, ...]] = ("weight", "mix")

    def __init__(self, make: Make, task: Task, *, weight: float = 1.0, mix: str = "none") -> None:
        super().__init__(make, task)
        _choices.check(mix=mix)
        self.weight, self.mix = weight, mix

    def step(self, labeled: Labeled, unlabeled: Unlabeled | None, clock: Clock) -> dict[str, Tensor]:
        """Unlabeled images count only when they come with a consensus."""
        if unlabeled is None or unlabeled.planes is None:
            sup = self.task.supervised(self.student(labeled.image), labeled)
            return {"loss": sup, "sup": sup}
        unlabeled, target = self.refine(unlabeled, None, clock)
        view, target = _choices.mixed(self.mix, unlabeled.strong[0], target, labeled, self.task, clock, "box")
        logits = self.student(torch.cat([labeled.image, view]))
        known, taught = logits.split([len(labeled.image), len(view)])
        sup = self.task.supervised(known, labeled)
        consensus = self.task.supervised(taught, target.as_labeled(view))
        return {
            "loss": (sup + self.weight * consensus) / (1 + self.weight),
            "sup": sup,
            "consensus": consensus,
            "kept": (target.weight * target.valid).mean().detach(),
        }

    def images_per_step(self, labeled: int, unlabeled: int) -> int:
        """One view of each image."""
        return labeled + unlabeled
