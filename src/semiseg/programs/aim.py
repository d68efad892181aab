"""AIM+ and AIM++: IM+ and IM++ whose labeled images are augmented in every generation, the committee's included.

[0] Vorndran and Roeck, arXiv 2401.14387   [1] MichaelVorndran/InconsistencyMasks, ISIC_2018/13_*.py, 14_*.py
Differs from [1]: labeled images are augmented anew every time instead of ten times in advance; otherwise as IM+.
"""

from __future__ import annotations

from semiseg.errors import USAGE, Problem, Refusal
from semiseg.programs.base import Outcome
from semiseg.programs.im_plus import IMPlus, IMPlusPlus
from semiseg.programs.session import Session


class AIMPlus(IMPlus):
    """As im_plus; every consensus image comes once as it is beside its noised copy, and labels must be augmented."""

    name = "aim_plus"
    clean = True

    def run(self, session: Session) -> Outcome:
        """As `im_plus`, unless labeled images are not augmented."""
        _require_augmentation(session)
        return super().run(session)


class AIMPlusPlus(IMPlusPlus):
    """As im_plusplus; every consensus image comes once as it is beside its noised copies, and labels must be augmented."""

    name = "aim_plusplus"
    clean = True

    def run(self, session: Session) -> Outcome:
        """As `im_plusplus`, unless labeled images are not augmented."""
        _require_augmentation(session)
        return super().run(session)


def _require_augmentation(session: Session) -> None:
    config = session.data.config
    if config.augment == "none":
        found = f"is none, and {config.name} is {config.name.replace('aim', 'im')} with augmented labels"
        raise Refusal(Problem("C02", "--augment", found, "use --augment default, or the other one"), USAGE)
