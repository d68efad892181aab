"""Model ensemble: inconsistency masks without the mask. The committee's average teaches students everywhere.

[0] the ME baseline of Vorndran and Roeck, arXiv 2401.14387   [1] MichaelVorndran/InconsistencyMasks,
functions.py:2409 (binary: intersection of the masks), 2533 (classes: argmax of the mean probability), 2471 (labels: mean)
Differs from [1]: the same budget, presets and promotion rule as `im`, so that the two differ in the mask alone; the mean
decides in binary sets too, unless preset=paper asks for their intersection.
"""

from __future__ import annotations

from semiseg.programs._generations import Generations
from semiseg.programs.base import Outcome
from semiseg.programs.consensus import Rule
from semiseg.programs.session import Session


class Ensemble(Generations):
    """The label of the mean probability, trusted at every pixel; arguments as `im`'s of the same name."""

    name = "ensemble"
    vote = "mean"

    def run(self, session: Session) -> Outcome:
        """As `Generations`, with the paper's vote for what kind of masks there is."""
        if self.preset == "paper" and session.data.classes.kind == "binary":
            self.vote = "intersection"
        return super().run(session)

    def rule(self) -> Rule:
        """Every pixel is trusted."""
        return Rule(self.vote)
