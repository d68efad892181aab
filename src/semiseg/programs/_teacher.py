"""Generations with one teacher: the best member of a generation labels every image for the next one, alone."""

from __future__ import annotations

from semiseg.programs._generations import FIRST, Generations
from semiseg.programs.consensus import Rule, Said, Stored, consensus_by, opinions
from semiseg.programs.session import Member, Session
from semiseg.training.evaluate import images


class OneTeacher(Generations):
    """Its labels are trusted at every pixel. members: of a generation; the best on val teaches, else the first."""

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
        if members < 1:
            raise self.wrong("members", f"is {members}", expected="at least 1")
        super().__init__(members=max(2, members), generations=generations, students=students, patience=patience,
                         preset=preset, share=share, draw=draw, start=start, view=view)  # fmt: skip
        self.members, self.members_by = members, "seed"  # unlike a committee, one teacher is enough

    def opinion(self, session: Session, committee: list[Member], folder: str) -> Stored:
        """One teacher's, unless a committee was given in its place."""
        if folder == FIRST and session.data.config.committee:
            return super().opinion(session, committee, folder)
        return self.ask(session, session.best(committee), folder)

    def ask(self, session: Session, teacher: Member, folder: str) -> Stored:
        """The teacher's labels of all clean unlabeled images; it agrees with itself."""
        data, network = session.data, session.load(teacher)

        def ask(chosen: list[int]) -> Said:
            return Said(*opinions([network], data.task, images(data.unlabeled, chosen, data.units)))

        return consensus_by(session, ask, folder, Rule())

    def _arms(self, session: Session, committee: list[Member], base: Member | None) -> None:
        if len(committee) > 1:
            return super()._arms(session, committee, base)
        session.add_arm(self._plain(session, committee[0], base), committee[0].folder, committee[0].val)

    def _watch(self, session: Session, share: float | None) -> None:
        """A teacher does not disagree with itself; a committee given in its place may."""
        if session.data.config.committee and len(session.generations) == 1:
            super()._watch(session, share)
