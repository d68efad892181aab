"""Students that grow and are noised more from generation to generation: the schedule of noisy student and of IM+.

Source: Vorndran and Roeck, arXiv 2401.14387, section 4.1; theirs of noisy student is Xie et al., arXiv 1911.04252.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from semiseg.data.sampler import Drawing
from semiseg.data.views import Geometry, Photometry
from semiseg.programs._generations import Generations
from semiseg.programs._recipes import FRESH
from semiseg.programs.consensus import Stored
from semiseg.programs.session import Session
from semiseg.training.config import Config

STRENGTHS = 5
"""Generations over which the noise grows, as in the paper."""
BLUR = (0.0, 1 / 2, 1 / 2, 2 / 3, 3 / 4)
"""Probability of a blur: the paper draws one of max_blur + 1 kernels, the first of which is none."""


class Growing(Generations):
    """grow: what unet1x1 gains in width every generation; 0 = it does not, nor do networks that are named for members."""

    recipes = FRESH
    clean = False  # every image once more as it is

    def __init__(self, *, generations: int = 5, grow: float = 0.25, **inherited: Any) -> None:
        super().__init__(generations=generations, **inherited)
        if not 0 <= grow <= 8:
            raise self.wrong("grow", f"is {grow}", expected="0 to 8")
        self.grow = 0.0 if self.networks else grow

    def fits(self, config: Config) -> None:
        """And students that go on from weights must not be wider."""
        super().fits(config)
        widens = self.grow and self.generations > 1 and config.network.partition(":")[0] == "unet1x1"
        if self.start == "warm" and widens:
            found = f"is warm, and the networks that students would go on from are smaller (grow={self.grow:g})"
            raise self.wrong("start", found, "add grow=0")

    def lessons(self, session: Session, generation: int, stored: Stored) -> tuple[Session, tuple[Tensor, Tensor]]:
        """For a wider network."""
        return super().lessons(grown(session, generation, self.grow), generation, stored)

    def drawing(self, session: Session, generation: int, stored: Stored) -> Drawing:
        """Noised copies; they are mirrored and turned as masks allow where labeled images are left as they are."""
        flips = Geometry(flip=True, turn=session.data.turn) if session.data.config.augment == "none" else None
        drawn = super().drawing(session, generation, stored)
        return replace(drawn, clean=self.clean, geometry=flips, colors=noise(generation))


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


def noise(generation: int) -> Photometry:
    """Table of section 4.1, ISIC: contrast ±.1 to ±.5, brightness ±5 to ±25, noise ±5 to ±25 grey levels, blur.

    Theirs is uniform noise of one strength; ours is Gaussian with the same mean standard deviation.
    """
    g = min(generation, STRENGTHS)
    return Photometry(jitter=0.5, contrast=0.1 * g, brightness=5 * g / 255, blur=BLUR[g - 1],
                      noise=2 * 5 * g / (255 * 3**0.5))  # fmt: skip
