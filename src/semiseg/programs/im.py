"""Inconsistency masks over generations, around any method.

[0] Vorndran and Roeck, arXiv 2401.14387   [1] MichaelVorndran/InconsistencyMasks, ISIC_2018/09_ISIC_2018_IM.py
Differs from [1]: inconsistent pixels are ignored and the input is left alone by default (preset "paper" blacks the
input out and teaches background there); labeled and consensus images are drawn 1:1; every model gets the same steps;
a generation that is not better on val is never promoted.
"""

from __future__ import annotations

from semiseg.errors import USAGE, Problem, Refusal, nearest
from semiseg.inconsistency import FILLS, InconsistencyMask
from semiseg.methods.base import Refiner
from semiseg.programs._generations import Generations
from semiseg.programs.consensus import Rule
from semiseg.programs.session import Session

PRESETS = ("default", "paper")
ROUTES = ("offline", "online", "both")
REDUCES = ("union", "channel")


class IM(Generations):
    """A committee's consensus teaches students; where its members are inconsistent nothing is taught.

    route: "offline" the consensus is the target (in `share` of the steps; the method's own belief in the others),
    "online" the method keeps its own target and loses its weight where the committee is inconsistent, "both".
    share: 0 = all steps for supervised, half of them for other methods. preset: "default" or "paper" (two teachers,
    input blacked out, inconsistent pixels taught as background). agreement: 0 = unanimity, the definition.
    fill: none, zero, mean or noise. reduce: union or channel. erode, dilate: side of the mask's morphology, 0 = off.
    """

    name = "im"

    def __init__(
        self,
        *,
        members: int = 3,
        generations: int = 1,
        students: int = 1,
        preset: str = "default",
        route: str = "offline",
        share: float = 0.0,
        fill: str = "none",
        background: bool = False,
        reduce: str = "union",
        agreement: int = 0,
        erode: int = 0,
        dilate: int = 0,
    ) -> None:
        choices = (
            ("preset", preset, PRESETS),
            ("route", route, ROUTES),
            ("fill", fill, FILLS),
            ("reduce", reduce, REDUCES),
        )
        for key, value, options in choices:
            if value not in options:
                found = f"is '{value}'. {nearest(value, options)}".strip()
                raise Refusal(Problem("C02", f"im.{key}", found, expected=" or ".join(options)), USAGE)
        if not 0 <= share <= 1:
            raise Refusal(Problem("C02", "im.share", f"is {share}", expected="0 to 1; 0 is the default"), USAGE)
        if agreement and not 2 <= agreement <= members:
            raise Refusal(Problem("C02", "im.agreement", f"is {agreement}", expected=f"0, or 2 to {members}"), USAGE)
        if background and route == "online":
            found = "teaches the committee's label, and route=online never does"
            raise Refusal(Problem("C02", "im.background", found, "use route=offline or both"), USAGE)
        if preset == "paper":
            members = 2 if members == 3 else members
            fill, background = ("zero" if fill == "none" else fill), True
        super().__init__(members=members, generations=generations, students=students)
        self.route, self.share, self.fill, self.background = route, share, fill, background
        self.reduce, self.agreement, self.erode, self.dilate = reduce, agreement, erode, dilate

    def rule(self) -> Rule:
        """Unanimity unless an ablation says otherwise."""
        return Rule(False, self.agreement or None, self.reduce, self.erode, self.dilate)

    def refiner(self, session: Session) -> Refiner:
        """The route."""
        supervised = not session.data.method().uses_unlabeled
        if supervised and self.route != "offline":
            found = f"is '{self.route}', but {session.data.config.method} has no belief of its own to refine"
            raise Refusal(Problem("C02", "im.route", found, "use offline, or another method: fixmatch+im"), USAGE)
        share = self.share or (1.0 if supervised else 0.5)
        fill, background = self.fill, self.background
        if self.route == "online":
            return InconsistencyMask(label="own", fill=fill)
        rest = "own" if self.route == "both" else "none"
        return InconsistencyMask(label="consensus", fill=fill, share=share, rest=rest, background=background)
