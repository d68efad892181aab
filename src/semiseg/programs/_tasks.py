"""Two supervised losses of the inconsistency-mask paper; predictions, labels and metrics stay those of the task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from semiseg import losses
from semiseg.batch import Labeled
from semiseg.task import Multiclass, Multilabel


class ExtraClass(Multiclass):
    """K classes and, for students only, one more: "the committee was inconsistent here", with the id K.

    Its logit is the constant 0. A softmax over K + 1 logits does not change when all of them move together, so K free
    logits and a 0 can express whatever K + 1 can, and the network keeps its K outputs: nothing predicts the extra class.
    """

    def loss_map(self, logits: Tensor, label: Tensor) -> Tensor:
        """Cross-entropy over K + 1 classes (B,1,H,W); labels 0..K, 255 = ignore."""
        return self._wider.loss_map(_with_zero(logits), label)

    def supervised(self, logits: Tensor, labeled: Labeled) -> Tensor:
        """The configured loss over K + 1 classes; logits (B,K,H,W)."""
        return self._wider.supervised(_with_zero(logits), labeled)

    @property
    def _wider(self) -> Multiclass:
        return Multiclass((*self.names, "inconsistent"), self.loss, self.kept)


def _with_zero(logits: Tensor) -> Tensor:
    return torch.cat([logits, torch.zeros_like(logits[:, :1])], 1)


class Weighted(Multilabel):
    """Overlapping labels of which some count more in the supervised loss; weights: one per label, 1 = as otherwise."""

    def __init__(
        self, names: Sequence[str], loss: str, weights: Sequence[float], kept: float = losses.OHEM_KEPT
    ) -> None:
        super().__init__(names, loss, kept)
        self.weights = tuple(weights)

    def supervised(self, logits: Tensor, labeled: Labeled) -> Tensor:
        """The configured loss; every label's pixels are weighted, the number they are divided by is not."""
        weight = logits.new_tensor(self.weights).view(1, -1, 1, 1)
        weight = weight if labeled.weight is None else weight * labeled.weight
        return super().supervised(logits, replace(labeled, weight=weight))
