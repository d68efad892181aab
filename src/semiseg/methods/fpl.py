"""Fuzzy positive learning: where the other branch of CPS hesitates, its likely classes are all taught as positive.

[0] Qiao et al. 2023, https://arxiv.org/abs/2210.08519   [1] qpc1611094/FPL @c139b42 (on CPS; ideas only, no licence)
Differs from [1]: as `cps` differs from TorchSemiSeg; the number of positives stays below the number of classes; pixels
outside the image do not count; the ratio that balances the loss is formed for each branch and never divides by 0.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from semiseg.batch import Target
from semiseg.errors import nearest, usage
from semiseg.methods._pair import CrossPseudo
from semiseg.methods.base import Make
from semiseg.task import Task

PIXELS = ("concave", "linear", "convex", "none")


class FPL(CrossPseudo):
    """CPS with FPR in place of cross-entropy, on the positives that FPA assigns.

    mass, positives: FPA takes the likeliest classes as long as they do not reach `mass` together, at least 1 and at
    most `positives`. pixels: how a pixel's weight grows with the gap below its positives ("concave" for Cityscapes in
    [1], "none" for VOC). weight: 1 on VOC in [1], 5 on Cityscapes. Two classes, or labels that may overlap (each of
    which is a problem of two classes), leave one positive, and FPR is then cross-entropy with weighted pixels.
    """

    def __init__(
        self,
        make: Make,
        task: Task,
        *,
        mass: float = 0.9,
        positives: int = 3,
        pixels: str = "concave",
        **inherited: Any,
    ) -> None:
        if pixels not in PIXELS:
            raise usage("pixels", f"is '{pixels}'. {nearest(pixels, PIXELS)}".strip(), expected=" or ".join(PIXELS))
        if positives < 1:
            raise usage("positives", f"is {positives}", expected="at least 1")
        super().__init__(make, task, **inherited)
        self.mass, self.pixels = mass, pixels
        self.most = min(positives, 1 if task.multilabel else task.channels - 1)

    def taught(self, logits: Tensor, target: Target) -> Tensor:
        """Σ w·FPR / #pixels inside the image, scaled to the value of plain CPS: only the direction differs from it."""
        positive, weight = assign(self.task.fold(target.prob), self.mass, self.most, self.pixels)
        plain = self.task.loss_map(logits, target.label)
        loss = plain if self.most == 1 else fuzzy(logits, positive)
        fuzzy_mean = self.task.reduce(self.task.unfold(weight) * loss, target)
        plain_mean = self.task.reduce(plain, target).detach()
        return fuzzy_mean * (plain_mean / fuzzy_mean.detach().clamp_min(1e-8))

    def caveat(self) -> str:
        """With two classes there is one positive, and nothing fuzzy."""
        if self.most > 1:
            return ""
        plain = "binary cross-entropy" if self.task.multilabel else "cross-entropy"
        how = (
            "is cps" if self.pixels == "none" else f"is cps with {plain} weighted by confidence (pixels={self.pixels})"
        )
        return f"fpl leaves one positive class per pixel on this task: it {how}"


def assign(prob: Tensor, mass: float, most: int, pixels: str) -> tuple[Tensor, Tensor]:
    """FPA: positive classes (B,K,H,W) bool and pixel weights (B,1,H,W) in [0,1] from probabilities (B,K,H,W).

    With S_j the sum of the j largest, n = min {j ≥ 1: S_(j+1) ≥ mass}, at most `most` < K: the class that crosses
    `mass` is not positive. The weight compares the mean a of the n+1 largest with the last of them, b.
    """
    top, order = prob.topk(most + 1, 1)
    total = top.cumsum(1)
    n = 1 + (total[:, 1:most] < mass).sum(1, keepdim=True)
    rank = torch.arange(most + 1, device=prob.device).view(1, -1, 1, 1)
    positive = torch.zeros_like(prob, dtype=torch.bool).scatter(1, order, rank < n)
    a, b = total.gather(1, n) / (n + 1), top.gather(1, n)
    return positive, pixel_weight(a, b, pixels)


def pixel_weight(a: Tensor, b: Tensor, pixels: str) -> Tensor:
    """Grows with a - b from 0 (all n+1 alike) to 1 (b = 0)."""
    if pixels == "none":
        return torch.ones_like(a)
    if pixels == "linear":
        weight = (a - b) / a
    elif pixels == "convex":
        weight = (a - b) / (a + b)
    else:
        weight = torch.log1p(50 * (a - b)) / torch.log1p(50 * a)
    return weight.clamp(0, 1)


def fuzzy(logits: Tensor, positive: Tensor) -> Tensor:
    """FPR (B,1,H,W): log(1 + Σ over positives p and negatives m of exp(z_m - z_p)).

    It puts the smallest positive logit above the largest negative one; with one positive it is cross-entropy.
    """
    z = logits.float()
    least = (-z).masked_fill(~positive, float("-inf")).logsumexp(1, keepdim=True)
    most = z.masked_fill(positive, float("-inf")).logsumexp(1, keepdim=True)
    return F.softplus(least + most)
