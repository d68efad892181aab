"""What is predicted: one class per pixel, or labels that may overlap. The one place that knows the difference.

logits → prob → label, losses with stated denominators, metrics. Binary is `Multilabel` with one channel.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from semiseg import losses
from semiseg.batch import IGNORE, Labeled, Target
from semiseg.errors import usage

LOSSES = ("ce", "ce+dice", "mse", "ohem")


class Task(ABC):
    """Shared by `Multiclass` and `Multilabel`. loss: the supervised one, ce, ce+dice, mse (the IM paper's) or ohem.

    kept: the least share of pixels that ohem counts.
    """

    multilabel: bool

    def __init__(self, names: Sequence[str], loss: str = "ce+dice", kept: float = losses.OHEM_KEPT) -> None:
        if loss not in LOSSES:
            raise usage("loss", f"is '{loss}'", expected=" or ".join(LOSSES))
        self.names = tuple(names)
        self.loss, self.kept = loss, kept

    @property
    def channels(self) -> int:
        """Logit channels a network needs."""
        return len(self.names)

    @abstractmethod
    def prob(self, logits: Tensor) -> Tensor:
        """(B,K,H,W) logits to probabilities, in float32."""

    @abstractmethod
    def label(self, prob: Tensor) -> Tensor:
        """Discretise probabilities (or logits' probabilities): argmax, or p > .5 per channel."""

    @abstractmethod
    def loss_map(self, logits: Tensor, label: Tensor) -> Tensor:
        """Cross-entropy per element: (B,1,H,W) or (B,K,H,W), 0 where the label is 255."""

    @abstractmethod
    def known(self, label: Tensor) -> Tensor:
        """Where the mask says something: (B,1,H,W) or (B,K,H,W) bool."""

    @abstractmethod
    def truth(self, label: Tensor) -> Tensor:
        """The mask as probabilities (B,K,H,W); ignored pixels are 0."""

    def target(self, logits: Tensor, valid: Tensor) -> Target:
        """A detached belief of weight 1 from logits (U,K,H,W); valid (U,1,H,W) bool."""
        prob = self.prob(logits.detach())
        return Target(prob, self.label(prob), torch.ones_like(prob[:, :1]), valid)

    def supervised(self, logits: Tensor, labeled: Labeled) -> Tensor:
        """The loss against masks: a mean over all pixels that are not 255 (0 when there are none), plus batch Dice.

        "ohem": cross-entropy over the hard ones of these pixels alone, see `losses.ohem`.
        """
        known = self.known(labeled.mask)
        if self.loss == "mse":
            per = losses.mse_map(logits, self.truth(labeled.mask), self.multilabel) * known
            return losses.masked_mean(per, known, labeled.weight)
        if self.loss == "ohem":
            return losses.ohem(self.loss_map(logits, labeled.mask), known, labeled.weight, kept=self.kept)
        loss = losses.masked_mean(self.loss_map(logits, labeled.mask), known, labeled.weight)
        if self.loss == "ce+dice":
            weight = known.float() if labeled.weight is None else known * labeled.weight
            loss = loss + losses.dice_loss(self.prob(logits), self.truth(labeled.mask), weight)
        return loss

    def consistency(self, logits: Tensor, target: Target, per: str = "valid") -> Tensor:
        """Weighted cross-entropy against a belief. The denominators differ between papers (protocol, trap 22).

        per: "valid" Σ w·CE / #(inside the image) (UniMatch, CSL); "kept" Σ w·CE / Σ w (U2PL); "all" / #pixels (iMAS).
        """
        return self.reduce(self.loss_map(logits, target.label), target, per)

    def reduce(self, loss: Tensor, target: Target, per: str = "valid") -> Tensor:
        """Weight a per-element loss (U,1|K,H,W) by the belief and take the mean that `per` names; 0 when empty."""
        valid = target.valid.expand_as(loss)
        weight = (target.weight * target.valid).expand_as(loss)
        total = (loss * weight).sum()
        if per == "valid":
            return total / losses.count(valid)
        if per == "kept":
            return total / losses.count(weight, 1e-6)
        if per == "all":
            return total / loss.numel()
        raise usage("per", f"is '{per}'", expected="valid, kept or all")

    def mse(self, logits: Tensor, target: Target, per: str = "valid") -> Tensor:
        """Squared distance of probabilities to the belief's, averaged over classes (mean teacher)."""
        loss = losses.mse_map(logits, target.prob, self.multilabel)
        return self.reduce(loss if self.multilabel else loss / self.channels, target, per)

    def belief(self, labeled: Labeled) -> Target:
        """Masks as a target: certain and of full weight where the mask says something, of weight 0 elsewhere."""
        known = self.known(labeled.mask)
        weight = known.float() if labeled.weight is None else known * labeled.weight
        label = labeled.mask.masked_fill(labeled.mask == IGNORE, 0)
        valid = torch.ones_like(labeled.image[:, :1], dtype=torch.bool)
        return Target(self.truth(labeled.mask), label, weight, valid)

    def categorical(self, logits: Tensor) -> Tensor:
        """Probabilities that sum to 1 over dim 1, for terms defined on a softmax (CSL, FPL, U2PL, KL): fold(prob)."""
        return self.fold(self.prob(logits))

    def fold(self, prob: Tensor) -> Tensor:
        """Probabilities (B,K,H,W) as they are, or overlapping labels as independent two-class problems.

        Those are stacked along the batch, image by image: (B·K,2,H,W), channel 1 = on. `unfold` goes back.
        """
        return prob

    def unfold(self, per: Tensor) -> Tensor:
        """One number per folded pixel, (B,1,H,W) or (B·K,1,H,W), to (B,1,H,W) or (B,K,H,W)."""
        return per

    def metrics(self) -> Metrics:
        """A fresh accumulator."""
        return Metrics(self)


class Multiclass(Task):
    """One of K classes at every pixel: softmax, argmax, cross-entropy. Masks (B,H,W) long."""

    multilabel = False

    def prob(self, logits: Tensor) -> Tensor:
        """Softmax."""
        return logits.float().softmax(1)

    def label(self, prob: Tensor) -> Tensor:
        """Argmax, (B,H,W) long."""
        return prob.max(1).indices  # the same as argmax(1), which is many times slower on a CPU

    def loss_map(self, logits: Tensor, label: Tensor) -> Tensor:
        """Cross-entropy (B,1,H,W)."""
        return losses.cross_entropy_map(logits, label)

    def known(self, label: Tensor) -> Tensor:
        """(B,1,H,W) bool."""
        return (label != IGNORE).unsqueeze(1)

    def truth(self, label: Tensor) -> Tensor:
        """One-hot (B,K,H,W)."""
        return losses.one_hot(label, self.channels)


class Multilabel(Task):
    """K labels that may overlap, each on or off: sigmoid, p > .5, binary cross-entropy. Masks (B,K,H,W) uint8."""

    multilabel = True

    def prob(self, logits: Tensor) -> Tensor:
        """Sigmoid per channel."""
        return logits.float().sigmoid()

    def label(self, prob: Tensor) -> Tensor:
        """p > .5 per channel, (B,K,H,W) uint8."""
        return (prob > 0.5).to(torch.uint8)

    def loss_map(self, logits: Tensor, label: Tensor) -> Tensor:
        """Binary cross-entropy (B,K,H,W)."""
        return losses.bce_map(logits, label)

    def known(self, label: Tensor) -> Tensor:
        """(B,K,H,W) bool."""
        return label != IGNORE

    def truth(self, label: Tensor) -> Tensor:
        """0/1 floats (B,K,H,W)."""
        return (label == 1).float()

    def fold(self, prob: Tensor) -> Tensor:
        """(B·K,2,H,W): off, on."""
        on = prob.flatten(0, 1).unsqueeze(1)
        return torch.cat([1 - on, on], 1)

    def unfold(self, per: Tensor) -> Tensor:
        """(B,K,H,W)."""
        return per.unflatten(0, (-1, self.channels)).squeeze(2)


class Metrics:
    """IoU and Dice from the pooled confusion matrix (torchmetrics), and the IM paper's mean over images.

    A class without a pixel in the truth of all images is None and left out of the means, whatever was predicted: one false
    pixel would score it 0. For binary and multi-label tasks the means run over the label channels; background is no class
    there. `iou_per_image`: for each image the mean IoU over the classes in its truth (labels: in its truth or prediction),
    then the mean over images.
    """

    def __init__(self, task: Task) -> None:
        k = task.channels
        self.task = task
        self.per_image: list[float] = []
        self.total = torch.zeros((k, 2, 2) if task.multilabel else (k, k), dtype=torch.int64)

    def update(self, label: Tensor, mask: Tensor) -> dict[str, float | None]:
        """Add one image: predicted label and mask, (H,W) or (K,H,W), on any device. Returns the IoUs of `iou_per_image`."""
        matrix = confusion(label, mask, self.task)
        self.total += matrix
        iou, _ = _scores(matrix, self.task.multilabel, predicted=self.task.multilabel)
        seen = [v for v in iou if v is not None]
        if seen:
            self.per_image.append(sum(seen) / len(seen))
        return dict(zip(self.task.names, iou, strict=True))

    def compute(self) -> dict[str, Any]:
        """{"miou", "dice", "iou_per_image", "per_class": {name: {"iou", "dice"}}}; None where the truth has nothing."""
        iou, dice = _scores(self.total, self.task.multilabel)
        per_class = {n: {"iou": i, "dice": d} for n, i, d in zip(self.task.names, iou, dice, strict=True)}
        return {
            "miou": _mean(iou),
            "dice": _mean(dice),
            "iou_per_image": _mean(self.per_image),
            "per_class": per_class,
        }


def confusion(label: Tensor, mask: Tensor, task: Task) -> Tensor:
    """Confusion matrix (K,K) int64 on the CPU, rows = truth, or (L,2,2) per label, of one image; 255 is left out.

    label, mask: (H,W) ids, or (L,H,W) 0/1, on one device.
    """
    from torchmetrics.functional.classification import multiclass_confusion_matrix, multilabel_confusion_matrix

    count = multilabel_confusion_matrix if task.multilabel else multiclass_confusion_matrix
    rules: dict[str, Any] = {"ignore_index": IGNORE, "validate_args": False}  # looking for other values takes longer
    return count(label[None].long(), mask[None].long(), task.channels, **rules).cpu()


def _scores(matrix: Tensor, multilabel: bool, predicted: bool = False) -> tuple[list[float | None], list[float | None]]:
    """IoU and Dice per class from (K,K), or per label from (K,2,2); rows are the truth. None where it has no pixel.

    predicted: what was predicted only is scored (0) as well.
    """
    m = matrix.double()
    if multilabel:
        hit, there, claimed = m[:, 1, 1], m[:, 1].sum(-1), m[:, :, 1].sum(-1)
    else:
        hit, there, claimed = m.diagonal(), m.sum(1), m.sum(0)
    union = there + claimed - hit
    scored = union if predicted else there
    iou = [float(h / u) if n > 0 else None for h, u, n in zip(hit, union, scored, strict=True)]
    dice = [None if v is None else 2 * v / (1 + v) for v in iou]
    return iou, dice


def _mean(values: Sequence[float | None]) -> float | None:
    seen = [v for v in values if v is not None]
    return sum(seen) / len(seen) if seen else None


def make_task(kind: str, names: Sequence[str], loss: str = "ce+dice", kept: float = losses.OHEM_KEPT) -> Task:
    """`binary`, `multilabel` → Multilabel; `multiclass` → Multiclass. loss=paper: the IM paper's for the kind."""
    if loss == "paper":
        loss = "ce" if kind == "multiclass" else "mse"
    return (Multiclass if kind == "multiclass" else Multilabel)(names, loss, kept)
