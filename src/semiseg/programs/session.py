"""One run in progress: trains members into its folder, loads them, and keeps the account of what was done."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from semiseg import storage
from semiseg.methods.base import Refiner
from semiseg.training.evaluate import evaluate
from semiseg.training.logs import Log
from semiseg.training.loop import SELECTABLE, Job, fit
from semiseg.training.prepare import Prepared


@dataclass
class Member:
    """A trained member: its folder relative to the run, and result.json."""

    folder: str
    generation: int
    result: dict[str, Any]

    @property
    def val(self) -> dict[str, Any] | None:
        """METRICS on val, or None without val."""
        return self.result["val"]

    def row(self) -> dict[str, Any]:
        """For summary.json."""
        keys = ("val", "seconds", "steps", "images_forwarded", "hash", "chosen")
        return {"name": Path(self.folder).name, "folder": self.folder, **{k: self.result[k] for k in keys}}


@dataclass
class Session:
    """What a program works with."""

    run: Path
    data: Prepared
    log: Log
    generations: list[dict[str, Any]] = field(default_factory=list)
    arms: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    members: list[Member] = field(default_factory=list)

    def train(
        self,
        generation: int,
        index: int,
        title: str,
        *,
        method: str | None = None,
        folder: str = "",
        refine: Refiner | None = None,
        planes: tuple[Tensor, Tensor] | None = None,
    ) -> Member:
        """Train one member (or find it finished). Members of one index see the same labeled stream in every generation."""
        data, config = self.data, self.data.config
        name = folder or f"generation-{generation}/member-{index}"

        def build() -> Any:
            made = data.method(method)
            if refine is not None:
                made.refine = refine
            return made

        cls = type(build())
        feed = data.feed((config.seed, index), unlabeled=cls.uses_unlabeled or planes is not None, planes=planes)
        if cls.uses_unlabeled and not feed.drawn:
            raise _needs_unlabeled(config.method, config.data)
        key = (config.seed, generation, index)
        shape = config.shape(key, method or config.method, data.checked.hash) if planes is None else ""
        job = Job(self.run / name, key, title, config, feed, build, self.evaluate if len(data.val) else None,
                  len(data.val), self.log, shape, tuple(Path(run) / name for run in config.sources()))  # fmt: skip
        with self.log.timed("train"):
            member = Member(name, generation, fit(job))
        self.members.append(member)
        return member

    def evaluate(self, *networks: nn.Module) -> dict[str, Any]:
        """METRICS on val of one network, or of the average of several."""
        return evaluate(networks, self.data.task, self.data.val, self.data.units)

    def load(self, member: Member) -> nn.Module:
        """A trained member's network, in eval mode."""
        config = self.data.config
        weights, config.weights = config.weights, ""  # the architecture only; trained weights follow
        network = self.data.make()
        config.weights = weights
        network.load_state_dict(storage.read_tensors(self.run / member.folder / "final" / "weights.safetensors"))
        return network.to(self.data.labeled.pixels.device).eval()

    def selectable(self) -> bool:
        """May val choose between models? Below 20 images no single score selects anything."""
        return len(self.data.val) >= SELECTABLE

    def best(self, members: list[Member]) -> Member:
        """The best on val where val can tell; the first otherwise."""
        if not self.selectable():
            return members[0]
        return max(members, key=lambda m: m.val["miou"] if m.val and m.val["miou"] is not None else -1.0)

    def add_generation(self, number: int, members: list[Member], promoted: bool, why: str) -> dict[str, Any]:
        """Note a finished generation."""
        row = {"generation": number, "members": [m.row() for m in members], "inconsistent_share": None,
               "inconsistent_per_class": None, "promoted": promoted, "why": why}  # fmt: skip
        self.generations.append(row)
        return row

    def add_arm(self, name: str, folder: str, val: dict[str, Any] | None) -> None:
        """Note one row of the table."""
        self.arms.append({"name": name, "folder": folder, "val": val})


def _needs_unlabeled(method: str, data: str) -> Exception:
    from semiseg.errors import DATA, Problem, Refusal

    fix = "put images without masks into unlabeled/, or train with --method supervised"
    return Refusal(Problem("D32", data, f"has no unlabeled images, and {method} learns from them", fix), DATA)
