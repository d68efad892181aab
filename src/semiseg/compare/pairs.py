"""Every arm against every other, paired by seeds and images: what a program adds to its method, what beats its rivals."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import permutations

from semiseg.compare.gather import Group, Json, delta
from semiseg.compare.statistics import Interval
from semiseg.compare.table import bounded, known

COLUMNS = ("data", "labels", "split", "arm", "rival", "delta", "low", "high", "delta_per_seed", "n_seeds", "n_images")


def pairs(group: Group, blocks: int) -> dict[tuple[str, str], Interval]:
    """(arm, rival) -> Δ mIoU of the first to the second, on the seeds and images that both have."""
    read = [arm for arm in group.arms if arm.readings]
    found = {(a.name, b.name): delta(a, b, blocks) for a, b in permutations(read, 2)}
    return {names: gain for names, gain in found.items() if gain is not None}


def as_rows(groups: Iterable[Group], blocks: int) -> list[Json]:
    """The lines of pairs.csv; low and high are None where there are too few images for an interval."""
    return [
        {
            "data": g.data, "labels": g.labels, "split": g.split, "arm": arm, "rival": rival,
            **{k: known(v) for k, v in bounded(gain, "delta", "low", "high").items()},
            "delta_per_seed": list(gain.per_seed), "n_seeds": len(gain.per_seed), "n_images": g.images,
        }
        for g in groups
        for (arm, rival), gain in pairs(g, blocks).items()
    ]  # fmt: skip
