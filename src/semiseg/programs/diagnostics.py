"""Does the committee's disagreement find its errors, and what is left to learn from? Counted where the truth is known.

An error is a pixel whose label by the committee's mean probability, which is what would be taught without a mask, is not
the truth. The mask is good when it catches many errors (recall) and little else (precision), and when few of the pixels
that are agreed upon are wrong. A given committee has no probabilities: of it only the last is known.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from semiseg import storage
from semiseg.batch import IGNORE
from semiseg.data.cache import Store
from semiseg.errors import DATA, Problem, Refusal
from semiseg.inconsistency import inconsistency_mask
from semiseg.programs._lessons import rows_of
from semiseg.programs.consensus import Rule, Stored, opinions
from semiseg.programs.session import Member, Session
from semiseg.task import Task
from semiseg.training.evaluate import batches, images

COUNTS = ("pixels", "wrong", "inconsistent", "caught")
RATES = ("inconsistent_share", "precision", "recall", "agreed_wrong")
CHUNK = 1 << 22  # pixels of a stored plane that are looked at together


@dataclass(frozen=True)
class Counts:
    """Pixels (pixel-labels, when labels overlap) with a known truth; the wrong, the inconsistent, and both at once.

    caught None: nothing says what would be taught at inconsistent ones, and the wrong are those that are agreed upon.
    """

    pixels: int
    wrong: int
    inconsistent: int
    caught: int | None

    def __add__(self, other: Counts) -> Counts:
        caught = None if self.caught is None or other.caught is None else self.caught + other.caught
        inconsistent = self.inconsistent + other.inconsistent
        return Counts(self.pixels + other.pixels, self.wrong + other.wrong, inconsistent, caught)

    def rates(self) -> dict[str, float | None]:
        """Shares in [0, 1]; None where nothing can be divided.

        precision: of the inconsistent pixels, the wrong ones; recall: of the wrong pixels, the inconsistent ones;
        agreed_wrong: of the pixels that are agreed upon, the wrong ones.
        """
        return {
            "inconsistent_share": _share(self.inconsistent, self.pixels),
            "precision": None if self.caught is None else _share(self.caught, self.inconsistent),
            "recall": None if self.caught is None else _share(self.caught, self.wrong),
            "agreed_wrong": _share(self.wrong - (self.caught or 0), self.pixels - self.inconsistent),
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
    splits = {"val": session.data.val, "unlabeled": session.data.truth}
    return _counted(session, generation, splits, lambda store: _asked(session, networks, rule, store))


def given_quality(session: Session, stored: Stored, generation: int) -> dict[str, Any]:
    """`quality` of a given committee, which has spoken of unlabeled images alone: from what was stored of it."""
    return _counted(session, generation, {"unlabeled": session.data.truth}, lambda store: _read(session, stored, store))


def _counted(
    session: Session,
    generation: int,
    splits: Mapping[str, Store | None],
    count: Callable[[Store], Iterable[tuple[str, Counts]]],
) -> dict[str, Any]:
    """Rates of what `count` says of each image, unless errors.csv holds these splits already."""
    path = session.run / f"generation-{generation}" / "errors.csv"
    found = {name: store for name, store in splits.items() if store is not None and len(store)}
    if not found:
        return {}
    stored = _stored(path)
    if {row["split"] for row in stored} != set(found):
        fields = ["image", "split", *COUNTS, *RATES]
        rows = [{"image": image, "split": name, **vars(counts), **counts.rates()}
                for name, store in found.items() for image, counts in count(store)]  # fmt: skip
        storage.write_csv(path, fields, rows)
        stored = _stored(path)
    totals = {name: Counts(0, 0, 0, 0) for name in found}
    for row in stored:
        totals[row["split"]] += Counts(*(int(row[k]) if row[k] else None for k in COUNTS))  # type: ignore[arg-type]
    return {name: counts.rates() for name, counts in totals.items()}


def _stored(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _asked(session: Session, networks: Sequence[nn.Module], rule: Rule, store: Store) -> Iterable[tuple[str, Counts]]:
    task = session.data.task
    for chosen in batches(store):
        votes, mean = opinions(networks, task, images(store, chosen, session.data.units), mean=True)
        made = inconsistency_mask(votes, task, agreement=rule.agreement, reduce=rule.reduce,  # type: ignore[arg-type]
                                  erode=rule.erode, dilate=rule.dilate)  # fmt: skip
        assert mean is not None
        truth = torch.stack([_truth(store, i) for i in chosen]).to(votes.device)
        counts = mask_counts(task, task.label(mean), made.agree, truth)
        yield from zip((store.names[i] for i in chosen), counts, strict=True)


def _read(session: Session, stored: Stored, store: Store) -> Iterable[tuple[str, Counts]]:
    task, where = session.data.task, {name: i for i, name in enumerate(session.data.unlabeled.names)}
    for i, name in enumerate(store.names):
        label, agree = (rows_of(session, plane, where[name]) for plane in stored.planes)
        said = label if task.multilabel else label[0]
        truth = _truth(store, i).to(label.device)
        (counts,) = mask_counts(task, said[None], agree[None] == 1, truth[None])
        assert counts.caught is not None
        yield name, Counts(counts.pixels, counts.wrong - counts.caught, counts.inconsistent, None)


def _truth(store: Store, index: int) -> Tensor:
    mask = store.label(index)
    assert mask is not None, "a split with a known truth has masks"
    return mask


def write_classes(
    session: Session,
    generation: int,
    inconsistent: Mapping[str, float | None],
    kept: Mapping[str, float | None],
    labeled: Mapping[str, float | None],
) -> None:
    """generation-G/classes.csv, shares in [0, 1], empty where nothing can be divided.

    inconsistent_share: of the pixels that some member gives to the class; kept_share, labeled_share: of the pixels that
    are agreed upon, and of the labeled ones, those of the class.
    """
    shares = {"inconsistent_share": inconsistent, "kept_share": kept, "labeled_share": labeled}
    rows = [{"class": name, **{k: v.get(name) for k, v in shares.items()}} for name in session.data.task.names]
    storage.write_csv(session.run / f"generation-{generation}" / "classes.csv", ["class", *shares], rows)


def class_shares(label: Tensor, sure: Tensor | None, task: Task, doubt: float = 0.0) -> dict[str, float | None]:
    """Of the pixels that are sure, the share of each class (of each label); None when none is.

    label (P,1) class ids or (P,K) labels, sure (P,1|K), uint8, lying like a store's pixels; sure None: all but 255.
    doubt: what other pixels with a label count.
    """
    on = torch.zeros(task.channels, dtype=torch.float64)
    total = torch.zeros(task.channels, dtype=torch.float64)
    for start in range(0, len(label), CHUNK):
        some = label[start : start + CHUNK]
        known = some != IGNORE
        chosen = known if sure is None else sure[start : start + CHUNK].bool().expand_as(some)
        for weight, pixels in ((1.0, chosen), (doubt, known & ~chosen)) if doubt else ((1.0, chosen),):
            if task.multilabel:
                on += weight * ((some == 1) & pixels).sum(0).cpu()
                total += weight * pixels.sum(0).cpu()
            else:
                on += weight * torch.bincount(some[pixels].long(), minlength=256)[: task.channels].cpu()
                total += weight * pixels.sum().cpu()
    return {n: float(k / t) if t else None for n, k, t in zip(task.names, on, total, strict=True)}


def unusual(share: float | None, given: bool, plain: bool = True) -> list[str]:
    """Warnings where a mask covers more than half of the pixels, or none. given: the committee is --committee's.

    plain: a pixel is inconsistent exactly where two members differ.
    """
    if share is not None and share > 0.5 and not plain:
        return [f"{share:.0%} of the pixels are inconsistent by the settings, which leave out more than is disputed."]
    if share is not None and share > 0.5:
        why = "do all of them mean the same classes?" if given else "its members are hardly trained."
        return [f"The {'given ' if given else ''}committee disagrees on {share:.0%} of the pixels: {why}"]
    never = "the committee never disagrees" if plain else "of what the committee disputes its settings leave nothing"
    return [f"The inconsistency mask is empty: {never}."] if share == 0 else []


RARER = 3
"""A class that is so many times rarer in a consensus than in the labels is lost: by then its IoU has fallen on vnc_em."""


def collapse(kept: dict[str, float | None], labeled: dict[str, float | None]) -> list[str]:
    """Warnings in words: classes that the labels know and the consensus has lost, that it is full of, or nothing else."""
    lost = [n for n, share in kept.items() if share is not None and (labeled.get(n) or 0) > RARER * share]
    swallowed = [n for n, share in kept.items() if share is not None and share > 0.99 > (labeled.get(n) or 0) + 0.05]
    grown = [n for n, share in kept.items() if share is not None and share > max(RARER * (labeled.get(n) or 1), 0.1)]
    said = []
    if grown:
        shown = ", ".join(
            f"{n} ({labeled[n] or 0:.1%} of the labeled pixels, {kept[n] or 0:.1%} of these)" for n in grown
        )
        said.append(f"The committee sees too much of {shown}: do the unlabeled images look like the labeled ones?")
    if lost:
        shown = ", ".join(
            f"{n} ({labeled[n] or 0:.1%} of the labeled pixels, {kept[n] or 0:.2%} of these)" for n in lost
        )
        said.append(f"Of what the committee agrees on too little belongs to {shown}: students will forget it.")
    if swallowed:
        said.append(f"Nearly everything that the committee agrees on is {', '.join(swallowed)}.")
    return said


LOWER = "lower its agreement, erode or dilate"


def mute(session: Session, stored: Stored, generation: int, rule: Rule) -> bool:
    """Does a consensus teach nothing at all? A given committee's is refused (exit 3); models of one's own can be shipped."""
    if stored.planes[1].any():
        return False
    found = "agrees on no pixel of any unlabeled image, so there is nothing to learn from it"
    strict = not rule.plain and any((row["disagreement"] or 0) < 1 for row in stored.rows)
    if strict:
        found = "agrees on some pixels, of which its settings leave none"
    if generation == 1 and (given := session.data.config.committee):
        fix = "look at what its members say with `semiseg consensus`, and give some that label the same classes"
        raise Refusal(Problem("P06", given, found, f"{LOWER if strict else fix}, with another --out"), DATA)
    session.warnings.append(f"The committee {found}: {LOWER if strict else 'train longer, with more --steps'}.")
    return True


def incomplete(session: Session, stored: Stored) -> None:
    """What a consensus cannot teach."""
    everywhere = sum(r["inconsistent_share"] == 1 for r in stored.rows)
    if everywhere and not stored.planes[1].all():  # else something is taught in their place
        said = f"Images that are inconsistent everywhere teach nothing: {everywhere} of {len(stored.rows)}."
        session.warnings.append(said)
    if stored.absent:
        who = "The teacher predicts no" if stored.share is None else "No member of the committee predicts"
        session.warnings.append(f"{who} {', '.join(stored.absent)} in any unlabeled image.")


def diagnose(session: Session, committee: Sequence[Member], generation: int, stored: Stored, rule: Rule) -> None:
    """Note what is left of each class, and whether disagreement finds errors, where the truth is known."""
    data, row = session.data, session.generations[-1]
    kept = class_shares(*stored.planes, data.task)
    assert data.labeled.labels is not None
    known = class_shares(data.labeled.labels, None, data.task)
    row.update(kept_per_class=kept, labeled_per_class=known)
    session.warnings += collapse(kept, known)
    write_classes(session, generation, stored.per_class, kept, known)
    if generation == 1 and data.config.committee:
        row["quality"] = given_quality(session, stored, generation)
    elif not stored.planes[1].all():  # else nobody is taught by what the members disagree about
        row["quality"] = quality(session, [session.load(m) for m in committee], rule, generation)
