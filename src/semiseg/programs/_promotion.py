"""Is a generation better than the best before it, and the model than labels only? Asked of val alone, or of folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from semiseg.batch import IGNORE
from semiseg.programs.base import Outcome
from semiseg.programs.session import Member, Session
from semiseg.task import Metrics
from semiseg.training.evaluate import evaluate


class EveryImage(Metrics):
    """Metrics whose `iou_per_image` is of the same images for every model: one that is empty and stays so has 1."""

    def update(self, label: Tensor, mask: Tensor) -> dict[str, float | None]:
        """As `Metrics.update`."""
        iou = super().update(label, mask)
        if all(v is None for v in iou.values()) and bool((mask != IGNORE).any()):
            self.per_image.append(1.0)
        return iou


def every_image(session: Session, members: Sequence[Member]) -> dict[str, Any]:
    """METRICS by `EveryImage` of a model on val, or pooled over the folds of members 0, 1, ..."""
    metrics = EveryImage(session.data.task)
    for index, member in enumerate(members):
        evaluate([session.load(member)], metrics.task, session.scored_on(index), session.data.units, metrics)
    return metrics.compute()


def judge(session: Session, model: Member, candidate: Member, unsaid: bool = True) -> tuple[bool, str]:
    """Is the candidate better on val? Below 20 val images: on the mean of paired per-image differences.

    unsaid: the answer where there is nothing to score.
    """
    if model.val is None or candidate.val is None:
        return unsaid, "there is no val set, so it cannot be said"
    name = "miou" if session.selectable() else "iou_per_image"
    old, new = model.val[name], candidate.val[name]
    if old is None or new is None:
        return unsaid, "val has nothing to score"
    text = f"{name} on {'held-out labels' if session.folded else 'val'} {old:.4f} → {new:.4f}"
    return new > old, text


def shipped(session: Session, outcome: Outcome) -> Outcome:
    """The outcome with the labels-only baseline as its model, where that is the better one.

    A baseline of generation 0 was asked when the next one was promoted. A committee goes on mapping its disagreement; a
    single model gives way to the baseline altogether.
    """
    model, base = outcome.model, outcome.baseline
    if base is None or base.folder in {model.folder, *(m.folder for m in session.first)}:
        return outcome
    pair = [model, base]
    if not session.selectable() and model.val:
        pair = [replace(m, result={**m.result, "val": every_image(session, [m])}) for m in pair]
    better, reason = judge(session, pair[0], pair[1], unsaid=False)
    if not better:
        return outcome
    committee = outcome.committee if len(outcome.committee) > 1 else [base]
    return replace(outcome, model=base, committee=committee, why=f"labels only is better than {model.folder}: {reason}")
