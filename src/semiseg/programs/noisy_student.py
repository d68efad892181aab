"""Noisy student: one teacher labels every unlabeled image; larger students with more noise learn from all of them.

[0] Xie et al., arXiv 1911.04252; the NS baseline of Vorndran and Roeck, arXiv 2401.14387
[1] MichaelVorndran/InconsistencyMasks, ISIC_2018/08_*.py
Differs from [1]: noise is drawn anew every time; every student gets the same steps; no promotion without a gain on val.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from semiseg.data.sampler import Drawing
from semiseg.errors import USAGE, Problem, Refusal
from semiseg.programs._lessons import grown, noised, school
from semiseg.programs._teacher import OneTeacher
from semiseg.programs.consensus import Stored, on_device
from semiseg.programs.session import Session


class NoisyStudent(OneTeacher):
    """The best member of a generation teaches the next one; the schedule of noise and width is im_plus's.

    members: models of a generation that compete for being the teacher. grow: what unet1x1 gains in width every generation.
    """

    name = "noisy_student"

    def __init__(self, *, generations: int = 5, grow: float = 0.25, **inherited: Any) -> None:
        super().__init__(generations=generations, **inherited)
        if not 0 <= grow <= 8:
            raise Refusal(Problem("C02", "noisy_student.grow", f"is {grow}", expected="0 to 8"), USAGE)
        self.grow = grow

    def lessons(self, session: Session, generation: int, stored: Stored) -> tuple[Session, tuple[Tensor, Tensor]]:
        """Noised copies for a wider network."""
        planes = on_device(stored.planes, session.data.unlabeled)
        wider = grown(session, generation, self.grow)
        return school(wider, noised(session, generation, Drawing())), planes
