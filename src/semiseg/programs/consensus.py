"""A committee labels every unlabeled image once; labels and agreement are stored as planes beside the pixels."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from semiseg import storage
from semiseg.batch import IGNORE
from semiseg.data.cache import Store
from semiseg.inconsistency import Consensus, inconsistency_mask
from semiseg.programs.session import Session
from semiseg.training.evaluate import batches, images
from semiseg.training.inference import tiled


@dataclass(frozen=True)
class Said:
    """What somebody says of B images. votes: labels (M,B,…), 255 = no opinion; mean: probabilities (B,K,h,w), if asked for.

    chosen: labels (B,…) that are taught everywhere, whatever the votes say. drawn: votes that no network gave.
    """

    votes: Tensor
    mean: Tensor | None = None
    chosen: Tensor | None = None
    drawn: int = 0


Ask = Callable[[list[int]], Said]


@dataclass
class Stored:
    """A finished consensus. planes: (P,L) labels and (P,1|L) agreement, uint8, lying like the store's pixels.

    share, per_class, inconsistent_share of rows: None or empty where one alone was asked, who disagrees with nobody.
    absent: classes that nobody sees anywhere. who: folders of the run's members, where the rows hold their plain
    disagreement. cost: seconds and images_forwarded of asking; 0 where an older version did not note them.
    """

    planes: tuple[Tensor, Tensor]
    share: float | None
    per_class: dict[str, float | None]
    rows: list[dict[str, Any]]
    absent: list[str] = field(default_factory=list)
    who: list[str] = field(default_factory=list)
    cost: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rule:
    """How a committee's opinions become planes.

    vote: "consensus" trusts what all (or `agreement` of them) say, and where they say it. Two trust every pixel: "mean", the
    label of the average probability, and "intersection", the labels that every member gives (of labels, not of classes).
    doubtful: inconsistent pixels keep the label that most members give, instead of none.
    """

    vote: str = "consensus"
    agreement: int | None = None
    reduce: str = "union"
    erode: int = 0
    dilate: int = 0
    doubtful: bool = False

    @property
    def plain(self) -> bool:
        """Is a pixel inconsistent exactly where two members differ?"""
        return not self.agreement and max(self.erode, self.dilate) < 2


def consensus(
    session: Session, networks: Sequence[nn.Module], folder: str, rule: Rule, who: Sequence[str] = ()
) -> Stored:
    """Ask the committee about every unlabeled image (or find the answer stored) in `folder` of the run.

    who: the networks' folders, where they are members of the run.
    """
    data = session.data

    def ask(chosen: list[int]) -> Said:
        return Said(*opinions(networks, data.task, images(data.unlabeled, chosen, data.units), rule.vote == "mean"))

    return consensus_by(session, ask, folder, rule, who)


def consensus_by(session: Session, ask: Ask, folder: str, rule: Rule, who: Sequence[str] = ()) -> Stored:
    """`consensus` of whoever answers `ask(rows of the unlabeled store)`."""
    path, store = session.run / folder, session.data.unlabeled
    if not storage.is_sealed(path):
        with session.log.timed("consensus"), session.log.bar("consensus", len(store)) as bar:
            session.log.event("consensus", folder=folder)
            _write(session, ask, path, rule, who, bar)
    return found(session, folder)


def found(session: Session, folder: str) -> Stored:
    """A finished consensus of the run; what it cost counts on every try."""
    stored = load(session.run / folder)
    session.asked[folder] = stored.cost
    return stored


def _write(session: Session, ask: Ask, path: Path, rule: Rule, who: Sequence[str], bar: Any) -> None:
    data, task, start, forwarded = session.data, session.data.task, time.monotonic(), 0
    storage.remove(path)  # what a killed or damaged one left
    storage.make_folder(path)
    rows: list[dict[str, Any]] = []
    counts = torch.zeros(2, task.channels, dtype=torch.int64)
    with storage.growing(path / "label.bin") as labels, storage.growing(path / "agree.bin") as agrees:
        for chosen in batches(data.unlabeled):
            said = ask(chosen)
            members = len(said.votes)
            forwarded += (members - said.drawn) * len(chosen)
            votes = said.votes if members > 1 else said.votes.repeat(2, *[1] * (said.votes.ndim - 1))
            made = agreed(votes, task, rule)
            counts += claims(votes, made.agree, task).cpu()
            label, agree = made
            if said.chosen is not None:
                label, agree = agreed(torch.stack([said.chosen, said.chosen]), task, Rule())
            elif rule.vote != "consensus":
                label = votes.amin(0) if said.mean is None else task.label(said.mean).to(torch.uint8)
                agree = torch.ones_like(agree)
            labels(_rows(label if task.multilabel else label.unsqueeze(1)))
            agrees(_rows(agree.to(torch.uint8)))
            shares = made.inconsistent.flatten(1).float().mean(1)
            apart = shares if rule.plain else agreed(votes, task, Rule()).inconsistent.flatten(1).float().mean(1)
            for i, *pair in zip(chosen, shares.tolist(), apart.tolist(), strict=True):
                share, other = pair if members > 1 else (None, None)
                rows.append({"image": data.unlabeled.names[i], "inconsistent_share": share, "disagreement": other})
            bar(len(rows))
    shown = list(zip(task.names, *counts.tolist(), strict=True))
    per_class = {n: d / c if c else None for n, c, d in shown} if members > 1 else {}
    storage.write_csv(path / "inconsistency.csv", ["image", "inconsistent_share", "disagreement"], rows)
    channels = {"label": task.channels if task.multilabel else 1, "agree": int(agree.shape[1])}
    sizes = (data.unlabeled.height * data.unlabeled.width).tolist()
    disputed = sum(r["inconsistent_share"] * size for r, size in zip(rows, sizes, strict=True)) if members > 1 else 0
    total = disputed / max(1, sum(sizes)) if members > 1 else None
    storage.write_json(path / "consensus.json", {
        **channels, "share": total, "per_class": per_class, "absent": [n for n, c, _ in shown if not c],
        "who": list(who) if rule.plain else [], "seconds": round(time.monotonic() - start, 3),
        "images_forwarded": forwarded,
    })  # fmt: skip
    storage.seal(path, {"members": members})


def claims(votes: Tensor, agree: Tensor, task: Any) -> Tensor:
    """(2,K): pixels that a member of votes (M,B,…) gives to the class, and those of them that agree (B,1|K,H,W) lacks."""
    if task.multilabel:
        some = (votes == 1).any(0)
        return torch.stack([where.sum((0, 2, 3)) for where in (some, some & ~agree)])
    counts = torch.zeros(2, 256, dtype=torch.int64, device=votes.device)
    for m, vote in enumerate(votes):
        new = (vote != votes[:m]).all(0)  # a pixel counts once for a class, whoever gives it
        for row, where in enumerate((new, new & ~agree[:, 0])):
            counts[row] += torch.bincount(vote.masked_fill(~where, IGNORE).flatten().long(), minlength=256)
    return counts[:, : task.channels]


def agreed(votes: Tensor, task: Any, rule: Rule) -> Consensus:
    """`inconsistency_mask`; members that agree on 255, on having no opinion, agree on nothing that could be taught."""
    made = inconsistency_mask(votes, task, agreement=rule.agreement, reduce=rule.reduce,  # type: ignore[arg-type]
                              fill=None if rule.doubtful else IGNORE, erode=rule.erode, dilate=rule.dilate)  # fmt: skip
    spoken = made.label != IGNORE if task.multilabel else (made.label != IGNORE).unsqueeze(1)
    agree = made.agree & (spoken if made.agree.shape == spoken.shape else spoken.all(1, keepdim=True))
    hidden = ~(spoken if rule.doubtful else agree)
    return Consensus(made.label.masked_fill(hidden if task.multilabel else hidden.squeeze(1), IGNORE), agree)


def opinions(
    networks: Sequence[nn.Module], task: Any, image: Tensor, mean: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Discrete labels (M,B,…) uint8 of every member, and the mean probability when it is asked for.

    Probabilities of one member at a time are held, never of all.
    """
    votes: list[Tensor] = []
    total: Tensor | None = None
    for net in networks:
        prob = tiled(lambda x, net=net: task.prob(net(x)), image)  # type: ignore[misc]
        votes.append(task.label(prob).to(torch.uint8))
        if mean:
            total = prob if total is None else total + prob
    return torch.stack(votes), None if total is None else total / len(networks)


def _rows(planes: Tensor) -> bytes:
    return planes.permute(0, 2, 3, 1).contiguous().cpu().numpy().tobytes()


def load(path: Path) -> Stored:
    """Open a stored consensus."""
    storage.verify(path, deep=False)
    about = storage.read_json(path / "consensus.json")

    def plane(name: str) -> Tensor:
        flat = np.memmap(path / f"{name}.bin", np.uint8, mode="c")
        return torch.from_numpy(flat.reshape(-1, about[name]))

    with (path / "inconsistency.csv").open(newline="", encoding="utf-8") as file:
        rows = [{"image": r["image"], **{k: float(r[k]) if r[k] else None for k in r if k != "image"}}
                for r in csv.DictReader(file)]  # fmt: skip
    absent = about.get("absent", [name for name, value in about["per_class"].items() if value is None])
    cost = {k: about.get(k, 0) for k in ("seconds", "images_forwarded")}
    return Stored(
        (plane("label"), plane("agree")), about["share"], about["per_class"], rows, absent, about.get("who", []), cost
    )


def on_device(planes: tuple[Tensor, Tensor], store: Store) -> tuple[Tensor, Tensor]:
    """Planes beside the pixels they belong to."""
    return planes[0].to(store.pixels.device), planes[1].to(store.pixels.device)
