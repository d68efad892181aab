"""Noisy student: one teacher labels every unlabeled image; larger students with more noise learn from all of them.

[0] Xie et al., arXiv 1911.04252; the NS baseline of Vorndran and Roeck, arXiv 2401.14387
[1] MichaelVorndran/InconsistencyMasks, ISIC_2018/08_*.py
Differs from [1]: noise is drawn anew every time; every student gets the same steps; no promotion without a gain on val.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from semiseg.data.sampler import Drawing
from semiseg.programs._lessons import grown, noised, same_size
from semiseg.programs._recipes import FRESH
from semiseg.programs._teacher import OneTeacher
from semiseg.programs.consensus import Stored
from semiseg.programs.session import Session
from semiseg.training.config import Config


class NoisyStudent(OneTeacher):
    """The best member of a generation teaches the next one; the schedule of noise and width is im_plus's.

    members: models of a generation that compete for being the teacher. grow: what unet1x1 gains in width every generation.
    """

    name = "noisy_student"
    recipes = FRESH

    def __init__(self, *, generations: int = 5, grow: float = 0.25, **inherited: Any) -> None:
        super().__init__(generations=generations, **inherited)
        if not 0 <= grow <= 8:
            raise self.wrong("grow", f"is {grow}", expected="0 to 8")
        self.grow = grow

    def fits(self, config: Config) -> None:
        """And students that go on from weights must not be wider."""
        super().fits(config)
        same_size(self, self.grow, config)

    def lessons(self, session: Session, generation: int, stored: Stored) -> tuple[Session, tuple[Tensor, Tensor]]:
        """For a wider network."""
        return super().lessons(grown(session, generation, self.grow), generation, stored)

    def drawing(self, session: Session, generation: int, stored: Stored) -> Drawing:
        """Noised copies."""
        return noised(session, generation, Drawing())
