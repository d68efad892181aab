"""What sets the members of one committee apart: their seed, their share of the labels, or their network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from semiseg.batch import generator_of, seed_of
from semiseg.errors import DATA, USAGE, Problem, Refusal, nearest

WAYS = ("seed", "folds", "bootstrap", "snapshots")


@dataclass(frozen=True)
class Share:
    """What member i of every generation is trained with. Rows are those of the labeled store.

    network: "" = the configured one. labeled: the images it learns from, with repetitions; None = all. held: images it
    does not learn from and is scored on; () = it is scored on the val set.
    """

    network: str = ""
    labeled: tuple[int, ...] | None = None
    held: tuple[int, ...] = ()

    @property
    def key(self) -> tuple[object, ...]:
        """What a fingerprint must know beside the network."""
        return () if self.labeled is None else (self.labeled, self.held)


def check_ways(program: str, members: int, way: str, networks: Sequence[str]) -> None:
    """Refuses (exit 2) what no committee can be made of."""
    if way not in WAYS:
        found = f"is '{way}'. {nearest(way, WAYS)}".strip()
        raise Refusal(Problem("C02", f"{program}.members_by", found, expected=" or ".join(WAYS)), USAGE)
    if way == "snapshots" and networks:
        found = "names networks, and snapshots are taken of one network"
        raise Refusal(Problem("C02", f"{program}.networks", found, "leave one of the two out"), USAGE)
    if way == "folds" and members < 2:
        found = f"is {members}, and a fold is what the other members learn from"
        raise Refusal(Problem("C02", f"{program}.members", found, expected="at least 2 with members_by=folds"), USAGE)
    if len(networks) > members:
        found = f"names {len(networks)} networks for {members} members"
        raise Refusal(Problem("C02", f"{program}.networks", found, f"set {program}.members={len(networks)}"), USAGE)


def snapshot_steps(steps: int, count: int, every: int = 0) -> tuple[int, ...]:
    """When to take all snapshots but the last, which is the end: at equal distances over the second half of the steps.

    every: steps between two looks at val, the best of which the end is: where a snapshot would fall on one, it is taken a
    step earlier, if it can be, so that no two members are the same weights.
    Raises Refusal (exit 2) where there are fewer steps than members.
    """
    if steps < count:
        found = f"is {steps}, too few for {count} snapshots"
        raise Refusal(Problem("C06", "--steps", found, f"use {count} or more"), USAGE)
    even = [min(round(steps * (count + i) / (2 * count)), steps - count + i) for i in range(1, count)]
    return tuple(m - int(every > 1 and m % every == 0 and m - 1 not in (0, *even)) for m in even)


def shares(
    members: int,
    way: str,
    networks: Sequence[str],
    names: Sequence[str],
    digests: Mapping[str, str],
    seed: int,
    scored: bool,
) -> list[Share]:
    """One share per member. names, digests: of the labeled images; equal images are never parted.

    seed: all labels, another initialisation and order. folds: all labels but fold i, each image in one fold; scored=False
    means that no val set is large enough to choose by, and fold i is what member i is scored on. bootstrap: as many
    images as there are, drawn with replacement. Member i has the i-th network, in turn. Raises Refusal D33 (exit 3).
    """
    count = len(names)
    rows: list[tuple[int, ...] | None] = [None] * members
    held: list[tuple[int, ...]] = [()] * members
    if way == "folds":
        folds = _folds(members, names, digests, seed)
        rows = [tuple(i for i in range(count) if i not in fold) for fold in folds]
        held = [() if scored else tuple(sorted(fold)) for fold in folds]
    elif way == "bootstrap":
        for i in range(members):
            drawn = torch.randint(count, (count,), generator=generator_of(seed, "bootstrap", i))
            rows[i] = tuple(drawn.sort().values.tolist())
    turn = [networks[i % len(networks)] if networks else "" for i in range(members)]
    return [Share(*s) for s in zip(turn, rows, held, strict=True)]


def _folds(members: int, names: Sequence[str], digests: Mapping[str, str], seed: int) -> list[set[int]]:
    """Groups of equal images in an order drawn from their content, dealt out like cards."""
    groups: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        groups.setdefault(digests.get(name, name), []).append(i)
    if len(groups) < members:
        found = f"are {len(groups)} different images, too few for {members} folds"
        raise Refusal(Problem("D33", "the labels", found, f"use at most {len(groups)} members"), DATA)
    drawn = sorted(groups, key=lambda d: (seed_of(seed, "folds", d), d))
    return [{i for digest in drawn[k::members] for i in groups[digest]} for k in range(members)]
