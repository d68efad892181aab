"""Generations of members: a committee's consensus teaches students, the next committee; val says which is shipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor, nn

from semiseg import storage
from semiseg.data.sampler import Drawing
from semiseg.data.views import VIEWS
from semiseg.errors import DATA, USAGE, Problem, Refusal, nearest
from semiseg.inconsistency import InconsistencyMask
from semiseg.methods import method_class
from semiseg.methods.base import Refiner, trained_networks
from semiseg.programs._lessons import pooled, school
from semiseg.programs._promotion import deciding, judge
from semiseg.programs._recipes import DRAWS, FRESH, PAPER, PRESETS, STARTS, VIEWED, Recipe, unlike_paper
from semiseg.programs.base import Outcome, Program, baseline
from semiseg.programs.consensus import Rule, Stored, consensus, on_device
from semiseg.programs.diagnostics import diagnose, incomplete, mute, unusual
from semiseg.programs.given import given_consensus, ready
from semiseg.programs.members import snapshot_steps
from semiseg.programs.session import Member, Session
from semiseg.task import make_task
from semiseg.training.config import Config

FIRST = "generation-1/consensus"  # the opinion of generation 0, or of a given committee in its place


class Generations(Program):
    """members: models of a committee. generations: how often students are taught. students: models of the last generation.

    members_by: what sets members apart. seed: initialisation and order. folds: each learns from all labels but its own
    fold of them. bootstrap: from labels drawn with replacement. snapshots: one model at several moments of its training.
    networks: a name per member, with commas. patience: generations in a row that may fail to be better on val before no
    more are trained; the best is shipped all the same. A committee given by --committee takes the place of generation 0's.
    preset: default, or paper, which trains as the paper does (`PAPER`) where nobody says otherwise. share: of the steps in
    which the consensus is the target; 0 = all for supervised, half of them for other methods. draw: even (1:1 with labeled
    images), or pool (every image counts as much, batches of --batch in all). start: students begin fresh, where labels only
    did, or warm: with the weights of the generation before, each with those of the member in its place; labels only is then
    one training of as many steps as theirs in a row. view: how supervised students see consensus images: train, coloured
    as labeled ones are, or strong, as FixMatch's (augment=none: as they are). What is left empty is the preset's.
    Subclasses say what the committee's opinions become (`rule`) and what students make of it (`refiner`).
    """

    attaches = teaches = True
    settled = ("members_by", "generations", "patience", "start", "draw", "view")
    recipes: ClassVar[Mapping[str, Recipe]] = PRESETS
    least = 2

    def __init__(
        self,
        *,
        members: int = 3,
        generations: int = 0,
        students: int = 1,
        members_by: str = "",
        networks: str = "",
        patience: int = 0,
        preset: str = "default",
        share: float = 0.0,
        draw: str = "",
        start: str = "",
        view: str = "",
    ) -> None:
        self.choose("preset", preset, tuple(self.recipes))
        self.choose("draw", draw, ("", *DRAWS))
        self.choose("start", start, ("", *STARTS))
        self.choose("view", view, ("", *VIEWED))
        way = members_by or ("seed" if networks else self.recipes[preset].members_by)
        own = (self.recipes if way == self.recipes[preset].members_by else FRESH)[preset]
        if not 0 <= share <= 1:
            raise self.wrong("share", f"is {share}", expected="0 to 1; 0 is the default")
        if members < self.least:
            why = ": one model cannot disagree with itself" if self.least > 1 else ""
            raise self.wrong("members", f"is {members}", expected=f"at least {self.least}{why}")
        if generations < 0 or students < 1:
            found = f"is {generations} with {students} students"
            raise self.wrong("generations", found, expected=f"at least 1 of both; 0 generations are {own.generations}")
        if patience < 0:
            raise self.wrong("patience", f"is {patience}", expected=f"at least 1; 0 is {own.patience}")
        self.generations, self.patience = generations or own.generations, patience or own.patience
        self.preset, self.share, self.students, self.draw = preset, share, students, draw or own.draw
        self.start = start or own.start
        self.view = view or STARTS[self.start].view
        self.unlike(members, way, networks)

    def wrong(self, key: str, found: str, fix: str = "", expected: str = "") -> Refusal:
        """An argument that cannot be."""
        return Refusal(Problem("C02", f"{self.name}.{key}", found, fix, expected), USAGE)

    def choose(self, key: str, value: str, options: Sequence[str]) -> None:
        """Refuse a word that is not among `options`, with the nearest one that is."""
        if value not in options:
            found = f"is '{value}'. {nearest(value, options)}".strip()
            raise self.wrong(key, found, expected=" or ".join(o for o in options if o))

    def defaults(self, config: Config) -> dict[str, Any]:
        """What a consensus counts for students that begin so, and the paper's training with the paper's preset."""
        afresh = config.committee or self.draw == "pool"  # which has no weights of ours; where all images count alike
        begin = "fresh" if afresh else self.start
        return {"supervised.weight": STARTS[begin].weight, **(PAPER if self.preset == "paper" else {})}

    def fits(self, config: Config) -> None:
        """As for all programs, and steps enough for the snapshots, and a share that means something."""
        super().fits(config)
        if config.steps and self.members_by == "snapshots" and (self.generations > 1 or not config.committee):
            snapshot_steps(config.steps, self.members)
        if 0 < self.share < 1 and not method_class(config.method).uses_unlabeled:
            found = f"is {self.share}, and {config.method} has no belief of its own for the other steps"
            raise self.wrong("share", found, f"leave it out, or train --method fixmatch+{self.name}")

    @property
    def models(self) -> int:
        """Every generation but the last has `members` of them; snapshots are of one."""
        return (1 if self.members_by == "snapshots" else self.members) * self.generations + self.students

    def lost(self, session: Session) -> str:
        """Why students cannot go on from the weights of who taught them; "" when they can."""
        method = session.data.config.method
        number = trained_networks(session.data.method())
        return f"{method} trains {number} networks, of which one is kept" if number > 1 else ""

    def rule(self) -> Rule:
        """How opinions become planes."""
        return Rule()

    def refiner(self, session: Session, planes: tuple[Tensor, Tensor] | None = None) -> Refiner:
        """How planes, None before there are any, enter a student's step: as its target, in `share` of the steps."""
        return InconsistencyMask(label="consensus", share=self.share or (1.0 if session.data.supervised else 0.5))

    def opinion(self, session: Session, committee: list[Member], folder: str) -> Stored:
        """What the committee says about every unlabeled image, stored in `folder` of the run."""
        if folder == FIRST and session.data.config.committee:
            return given_consensus(session, folder, self.rule())
        networks: list[nn.Module] = [session.load(m) for m in committee]
        return consensus(session, networks, folder, self.rule(), [m.folder for m in committee])

    def lessons(self, session: Session, generation: int, stored: Stored) -> tuple[Session, tuple[Tensor, Tensor]]:
        """What students of a generation are trained with: a session with its data and configuration, and planes."""
        taught = self.school(session, self.drawing(session, generation, stored))
        return taught, on_device(stored.planes, session.data.unlabeled)

    def drawing(self, session: Session, generation: int, stored: Stored) -> Drawing:
        """How students draw unlabeled images: each of them once in a pass."""
        return Drawing()

    def school(self, session: Session, drawing: Drawing) -> Session:
        """The session of students that draw so, and see it in their view."""
        config = session.data.config  # methods with an unlabeled step of their own have views of their own
        if self.view != "train" and config.augment != "none" and session.data.supervised:
            drawing = replace(drawing, colors=drawing.colors or VIEWS[self.view])
        return (pooled if self.draw == "pool" else school)(session, drawing)

    def run(self, session: Session) -> Outcome:
        """Generation 0, then consensus and students for every further one."""
        data = session.data
        if not len(data.unlabeled):
            fix = "put images without masks into unlabeled/, or train with --method supervised"
            raise Refusal(Problem("D32", data.config.data, "has no unlabeled images", fix), DATA)
        session.warnings += self.deviations(session)
        self.refiner(session)  # what cannot be is refused before anything is trained
        if why := self.start == "warm" and self.lost(session):
            session.warnings.append(f"Students start afresh: {why}.")
            self.start = "fresh"
        committee, base = self._first(session)
        model, why = session.best(committee), "generation 0 is the best on val"
        ensemble, group, failed = committee, committee, 0
        for generation in range(1, self.generations + 1):
            said = len(session.warnings)
            stored = self.opinion(session, committee, f"generation-{generation}/consensus")
            session.generations[-1].update(inconsistent_share=stored.share, inconsistent_per_class=stored.per_class)
            self._watch(session, stored.share)
            if mute(session, stored, generation, self.rule()):
                why = f"the committee of generation {generation - 1} agrees on nothing that could be taught"
                break
            incomplete(session, stored)
            diagnose(session, committee, generation, stored, self.rule())
            if self.generations > 1:
                news = session.warnings[said:]
                session.warnings[said:] = [f"Generation {generation - 1}: {text[0].lower()}{text[1:]}" for text in news]
            school, planes = self.lessons(session, generation, stored)
            taught = self._train(school, generation, committee, refine=self.refiner(session, planes), planes=planes)
            best = session.best(taught)
            old, new = (deciding(session, self._asked(session, *of)) for of in ((group, model), (taught, best)))
            promoted, reason = judge(session, old, new)
            session.add_generation(generation, taught, promoted, reason)
            session.add_arm(f"{self.name}, generation {generation}", best.folder, self._val(session, taught, best))
            committee = taught
            if promoted:
                model, group, why, failed = best, taught, reason, 0
                ensemble = taught if len(taught) > 1 else ensemble
                continue
            why, failed = f"generation {generation} was not better: {reason}", failed + 1
            if failed >= self.patience:
                break
        return Outcome(model, ensemble if len(ensemble) > 1 else [model], why, base)

    def deviations(self, session: Session) -> list[str]:
        """Where preset=paper is not what the paper does, and a pool that cannot be."""
        data, said = session.data, []
        if self.draw == "pool" and not data.supervised:
            apart = f"{data.config.method} draws labeled and unlabeled images apart"
            said.append(f"draw=pool is for supervised students: {apart}.")
        if self.preset == "paper":
            theirs = make_task(data.classes.kind, data.task.names, "paper")
            said += unlike_paper(data.config, data.task.loss == theirs.loss)
        return said

    def _first(self, session: Session) -> tuple[list[Member], Member | None]:
        """Generation 0 and the labels-only baseline. Beside a given committee the baseline is all that is trained."""
        config = session.data.config
        session.share_out(self.members, self.members_by, self.networks)
        if config.committee and not storage.is_sealed(session.run / FIRST):
            ready(session, self.rule())  # what is wrong with it is said before anything is trained
        if config.committee and not config.baseline:
            why = "beside a given committee labels only is all that students can be held against"
            session.warnings.append(f"baseline=no was left aside: {why}.")
        base = baseline(session, self._in_a_row(session), always=bool(config.committee))
        if base and config.committee:
            session.add_generation(0, [base], True, f"trained on the labels; the committee is {config.committee}")
            session.first = [base]
            return [base], base
        session.first = committee = self._train(session, 0)
        session.add_generation(0, committee, True, "trained on the labels")
        plain = config.method == "supervised" and self._in_a_row(session) == 1 and not session.parted
        base = base or (committee[0] if plain else None)
        self._arms(session, committee, base)
        return committee, base

    def _train(self, session: Session, generation: int, before: Sequence[Member] = (), **teaching: Any) -> list[Member]:
        """The models of a generation; the last one is no committee: it has `students` of them, who learn from all labels."""
        last = generation == self.generations
        before = () if generation == 1 and session.data.config.committee else before  # which has no weights of ours
        by_moment = self.members_by == "snapshots" and not last
        count = 1 if by_moment else self.students if last else self.members
        each = [{"title": f"{self.name} · generation {generation} · {i + 1}/{count}", **teaching} for i in range(count)]
        for i, own in enumerate(each if self.start == "warm" and before else []):
            own["start"] = before[i % len(before)]
        if by_moment:
            return session.snapshots(generation, self.members, **each[0])
        return [session.train(generation, i, whole=last, **own) for i, own in enumerate(each)]

    def _in_a_row(self, session: Session) -> int:
        """Trainings that the last student's weights have gone through."""
        return self.generations + (not session.data.config.committee) if self.start == "warm" else 1

    def _arms(self, session: Session, committee: list[Member], base: Member | None) -> None:
        first, best = committee[0], session.best(committee)
        number = f"{len(committee)}{' snapshots' if self.members_by == 'snapshots' else ''}"
        session.add_arm(self._plain(session, first, base), first.folder, self._val(session, committee, first))
        if session.selectable():
            session.add_arm(f"best of {number} on val", best.folder, best.val)
        if session.folded:
            session.generations[0]["out_of_fold"] = session.out_of_fold(committee)
        elif len(session.data.val):
            average = session.evaluate(*[session.load(m) for m in committee])
            session.add_arm(f"average of {number} at prediction", "", average)

    def _plain(self, session: Session, first: Member, base: Member | None) -> str:
        """What generation 0's first model is called."""
        method = session.data.config.method
        return "labels only" if base is first else f"{method}, generation 0" if self._in_a_row(session) > 1 else method

    def _val(self, session: Session, group: list[Member], member: Member) -> dict[str, Any] | None:
        """METRICS of a member of a group, as the table shows them."""
        return session.out_of_fold(self._asked(session, group, member)) if session.folded else member.val

    def _asked(self, session: Session, group: list[Member], member: Member) -> list[Member]:
        """Who is scored for a member of a group: it alone, or with folds those whose folds all generations have."""
        return group[: self._both(session)] if session.folded else [member]

    def _both(self, session: Session) -> int:
        """Folds that all generations and the labels-only baseline have."""
        config = session.data.config
        alone = config.method != "supervised" or config.committee or self._in_a_row(session) > 1  # baseline: fold 0
        return 1 if alone else min(self.members, self.students)

    def _watch(self, session: Session, share: float | None) -> None:
        given = bool(session.data.config.committee) and len(session.generations) == 1
        session.warnings += unusual(share, given, self.rule().plain)
