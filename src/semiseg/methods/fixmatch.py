"""FixMatch for segmentation: confident predictions on a weak view teach a strong view, pasted over by CutMix.

[0] Sohn et al. 2020, https://arxiv.org/abs/2001.07685   [1] LiheYoung/UniMatch @0324f3d, fixmatch.py
Differs from [1]: the CutMix partner is another image of the batch (there, by a shared seed, another crop of the same
image), so its labels come from the same forward pass; an all-padded batch gives 0, not NaN; an optional ramp.
"""

from __future__ import annotations

import torch
from torch import Tensor

from semiseg.batch import Clock, Labeled, Unlabeled
from semiseg.data.mixing import cut_boxes, cutmix
from semiseg.methods.base import Make, Method
from semiseg.task import Task


class FixMatch(Method):
    """L = (L_sup + weight · ramp(t) · L_strong) / 2, L_strong = Σ [c ≥ threshold] CE / #pixels inside the image.

    threshold: confidence max p (per label max(p, 1-p)); cutmix: paste boxes from a partner; ramp: share of the training
    over which the unlabeled term rises; 0 as in [1].
    """

    views = ("strong",)

    def __init__(
        self,
        make: Make,
        task: Task,
        *,
        threshold: float = 0.95,
        weight: float = 1.0,
        cutmix: bool = True,
        ramp: float = 0.0,
    ) -> None:
        super().__init__(make, task)
        self.threshold, self.weight, self.cutmix, self.ramp = threshold, weight, cutmix, ramp

    def step(self, labeled: Labeled, unlabeled: Unlabeled | None, clock: Clock) -> dict[str, Tensor]:
        """Labeled and weak images share a forward pass, which keeps clean BN statistics ([1] issue 68)."""
        assert unlabeled is not None
        b = len(labeled.image)
        clean = self.student(torch.cat([labeled.image, unlabeled.weak]))
        target = self.believe(unlabeled, clean[b:]).keep(lambda t: t.confidence >= self.threshold)
        unlabeled, target = self.refine(unlabeled, target, clock)
        strong = unlabeled.strong[0]
        if self.cutmix:
            box = cut_boxes(len(strong), unlabeled.size, clock.generator("box"))
            strong, target = cutmix(strong, target, box)
        sup = self.task.supervised(clean[:b], labeled)
        unsup = self.task.consistency(self.student(strong), target)
        weight = self.weight * clock.ramp(self.ramp)
        return {
            "loss": (sup + weight * unsup) / 2,
            "sup": sup,
            "strong": unsup,
            "kept": (target.weight * target.valid).mean().detach(),
        }
