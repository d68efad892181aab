"""Generations with one teacher: the best member of a generation labels every image for the next one, alone."""

from __future__ import annotations

from semiseg.programs._generations import FIRST, Generations
from semiseg.programs.consensus import Rule, Stored, consensus
from semiseg.programs.session import Member, Session


class OneTeacher(Generations):
    """Its labels are trusted at every pixel. members: of a generation; the best on val teaches, else the first."""

    least = 1

    def __init__(
        self,
        *,
        members: int = 1,
        generations: int = 0,
        students: int = 1,
        patience: int = 0,
        preset: str = "default",
        share: float = 0.0,
        draw: str = "",
        start: str = "",
        view: str = "",
    ) -> None:
        super().__init__(members=members, generations=generations, students=students, patience=patience,
                         preset=preset, share=share, draw=draw, start=start, view=view)  # fmt: skip
        self.members_by = "seed"  # models that compete, not snapshots of one

    def opinion(self, session: Session, committee: list[Member], folder: str) -> Stored:
        """The teacher's labels of all unlabeled images, unless a committee was given in its place."""
        if folder == FIRST and session.data.config.committee:
            return super().opinion(session, committee, folder)
        return self.ask(session, session.best(committee), folder)

    def ask(self, session: Session, teacher: Member, folder: str) -> Stored:
        """What the teacher says."""
        return consensus(session, [session.load(teacher)], folder, Rule())

    def _arms(self, session: Session, committee: list[Member], base: Member | None) -> None:
        if len(committee) > 1:
            return super()._arms(session, committee, base)
        session.add_arm(self._plain(session, committee[0], base), committee[0].folder, committee[0].val)

    def _watch(self, session: Session, share: float | None) -> None:
        """A teacher does not disagree with itself; a committee given in its place may."""
        if session.data.config.committee and len(session.generations) == 1:
            super()._watch(session, share)
