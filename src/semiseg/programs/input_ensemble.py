"""Input ensemble: one teacher is asked about several views of an image; the average of its answers teaches students.

[0] the IE baseline of Vorndran and Roeck, arXiv 2401.14387   [1] MichaelVorndran/InconsistencyMasks, functions.py:1702
Differs from [1]: the first view is the image itself and no view comes twice; the label is that of the mean probability
for every kind of task; brightness changes do not add up over views.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from semiseg.programs._teacher import OneTeacher
from semiseg.programs.consensus import Rule, Stored, consensus
from semiseg.programs.session import Member, Session

MOST = 8
GAINS = (1.0, 0.9, 1.1, 0.8)


class InputEnsemble(OneTeacher):
    """The teacher's mean over mirrored and turned views, turned back; where images have an up, mirrored and recontrasted.

    members: models of a generation that compete for being the teacher. views: 2 to 8 views of every image.
    """

    name = "input_ensemble"

    def __init__(self, *, views: int = 4, **inherited: Any) -> None:
        super().__init__(**inherited)
        if not 2 <= views <= MOST:
            raise self.wrong("views", f"is {views}", expected=f"2 to {MOST}")
        self.views = views

    def ask(self, session: Session, teacher: Member, folder: str) -> Stored:
        """The teacher's views are the committee; the planes say where they disagree only by their share."""
        network = session.load(teacher)
        views = [View(network, *how) for how in ways(session.data.turn)[: self.views]]
        return consensus(session, views, folder, Rule("mean"))


def ways(turn: bool) -> list[tuple[int, bool, float]]:
    """Eight views: (right angles, mirrored?, contrast); without `turn` no angles."""
    if turn:
        return [(k, mirror, 1.0) for mirror in (False, True) for k in range(4)]
    return [(0, mirror, gain) for gain in GAINS for mirror in (False, True)]


class View(nn.Module):
    """A network that sees (B,C,H,W) mirrored, turned by `quarter` right angles and recontrasted; logits are turned back."""

    def __init__(self, network: nn.Module, quarter: int, mirror: bool, gain: float) -> None:
        super().__init__()
        self.network, self.quarter, self.mirror, self.gain = network, quarter, mirror, gain

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B,K,H,W) in the frame of `x`."""
        centre = x.mean((2, 3), keepdim=True)
        x = centre + (x - centre) * self.gain
        x = x.flip(3) if self.mirror else x
        y = self.network(x.rot90(self.quarter, (2, 3))).rot90(-self.quarter, (2, 3))
        return y.flip(3) if self.mirror else y
