"""UniMatch: one prediction on the clean view teaches two strong views and one whose features lose channels.

[0] Yang et al. 2023, https://arxiv.org/abs/2208.09910   [1] LiheYoung/UniMatch @0324f3d, unimatch.py
Differs from [1]: the CutMix partner is another image of the batch (there, by a shared seed, another crop of the same
image), so its labels come from the same forward pass; channels are dropped for unlabeled images only (there for
labeled ones too, whose output is thrown away); an all-padded batch gives 0, not NaN; an optional ramp; other rules of
selection, other things to paste and a masked second view can be chosen. Batch normalisation: every pass updates the
running statistics, as in [1], except that of a masked view; clean and dropped features share one pass of the decoder.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from semiseg.batch import Clock, Labeled, Unlabeled
from semiseg.methods import _choices
from semiseg.methods._supmix import chosen
from semiseg.methods.base import Make, Method
from semiseg.networks.base import Features, Network
from semiseg.networks.perturb import channel_dropout
from semiseg.task import Task


class UniMatch(Method):
    """L = (L_sup + weight · ramp(t) · (L_strong / 2 + L_feature / 2)) / 2, L_strong the mean over the two strong views.

    Each unlabeled term is Σ [c ≥ threshold] CE / #pixels inside the image. dropout: probability that a channel is
    dropped; levels: at the level of stride 4 and the deepest ("ends"), "deepest" or "all". refine: confidence, or csl
    (its weights, no threshold); mix: what is pasted, none, cutmix, classmix or supmix (classes: of which names, with commas;
    "" = half of an image's, drawn); view: what the second view is,
    strong or masked (and then not pasted into). No warm-up, no ramp in [1].
    """

    views = ("strong", "strong")

    def __init__(
        self,
        make: Make,
        task: Task,
        *,
        threshold: float = 0.95,
        weight: float = 1.0,
        dropout: float = 0.5,
        levels: str = "ends",
        refine: str = "confidence",
        mix: str = "cutmix",
        classes: str = "",
        view: str = "strong",
        warmup: float = 0.0,
        ramp: float = 0.0,
    ) -> None:
        super().__init__(make, task)
        _choices.check(levels=levels, refine=refine, mix=mix, view=view)
        self.classes = _choices.only(mix, chosen(classes, task))
        self.threshold, self.rule, self.mix, self.view = threshold, refine, mix, view
        self.dropout, self.levels = dropout, levels
        self.weight, self.warmup, self.ramp = weight, warmup, ramp

    def step(self, labeled: Labeled, unlabeled: Unlabeled | None, clock: Clock) -> dict[str, Tensor]:
        """Labeled and weak images share an encoder pass; the boxes of the two strong views are independent."""
        assert unlabeled is not None
        net, b, u = cast(Network, self.student), len(labeled.image), len(unlabeled.weak)
        clean = net.encode(torch.cat([labeled.image, unlabeled.weak]))
        dropped = channel_dropout(clean[b:], clock.generator("drop"), p=self.dropout, levels=self.levels)
        known, weak, feature = net.logits(Features.cat([clean, dropped])).split([b, u, u])

        target = _choices.select(self.rule, self.believe(unlabeled, weak), self.task, self.threshold)
        unlabeled, target = self.refine(unlabeled, target, clock)
        parts = {
            "sup": self.task.supervised(known, labeled),
            "strong": _choices.strong_loss(self, self.view, self.mix, labeled, unlabeled, target, clock, self.classes),
            "feature": self.task.consistency(feature, target),
        }
        taught = (parts["strong"] + parts["feature"]) / 2
        kept = (target.weight * target.valid).mean().detach()
        return {"loss": (parts["sup"] + self.strength(clock) * taught) / 2, **parts, "kept": kept}

    def caveat(self) -> str:
        """CSL on two classes."""
        return _choices.caveat(self.rule, self.task)
