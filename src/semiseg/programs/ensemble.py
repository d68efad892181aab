"""Model ensemble: inconsistency masks without the mask. The committee's average teaches students everywhere.

[0] the ME baseline of Vorndran and Roeck, arXiv 2401.14387 (SUIM, Cityscapes: argmax of the mean probability)
Differs from [0]: the same budget, presets and promotion rule as `im`, so that the two differ in the mask alone.
"""

from __future__ import annotations

from typing import Any

from semiseg.inconsistency import InconsistencyMask
from semiseg.methods.base import Refiner
from semiseg.programs._generations import Generations
from semiseg.programs.consensus import Rule
from semiseg.programs.session import Session


class Ensemble(Generations):
    """The label of the mean probability, trusted at every pixel; arguments as `im`'s of the same name."""

    name = "ensemble"

    def __init__(self, *, share: float = 0.0, **inherited: Any) -> None:
        super().__init__(**inherited)
        self.share = share

    def rule(self) -> Rule:
        """Mean probability."""
        return Rule(mean=True)

    def refiner(self, session: Session) -> Refiner:
        """The average is the target."""
        supervised = not session.data.method().uses_unlabeled
        return InconsistencyMask(label="consensus", share=self.share or (1.0 if supervised else 0.5))
