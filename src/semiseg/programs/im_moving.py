"""IM without generations: a method's belief and moving averages of its student are the committee, asked in every step.

[0] Vorndran and Roeck, arXiv 2401.14387   [1] Tarvainen and Valpola 2017, https://arxiv.org/abs/1703.01780 (averages)
Differs from [0]: the members are one training at different times, so they cost forward passes and no training; they move, so
nothing is stored; a disputed pixel loses its weight in the method's own unlabeled terms (route "online").
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from semiseg.batch import Clock, Target, Unlabeled
from semiseg.ema import Average
from semiseg.errors import USAGE, Problem, Refusal
from semiseg.inconsistency import inconsistency_mask
from semiseg.methods import method_class
from semiseg.methods.base import Method
from semiseg.programs.base import Outcome, Single
from semiseg.programs.session import Member, Session
from semiseg.task import Task
from semiseg.training.config import Config

MOST = 6


class IMMoving(Single):
    """members: the belief, and averages of the student with decays .9, .99, .999, …

    In a training too short for these the windows 1/(1 - decay) are at even ratios up to the longest that `Average` allows.
    At its end these are all but one, so disagreement is mapped by as many snapshots of the training instead.
    """

    name, attaches = "im_moving", True

    def __init__(self, *, members: int = 3) -> None:
        if not 2 <= members <= MOST:
            expected = f"2 to {MOST}: one model cannot disagree with itself"
            raise Refusal(Problem("C02", "im_moving.members", f"is {members}", expected=expected), USAGE)
        self.members = members

    def fits(self, config: Config) -> None:
        """A method with a belief."""
        super().fits(config)
        if not method_class(config.method).uses_unlabeled:
            found = f"refines what a method believes, and {config.method} believes nothing"
            raise Refusal(Problem("C11", "--method", found, "use fixmatch+im_moving, or im"), USAGE)

    def trained(self, session: Session) -> list[Member]:
        """The end of the training, and what it was before."""
        config = session.data.config
        return session.snapshots(0, min(self.members, config.steps), config.name)

    def run(self, session: Session) -> Outcome:
        """One model of the method, watched, and the labels-only baseline beside it."""
        session.data = replace(session.data, attach=self.watch)
        return super().run(session)

    def watch(self, method: Method) -> None:
        """Give a method with a belief its moving committee, whose answers count as images sent forward."""
        if method.uses_unlabeled:
            own, others = method.images_per_step, self.members - 1
            method.refine = MovingCommittee(method.student, method.task, self.members)
            method.images_per_step = lambda labeled, unlabeled: own(labeled, unlabeled) + others * unlabeled  # type: ignore[method-assign]


class MovingCommittee(nn.Module):
    """A refiner. Weights of a belief become 0 where an average of the student says otherwise about the weak view.

    Averages move and are asked once in a step, however many beliefs a method has in it.
    """

    def __init__(self, student: nn.Module, task: Task, members: int) -> None:
        super().__init__()
        self.task = task
        self.student = (student,)  # whose parameters are the method's, not ours
        apart = ((1 - 0.1**i, i / (members - 1)) for i in range(1, members))
        self.averages = nn.ModuleList(Average(student, decay, reach) for decay, reach in apart)
        self.said: tuple[int, Tensor, list[Tensor]] | None = None  # in which step, about what, and what

    @torch.no_grad()
    def forward(self, unlabeled: Unlabeled, target: Target | None, clock: Clock) -> tuple[Unlabeled, Target]:
        """Move the averages to the student as it is now, ask them, and compare."""
        assert target is not None
        if self.said is None or self.said[0] != clock.step or self.said[1] is not unlabeled.weak:
            if self.said is None or self.said[0] != clock.step:
                for average in self.averages:
                    average.update(self.student[0], clock.total)  # type: ignore[operator]
            votes = [self.task.label(self.task.prob(average(unlabeled.weak))) for average in self.averages]
            self.said = clock.step, unlabeled.weak, votes
        votes = [target.label, *(v.to(target.label.dtype) for v in self.said[2])]
        agree: Tensor = inconsistency_mask(torch.stack(votes), self.task).agree
        return unlabeled, target.replace(weight=target.weight * agree)
