"""From a folder to everything a member needs: checked, chosen, decoded once, measured, every "auto" resolved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median_low
from typing import Any

import torch
from torch import nn

from semiseg import storage
from semiseg.data import cache
from semiseg.data.cache import Store, Units
from semiseg.data.check import Checked, check
from semiseg.data.classes import ClassMap
from semiseg.data.codes import render
from semiseg.data.index import Item
from semiseg.data.sampler import Drawing, Feed
from semiseg.errors import USAGE, Problem, Refusal
from semiseg.methods import method_class, own
from semiseg.methods.base import Method
from semiseg.networks import build
from semiseg.task import Task, make_task
from semiseg.training.config import Config
from semiseg.training.logs import Log, steps_per_row
from semiseg.training.ranges import amount


@dataclass
class Prepared:
    """A checked data set on disk as stores, and the task; what every member of a run shares.

    drawing: how unlabeled images are drawn for who is taught by planes. attach: is given every fresh method, to refine
    what it believes; a model of such a method is not what the plain method gives.
    """

    config: Config
    checked: Checked
    classes: ClassMap
    task: Task
    units: Units
    turn: bool
    labeled: Store
    unlabeled: Store
    val: Store
    truth: Store | None = None  # unlabeled images that have masks after all; opened by --set diagnose=yes alone
    drawing: Drawing = field(default_factory=Drawing)
    attach: Callable[[Method], None] | None = None

    def spec(self) -> dict[str, Any]:
        """What run.json says about the data, and what a model needs to predict."""
        index = self.checked.index
        return {
            "path": self.config.data, "folder": str(Path(self.config.data).resolve()),
            "hash": self.checked.hash, "classes": self.classes.to_json(),
            "channels": self.checked.channels, "dtype": self.checked.dtype, "turn": self.turn,
            "units": {"low": self.units.low, "high": self.units.high, "mean": self.units.mean, "std": self.units.std},
            "counts": {"labeled": len(self.labeled), "unlabeled": len(self.unlabeled), "val": len(self.val),
                       "test": len(index.test)},
            "val_source": self.checked.index.val_source,
            "splits": {"labeled": self.labeled.names, "val": self.val.names, "test": [i.name for i in index.test]},
        }  # fmt: skip

    @property
    def device(self) -> str:
        """Where networks and batches are; the pixels may lie elsewhere."""
        return self.units.device or str(self.labeled.pixels.device)

    def make(self, role: str = "student", name: str = "", **options: Any) -> nn.Module:
        """A fresh network for this data; `name` overrides the configured one."""
        weights = self.config.weights or None
        bare = (name or self.config.network).startswith("unet1x1")  # whose file may hold weights, but no such numbers
        own = weights is not None and self.checked.channels == 3 and not bare  # a pretrained RGB encoder brings its own
        mean, std = (None, None) if own else (self.units.mean, self.units.std)
        net = build(name or self.config.network, self.checked.channels, self.task.channels, mean=mean, std=std,
                    pretrained=weights, **options)  # fmt: skip
        return net.freeze() if self.config.freeze else net

    def method(self, name: str | None = None, start: Path | None = None) -> Method:
        """A fresh method with the configured arguments (a named other method keeps its defaults).

        start: weights that its student begins with, and whatever copies the student: teachers and averages.
        """

        def make(role: str = "student", name: str = "", **options: Any) -> nn.Module:
            network = self.make(role, name, **options)
            if start is not None and role == "student":
                network.load_state_dict(storage.read_tensors(start))
            return network

        mine = name is None or name == self.config.method
        cls = method_class(name or self.config.method)
        method = own.made(cls(make, self.task, **self.config.method_args if mine else {}))
        if self.attach is not None:
            self.attach(method)
        return method

    @property
    def supervised(self) -> bool:
        """Does the method learn nothing from unlabeled images by itself?"""
        return not method_class(self.config.method).uses_unlabeled

    def with_network(self, name: str) -> Prepared:
        """The same data for another network; a learning rate that was chosen for the configured one is chosen anew."""
        if name in ("", self.config.network):
            return self
        c = self.config
        other = replace(c, network=name)
        lr = default_rate(other) if c.lr == default_rate(c) else c.lr
        return replace(self, config=replace(other, lr=lr))

    def feed(
        self,
        key: tuple[object, ...],
        *,
        unlabeled: bool,
        planes: tuple[torch.Tensor, torch.Tensor] | None,
        rows: Sequence[int] | None = None,
    ) -> Feed:
        """Batches for one member; the labeled stream depends on `key` and `rows`, the labeled images it may see."""
        c = self.config
        labeled = self.labeled if rows is None else self.labeled.take(rows)
        return Feed(self.units, c.size, c.batch, key, labeled, self.unlabeled if unlabeled else None,
                    c.unlabeled_batch, c.augment, self.turn, planes,
                    Drawing() if planes is None else self.drawing)  # fmt: skip


def look(config: Config, log: Log, folds: int = 0, learner: str = "", into: Path | None = None) -> Checked:
    """Check the data folder; refuses what `semiseg check` refuses, says aloud what it notes.

    folds: members are scored on labels that they did not see, so no val set is carved from the labels. learner: who
    learns from unlabeled images, so that there must be some. into: the file to keep everything in that was found.
    """
    with log.timed("check"), log.bar("reading the folder", 1) as bar:
        checked = check(Path(config.data), size=config.size or None, resize=config.resize,
                        labels=amount(config.labels), members=folds or None, oracle=config.oracle,
                        diagnose=config.diagnose, workers=config.workers,
                        progress=lambda done, total: bar(done, total))  # fmt: skip
    if learner and checked.index.labeled and not checked.index.unlabeled:
        fix = "put images without masks into unlabeled/, or train with --method supervised"
        found = f"has no unlabeled images, and {learner} learns from them"
        checked.problems = [p for p in checked.problems if p.code != "D32"]  # a warning to everybody else
        checked.problems.append(Problem("D32", config.data, found, fix))
    if into is not None:
        storage.write_json(into, {**checked.to_json(), "digests": checked.digests})
    checked.refuse()
    for level in ("warning", "note"):
        for line in render(checked.level(level), str(into or "semiseg check --json")):
            log.say(f"{level.capitalize()}: {line}")
    if config.oracle and not checked.opened:
        found, fix = "finds no masks of unlabeled images", "--oracle needs them: it is the full-label baseline"
        raise Refusal(Problem("C08", "--oracle", found, fix), USAGE)
    if config.oracle:
        log.say(f"Note: --oracle opens the masks of {checked.opened} unlabeled images and trains on them.")
    return checked


def prepare(config: Config, checked: Checked, folder: Path, log: Log) -> Prepared:
    """Decode what training needs into `folder` and resolve what was left to us."""
    classes = checked.classes
    assert classes is not None
    index = checked.index
    with log.timed("cache"):
        stores = [_store(folder / name, index.split(name), None if name == "unlabeled" else classes, config, log)
                  for name in ("labeled", "unlabeled", "val")]  # fmt: skip
        known = [item for item in index.unlabeled if item.masks] if config.diagnose else []
        truth = _store(folder / "truth", known, classes, config, log) if known else None
    if known:
        log.say(f"Note: diagnose=yes opens {len(known)} masks of unlabeled images to count errors, never to train.")
    units = cache.measure(stores[0])  # of labeled images alone: what is trained on labels only depends on nothing else
    turn = config.turn == "yes" or (config.turn == "auto" and not cache.has_an_up(stores[0]))
    if config.turn == "auto":
        said = (
            "no up or down: they may be turned and mirrored" if turn else "an up and a down: no turns, no up-down flips"
        )
        log.say(f"Note: your masks show {said} (--set turn=yes|no overrides).")
    task = make_task(classes.kind, classes.names, config.loss, config.ohem_kept)
    units = replace(units, device=device_of(config))
    labeled, unlabeled, val = _on_device(stores, config)
    truth = None if truth is None else truth.to(val.pixels.device)
    return Prepared(resolve(config, stores), checked, classes, task, units, turn, labeled, unlabeled, val, truth)


def _store(folder: Path, items: Sequence[Item], classes: ClassMap | None, config: Config, log: Log) -> Store:
    with log.bar(f"decoding {folder.name}", len(items)) as bar:
        return cache.build(folder, items, classes, resize=config.resize, workers=config.workers,
                           progress=lambda done, total: bar(done))  # fmt: skip


def device_of(config: Config) -> str:
    """Where networks live: what was asked for, or with "auto" what Fabric takes then."""
    if config.device != "auto":
        return config.device
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def _on_device(stores: Sequence[Store], config: Config) -> list[Store]:
    """Pixels, masks and a consensus to come live on the GPU when they take less than a quarter of its free memory.

    Then no step copies images; else crops are cut where the pixels are, and copied (`Units.apply`). A consensus has at
    most as many labels as the masks, and agreement for each.
    """
    if device_of(config) != "cuda":
        return list(stores)
    free, _ = torch.cuda.mem_get_info()
    masks = max((s.labels.shape[1] for s in stores if s.labels is not None), default=1)
    size = sum(s.pixels.numel() * s.pixels.element_size() + 2 * masks * len(s.pixels) for s in stores)
    if size > free / 4:
        return list(stores)
    return [s.to("cuda") for s in stores]


def default_rate(config: Config) -> float:
    """The learning rate where none is asked for."""
    if config.optimizer == "sgd":
        return 1e-3 if config.weights else 1e-2
    return 3e-3 if config.network.startswith("unet1x1") else 3e-4 if config.weights else 1e-3


def resolve(config: Config, stores: Sequence[Store]) -> Config:
    """Numbers for everything that was left to us. Defaults follow the data, and the network where that is needed."""
    size = config.size or crop_size(torch.minimum(stores[0].height, stores[0].width).tolist())
    batch = config.batch or 16
    drawn = config.unlabeled_batch or batch
    steps = config.steps or config.epochs * _per_epoch(config, stores, batch, drawn) or 2000
    every = config.checkpoint_every or max(steps_per_row(steps), steps // 10)
    return replace(
        config, size=size, steps=steps, batch=batch, unlabeled_batch=drawn, lr=config.lr or default_rate(config),
        eval_every=config.eval_every or max(1, steps // 10), checkpoint_every=every,
        threads=config.threads or torch.get_num_threads(),
    )  # fmt: skip


def crop_size(sides: Sequence[int]) -> int:
    """The side of crops in pixels where none is asked for, by the shorter sides of the labeled images."""
    return min(256 if torch.cuda.is_available() else 128, max(32, median_low(sides) // 32 * 32))


def _per_epoch(config: Config, stores: Sequence[Store], batch: int, drawn: int) -> int:
    """Steps in a pass over the unlabeled images, or over the labeled ones when the method or the data has no others."""
    alone = not len(stores[1]) or not (method_class(config.method).uses_unlabeled or config.program)
    return max(1, len(stores[0]) // batch if alone else len(stores[1]) // drawn)
