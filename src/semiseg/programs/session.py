"""One run in progress: trains members into its folder, loads them, and keeps the account of what was done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from semiseg import storage
from semiseg.data.cache import Store
from semiseg.methods import method_class
from semiseg.methods.base import Refiner
from semiseg.programs.members import Share, shares, snapshot_steps
from semiseg.training.config import SELECTABLE
from semiseg.training.evaluate import evaluate
from semiseg.training.logs import Log
from semiseg.training.loop import Job, fit
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
    """What a program works with.

    beside: folder of a network that is no member -> seconds and images_forwarded of its training; asked: folder of a
    consensus -> those of asking for it. first: generation 0, snapshots included. held: labeled images out of fold that
    arms were compared on; 0 where that was val.
    """

    run: Path
    data: Prepared
    log: Log
    generations: list[dict[str, Any]] = field(default_factory=list)
    arms: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    members: list[Member] = field(default_factory=list)
    beside: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: dict[str, dict[str, Any]] = field(default_factory=dict)
    shares: list[Share] = field(default_factory=list)
    first: list[Member] = field(default_factory=list)
    held: int = 0

    def share_out(self, members: int, way: str, networks: Sequence[str]) -> None:
        """Settle what sets the members apart: member i of every generation, and the baseline beside member 0."""
        data = self.data
        self.shares = shares(members, way, networks, data.labeled.names, data.checked.digests, data.config.seed,
                             len(data.val) >= SELECTABLE)  # fmt: skip

    @property
    def parted(self) -> bool:
        """Does member 0 learn from a part of the labels, so that it is not what labels alone give?"""
        first = self.share(0)
        return first.labeled is not None and not first.held

    def share(self, index: int) -> Share:
        """What member `index` of any generation is trained with."""
        return self.shares[index % len(self.shares)] if self.shares else Share()

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
        moments: tuple[int, ...] = (),
        whole: bool = False,
        start: Member | None = None,
    ) -> Member:
        """Train one member (or find it finished). Members of one index see the same labeled stream in every generation.

        whole: it learns from all labels, also where members learn from parts of them; but not from a fold it is scored on.
        start: the member whose weights it begins with, instead of random ones.
        """
        share = self.share(index)
        share = replace(share, labeled=None) if whole and not share.held else share
        data = self.data.with_network(share.network)
        config = data.config
        name = folder or f"generation-{generation}/member-{index}"

        def build() -> Any:
            made = data.method(method, self.weights(start) if start else None)
            if refine is not None:
                made.refine = refine
            return made

        learns = method_class(method or config.method).uses_unlabeled
        feed = data.feed((config.seed, index), unlabeled=learns or planes is not None, planes=planes,
                         rows=share.labeled)  # fmt: skip
        key = (config.seed, generation, index)
        attached = planes is not None or (self.data.attach is not None and learns)
        apart = (*key, *share.key, *moments)  # one with snapshots is not one without, though it ends as it does
        shape = "" if attached else config.shape(apart, method or config.method, data.checked.hash)
        store = self.scored_on(index)
        job = Job(
            self.run / name, key, title, config, feed, build, log=self.log, shape=shape, moments=moments,
            evaluate=partial(self._score, store) if len(store) else None,
            val_images=0 if share.held else len(store),
            reuse=tuple(Path(run) / name for run in config.sources()),
        )  # fmt: skip
        with self.log.timed("train"):
            member = Member(name, generation, fit(job))
        self.members.append(member)
        return member

    def snapshots(
        self,
        generation: int,
        count: int,
        title: str,
        *,
        refine: Refiner | None = None,
        planes: tuple[Tensor, Tensor] | None = None,
        start: Member | None = None,
    ) -> list[Member]:
        """A committee from one training: its end first, then what it was at equal distances over its second half.

        Raises Refusal (exit 2) where there are fewer steps than members.
        """
        moments = snapshot_steps(self.data.config.steps, count, self.data.config.eval_every)
        end = self.train(generation, 0, title, refine=refine, planes=planes, moments=moments, start=start)
        folders = [f"{end.folder}/snapshot-{i}" for i in range(count - 1)]
        taken = [Member(f, generation, storage.read_json(self.run / f / "final" / "result.json")) for f in folders]
        if any(one.result["hash"] == end.result["hash"] for one in taken):
            said = "Two snapshots are the same weights, so the committee is one member smaller: train longer."
            self.warnings.append(said)
        return [end, *taken]

    def scored_on(self, index: int) -> Store:
        """What member `index` is scored on: val, or its fold of the labels where val is too small to choose by."""
        held = self.share(index).held
        return self.data.labeled.take(held) if held else self.data.val

    def _score(self, store: Store, *networks: nn.Module) -> dict[str, Any]:
        return evaluate(networks, self.data.task, store, self.data.units)

    def evaluate(self, *networks: nn.Module) -> dict[str, Any]:
        """METRICS on val of one network, or of the average of several."""
        return self._score(self.data.val, *networks)

    @property
    def folded(self) -> bool:
        """Each member is scored on its own fold: scores of two members of one committee are of different images."""
        return any(s.held for s in self.shares)

    def out_of_fold(self, members: Sequence[Member]) -> dict[str, Any]:
        """METRICS pooled over the folds of members 0, 1, …: each labeled image scored by the one that did not see it."""
        metrics = self.data.task.metrics()
        self.held = self.held or sum(len(self.share(i).held) for i in range(min(len(members), len(self.shares))))
        for index, member in enumerate(members[: len(self.shares)]):
            evaluate([self.load(member)], self.data.task, self.scored_on(index), self.data.units, metrics)
        return metrics.compute()

    def weights(self, member: Member) -> Path:
        """A trained member's file of weights."""
        return self.run / member.folder / "final" / "weights.safetensors"

    def load(self, member: Member) -> nn.Module:
        """A trained member's network, in eval mode."""
        data = self.data.with_network(member.result.get("network", ""))
        bare = replace(data, config=replace(data.config, weights="", freeze=False))  # trained weights follow
        network = bare.make()
        network.load_state_dict(storage.read_tensors(self.weights(member)))
        return network.to(self.data.device).eval()

    def selectable(self) -> bool:
        """May val choose between models? Below 20 images, or on different ones, no single score selects anything."""
        return len(self.data.val) >= SELECTABLE and not self.folded

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
