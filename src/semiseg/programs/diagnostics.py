"""Does the committee's disagreement find its errors, and what is left to learn from? Counted where the truth is known.

An error is a pixel whose label by the committee's mean probability, which is what would be taught without a mask, is not
the truth. The mask is good when it catches many errors (recall) and little else (precision), and when few of the pixels
that are agreed upon are wrong.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from semiseg import storage
from semiseg.batch import IGNORE
from semiseg.data.cache import Store
from semiseg.inconsistency import inconsistency_mask
from semiseg.programs.consensus import Rule, opinions
from semiseg.programs.session import Session
from semiseg.task import Task
from semiseg.training.evaluate import batches, images

COUNTS = ("pixels", "wrong", "inconsistent", "caught")
RATES = ("inconsistent_share", "precision", "recall", "agreed_wrong")
CHUNK = 1 << 22  # pixels of a stored plane that are looked at together


@dataclass(frozen=True)
class Counts:
    """Pixels (pixel-labels, when labels overlap) with a known truth; the wrong, the inconsistent, and both at once."""

    pixels: int
    wrong: int
    inconsistent: int
    caught: int

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, k) + getattr(other, k) for k in COUNTS))

    def rates(self) -> dict[str, float | None]:
        """Shares in [0, 1]; None where nothing can be divided.

        precision: of the inconsistent pixels, the wrong ones; recall: of the wrong pixels, the inconsistent ones;
        agreed_wrong: of the pixels that are agreed upon, the wrong ones.
        """
        return {
            "inconsistent_share": _share(self.inconsistent, self.pixels),
            "precision": _share(self.caught, self.inconsistent),
            "recall": _share(self.caught, self.wrong),
            "agreed_wrong": _share(self.wrong - self.caught, self.pixels - self.inconsistent),
        }


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def mask_counts(task: Task, label: Tensor, agree: Tensor, truth: Tensor) -> list[Counts]:
    """One `Counts` an image. label, truth (B,H,W) or (B,K,H,W); agree (B,1|K,H,W) bool; truth 255 is not counted."""
    known = task.known(truth)
    wrong = (label != truth) if task.multilabel else (label != truth).unsqueeze(1)
    wrong = wrong & known
    masked = ~agree.expand_as(known) & known
    per = torch.stack([t.flatten(1).sum(1) for t in (known, wrong, masked, wrong & masked)], 1)
    return [Counts(*row) for row in per.tolist()]


@torch.inference_mode()
def quality(session: Session, networks: Sequence[nn.Module], rule: Rule, generation: int) -> dict[str, Any]:
    """Rates per split with a known truth; a row per image goes to generation-G/errors.csv. {} without any."""
    path = session.run / f"generation-{generation}" / "errors.csv"
    splits = {"val": session.data.val, "unlabeled": session.data.truth}
    found = {name: store for name, store in splits.items() if store is not None and len(store)}
    if not found:
        return {}
    if not path.exists():
        rows = [row for name, store in found.items() for row in _rows(session, networks, rule, name, store)]
        text = io.StringIO()
        writer = csv.DictWriter(text, ["image", "split", *COUNTS, *RATES], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        storage.write_text(path, text.getvalue())
    with path.open(newline="") as file:
        stored = list(csv.DictReader(file))
    totals = {name: Counts(0, 0, 0, 0) for name in found}
    for row in stored:
        totals[row["split"]] += Counts(*(int(row[k]) for k in COUNTS))
    return {name: counts.rates() for name, counts in totals.items()}


def _rows(
    session: Session, networks: Sequence[nn.Module], rule: Rule, split: str, store: Store
) -> list[dict[str, Any]]:
    task, rows = session.data.task, []
    for chosen in batches(store):
        votes, mean = opinions(networks, task, images(store, chosen, session.data.units), mean=True)
        made = inconsistency_mask(votes, task, agreement=rule.agreement, reduce=rule.reduce,  # type: ignore[arg-type]
                                  erode=rule.erode, dilate=rule.dilate)  # fmt: skip
        assert mean is not None
        truth = torch.stack([_truth(store, i) for i in chosen])
        for i, counts in zip(chosen, mask_counts(task, task.label(mean), made.agree, truth), strict=True):
            rows.append({"image": store.names[i], "split": split, **vars(counts), **counts.rates()})
    return rows


def _truth(store: Store, index: int) -> Tensor:
    mask = store.label(index)
    assert mask is not None, "a split with a known truth has masks"
    return mask


def class_shares(label: Tensor, sure: Tensor | None, task: Task) -> dict[str, float | None]:
    """Of the pixels that are sure, the share of each class (of each label); None when none is.

    label (P,1) class ids or (P,K) labels, sure (P,1|K), uint8, lying like a store's pixels; sure None: all but 255.
    """
    on = torch.zeros(task.channels, dtype=torch.int64)
    total = torch.zeros(task.channels, dtype=torch.int64)
    for start in range(0, len(label), CHUNK):
        some = label[start : start + CHUNK]
        chosen = some != IGNORE if sure is None else sure[start : start + CHUNK].bool().expand_as(some)
        if task.multilabel:
            on += ((some == 1) & chosen).sum(0).cpu()
            total += chosen.sum(0).cpu()
        else:
            on += torch.bincount(some[chosen].long(), minlength=256)[: task.channels].cpu()
            total += chosen.sum().cpu()
    return {n: _share(int(k), int(t)) for n, k, t in zip(task.names, on, total, strict=True)}


def collapse(kept: dict[str, float | None], labeled: dict[str, float | None]) -> list[str]:
    """Warnings in words: classes that the labels know and the consensus has lost, or that swallow everything."""
    lost = [n for n, share in kept.items() if share is not None and (labeled.get(n) or 0) > 10 * share]
    swallowed = [n for n, share in kept.items() if share is not None and share > 0.99 > (labeled.get(n) or 0) + 0.05]
    said = []
    if lost:
        shown = ", ".join(
            f"{n} ({labeled[n] or 0:.1%} of the labeled pixels, {kept[n] or 0:.2%} of these)" for n in lost
        )
        said.append(f"Hardly anything that the committee agrees on belongs to {shown}: students will forget it.")
    if swallowed:
        said.append(f"Nearly everything that the committee agrees on is {', '.join(swallowed)}.")
    return said
