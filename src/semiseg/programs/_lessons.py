"""What the students of one generation are trained with: how images are drawn, how wide the network is, how it is noised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from semiseg.data.sampler import Drawing, Feed
from semiseg.data.views import Geometry, Photometry
from semiseg.methods import arguments
from semiseg.programs.session import Session
from semiseg.training.config import Config
from semiseg.training.prepare import Prepared

if TYPE_CHECKING:
    from semiseg.programs._generations import Generations

STRENGTHS = 5
"""Generations over which the noise grows, as in the paper."""
BLUR = (0.0, 1 / 2, 1 / 2, 2 / 3, 3 / 4)
"""Probability of a blur: the paper draws one of max_blur + 1 kernels, the first of which is none."""
HEAVIEST = 10.0
"""The most that `balance` makes a pixel count."""


@dataclass
class Lessons(Prepared):
    """Prepared data whose students draw unlabeled images as `drawing` says; who is not taught draws as ever."""

    drawing: Drawing = field(default_factory=Drawing)

    def feed(self, *args: Any, **options: Any) -> Feed:
        """Batches for one member; arguments as `Prepared.feed`."""
        feed = super().feed(*args, **options)
        return feed if feed.planes is None else replace(feed, drawing=self.drawing)


def school(session: Session, drawing: Drawing, **changes: Any) -> Session:
    """The same run with the data of a generation's students; `changes`: other fields of Prepared (config, task)."""
    kept = {f.name: getattr(session.data, f.name) for f in fields(Prepared)}
    return replace(session, data=Lessons(**{**kept, **changes}, drawing=drawing))


def pooled(session: Session, drawing: Drawing) -> Session:
    """Labeled and consensus images as one pool: each counts as much as any other, whichever kind it is of.

    A batch, of `config.batch` images in all, holds both kinds in the proportion of their numbers (at least one of each),
    and the consensus term is weighted by that proportion. Methods with unlabeled terms of their own have no such pool: they
    draw as ever.
    """
    data, config = session.data, session.data.config
    method = data.method()
    if method.uses_unlabeled or "weight" not in arguments(type(method)):
        return school(session, drawing)
    number = drawing.multiplicity
    if number is None:
        number = torch.ones(len(data.unlabeled), dtype=torch.int64)
    others = int((number + (number > 0) * int(drawing.clean)).sum())
    batch = max(2, config.batch)
    labeled = min(max(1, round(batch * len(data.labeled) / (len(data.labeled) + others))), batch - 1)
    weight = method.weight * others / len(data.labeled)
    shares = replace(config, batch=labeled, unlabeled_batch=batch - labeled,
                     method_args={**config.method_args, "weight": weight})  # fmt: skip
    return school(session, replace(drawing, stream=config.batch), config=shares)


def grown(session: Session, generation: int, grow: float) -> Session:
    """The session with a wider unet1x1: `grow` more every generation, the first students as wide as configured."""
    name, _, width = session.data.config.network.partition(":")
    if not grow or name != "unet1x1":
        if grow and generation == 1:
            session.warnings.append(
                f"{session.data.config.network} has no width to grow: all students are of one size."
            )
        return session
    wider = float(width or 0.5) + grow * (generation - 1)
    return replace(session, data=session.data.with_network(f"unet1x1:{wider:g}"))


def same_size(program: Generations, grow: float, config: Config) -> None:
    """Refuse students that shall go on from the weights of a smaller network."""
    widens = grow and program.generations > 1 and config.network.partition(":")[0] == "unet1x1"
    if program.start == "warm" and widens:
        found = f"is warm, and the networks that students would go on from are smaller (grow={grow:g})"
        raise program.wrong("start", found, "add grow=0")


def noised(session: Session, generation: int, drawing: Drawing) -> Drawing:
    """The paper's augmentation of a generation's consensus images: see `noise`; flips and turns where masks allow them."""
    flips = Geometry(flip=True, turn=session.data.turn) if session.data.config.augment == "none" else None
    return replace(drawing, geometry=flips, colors=noise(generation))


def noise(generation: int) -> Photometry:
    """Table of section 4.1, ISIC: contrast ±.1 to ±.5, brightness ±5 to ±25, noise ±5 to ±25 grey levels, blur.

    [0] draws uniform noise of one strength; ours is Gaussian with the same mean standard deviation.
    """
    g = min(generation, STRENGTHS)
    return Photometry(jitter=0.5, contrast=0.1 * g, brightness=5 * g / 255, blur=BLUR[g - 1],
                      noise=2 * 5 * g / (255 * 3**0.5))  # fmt: skip


def balance(kept: Mapping[str, float | None], labeled: Mapping[str, float | None], multilabel: bool) -> Tensor:
    """Weights (K,) that give each class of the kept pixels its share of the labeled ones; of labels (2,K), off and on.

    p(y) / q(y), p of the labels and q of what is kept: what a mask leaves is not drawn as the pixels are, and hard classes
    lose most of theirs (importance weights for label shift, Saerens et al. 2002). At most HEAVIEST; 1 where there is no q.
    """
    q, p = (torch.tensor([s[n] if s[n] is not None else -1.0 for n in kept]) for s in (kept, labeled))
    q, p = (torch.stack([1 - v, v]) if multilabel else v for v in (q, p))
    known = (q > 0) & (p >= 0) & (p <= 1)
    return torch.where(known, (p / q).clamp(max=HEAVIEST), torch.ones_like(q))


def rows_of(session: Session, plane: Tensor, i: int) -> Tensor:
    """Image i of a plane (P,L) of the unlabeled store: (L,h,w)."""
    store = session.data.unlabeled
    h, w, start = int(store.height[i]), int(store.width[i]), int(store.offset[i])
    return plane[start : start + h * w].view(h, w, -1).permute(2, 0, 1)
