"""CSL: pixels are trusted by how an image's confidences separate; a recoloured and a partly hidden view learn from them.

[0] Liu and Liu 2025, https://arxiv.org/abs/2509.16704   [1] PanLiuCSU/CSL, train/semi_supervised_train.py
Differs from [1]: see `_separation` for the weights; the CutMix partner is another image of the batch instead of one of
a second unlabeled loader, so its labels come from the same forward pass; a sample whose coin says "not hidden" shows
its strong view before CutMix instead of a third draw of colours; the mild view is weaker (p .5, .1 to .25, no blur; there
p .8, .2 each, and blur); small crops have more cells than one per 32 px;
padding is left out by weight, not painted in the mean colour. Overlapping labels: a pixel is hidden only where every
label is trusted (our reading). Batch normalisation: the pass of labeled, weak and dropped features updates the running
statistics, that of the strong and the hidden view does not, as in [1]; pseudo-labels come from train mode, as in [1], or
from a pass of their own in eval mode.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from semiseg.batch import Clock, Labeled, Target, Unlabeled, send
from semiseg.data.mixing import cut_boxes, cutmix
from semiseg.errors import usage
from semiseg.methods._choices import check
from semiseg.methods._separation import separation
from semiseg.methods.base import Make, Method
from semiseg.networks.base import Features, Network, batch_stats, evaluating
from semiseg.networks.perturb import channel_dropout
from semiseg.task import Task


class CSL(Method):
    """L = (L_sup + weight · ramp(t) · (L_strong / 4 + L_hidden / 4 + L_feature / 2)) / 2, terms Σ w·CE / #inside.

    alpha: width of the soft weights; version: dispersion of the "code" or the "paper"; side: of the hidden cells in px
    (no fewer than 8 cells a side); cover: share of cells hidden; dropout: of feature channels; believed: labels of
    which mode, train or eval. No confidence threshold; no warm-up in [1], but the rule trusts about half of the pixels
    from the first step on.
    """

    views = ("strong", "mild")

    def __init__(
        self,
        make: Make,
        task: Task,
        *,
        alpha: float = 8.0,
        version: str = "code",
        side: int = 32,
        cover: float = 0.7,
        dropout: float = 0.5,
        believed: str = "train",
        weight: float = 1.0,
        warmup: float = 0.0,
        ramp: float = 0.0,
    ) -> None:
        super().__init__(make, task)
        check(believed=believed)
        self.believed = believed
        self.alpha, self.version = alpha, version
        if side < 1:
            raise usage("side", f"is {side}", expected="at least 1 pixel: a cell that is hidden has a size here")
        self.side, self.cover, self.dropout = side, cover, dropout
        self.weight, self.warmup, self.ramp = weight, warmup, ramp

    def step(self, labeled: Labeled, unlabeled: Unlabeled | None, clock: Clock) -> dict[str, Tensor]:
        """Three views learn from the weak one: strong and pasted, mild with trusted cells hidden, features dropped."""
        assert unlabeled is not None
        net, b, u = cast(Network, self.student), len(labeled.image), len(unlabeled.weak)
        clean = net.encode(torch.cat([labeled.image, unlabeled.weak]))
        dropped = channel_dropout(clean[b:], clock.generator("drop"), p=self.dropout)
        known, weak, feature = net.logits(Features.cat([clean, dropped])).split([b, u, u])

        if self.believed == "eval":
            with torch.no_grad(), evaluating(net):
                weak = net(unlabeled.weak)
        target = self.believe(unlabeled, weak)
        target = target.replace(weight=separation(target, self.task, alpha=self.alpha, version=self.version))
        unlabeled, target = self.refine(unlabeled, target, clock)

        hidden = self.hide(unlabeled, target, clock)
        box = cut_boxes(u, unlabeled.size, clock.generator("box"))
        strong, mixed = cutmix(unlabeled.strong[0], target, box)
        with batch_stats(net, track=False):
            first, second = net(torch.cat([strong, hidden])).chunk(2)

        parts = {
            "sup": self.task.supervised(known, labeled),
            "strong": self.task.consistency(first, mixed),
            "hidden": self.task.consistency(second, target),
            "feature": self.task.consistency(feature, target),
        }
        taught = parts["strong"] / 4 + parts["hidden"] / 4 + parts["feature"] / 2
        return {
            "loss": (parts["sup"] + self.strength(clock) * taught) / 2,
            **parts,
            "kept": (target.weight * target.valid).mean(),
            "trusted": trusted(target).float().mean(),
        }

    def hide(self, unlabeled: Unlabeled, target: Target, clock: Clock) -> Tensor:
        """Half of the samples: the mild view, trusted pixels of drawn cells in the mean colour; others: the strong view."""
        generator, strong = clock.generator("hide"), unlabeled.strong[0]
        coin = torch.rand(len(strong), 1, 1, 1, generator=generator) < 0.5
        drawn = cells(len(strong), unlabeled.size, generator, side=self.side, cover=self.cover)
        where = send(drawn, strong.device) & trusted(target)
        mean = cast(Tensor, self.student.mean)  # 0 for the network, which normalises by itself
        return torch.where(send(coin, strong.device), torch.where(where, mean, unlabeled.strong[1]), strong)

    def caveat(self) -> str:
        """Two classes have no dispersion of their own."""
        if not self.task.multilabel and self.task.channels > 2:
            return ""
        seen = "is 0" if self.version == "paper" else "follows from the confidence"
        return f"with two classes the dispersion {seen}: csl weighs pixels by their relative confidence alone"

    def images_per_step(self, labeled: int, unlabeled: int) -> int:
        """One weak, one strong, one hidden; the dropped features cost a decoder pass and no image."""
        return labeled + (4 if self.believed == "eval" else 3) * unlabeled


def trusted(target: Target) -> Tensor:
    """Where the weight is 1 (of every label, when labels overlap) inside the image: (U,1,H,W) bool."""
    return (target.weight == 1).all(1, keepdim=True) & target.valid


def cells(
    batch: int, size: tuple[int, int], generator: torch.Generator, *, side: int = 32, cover: float = 0.7
) -> Tensor:
    """Hidden cells (B,1,H,W) bool: a grid of round(size / side) cells, at least 8 a side, each drawn with p = cover.

    The grid is stretched to the image by its nearest cell, as in [1] (10 a side at its smallest crop of 321 px).
    """
    rows, columns = (max(round(length / side), min(8, length)) for length in size)
    drawn = torch.rand(batch, 1, rows, columns, generator=generator) < cover
    return F.interpolate(drawn.float(), size, mode="nearest") > 0
