"""MaskMatch: labels from a teacher at several scales teach a strong view and one of which most patches are hidden.

[0] Pan et al. 2023, https://arxiv.org/abs/2312.08631. There is no public code: only the abstract's claims are certain
(a masked view down to 30 % visible, labels from the complete image, several scales, both losses from these labels).
Our reading of the rest: scales, an average of probabilities, patches hidden independently (0 once normalised),
cross-entropy on hidden and visible pixels alike, weights ½ and ½, all halved as in UniMatch. Padding is left out.
Batch normalisation: the labeled and the strong pass update running statistics, the masked one and the teacher do not.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semiseg.batch import Clock, Labeled, Target, Unlabeled
from semiseg.data.mixing import cut_boxes, cutmix
from semiseg.ema import Average
from semiseg.errors import usage
from semiseg.methods._patches import hide, patches
from semiseg.methods.base import Make, Method
from semiseg.networks.base import Network, batch_stats
from semiseg.task import Task


class MaskMatch(Method):
    """L = (L_sup + weight · ramp(t) · ((1 - masked) · L_strong + masked · L_masked)) / 2.

    Both are Σ [c ≥ threshold] CE / #pixels inside the image, c the confidence of the probabilities averaged over the
    scales 1 - spread, 1 and 1 + spread (spread 0: scale 1 alone). masked: the part of the masked view; hidden: share
    of patches hidden; side: of a patch in pixels, 0 = by the crop; ema: the teacher's decay (see ema.py), which
    predicts.
    """

    views = ("strong",)

    def __init__(
        self,
        make: Make,
        task: Task,
        *,
        threshold: float = 0.95,
        weight: float = 1.0,
        masked: float = 0.5,
        hidden: float = 0.7,
        side: int = 0,
        spread: float = 0.5,
        ema: float = 0.996,
        warmup: float = 0.0,
        ramp: float = 0.0,
    ) -> None:
        super().__init__(make, task)
        if not 0 <= spread < 1:
            raise usage("spread", f"is {spread}", expected="0 to below 1")
        self.teacher = Average(self.student, ema)
        self.threshold, self.masked, self.hidden, self.side = threshold, masked, hidden, side
        self.scales = (1.0 - spread, 1.0, 1.0 + spread) if spread else (1.0,)
        self.weight, self.warmup, self.ramp = weight, warmup, ramp

    def step(self, labeled: Labeled, unlabeled: Unlabeled | None, clock: Clock) -> dict[str, Tensor]:
        """One strong view serves twice: with boxes of the next image pasted in, and with patches hidden."""
        assert unlabeled is not None
        prob = scaled_prob(self.teacher.network, unlabeled.weak, self.scales, self.task)
        target = Target(prob, self.task.label(prob), torch.ones_like(prob[:, :1]), unlabeled.valid)
        target = target.keep(lambda t: t.confidence >= self.threshold)
        unlabeled, target = self.refine(unlabeled, target, clock)
        strong, number = unlabeled.strong[0], len(unlabeled.weak)
        mixed = cutmix(strong, target, cut_boxes(number, unlabeled.size, clock.generator("box0")))
        away = patches(number, unlabeled.size, clock.generator("patches"), side=self.side, share=self.hidden)
        sup = self.task.supervised(self.student(labeled.image), labeled)
        whole = self.task.consistency(self.student(mixed[0]), mixed[1])
        with batch_stats(self.student, track=False):
            partial = self.task.consistency(self.student(hide(strong, away, self.student)), target)
        unsup = (1 - self.masked) * whole + self.masked * partial
        return {
            "loss": (sup + self.strength(clock) * unsup) / 2,
            "sup": sup,
            "strong": whole,
            "masked": partial,
            "kept": (target.weight * target.valid).mean().detach(),
        }

    def after_step(self, clock: Clock) -> None:
        """Move the teacher."""
        self.teacher.update(self.student, clock.total)

    def predictor(self) -> nn.Module:
        """The teacher."""
        return self.teacher.network

    def images_per_step(self, labeled: int, unlabeled: int) -> int:
        """The teacher's passes count by their area: Σ scale², 3.5 for ½, 1 and 1½."""
        return labeled + round(unlabeled * (2 + sum(scale**2 for scale in self.scales)))


@torch.no_grad()
def scaled_prob(network: nn.Module, image: Tensor, scales: tuple[float, ...], task: Task) -> Tensor:
    """Mean over scales of the probabilities (U,K,H,W), each resized back: resize₁(softmax f(resize_s(x))).

    Scaled sides are rounded to a multiple of the network's stride; scale 1 is the image as it is.
    """
    stride, size = cast(Network, network).stride, image.shape[-2:]
    total = torch.zeros((), device=image.device)
    for scale in scales:
        scaled = tuple(max(round(length * scale / stride), 1) * stride for length in size)
        view = image if scale == 1 else _bilinear(image, scaled)
        total = total + _bilinear(task.prob(network(view)), tuple(size))
    return total / len(scales)


def _bilinear(x: Tensor, size: tuple[int, ...]) -> Tensor:
    if tuple(x.shape[-2:]) == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)
