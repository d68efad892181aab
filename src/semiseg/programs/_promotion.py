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


def deciding(session: Session, asked: Sequence[Member]) -> dict[str, Any] | None:
    """The METRICS that decide about a model, None without val: its own on val; below 20 val images those of `every_image`.

    asked: the model alone, or where each member has its own fold those whose folds are pooled.
    """
    if session.selectable() or asked[0].val is None:
        return asked[0].val
    return every_image(session, asked)


def judge(
    session: Session, old: dict[str, Any] | None, new: dict[str, Any] | None, unsaid: bool = True
) -> tuple[bool, str]:
    """Is the new model better? Below 20 val images: on the mean of paired per-image differences. And why.

    old, new: what is `deciding`. unsaid: the answer where there is nothing to score.
    """
    if old is None or new is None:
        return unsaid, "there is no val set, so it cannot be said"
    name = "miou" if session.selectable() else "iou_per_image"
    before, after = old[name], new[name]
    if before is None or after is None:
        return unsaid, "val has nothing to score"
    text = f"{name} on {'held-out labels' if session.folded else 'val'} {before:.4f} → {after:.4f}"
    return after > before, text


def shipped(session: Session, outcome: Outcome) -> Outcome:
    """The outcome with the labels-only baseline as its model, where that is the better one.

    A baseline of generation 0 was asked when the next one was promoted. A committee goes on mapping its disagreement; a
    single model gives way to the baseline altogether.
    """
    model, base = outcome.model, outcome.baseline
    if base is None or base.folder in {model.folder, *(m.folder for m in session.first)}:
        return outcome
    better, reason = judge(session, deciding(session, [model]), deciding(session, [base]), unsaid=False)
    if not better:
        return outcome
    committee = outcome.committee if len(outcome.committee) > 1 else [base]
    return replace(outcome, model=base, committee=committee, why=f"labels only is better than {model.folder}: {reason}")
