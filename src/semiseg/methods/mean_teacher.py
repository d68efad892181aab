"""Mean Teacher: an average of the student's past teaches it to be consistent under perturbation.

[0] Tarvainen and Valpola 2017, https://arxiv.org/abs/1703.01780   [1] HiLab-git/SSL4MIS, train_mean_teacher_2D.py
Differs from [1]: the teacher averages buffers too (there BN statistics never reach it) and stays in eval mode; the
student's view is perturbed in colour, not by noise alone; unlabeled images only enter the consistency term.
Batch normalisation: labeled and strong images share a pass that updates running statistics.
"""

from __future__ import annotations

import torch
from torch import Tensor

from semiseg.batch import Clock, Labeled, Unlabeled
from semiseg.ema import Average
from semiseg.methods.base import Make, Method
from semiseg.task import Task


class MeanTeacher(Method):
    """L = L_sup + weight · ramp(t) · mean over valid pixels of |p_student(strong) - p_teacher(weak)|².

    weight, warmup, ramp: as everywhere; ema: the teacher's decay (see ema.py).
    """

    views = ("strong",)

    def __init__(
        self, make: Make, task: Task, *, weight: float = 10.0, warmup: float = 0.0, ramp: float = 0.4, ema: float = 0.99
    ) -> None:
        super().__init__(make, task)
        self.teacher = Average(self.student, ema)
        self.weight, self.warmup, self.ramp = weight, warmup, ramp

    def step(self, labeled: Labeled, unlabeled: Unlabeled | None, clock: Clock) -> dict[str, Tensor]:
        """The teacher sees the clean view, the student the strong one."""
        assert unlabeled is not None
        with torch.no_grad():
            target = self.believe(unlabeled, self.teacher(unlabeled.weak))
        unlabeled, target = self.refine(unlabeled, target, clock)
        logits = self.student(torch.cat([labeled.image, unlabeled.strong[0]]))
        known, other = logits.split([len(labeled.image), len(unlabeled.weak)])
        sup = self.task.supervised(known, labeled)
        consistency = self.task.mse(other, target)
        return {
            "loss": sup + self.strength(clock) * consistency,
            "sup": sup,
            "consistency": consistency,
        }

    def after_step(self, clock: Clock) -> None:
        """Move the teacher."""
        self.teacher.update(self.student, clock.total)

    def predictor(self) -> torch.nn.Module:
        """The teacher."""
        return self.teacher.network
