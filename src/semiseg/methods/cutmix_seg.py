"""CutMix-Seg: a mean teacher whose predictions on two images, cut together, are the target of the images cut together.

[0] French et al. 2020, https://arxiv.org/abs/1906.01916
[1] Britefury/cutmix-semisup-seg @af6183a, train_seg_semisup_mask_mt.py
Differs from [1]: the CutMix partner is the next image of the batch; pixels outside the image count neither in the
confident share nor in the mean ([1] averages over all); the teacher's decay warms up; labeled and mixed images share the
student's pass, which updates BN running statistics ([1] freezes them); the teacher averages those and stays in eval mode.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from semiseg.batch import Clock, Labeled, Unlabeled
from semiseg.data.mixing import cutmix
from semiseg.ema import Average
from semiseg.losses import masked_mean
from semiseg.methods._boxes import box_masks
from semiseg.methods.base import Make, Method
from semiseg.task import Task


class CutMixSeg(Method):
    """L = L_sup + weight · ramp(t) · r · mean over valid pixels of Σ_k (p_student - p_teacher)².

    r, one number for the batch: the share of the mixed pixels whose teacher confidence is at least `threshold`. Labels
    that may overlap are problems of two classes, on and off. ema: the teacher's decay. The teacher predicts.
    """

    views = ("strong",)

    def __init__(
        self,
        make: Make,
        task: Task,
        *,
        threshold: float = 0.97,
        weight: float = 1.0,
        ema: float = 0.99,
        warmup: float = 0.0,
        ramp: float = 0.0,
    ) -> None:
        super().__init__(make, task)
        self.teacher = Average(self.student, ema)
        self.threshold = threshold
        self.weight, self.warmup, self.ramp = weight, warmup, ramp

    def step(self, labeled: Labeled, unlabeled: Unlabeled | None, clock: Clock) -> dict[str, Tensor]:
        """The teacher sees the clean views whole, the student the strong ones in which a box of half the area is pasted."""
        assert unlabeled is not None
        b = len(labeled.image)
        with torch.no_grad():
            target = self.believe(unlabeled, self.teacher(unlabeled.weak))
        box = box_masks(len(unlabeled.weak), unlabeled.size, clock.generator("box"), area=(0.5, 0.5), boxes=1)
        _, mixed = cutmix(unlabeled.weak, target, box)  # r is a share of the mixed pixels, and part of the selection
        share = masked_mean((mixed.confidence >= self.threshold).float(), mixed.valid)
        target = target.replace(weight=target.weight * share)
        unlabeled, target = self.refine(unlabeled, target, clock)
        image, target = cutmix(unlabeled.strong[0], target, box)
        logits = self.student(torch.cat([labeled.image, image]))
        sup = self.task.supervised(logits[:b], labeled)
        distance = (self.task.categorical(logits[b:]) - self.task.fold(target.prob)) ** 2
        consistency = self.task.reduce(self.task.unfold(distance.sum(1, keepdim=True)), target)
        return {
            "loss": sup + self.strength(clock) * consistency,
            "sup": sup,
            "consistency": consistency,
            "confident": share,
        }

    def after_step(self, clock: Clock) -> None:
        """Move the teacher."""
        self.teacher.update(self.student, clock.total)

    def predictor(self) -> nn.Module:
        """The teacher."""
        return self.teacher.network
