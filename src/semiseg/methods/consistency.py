"""Consistency loss: two recoloured views of an unlabeled image must be predicted alike.

[0] the CL baseline of Vorndran and Roeck, arXiv 2401.14387; the idea is that of the Pi-model, arXiv 1610.02242
[1] MichaelVorndran/InconsistencyMasks @885fe43, functions.py:367-709
Differs from [1]: labeled and unlabeled images share a step instead of alternating by the epoch; training starts from fresh
weights, not from the best labels-only model; unlabeled images keep their channel order; views are redrawn by ours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from semiseg.batch import Clock, Labeled, Unlabeled
from semiseg.methods.base import Make, Method
from semiseg.task import Task


class Consistency(Method):
    """L = L_sup + weight · mean |p(a) - p(b)|² over pixels inside the image and classes; gradients go through both views.

    Both views share crop, mirroring and turns. The first one plays the belief that may be refined. Batch normalisation
    counts the labeled images with the first view, and the second view by itself.
    """

    views = ("mild", "mild")

    def __init__(self, make: Make, task: Task, *, weight: float = 1.0, warmup: float = 0.0, ramp: float = 0.0) -> None:
        super().__init__(make, task)
        self.weight, self.warmup, self.ramp = weight, warmup, ramp

    def step(self, labeled: Labeled, unlabeled: Unlabeled | None, clock: Clock) -> dict[str, Tensor]:
        """[1] functions.py:367: MSE(pred(aug1), pred(aug2))."""
        assert unlabeled is not None
        first = unlabeled.strong[0]
        known, one = self.student(torch.cat([labeled.image, first])).split([len(labeled.image), len(first)])
        target = self.believe(unlabeled, one).replace(prob=self.task.prob(one))  # not detached: both views move
        unlabeled, target = self.refine(unlabeled, target, clock)
        sup = self.task.supervised(known, labeled)
        consistency = self.task.mse(self.student(unlabeled.strong[1]), target)
        kept = (target.weight * target.valid).mean().detach()
        return {
            "loss": sup + self.strength(clock) * consistency,
            "sup": sup,
            "consistency": consistency,
            "kept": kept,
        }

    def images_per_step(self, labeled: int, unlabeled: int) -> int:
        """Labeled images once, unlabeled images in two views; the clean view is not asked for."""
        return labeled + 2 * unlabeled
