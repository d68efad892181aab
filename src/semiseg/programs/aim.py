"""AIM+ and AIM++: IM+ and IM++ whose labeled images are augmented in every generation, the committee's included.

[0] Vorndran and Roeck, arXiv 2401.14387   [1] MichaelVorndran/InconsistencyMasks, ISIC_2018/13_*.py, 14_*.py
Differs from [1]: labeled images are augmented anew every time instead of ten times in advance; otherwise as IM+.
"""

from __future__ import annotations

from typing import Any

from semiseg.errors import USAGE, Problem, Refusal
from semiseg.programs.im_plus import IMPlus, IMPlusPlus
from semiseg.training.config import Config


class AIMPlus(IMPlus):
    """AIM+: IM+ whose labeled images are augmented in every generation, the committee's included.

    Every consensus image comes once as it is beside its noised copy. Labels must be augmented.
    """

    name = "aim_plus"
    clean = True

    def defaults(self, config: Config) -> dict[str, Any]:
        """As `im_plus`, but for the augmentation that this is about."""
        return {k: v for k, v in super().defaults(config).items() if k != "augment"}

    def fits(self, config: Config) -> None:
        """As `im_plus`, with augmented labels."""
        super().fits(config)
        if config.augment == "none":
            found = f"is none, and {config.name} is {config.name.replace('aim', 'im')} with augmented labels"
            raise Refusal(
                Problem("C02", "--augment", found, "use --augment default or strong, or the other one"), USAGE
            )


class AIMPlusPlus(AIMPlus, IMPlusPlus):
    """AIM++: IM++ whose labeled images are augmented in every generation, the committee's included.

    Every consensus image comes once as it is beside its noised copies. Labels must be augmented.
    """

    name = "aim_plusplus"
