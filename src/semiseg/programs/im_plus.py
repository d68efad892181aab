"""IM+ and IM++: inconsistency masks whose students grow and are noised more from generation to generation.

[0] Vorndran and Roeck, arXiv 2401.14387   [1] MichaelVorndran/InconsistencyMasks, ISIC_2018/11_*.py, 12_*.py,
functions.py:5742
Differs from [1]: noise is drawn anew every time and blocking comes after it, so black stays black; labeled images are as
--augment says (none is IM+); the range of EvalNet's opinions that becomes 1 to 5 copies is read off the opinions.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from semiseg.data.sampler import Drawing
from semiseg.programs._growing import Growing
from semiseg.programs._judge import judge_of, require_val
from semiseg.programs.base import Outcome
from semiseg.programs.consensus import Stored
from semiseg.programs.evalnet import read_quality, write_quality
from semiseg.programs.im import IM
from semiseg.programs.session import Session
from semiseg.training.evaluate import batches, images

COPIES = 5


class IMPlus(Growing, IM):
    """IM+: inconsistency masks whose students grow and are noised more from generation to generation.

    As im, with all its arguments.
    grow: what unet1x1 gains in width every generation; 0 = it does not grow, nor do networks that are named for members.
    """

    name = "im_plus"

    def __init__(self, *, members: int = 2, **inherited: Any) -> None:
        super().__init__(members=members, **inherited)


class IMPlusPlus(IMPlus):
    """IM++: IM+ in which an image is seen once to five times in a pass, the more often the better EvalNet judges its mask.

    low, high: quality up to which an image has one copy, and above which it has five; 0 = the values that a fifth of the
    images lie below, and above. EvalNet learns from val images.
    """

    name, judged = "im_plusplus", True

    def __init__(self, *, low: float = 0.0, high: float = 0.0, **inherited: Any) -> None:
        super().__init__(**inherited)
        if not (low == high == 0 or 0 <= low < high <= 1):
            raise self.wrong("low", f"is {low} with high={high}", expected="0 <= low < high <= 1, or both 0")
        self.low, self.high = low, high

    def run(self, session: Session) -> Outcome:
        """As `im`, where there are val images for EvalNet."""
        require_val(session)
        return super().run(session)

    def drawing(self, session: Session, generation: int, stored: Stored) -> Drawing:
        """As many copies as EvalNet's opinion of the consensus is worth."""
        drawing = super().drawing(session, generation, stored)
        quality = self._quality(session, generation, stored)
        low, high = self.low, self.high
        if not high:
            low, high = quality.quantile(torch.tensor([0.2, 0.8])).tolist()
        number = copies_of(quality, low, high)
        return replace(drawing, multiplicity=number if drawing.multiplicity is None else number * drawing.multiplicity)

    def _quality(self, session: Session, generation: int, stored: Stored) -> Tensor:
        path = session.run / f"generation-{generation}/quality.csv"
        judge, data = judge_of(session), session.data  # on every try: it counts and warns
        if not path.is_file():
            values: list[float] = []
            for chosen in batches(data.unlabeled):
                image = images(data.unlabeled, chosen, data.units)
                label = torch.cat([self._consensus(session, stored.planes, i).label for i in chosen]).to(image.device)
                values += judge(image, label).tolist()  # 255 is no class: inconsistent pixels belong to none
            write_quality(session, path, values)
        return read_quality(session, generation)


def copies_of(quality: Tensor, low: float, high: float) -> Tensor:
    """(N,) long: 1 up to `low`, 5 above `high`, and in between one more for every fifth of the range ([1])."""
    step = (high - low) / COPIES
    between = 1 + ((quality.double() - low) / step).long() if step > 0 else torch.full_like(quality, 1).long()
    between = between.clamp(1, COPIES)
    return between.masked_fill(quality <= low, 1).masked_fill(quality > high, COPIES)
