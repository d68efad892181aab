"""Generations of members: a committee's consensus teaches fresh students, who form the next committee if val agrees."""

from __future__ import annotations

from torch import nn

from semiseg.errors import DATA, USAGE, Problem, Refusal
from semiseg.inconsistency import InconsistencyMask
from semiseg.methods.base import Refiner
from semiseg.programs.base import Outcome, Program, baseline
from semiseg.programs.consensus import Rule, consensus, on_device
from semiseg.programs.session import Member, Session


class Generations(Program):
    """members: models of generation 0. generations: how often students are taught. students: models of the last one.

    Subclasses say what the committee's opinions become (`rule`) and what students make of it (`refiner`).
    """

    def __init__(self, *, members: int = 3, generations: int = 1, students: int = 1) -> None:
        if members < 2:
            expected = "at least 2: one model cannot disagree with itself"
            raise Refusal(Problem("C02", f"{self.name}.members", f"is {members}", expected=expected), USAGE)
        if generations < 1 or students < 1:
            found = f"is {generations} with {students} students"
            raise Refusal(Problem("C02", f"{self.name}.generations", found, expected="at least 1 of both"), USAGE)
        self.members, self.generations, self.students = members, generations, students

    @property
    def models(self) -> int:
        """Every generation but the last has `members` of them."""
        return self.members * self.generations + self.students

    def rule(self) -> Rule:
        """How opinions become planes."""
        return Rule()

    def refiner(self, session: Session) -> Refiner:
        """How planes enter a student's step."""
        return InconsistencyMask()

    def run(self, session: Session) -> Outcome:
        """Generation 0, then consensus and students for every further one."""
        data = session.data
        if not len(data.unlabeled):
            fix = "put images without masks into unlabeled/, or train with --method supervised"
            raise Refusal(Problem("D32", data.config.data, "has no unlabeled images", fix), DATA)
        refiner = self.refiner(session)
        base = baseline(session)
        committee = [session.train(0, i, self._title(0, i, self.members)) for i in range(self.members)]
        session.add_generation(0, committee, True, "trained on the labels")
        base = base or (committee[0] if data.config.method == "supervised" else None)
        self._arms(session, committee, base)
        model, why, folder = session.best(committee), "generation 0 is the best on val", ""
        ensemble = committee
        for generation in range(1, self.generations + 1):
            networks: list[nn.Module] = [session.load(m) for m in committee]
            folder = f"generation-{generation}/consensus"
            stored = consensus(session, networks, folder, self.rule())
            del networks
            session.generations[-1].update(inconsistent_share=stored.share, inconsistent_per_class=stored.per_class)
            self._watch(session, stored.share)
            planes = on_device(stored.planes, data.unlabeled)
            count = self.students if generation == self.generations else self.members
            taught = [
                session.train(generation, i, self._title(generation, i, count), refine=refiner, planes=planes)
                for i in range(count)
            ]
            best = session.best(taught)
            promoted, reason = judge(session, model, best)
            session.add_generation(generation, taught, promoted, reason)
            session.add_arm(f"{self.name}, generation {generation}", best.folder, best.val)
            if not promoted:
                why = f"generation {generation} was not better: {reason}"
                break
            model, why = best, reason
            ensemble = taught if len(taught) > 1 else ensemble
            committee = taught
        return Outcome(model, ensemble, why, base, folder)

    def _arms(self, session: Session, committee: list[Member], base: Member | None) -> None:
        method = session.data.config.method
        if base is committee[0]:
            session.add_arm("labels only", committee[0].folder, committee[0].val)
        else:
            session.add_arm(method, committee[0].folder, committee[0].val)
        best = session.best(committee)
        if session.selectable():
            session.add_arm(f"best of {len(committee)} on val", best.folder, best.val)
        if len(session.data.val):
            average = session.evaluate(*[session.load(m) for m in committee])
            session.add_arm(f"average of {len(committee)} at prediction", "", average)

    def _watch(self, session: Session, share: float) -> None:
        if share > 0.5:
            session.warnings.append(
                f"The committee disagrees on {share:.0%} of the pixels: its members are hardly trained."
            )
        if share == 0:
            session.warnings.append("The committee never disagrees: the inconsistency mask is empty.")

    def _title(self, generation: int, index: int, count: int) -> str:
        return f"{self.name} · generation {generation} · {index + 1}/{count}"


def judge(session: Session, model: Member, candidate: Member) -> tuple[bool, str]:
    """Is the candidate better on val? Below 20 val images: on the mean of paired per-image differences."""
    if model.val is None or candidate.val is None:
        return True, "there is no val set, so it cannot be said"
    name = "miou" if session.selectable() else "iou_per_image"
    old, new = model.val[name], candidate.val[name]
    if old is None or new is None:
        return True, "val has nothing to score"
    text = f"{name} on val {old:.4f} → {new:.4f}"
    return new > old, text
