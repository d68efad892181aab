"""A committee without unlabeled images: several models of the labels alone, the reference for whatever trains several.

[0] Lakshminarayanan et al., deep ensembles, arXiv 1612.01474
Differs from [0]: no adversarial examples; the models differ in initialisation and in the order of what they see.
"""

from __future__ import annotations

from semiseg.errors import USAGE, Problem, Refusal
from semiseg.programs.base import Outcome, Program
from semiseg.programs.session import Session


class Committee(Program):
    """members: models of generation 0. The best on val is shipped; all of them predict together with --ensemble.

    members_by: what sets them apart: seed, folds, bootstrap or snapshots. networks: a name per member, with commas.
    """

    name = "committee"

    def __init__(self, *, members: int = 4, members_by: str = "seed", networks: str = "") -> None:
        if members < 1:
            raise Refusal(Problem("C02", "committee.members", f"is {members}", expected="at least 1"), USAGE)
        self.unlike(members, members_by, networks)

    @property
    def models(self) -> int:
        """All of them; snapshots are of one."""
        return 1 if self.members_by == "snapshots" else self.members

    def run(self, session: Session) -> Outcome:
        """Train the members; no image without a mask is drawn for a method that does not ask for one."""
        method, k = session.data.config.method, self.members
        title = "labels only" if method == "supervised" else method
        session.share_out(k, self.members_by, self.networks)
        if self.members_by == "snapshots":
            members = session.snapshots(0, k, f"{self.name} · {k} snapshots")
        else:
            members = [session.train(0, i, f"{self.name} · {i + 1}/{k}") for i in range(k)]
        session.add_generation(0, members, True, "the only generation")
        first = members[0].val
        if session.folded:
            first = session.generations[0]["out_of_fold"] = session.out_of_fold(members)
        session.add_arm(title, members[0].folder, first)
        if k == 1:
            return Outcome(members[0], members, "it is the only model", members[0])
        best, why = session.best(members), "the first: val has too few images to choose by"
        if session.selectable():
            why = f"the best of {k} on val"
            session.add_arm(f"{title}, best of {k} on val", best.folder, best.val)
        if session.folded:
            why = "the first: each was scored on its own fold"
        else:
            average = session.evaluate(*[session.load(m) for m in members]) if len(session.data.val) else None
            session.add_arm(f"{title}, average of {k} at prediction", "", average)
        return Outcome(best, members, why, members[0] if method == "supervised" else None)
