"""What a program is: something that trains members in a session and says which of them is the model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from semiseg.methods import own
from semiseg.programs.members import check_ways
from semiseg.programs.session import Member, Session
from semiseg.training.config import Config


@dataclass
class Outcome:
    """model: what is shipped. committee: who predicts together and whose disagreement is mapped. why: in a sentence."""

    model: Member
    committee: list[Member]
    why: str
    baseline: Member | None = None
    arms: list[str] = field(default_factory=list)


class Program:
    """Subclass with keyword-only arguments (the configuration) and `run`."""

    name = ""
    members = 1
    members_by = "seed"
    networks: tuple[str, ...] = ()
    attaches = False  # does it refine what the method believes?
    teaches = False  # do its students learn from a consensus about unlabeled images?
    judged = False  # does it train an EvalNet beside its members, for as many steps as one of them?
    settled: tuple[str, ...] = ()  # arguments that are noted as what they become when they are left empty

    def unlike(self, members: int, members_by: str, networks: str) -> None:
        """Take over what sets the members apart. Refuses (exit 2) what no committee can be made of."""
        self.members, self.members_by = members, members_by
        self.networks = tuple(name.strip() for name in networks.split(",") if name.strip())
        check_ways(self.name, members, members_by, self.networks)

    def defaults(self, config: Config) -> dict[str, Any]:
        """What settings, and arguments of the method (`METHOD.argument`), are with this program where nobody typed them."""
        return {}

    def fits(self, config: Config) -> None:
        """Refuse (exit 2), before anything is read, what does not go together with the rest of the configuration.

        Here: a method in a file that never calls what a program attaches to it.
        """
        if self.attaches:
            own.refines(config.method)

    @property
    def folds(self) -> int:
        """Parts that the labels are divided into; 0 = none."""
        return self.members if self.members_by == "folds" else 0

    @property
    def models(self) -> int:
        """Models that `run` trains: what labels only may train as well in a fair comparison."""
        return 1

    def run(self, session: Session) -> Outcome:
        """Train everything, in an order that a resumed run repeats."""
        raise TypeError(f"{type(self).__name__} must write run(session)")


def baseline(session: Session, times: int = 1, always: bool = False) -> Member | None:
    """The plain supervised model with the same augmentation, network and steps, when no member is that already.

    times: how many trainings in a row the last student has had; labels only has one of as many steps in all.
    """
    config = session.data.config
    if not always and (not config.baseline or (config.method == "supervised" and not session.parted and times == 1)):
        return None
    long = replace(session, data=replace(session.data, config=replace(config, steps=times * config.steps)))
    member = long.train(0, 0, "labels only", method="supervised", folder="baseline", whole=True)
    session.add_arm("labels only", member.folder, member.val)
    return member


class Single(Program):
    """One training of the method, and beside it the labels-only baseline."""

    def trained(self, session: Session) -> list[Member]:
        """The model first, then who else maps disagreement with it."""
        return [session.train(0, 0, session.data.config.name)]

    def run(self, session: Session) -> Outcome:
        """Train both."""
        config = session.data.config
        base = baseline(session)
        members = self.trained(session)
        supervised = config.method == "supervised"
        session.add_arm("labels only" if supervised else config.name, members[0].folder, members[0].val)
        for name, val in members[0].result.get("companions", {}).items():
            session.add_arm(f"{config.name}, its {name}", "", val)
        session.add_generation(0, members, True, "the only generation")
        return Outcome(members[0], members, "it is the only model", members[0] if supervised else base)
