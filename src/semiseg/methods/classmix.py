"""ClassMix: half of the classes predicted in one unlabeled image are pasted, with their labels, onto another one.

[0] Olsson et al. 2021, https://arxiv.org/abs/2007.07936   [1] WilhelmT/ClassMix @aa85291, trainSSL.py
Differs from [1]: recoloured before the mixing, not after; padding is left out of the classes, of the share of sure
pixels and of the loss (there every pixel counts); the teacher averages buffers too and stays in eval mode
(`teacher_batch` goes back to batch statistics); labels that overlap: half of the labels present, rounded up, are
pasted, so that a lone foreground is. Batch normalisation: the labeled and the mixed pass both update the student's
running statistics, as in [1]; the teacher's pass updates none.
"""

from __future__ import annotations

import torch
from torch import Tensor

from semiseg.batch import IGNORE, Clock, Labeled, Target, Unlabeled
from semiseg.data.mixing import class_regions, cutmix
from semiseg.ema import Average
from semiseg.errors import usage
from semiseg.methods._certainty import PER, weigh
from semiseg.methods.base import Make, Method
from semiseg.networks.base import batch_stats
from semiseg.task import Task


class ClassMix(Method):
    """L = L_sup + weight · ramp(t) · w · Σ CE / #pixels inside the image, w = share of mixed pixels with c ≥ threshold.

    per: whether w is one number for the batch (as in [1]), one for each image, or 1 or 0 for each pixel; ema: the
    teacher's decay (see ema.py); teacher_batch: it normalises by the batch. The student predicts.
    """

    views = ("strong",)

    def __init__(
        self,
        make: Make,
        task: Task,
        *,
        threshold: float = 0.968,
        weight: float = 1.0,
        per: str = "batch",
        ema: float = 0.99,
        teacher_batch: bool = False,
        warmup: float = 0.0,
        ramp: float = 0.0,
    ) -> None:
        super().__init__(make, task)
        if per not in PER:
            raise usage("per", f"is '{per}'", expected=" or ".join(PER))
        self.teacher = Average(self.student, ema)
        self.threshold, self.per, self.teacher_batch = threshold, per, teacher_batch
        self.weight, self.warmup, self.ramp = weight, warmup, ramp

    def step(self, labeled: Labeled, unlabeled: Unlabeled | None, clock: Clock) -> dict[str, Tensor]:
        """The teacher labels the clean images; the student learns from the mixed ones."""
        assert unlabeled is not None
        with torch.no_grad(), batch_stats(self.teacher, use_batch=self.teacher_batch):
            target = self.believe(unlabeled, self.teacher(unlabeled.weak))
        unlabeled, target = self.refine(unlabeled, target, clock)
        image, target = self.mix(unlabeled.strong[0], target, clock)
        target = weigh(target, self.threshold, self.per)
        sup = self.task.supervised(self.student(labeled.image), labeled)
        unsup = self.task.consistency(self.student(image), target)
        return {
            "loss": sup + self.strength(clock) * unsup,
            "sup": sup,
            "mixed": unsup,
            "kept": (target.weight * target.valid).mean().detach(),
        }

    def mix(self, image: Tensor, target: Target, clock: Clock) -> tuple[Tensor, Target]:
        """Each image (U,C,H,W) where its chosen classes are predicted, the next image of the batch elsewhere.

        Both keep their labels there. An image that shows one class gives nothing: it is replaced by its neighbour.
        """
        outside = ~(target.valid if target.multilabel else target.valid.squeeze(1))
        label = target.label.masked_fill(outside, IGNORE)
        regions = class_regions(label, self.task.channels, clock.generator("classes"))
        return cutmix(image, target, ~regions)

    def after_step(self, clock: Clock) -> None:
        """Move the teacher."""
        self.teacher.update(self.student, clock.total)
