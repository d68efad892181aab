"""What the students of one generation are trained with: how images are drawn, what each class of a consensus counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from semiseg.data.sampler import Drawing
from semiseg.methods import arguments
from semiseg.programs.session import Session

HEAVIEST = 10.0
"""The most that `balance` makes a pixel count."""


def school(session: Session, drawing: Drawing, **changes: Any) -> Session:
    """The same run with the data of a generation's students; `changes`: other fields of Prepared (config, task)."""
    return replace(session, data=replace(session.data, drawing=drawing, **changes))


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
