"""UniMatch V2: an average of the student teaches two strong views, between which every feature channel is divided.

[0] Yang, Zhao and Zhao 2025, https://arxiv.org/abs/2410.10777   [1] LiheYoung/UniMatch-V2 @f6afb4d, unimatch_v2.py
Differs from [1]: the partner pasted into an image is the next one of the batch (there the batch reversed, in which the
middle image of an odd batch is its own partner); the teacher averages floating-point state and copies integers; an
all-padded batch gives 0, not NaN; an optional ramp. Batch normalisation: all passes of the student update its running
statistics, which the teacher averages; a student that has such layers sees the clean views beside the labeled images
([1] trains vision transformers, which have none), so that half of its updates come from clean images.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from semiseg.batch import Clock, Labeled, Unlabeled
from semiseg.data.mixing import cut_boxes, cutmix
from semiseg.ema import Average
from semiseg.methods.base import Make, Method
from semiseg.networks.base import Network
from semiseg.networks.perturb import complementary_dropout
from semiseg.task import Task


class UniMatchV2(Method):
    """L = (L_sup + weight · ramp(t) · (L_1 + L_2) / 2) / 2, L_i = Σ [c ≥ threshold] CE / #pixels inside the image.

    threshold: on the teacher's confidence max p (per label max(p, 1-p)). ema: the teacher's decay (see ema.py).
    spared: share of the pairs of views whose channels are not divided. The teacher predicts.
    """

    views = ("strong", "strong")

    def __init__(
        self,
        make: Make,
        task: Task,
        *,
        threshold: float = 0.95,
        weight: float = 1.0,
        ema: float = 0.996,
        spared: float = 0.5,
        warmup: float = 0.0,
        ramp: float = 0.0,
    ) -> None:
        super().__init__(make, task)
        self.teacher = Average(self.student, ema)
        self.normalised = any(isinstance(m, _BatchNorm) for m in self.student.modules())
        self.threshold, self.spared = threshold, spared
        self.weight, self.warmup, self.ramp = weight, warmup, ramp

    def step(self, labeled: Labeled, unlabeled: Unlabeled | None, clock: Clock) -> dict[str, Tensor]:
        """The boxes of the two views are independent; which channels go where is drawn for each image."""
        assert unlabeled is not None
        net, b = cast(Network, self.student), len(labeled.image)
        with torch.no_grad():
            target = self.believe(unlabeled, self.teacher(unlabeled.weak))
        target = target.keep(lambda t: t.confidence >= self.threshold)
        unlabeled, target = self.refine(unlabeled, target, clock)
        boxes = [cut_boxes(len(unlabeled.weak), unlabeled.size, clock.generator(f"box{i}")) for i in range(2)]
        mixes = [cutmix(view, target, box) for view, box in zip(unlabeled.strong, boxes, strict=True)]

        known = net(torch.cat([labeled.image, unlabeled.weak]) if self.normalised else labeled.image)[:b]
        features = net.encode(torch.cat([image for image, _ in mixes]))
        features = complementary_dropout(features, clock.generator("drop"), spared=self.spared)
        first, second = (
            self.task.consistency(x, t) for x, (_, t) in zip(net.logits(features).chunk(2), mixes, strict=True)
        )
        sup, strong = self.task.supervised(known, labeled), (first + second) / 2
        return {
            "loss": (sup + self.strength(clock) * strong) / 2,
            "sup": sup,
            "strong": strong,
            "kept": (target.weight * target.valid).mean().detach(),
        }

    def after_step(self, clock: Clock) -> None:
        """Move the teacher."""
        self.teacher.update(self.student, clock.total)

    def predictor(self) -> nn.Module:
        """The teacher."""
        return self.teacher.network

    def images_per_step(self, labeled: int, unlabeled: int) -> int:
        """The teacher's clean view, two strong views, and a normalised student's clean view."""
        return labeled + unlabeled * (3 + self.normalised)
