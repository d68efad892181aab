"""How far a pixel can be trusted, read from how its image's confidences separate: no threshold anywhere.

[0] Liu and Liu 2025, https://arxiv.org/abs/2509.16704   [1] PanLiuCSU/CSL, util/PCOS.py and train/semi_supervised_train.py
Differs from [1]: the right singular vectors of the features come from their 2x2 Gram matrix instead of an SVD as large
as the image (the same clusters); features of rank one (two classes, one colour) make one cluster and nothing is divided
by 0; all images at once. Overlapping labels: each label of each image by itself, as two classes (our reading of [0]).
"""

from __future__ import annotations

import torch
from torch import Tensor

from semiseg.batch import Target
from semiseg.errors import usage
from semiseg.task import Task

EPS = 1e-8  # part of the method: variances of the dispersion are of this size
RANK_ONE = 1e-6  # off-trend share below which float32 holds nothing but rounding
VERSIONS = ("code", "paper")


@torch.no_grad()
def separation(target: Target, task: Task, *, alpha: float = 8.0, version: str = "code") -> Tensor:
    """Trust (U,1|K,H,W) in [0,1]: 1 where a pixel is surer or less dispersed than its image's reliable mean, else soft.

    z_c = (c - μ_c) / √(σ_c² + ε), z_v = (μ_v - v) / √(σ_v² + ε) over the reliable cluster of the valid pixels;
    w = 1 if z_c > 0 or z_v > 0, else exp(-(z_c² + z_v²) / alpha); 0 outside the image. float32, never autocast.
    """
    prob = task.fold(target.prob.float())
    valid = target.valid.repeat_interleave(len(prob) // max(len(target.prob), 1), 0)
    c, v = features(prob, version)
    inside = valid.flatten(1).float()
    first = dominant(c, v, inside).float()
    mine, other = inside * first, inside * (1 - first)
    take = mean(c, mine) >= mean(c, other)  # an empty cluster has mean 0
    reliable = torch.where(take, mine, other)
    z_c, z_v = -scores(c, reliable), scores(v, reliable)
    soft = torch.exp(-(z_c**2 + z_v**2) / alpha)
    trust = soft.masked_fill((z_c > 0) | (z_v > 0), 1.0) * inside
    return task.unfold(trust.view(valid.shape))


def features(prob: Tensor, version: str = "code") -> tuple[Tensor, Tensor]:
    """Confidence c and dispersion v of the other classes around their mean m = (1-c)/(K-1); (N,K,H,W) to (N,H·W) each.

    "paper": v = Σ_{k≠k*} (p_k - m)² / (K-1), whose negative is [0]'s v; 0 for two classes. "code": the slot of the
    largest class stays in the sum as 0, which adds m² / (K-1); (1-c)² for two classes.
    """
    if version not in VERSIONS:
        raise usage("version", f"is '{version}'", expected=" or ".join(VERSIONS))
    others = max(prob.shape[1] - 1, 1)
    c, top = prob.max(1, keepdim=True)
    rest = prob.scatter(1, top, 0.0)
    m = rest.sum(1, keepdim=True) / others  # keeps the digits that 1-c loses
    if version == "paper":
        rest = rest.scatter(1, top, m)
    v = ((rest - m) ** 2).sum(1) / others
    return c.flatten(1), v.flatten(1)


def dominant(c: Tensor, v: Tensor, inside: Tensor) -> Tensor:
    """Which pixels lie nearer to the first right singular direction of the rows [c, v] than to the second, (N,P) bool.

    The relaxed cut argmax_j |V_ij| with V_ij = x_i·u_j / s_j, u_j the eigenvectors of XᵀX = [[a, b], [b, d]] over pixels
    of weight `inside` (N,P); neither centred nor scaled. All True when the second direction is empty.
    """
    a, b, d = ((x * inside).sum(1, keepdim=True) for x in (c * c, c * v, v * v))
    along = (a - d) / 2 + (((a - d) / 2) ** 2 + b**2).sqrt()  # u_1 ∝ (along, b), u_2 ∝ (-b, along); a ≥ d because c ≥ v
    norm = torch.hypot(along, b).clamp(min=torch.finfo(c.dtype).tiny)
    cos, sin = along / norm, b / norm
    first, second = (cos * c + sin * v).abs(), (cos * v - sin * c).abs()
    s1, s2 = ((x**2 * inside).sum(1, keepdim=True).sqrt() for x in (first, second))
    return (first * s2 >= second * s1) | (s2 <= RANK_ONE * sin * s1)


def mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of non-negative numbers over a 0/1 mask, per row: (N,P) to (N,1); 0 where the mask is empty.

    Summed as differences from the largest, so that equal numbers are exactly at their mean.
    """
    most = (x * mask).amax(1, keepdim=True)
    return most - ((most - x) * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)


def scores(x: Tensor, mask: Tensor) -> Tensor:
    """How many (unbiased) standard deviations below the mean over the mask each number lies, (N,P)."""
    mu = mean(x, mask)
    variance = ((x - mu) ** 2 * mask).sum(1, keepdim=True) / (mask.sum(1, keepdim=True) - 1).clamp(min=1)
    return (mu - x) / (variance + EPS).sqrt()
