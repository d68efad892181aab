"""Values of masks that are no classes: slips of the brush, what smoothing made on borders, lone values far above."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from semiseg.data.classes import IGNORE
from semiseg.data.look import MaskFacts

SLIP = 100
"""A value is a slip of the brush, and no class, where each of 0 and 255 has more than this many times its pixels."""
PLAIN_RUN = 32
"""Ids below this are taken as classes, and without a gap without asking whether they look interpolated."""
BLENDED = 8
"""So many colours that are seen nearly on borders alone were made by smoothing."""
FAR = 4
"""A value is far above n ids 0..n-1 when it exceeds 2 (n-1) by more than this."""


def slips(counts: Mapping[int, int]) -> set[int]:
    """Values beside 0 and 255 that are too few, all together, to be classes."""
    others = set(counts) - {0, IGNORE}
    most = min(counts.get(0, 0), counts.get(IGNORE, 0))
    return others if SLIP * sum(counts[v] for v in others) < most else set()


def interpolated(masks: Sequence[MaskFacts], counts: Counter[int]) -> set[int]:
    """Values that lie almost only on borders, unless all values are a plain run of ids (thin classes do that too)."""
    ids = sorted(set(counts) - {IGNORE})
    if len(counts) < 4 or (ids[-1] < PLAIN_RUN and ids[-1] - ids[0] + 1 == len(ids)):
        return set()
    inner = Counter[int]()
    for facts in masks:
        inner.update(facts.inner if facts.inner else facts.values[0])
    weak = {value for value, count in counts.items() if inner[value] < 0.1 * count}
    return weak if (len(weak) >= 8 or max(weak, default=0) > PLAIN_RUN) and len(weak) < len(counts) else set()


def blended(masks: Sequence[MaskFacts], colors: Mapping[int, int]) -> set[int]:
    """Colours that lie almost only on borders, where there are so many that smoothing made them."""
    inner = Counter[int]()
    for facts in masks:
        inner.update(facts.inner)
    weak = {key for key, count in colors.items() if inner[key] < 0.1 * count}
    return weak if len(weak) >= BLENDED else set()


def outliers(ids: list[int], files: Counter[int]) -> set[int]:
    """Values far above a gap that occur in few masks, while the values below the gap occur in more.

    Near the others, or beside a single one, a value is a rare class: predictions show some classes in one image only.
    """
    gap = next((k for k in range(1, len(ids)) if ids[k] != ids[k - 1] + 1), None)
    if gap is None or (gap == 1 and IGNORE not in files) or ids[gap] <= 2 * ids[gap - 1] + FAR:
        return set()
    most, above = max(files[v] for v in ids[:gap]), max(files[v] for v in ids[gap:])
    return set(ids[gap:]) if above < most and above <= max(1, most // 10) else set()
