"""Inconsistency masks over generations, around any method.

[0] Vorndran and Roeck, arXiv 2401.14387   [1] MichaelVorndran/InconsistencyMasks, ISIC_2018/09_ISIC_2018_IM.py
Differs from [1]: inconsistent pixels are ignored and the input is left alone by default (preset "paper" blacks the
input out and teaches background, or a class of its own, there); labeled and consensus images are drawn 1:1 (pooled in
preset "paper"); every model gets the same steps; a generation that is not better on val is never promoted. Students go on
from their teacher's weights by default, and for them a consensus counts .3 beside the labels and is seen in strong colours:
at full weight they unlearn what their teachers do not find.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from semiseg.batch import IGNORE
from semiseg.data.discs import position_discs
from semiseg.data.sampler import Drawing
from semiseg.errors import nearest
from semiseg.inconsistency import FILLS, Consensus, InconsistencyMask, foreground_gate
from semiseg.methods import method_class
from semiseg.methods.base import Refiner
from semiseg.programs._generations import Generations
from semiseg.programs._lessons import balance, rows_of
from semiseg.programs._recipes import STARTS
from semiseg.programs._tasks import ExtraClass, Weighted
from semiseg.programs.base import Outcome
from semiseg.programs.consensus import Rule, Stored, on_device
from semiseg.programs.diagnostics import class_shares
from semiseg.programs.session import Session
from semiseg.training.config import Config

PRESET = {
    "default": {"fill": "none", "label": "ignore", "gate": "none"},
    "paper": {"fill": "zero", "label": "paper", "gate": "paper"},
}
CHOICES = {
    "route": ("offline", "online", "both"), "reduce": ("union", "channel"),
    "fill": ("", *FILLS), "label": ("", "ignore", "background", "extra"), "gate": ("", "none", "foreground"),
}  # fmt: skip
AFRESH = ("extra", "paper")
"""Labels that may be a class which no teacher knows, so that students cannot go on from its weights."""


class IM(Generations):
    """A committee's consensus teaches students; where its members are inconsistent nothing is taught.

    route: "offline" the consensus is the target (in `share` of the steps; the method's own belief in the others),
    "online" the method keeps its own target and loses its weight where the committee is inconsistent, "both".
    agreement: 0 = unanimity, the definition. preset: default or paper; fill, label, gate left empty are the preset's.
    fill: what students see at inconsistent pixels: none, zero, mean or noise. label: what they learn there: ignore,
    background, or extra, a class of its own (never predicted). gate: foreground leaves out images without more agreed
    foreground than doubt. reduce: union or channel, of overlapping labels. erode, dilate: side of the mask's morphology,
    0 = off. discs: the label whose objects are redrawn as discs. disc_weight: what that label counts in losses against
    masks and consensus, 0 = the preset's (1; paper 3). balance: kept pixels are weighted so that each class has the share
    of them that it has of the labeled pixels. doubt: what an inconsistent pixel counts, with the label that most members
    give it; 0 is the definition.
    """

    name = "im"

    def __init__(
        self,
        *,
        members: int = 3,
        route: str = "offline",
        fill: str = "",
        label: str = "",
        gate: str = "",
        reduce: str = "union",
        agreement: int = 0,
        erode: int = 0,
        dilate: int = 0,
        discs: str = "",
        disc_weight: float = 0.0,
        balance: bool = False,
        doubt: float = 0.0,
        **inherited: Any,
    ) -> None:
        given = {"route": route, "reduce": reduce, "fill": fill, "label": label, "gate": gate}
        for key, value in given.items():
            self.choose(key, value, CHOICES[key])
        if agreement and agreement < 2:
            raise self.wrong("agreement", f"is {agreement}", expected=f"0, or 2 to {members}")
        for key in ("label", "share") if route == "online" else ():
            if {"label": label, "share": inherited.get("share")}[key] not in ("", "ignore", 0, None):
                found, fix = (
                    "is about the committee's label, which route=online never teaches",
                    "use route=offline or both",
                )
                raise self.wrong(key, found, fix)
        if disc_weight < 0 or (disc_weight and not discs):
            raise self.wrong(
                "disc_weight", f"is {disc_weight} with discs='{discs}'", expected="above 0, with discs=LABEL"
            )
        super().__init__(members=members, **inherited)
        self.balance, self.doubt = balance, doubt
        self.route, self.agreement = route, agreement
        self.reduce, self.erode, self.dilate = reduce, erode, dilate
        self.discs, self.disc_weight = discs, disc_weight or (3.0 if self.preset == "paper" else 1.0)
        self.fill, self.label, self.gate = (given[k] or v for k, v in PRESET[self.preset].items())
        if self.label in AFRESH and not inherited.get("view"):
            self.view = STARTS["fresh"].view
        self._weights_fit()

    def _weights_fit(self) -> None:
        if not 0 <= self.doubt < 1:
            raise self.wrong("doubt", f"is {self.doubt}", expected="at least 0 and below 1: 1 would mask nothing")
        taught, online = {f"label={self.label}": self.label != "ignore"}, {"route=online": self.route == "online"}
        self._alone("doubt", self.doubt > 0, taught | {f"discs={self.discs}": bool(self.discs)})
        self._alone("balance", self.balance, taught | online)

    def _alone(self, key: str, given: bool, others: dict[str, bool]) -> None:
        """Refuse two arguments that say different things of the same pixels."""
        if clash := [name for name, on in others.items() if on and given]:
            raise self.wrong(key, f"does not go together with {clash[0]}", "leave one of the two out")

    def fits(self, config: Config) -> None:
        """A route for the method, and an agreement for the members; a given committee has members of its own."""
        super().fits(config)
        if self.route != "offline" and not method_class(config.method).uses_unlabeled:
            found = f"is '{self.route}', but {config.method} has no belief of its own to refine"
            raise self.wrong("route", found, "use offline, or another method: fixmatch+im")
        own = not config.committee or self.generations > 1  # later committees are of our own students
        if self.agreement > self.members and own:
            later = " of im's own later committees; generations=1 has none" if config.committee else ""
            raise self.wrong(
                "agreement", f"is {self.agreement}", expected=f"0, or 2 to the {self.members} members{later}"
            )

    def rule(self) -> Rule:
        """Unanimity unless an ablation says otherwise. Discs are redrawn from what is agreed label by label."""
        reduce = "channel" if self.discs else self.reduce
        return Rule(
            agreement=self.agreement or None,
            reduce=reduce,
            erode=self.erode,
            dilate=self.dilate,
            doubtful=self.doubt > 0,
        )

    def taught(self, session: Session) -> str:
        """What students learn at inconsistent pixels: ignore, background or extra."""
        if self.label != "paper":
            return self.label
        return "background" if session.data.task.multilabel or not session.data.supervised else "extra"

    def refiner(self, session: Session, planes: tuple[Tensor, Tensor] | None = None) -> Refiner:
        """The route."""
        supervised = session.data.supervised
        label = self.taught(session)
        if label == "extra" and (session.data.task.multilabel or not supervised):
            found = "is extra, a class beside others, which only supervised students of one class per pixel can learn"
            raise self.wrong("label", found, "use background or ignore")
        if self.route == "online":
            return InconsistencyMask(label="own", fill=self.fill, doubt=self.doubt)
        return InconsistencyMask(
            label="consensus", fill=self.fill, share=self.share or (1.0 if supervised else 0.5),
            rest="own" if self.route == "both" else "none", background=label != "ignore",
            extra=session.data.task.channels if label == "extra" else 0,
            doubt=self.doubt, balance=self._balanced(session, planes),
        )  # fmt: skip

    def _balanced(self, session: Session, planes: tuple[Tensor, Tensor] | None) -> Tensor | None:
        """Weights of the classes in a consensus."""
        data = session.data
        if not self.balance or planes is None or data.labeled.labels is None:
            return None
        taught = class_shares(*planes, data.task, self.doubt)
        return balance(taught, class_shares(data.labeled.labels, None, data.task), data.task.multilabel)

    def lost(self, session: Session) -> str:
        """And weights that do not know the class which students learn beside the others."""
        extra = self.taught(session) == "extra"
        return "label=extra adds a class that their teachers do not have" if extra else super().lost(session)

    def defaults(self, config: Config) -> dict[str, Any]:
        """And what it counts for those that cannot go on, see `lost`."""
        afresh = {"supervised.weight": STARTS["fresh"].weight} if self.label in AFRESH else {}
        return {**super().defaults(config), **afresh}

    def run(self, session: Session) -> Outcome:
        """As `Generations`, after a look at what the arguments mean for these data."""
        if self.discs:
            self._weigh(session)
        return super().run(session)

    def deviations(self, session: Session) -> list[str]:
        """And a reduction of labels that exclude each other."""
        alone = self.reduce == "channel" and not session.data.task.multilabel
        said = "reduce=channel is for overlapping labels: each pixel here has one class, which is disputed or is not."
        return [*super().deviations(session), *([said] if alone else [])]

    def _weigh(self, session: Session) -> None:
        data = session.data
        names = data.task.names
        if not data.task.multilabel or self.discs not in names:
            found = f"is '{self.discs}'. {nearest(self.discs, names)}".strip()
            raise self.wrong("discs", found, expected=f"a label of overlapping ones: {', '.join(names)}")
        if self.disc_weight != 1:
            weights = [self.disc_weight if n == self.discs else 1.0 for n in names]
            # the loss's name is part of a member's fingerprint: no other run may take this one over
            config = replace(data.config, loss=f"{data.config.loss}, {self.discs} x{self.disc_weight:g}")
            session.data = replace(data, task=Weighted(names, data.task.loss, weights, data.task.kept), config=config)

    def lessons(self, session: Session, generation: int, stored: Stored) -> tuple[Session, tuple[Tensor, Tensor]]:
        """Students see what the gate lets through, drawn as `draw` says."""
        planes = on_device(stored.planes, session.data.unlabeled)
        planes = self._redrawn(session, planes) if self.discs else planes
        drawing = self.drawing(session, generation, stored)
        made = self.school(session, drawing)
        if self.taught(session) == "extra":
            task = session.data.task
            made = replace(made, data=replace(made.data, task=ExtraClass(task.names, task.loss, task.kept)))
        return made, planes

    def drawing(self, session: Session, generation: int, stored: Stored) -> Drawing:
        """How students draw: each image that passes the gate once."""
        kind = session.data.classes.kind
        if self.gate == "none" or (self.gate == "paper" and kind != "binary"):
            return Drawing()
        passed = [bool(foreground_gate(self._consensus(session, stored.planes, i))) for i in range(len(stored.rows))]
        if not any(passed):
            session.warnings.append(f"The gate lets no image of generation {generation} through and was left open.")
            return Drawing()
        return Drawing(torch.tensor(passed, dtype=torch.int64))

    def _consensus(self, session: Session, planes: tuple[Tensor, Tensor], i: int) -> Consensus:
        label, agree = (rows_of(session, p, i) for p in planes)
        return Consensus(label.unsqueeze(0) if session.data.task.multilabel else label, agree.unsqueeze(0) == 1)

    def _redrawn(self, session: Session, planes: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The position label as discs; then what is disputed is blocked, over all labels with reduce=union."""
        label, agree = planes[0].clone(), planes[1]
        k = session.data.task.names.index(self.discs)
        for i in range(len(session.data.unlabeled)):
            plane = rows_of(session, label, i)[k]
            plane.copy_(position_discs(plane == 1))
        agree = agree.amin(1, keepdim=True) if self.reduce == "union" else agree
        return label.masked_fill_(agree == 0, IGNORE), agree
