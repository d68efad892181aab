"""EvalNet: a network that judges masks picks, for every unlabeled image, the best member's, and which images to keep.

[0] Vorndran and Roeck, arXiv 2401.14387   [1] MichaelVorndran/InconsistencyMasks, functions.py:5070, 5468
Differs from [1]: EvalNet learns from val images instead of the teachers' own training images; an image is kept when its
mask is judged at least as good as members are on val, which needs no full labels; a given threshold is used as it is.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from semiseg import storage
from semiseg.data.sampler import Drawing
from semiseg.errors import USAGE, Problem, Refusal
from semiseg.programs._generations import Generations
from semiseg.programs._judge import Judge, judge_of, require_val
from semiseg.programs._lessons import rows_of
from semiseg.programs._recipes import FRESH
from semiseg.programs.base import Outcome
from semiseg.programs.consensus import Rule, Said, Stored, consensus_by, found, load, opinions
from semiseg.programs.session import Member, Session
from semiseg.training.config import Config
from semiseg.training.evaluate import images


class EvalNetProgram(Generations):
    """Students learn from the mask that EvalNet judges best, of images whose mask it judges good enough.

    Candidates are the masks of the last generation's members and the one kept so far; images once kept stay kept.
    threshold: quality in (0, 1] that keeps an image; 0 = the mean quality of generation 0 on val.
    """

    name, judged = "evalnet", True
    recipes = FRESH

    def __init__(self, *, generations: int = 2, threshold: float = 0.0, **inherited: Any) -> None:
        if not 0 <= threshold <= 1:
            raise self.wrong("threshold", f"is {threshold}", expected="0 to 1")
        super().__init__(generations=generations, **inherited)
        self.threshold = threshold

    def fits(self, config: Config) -> None:
        """Members to learn about."""
        super().fits(config)
        if config.committee:
            found = "is a committee of others, and evalnet picks among the masks of members that it trains"
            raise Refusal(Problem("C11", "--committee", found, "use --method im, or leave it out"), USAGE)

    def run(self, session: Session) -> Outcome:
        """As `Generations`, where there are val images to learn from."""
        require_val(session)
        return super().run(session)

    def opinion(self, session: Session, committee: list[Member], folder: str) -> Stored:
        """The best judged mask of every image as planes, and its quality in quality.csv beside them."""
        path, table = session.run / folder, session.run / folder.replace("consensus", "quality.csv")
        judge = judge_of(session)  # on every try, since it counts and warns
        if storage.is_sealed(path) and table.is_file():
            return found(session, folder)
        storage.remove(path)  # planes without their quality
        networks = [session.load(m) for m in committee]
        before = self._before(session, folder)
        values: list[float] = []

        def ask(chosen: list[int]) -> Said:
            image = images(session.data.unlabeled, chosen, session.data.units)
            members, _ = opinions(networks, judge.task, image)
            votes = members
            if before is not None:
                kept = torch.stack([rows_of(session, before.planes[0], i) for i in chosen]).to(votes.device)
                votes = torch.cat([votes, (kept if judge.task.multilabel else kept[:, 0]).unsqueeze(0)])
            best, value = pick(judge, image, votes)
            values.extend(value.tolist())
            return Said(members, chosen=best)

        stored = consensus_by(session, ask, folder, Rule(), [m.folder for m in committee])
        write_quality(session, table, values)
        return stored

    def _before(self, session: Session, folder: str) -> Stored | None:
        generation = int(folder.split("/")[0].split("-")[1])
        return load(session.run / f"generation-{generation - 1}/consensus") if generation > 1 else None

    def drawing(self, session: Session, generation: int, stored: Stored) -> Drawing:
        """The kept images."""
        value = read_quality(session, generation)
        least = self.threshold or judge_of(session).typical
        kept = value >= least
        if not kept.any():
            session.warnings.append(
                f"EvalNet judges no mask of generation {generation} at {least:.2f}: the best is kept."
            )
            kept = value >= value.max()
        return Drawing(kept.long())

    def _watch(self, session: Session, share: float | None) -> None:
        """One mask is chosen for every image: disagreement hides nothing."""


def pick(judge: Judge, image: Tensor, votes: Tensor) -> tuple[Tensor, Tensor]:
    """Of labels (M,B,…) of images (B,C,h,w), the one judged best for each image: labels (B,…), quality (B,)."""
    value, best = torch.stack([judge(image, v) for v in votes]).max(0)
    return votes[best, torch.arange(len(image), device=votes.device)], value


def write_quality(session: Session, path: Path, values: list[float]) -> None:
    """quality.csv: image, quality; in the order of the store."""
    named = zip(session.data.unlabeled.names, values, strict=True)
    storage.write_csv(path, ["image", "quality"], ({"image": n, "quality": f"{v:.6f}"} for n, v in named))


def read_quality(session: Session, generation: int) -> Tensor:
    """(N,) predicted quality of every unlabeled image, as written by `write_quality`."""
    with (session.run / f"generation-{generation}/quality.csv").open(newline="", encoding="utf-8") as file:
        return torch.tensor([float(row["quality"]) for row in csv.DictReader(file)])
