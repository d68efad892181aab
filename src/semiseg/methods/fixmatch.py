"""FixMatch for segmentation: confident predictions on a weak view teach a strong view, pasted over by CutMix.

[0] Sohn et al. 2020, https://arxiv.org/abs/2001.07685   [1] LiheYoung/UniMatch @0324f3d, fixmatch.py
Differs from [1]: the CutMix partner is another image of the batch (there, by a shared seed, another crop of the same
image), so its labels come from the same forward pass; an all-padded batch gives 0, not NaN; an optional ramp; other
rules of selection, other things to paste and a masked view can be chosen. Batch normalisation: every pass updates the
running statistics, as in [1], except that of a masked view.
"""

from __future__ import annotations

import torch
from torch import Tensor

from semiseg.batch import Clock, Labeled, Unlabeled
from semiseg.methods import _choices
from semiseg.methods._supmix import chosen
from semiseg.methods.base import Make, Method
from semiseg.task import Task


class FixMatch(Method):
    """L = (L_sup + weight · ramp(t) · L_strong) / 2, L_strong = Σ [c ≥ threshold] CE / #pixels inside the image.

    threshold: confidence max p (per label max(p, 1-p)). refine: confidence, or csl (its weights, no threshold); mix:
    what is pasted, none, cutmix, classmix or supmix (classes: names of what, with commas; "" = half of an image's, drawn);
    view: strong, or masked (MaskMatch's view beside the strong one, each half). No warm-up, no ramp in [1].
    """

    def __init__(
        self,
        make: Make,
        task: Task,
        *,
        threshold: float = 0.95,
        weight: float = 1.0,
        refine: str = "confidence",
        mix: str = "cutmix",
        classes: str = "",
        view: str = "strong",
        warmup: float = 0.0,
        ramp: float = 0.0,
    ) -> None:
        super().__init__(make, task)
        _choices.check(refine=refine, mix=mix, view=view)
        self.views = ("strong", "strong") if view == "masked" else ("strong",)
        self.classes = _choices.only(mix, chosen(classes, task))
        self.threshold, self.rule, self.mix, self.view = threshold, refine, mix, view
        self.weight, self.warmup, self.ramp = weight, warmup, ramp

    def step(self, labeled: Labeled, unlabeled: Unlabeled | None, clock: Clock) -> dict[str, Tensor]:
        """Labeled and weak images share a forward pass, which keeps clean BN statistics ([1] issue 68)."""
        assert unlabeled is not None
        b = len(labeled.image)
        clean = self.student(torch.cat([labeled.image, unlabeled.weak]))
        target = _choices.select(self.rule, self.believe(unlabeled, clean[b:]), self.task, self.threshold)
        unlabeled, target = self.refine(unlabeled, target, clock)
        sup = self.task.supervised(clean[:b], labeled)
        unsup = _choices.strong_loss(self, self.view, self.mix, labeled, unlabeled, target, clock, self.classes)
        return {
            "loss": (sup + self.strength(clock) * unsup) / 2,
            "sup": sup,
            "strong": unsup,
            "kept": (target.weight * target.valid).mean().detach(),
        }

    def caveat(self) -> str:
        """CSL on two classes."""
        return _choices.caveat(self.rule, self.task)
