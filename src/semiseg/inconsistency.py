"""The heart: where several models do not all agree, neither the pixel nor its label is trusted.

[0] Vorndran and Roeck, Inconsistency Masks, arXiv 2401.14387   [1] MichaelVorndran/InconsistencyMasks, functions.py
Differs from [1]: batched on any device; the default label at inconsistent pixels is "ignore", not a trained class 0;
blocking the input and the label are separate switches; the network's discretised predictions are all it needs.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from semiseg.batch import IGNORE, Clock, Planes, Target, Unlabeled
from semiseg.errors import USAGE, Problem, Refusal

FILLS = ("none", "zero", "mean", "noise")
LABELS = ("consensus", "own", "veto")


class Consensus(NamedTuple):
    """label: as one member's, `fill` where inconsistent. agree: (B,1,H,W) bool, or (B,K,H,W) per channel."""

    label: Tensor
    agree: Tensor

    @property
    def inconsistent(self) -> Tensor:
        """(B,1,H,W) bool: at least one channel is not agreed upon."""
        return ~self.agree.all(1, keepdim=True)


def inconsistency_mask(
    labels: Tensor | np.ndarray,
    task: Any = None,
    *,
    agreement: int | None = None,
    reduce: Literal["union", "channel"] = "union",
    fill: int | None = IGNORE,
    erode: int = 0,
    dilate: int = 0,
) -> Consensus:
    """Where do M members agree, and on what?

    labels: (M,B,H,W) class ids, or (M,B,K,H,W) 0/1 per label when labels overlap (binary: K = 1). Discretise first:
    argmax, or p > .5. Arrays, and lists of them, become tensors. `task` is only asked whether labels overlap; None reads it
    from the number of dimensions.
    agreement: members that must agree; None is all of them, which is the definition (m-of-M is for ablations; the
    label is then the most frequent one, of equally frequent ones the smallest). reduce: "union" distrusts a pixel when
    any label channel is disputed (as in the paper), "channel" only that channel. fill: the label of inconsistent pixels;
    None leaves them the most frequent one.
    erode, dilate: kernel sides of an erosion and then a dilation of the inconsistent area (0 = off; equal sides make an
    opening; [1] functions.py:2857). A disputed pixel that the erosion frees gets the largest label that is agreed upon
    among its eight neighbours ([1] functions.py:3075, where classes grow over agreed pixels too); without such a
    neighbour, and with one label alone as in [1], the smallest of the members' labels. The members' order never matters.

    Raises Refusal for fewer than two members, an agreement outside 2..M, floating-point labels, another shape, a fill that
    the labels' type cannot hold, and a side below 0.
    """
    labels = labels if isinstance(labels, Tensor) else _tensor(labels)
    multilabel = labels.ndim == 5 if task is None else bool(task.multilabel)
    labels = _whole(labels, 5 if multilabel else 4)
    members = labels.shape[0]
    if members < 2:
        raise _usage("committee", f"has {members} member", "at least 2: one model cannot disagree with itself")
    if agreement is not None and not 2 <= agreement <= members:
        raise _usage("agreement", f"is {agreement}", f"2 to {members}, the number of members")
    if reduce not in ("union", "channel"):
        raise _usage("reduce", f"is '{reduce}'", "union or channel")
    if fill is not None and not (known := torch.iinfo(labels.dtype)).min <= fill <= known.max:
        raise _usage("fill", f"is {fill}, and the labels are {labels.dtype}", f"{known.min} to {known.max}, or None")
    for name, side in (("erode", erode), ("dilate", dilate)):
        if side != int(side) or side < 0:
            raise _usage(name, f"is {side}", "the side of a kernel in pixels; 0 is off")

    needed = members if agreement is None else agreement
    if needed == members and fill is not None:
        agree = (labels == labels[:1]).all(0)
        label = labels.amin(0)  # the intersection of label channels; equals every member where they agree
    else:
        votes = torch.stack([(labels == labels[i]).sum(0) for i in range(members)])
        most = votes.amax(0)
        label = labels.masked_fill(votes < most, torch.iinfo(labels.dtype).max).amin(0)
        agree = most >= needed
    agree = agree if multilabel else agree.unsqueeze(1)
    if multilabel and reduce == "union":
        agree = agree.all(1, keepdim=True)
    before, agree = agree, ~_open(~agree, erode, dilate)
    if erode > 1 and not (multilabel and labels.shape[2] == 1):
        label = _grown(label, before, agree & ~before, multilabel)
    blocked = ~(agree if multilabel else agree.squeeze(1))
    return Consensus(label if fill is None else label.masked_fill(blocked, fill), agree)


def _whole(labels: Tensor, ndim: int) -> Tensor:
    """Labels of a type that holds the fill and that torch computes with. Refuses another shape, and fractions."""
    if labels.ndim != ndim:
        raise _usage("labels", f"have shape {tuple(labels.shape)}", "(M,B,H,W) class ids or (M,B,K,H,W) label channels")
    if labels.is_floating_point():
        raise _usage("labels", f"are {labels.dtype}".replace("torch.", ""), "class ids or 0/1: discretise first")
    wider = {torch.bool: torch.uint8, torch.int8: torch.int16}
    wider |= dict.fromkeys((torch.uint16, torch.uint32, torch.uint64), torch.int64)
    return labels.to(wider.get(labels.dtype, labels.dtype))


def _tensor(labels: Any) -> Tensor:
    """uint8, bool and fractions as they are; other whole numbers as int64, since torch does little with uint16."""
    try:
        array = np.stack([np.asarray(member) for member in labels])
        wide = array.dtype.kind in "iu" and array.dtype != np.uint8
        return torch.from_numpy(array.astype(np.int64) if wide else array)
    except (TypeError, ValueError) as error:
        raise _usage("labels", f"are no array: {error}", "(M,B,H,W) class ids or (M,B,K,H,W) label channels") from error


def _open(mask: Tensor, erode: int, dilate: int) -> Tensor:
    """Erode by ones(e,e), then dilate by ones(d,d); beyond the image counts as masked for erosion, as in OpenCV."""
    x = mask.float()
    if erode > 1:
        x = -_pool(-x, erode)
    if dilate > 1:
        x = _pool(x, dilate)
    return x > 0.5


def _grown(label: Tensor, agree: Tensor, freed: Tensor, multilabel: bool) -> Tensor:
    """The label, at freed pixels the largest agreed one within 3x3 if there is any."""
    planes = label if multilabel else label.unsqueeze(1)
    around = _pool(torch.where(agree & (planes != IGNORE), planes + 1.0, 0.0), 3)
    planes = torch.where(freed & (around > 0), (around - 1).to(label.dtype), planes)
    return planes if multilabel else planes.squeeze(1)


def _pool(x: Tensor, side: int) -> Tensor:
    before = side // 2
    padded = F.pad(x, (before, side - 1 - before, before, side - 1 - before), value=float("-inf"))
    return F.max_pool2d(padded, side, stride=1)


def fill_input(image: Tensor, where: Tensor, how: str, generator: torch.Generator | None = None) -> Tensor:
    """Hide pixels of (B,C,H,W) at `where` (B,1,H,W) bool: none | zero (black, the paper) | mean of the image | noise."""
    if how == "none":
        return image
    if how == "zero":
        return image.masked_fill(where, 0.0)
    if how == "mean":
        return torch.where(where, image.mean((2, 3), keepdim=True), image)
    if how == "noise":
        noise = torch.rand(image.shape, generator=generator).to(image)
        return torch.where(where, noise, image)
    raise _usage("fill", f"is '{how}'", " or ".join(FILLS))


def foreground_gate(made: Consensus) -> Tensor:
    """(B,) bool: is more of the image agreed to be foreground than is inconsistent ([1] functions.py:2876)?

    Foreground is any class but 0, or any label. An image without foreground, or with as much doubt, does not pass.
    """
    if made.label.ndim == 4:
        foreground = ((made.label == 1) & made.agree).any(1)
    else:
        foreground = (made.label != 0) & made.agree[:, 0]
    return foreground.flatten(1).sum(1) > made.inconsistent.flatten(1).sum(1)


class InconsistencyMask:
    """A refiner: brings a frozen committee's consensus, stored as planes, into any method's step.

    label: whose label the student learns where the committee agrees: "consensus" (theirs), "own" (the method's) or
    "veto" (the method's, only where both say the same). Where the committee is inconsistent the weight is 0, except
    with background=True, the paper's way: the pixel is taught to be class `extra` (0, or an id that the student's loss
    alone knows; of overlapping labels none). fill: what the student sees there. share: share of the steps in which the
    consensus is used; in the others the method's own belief is left alone, or with rest="own" loses its weight where
    the committee disagrees. "own" and "veto" multiply weights and
    never raise them; "consensus" replaces the belief, its weight included. Images without planes pass unchanged.
    doubt: the weight of inconsistent pixels instead of 0; their label is that of the planes, 255 = none. balance: weights
    of classes in the consensus, (K,), or of overlapping labels off and on, (2,K).
    """

    def __init__(
        self,
        *,
        label: str = "consensus",
        fill: str = "none",
        share: float = 1.0,
        rest: str = "none",
        background: bool = False,
        extra: int = 0,
        doubt: float = 0.0,
        balance: Tensor | None = None,
    ) -> None:
        for key, value, options in (("label", label, LABELS), ("fill", fill, FILLS), ("rest", rest, ("none", "own"))):
            if value not in options:
                raise _usage(key, f"is '{value}'", " or ".join(options))
        for key, number in (("share", share), ("doubt", doubt)):
            if not 0 <= number <= 1:
                raise _usage(key, f"is '{number}'", "0 to 1")
        self.label, self.fill, self.share, self.rest, self.background = label, fill, share, rest, background
        self.extra, self.doubt, self.balance = extra, doubt, balance

    def __call__(self, unlabeled: Unlabeled, target: Target | None, clock: Clock) -> tuple[Unlabeled, Target]:
        """Refine one step's belief; `target` None means that the method has none of its own (supervised)."""
        planes = unlabeled.planes
        if planes is None:
            if target is None:
                raise _usage("refine", "got images without a consensus", "a committee's planes")
            return unlabeled, target
        label = self.label if target is None or self._drawn(clock) else self.rest
        if target is not None and label == "none":
            return unlabeled, target
        agree = planes.agree
        trust = agree + self.doubt * ~agree
        if target is None or label == "consensus":
            trust = torch.ones_like(trust) if self.background else trust
            target = self._consensus(planes, trust, unlabeled.valid, target)
        else:
            weight = target.weight * trust
            if label == "veto":
                same = planes.label == target.label
                weight = weight * (same if target.multilabel else same.unsqueeze(1))
            target = target.replace(weight=weight)
        hidden = ~agree.all(1, keepdim=True)
        noise = clock.generator("fill")
        strong = tuple(fill_input(view, hidden, self.fill, noise) for view in unlabeled.strong)
        return unlabeled.replace(strong=strong), target

    def _drawn(self, clock: Clock) -> bool:
        return self.share >= 1 or float(torch.rand((), generator=clock.generator("share"))) < self.share

    def _consensus(self, planes: Planes, trust: Tensor, valid: Tensor, own: Target | None) -> Target:
        """The committee's belief in place of the method's; a method's own selection does not veto it.

        Where the committee says nothing the label stays the method's own, without weight: mixing by classes (ClassMix)
        reads labels everywhere. Whoever has no belief of his own is told labels alone: probabilities are (U,0,H,W).
        """
        silent = planes.label == IGNORE
        if own is None or self.background:
            label = planes.label.masked_fill(silent, self.extra)
        else:
            label = torch.where(silent, own.label.to(planes.label), planes.label)
        if self.doubt:
            trust = trust * (~silent if label.ndim == 4 else ~silent.unsqueeze(1))
        if self.balance is not None:
            self.balance = weight = self.balance.to(trust)  # moved once, not in every step
            trust = trust * (weight[label][:, None] if label.ndim == 3 else _per_label(weight, label))
        if own is None:
            prob = trust.new_zeros((len(trust), 0, *trust.shape[2:]))
        elif label.ndim == 4:
            prob = label.float()
        else:
            prob = F.one_hot(label, own.prob.shape[1]).permute(0, 3, 1, 2).float()
        return Target(prob, label, trust, valid)


def _per_label(weight: Tensor, label: Tensor) -> Tensor:
    """(U,K,H,W): weight (2,K) of each label channel, where it is off and where it is on."""
    off, on = weight[:, :, None, None]
    return torch.where(label == 1, on, off)


def _usage(where: str, found: str, expected: str) -> Refusal:
    return Refusal(Problem("C02", where, found, expected=expected), USAGE)
