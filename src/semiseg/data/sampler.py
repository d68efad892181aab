"""Which images, and which views of them, are seen at a step: a pure function of (seed, stream, step)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor

from semiseg.batch import Labeled, Planes, Unlabeled, generator_of
from semiseg.data import views
from semiseg.data.cache import Store, Units
from semiseg.errors import usage


@lru_cache(maxsize=16)
def _permutation(n: int, *key: object) -> Tensor:
    return torch.randperm(n, generator=generator_of(*key))


def indices(step: int, batch: int, n: int, *key: object) -> Tensor:
    """The images of one step: pass after pass over n images, each pass in its own order. (batch,) long."""
    place = torch.arange(step * batch, (step + 1) * batch)
    passes = place // n
    chosen = [_permutation(n, *key, "pass", int(e))[place[passes == e] % n] for e in passes.unique()]
    return torch.cat(chosen)


@dataclass
class Feed:
    """Batches on the device. key identifies the run's draws: (seed, …); the labeled stream depends on it alone.

    planes: a frozen committee's (label, agree) rows (P,L) and (P,1|L) uint8, lying like the unlabeled store's pixels.
    """

    units: Units
    size: int
    batch: int
    key: tuple[object, ...]
    labeled_store: Store
    unlabeled_store: Store | None = None
    unlabeled_batch: int = 0
    augment: str = "default"
    turn: bool = False
    planes: tuple[Tensor, Tensor] | None = None
    geometry: views.Geometry = field(init=False)

    def __post_init__(self) -> None:
        if self.augment not in ("none", "default"):
            raise usage("--augment", f"is '{self.augment}'", expected="none or default")
        base = views.DEFAULT
        on = self.augment == "default"
        self.geometry = views.Geometry(base.scale, base.rotate, base.flip, self.turn) if on else views.PLAIN

    def labeled(self, step: int) -> Labeled:
        """The labeled batch of a step."""
        store, key = self.labeled_store, (*self.key, "labeled")
        generator = generator_of(*key, "views", step)
        crop = views.draw_crop(store, indices(step, self.batch, len(store), *key), self.size, self.geometry, generator)
        assert store.labels is not None
        mask = views.take_labels(store.labels, store, crop)
        image = views.take_pixels(store, crop, self.units)
        if self.augment == "default":
            image = views.photometric(image, views.VIEWS["train"], generator)
        return Labeled(image, mask if store.stacked else mask[:, 0].long())

    def unlabeled(self, step: int, names: tuple[str, ...]) -> Unlabeled | None:
        """The unlabeled batch of a step, with the strong views a method names; None when there is nothing to draw."""
        store, key = self.unlabeled_store, (*self.key, "unlabeled")
        if store is None or not self.drawn:
            return None
        generator = generator_of(*key, "views", step)
        chosen = indices(step, self.unlabeled_batch, len(store), *key)
        crop = views.draw_crop(store, chosen, self.size, self.geometry, generator)
        weak = views.take_pixels(store, crop, self.units)
        strong = tuple(self._view(weak, name, generator_of(*key, i, name, step)) for i, name in enumerate(names))
        return Unlabeled(weak, strong, views.valid(store, crop), self._planes(store, crop))

    @property
    def drawn(self) -> int:
        """Unlabeled images a step really draws."""
        return self.unlabeled_batch if self.unlabeled_store is not None and len(self.unlabeled_store) else 0

    def names(self, step: int) -> list[str]:
        """The images of a step, for messages."""
        rows = indices(step, self.batch, len(self.labeled_store), *self.key, "labeled")
        names = [self.labeled_store.names[i] for i in rows]
        if self.drawn and self.unlabeled_store is not None:
            rows = indices(step, self.unlabeled_batch, len(self.unlabeled_store), *self.key, "unlabeled")
            names += [self.unlabeled_store.names[i] for i in rows]
        return names

    def first_batch_hash(self) -> str:
        """SHA-256 of the first labeled batch: arms that claim the same labeled stream must show the same."""
        batch = self.labeled(0)
        data = batch.image.cpu().numpy().tobytes() + batch.mask.cpu().numpy().tobytes()
        return hashlib.sha256(data).hexdigest()

    def _view(self, weak: Tensor, name: str, generator: torch.Generator) -> Tensor:
        if name == "weak" or (name == "train" and self.augment == "none"):
            return weak
        return views.photometric(weak, views.VIEWS[name], generator)

    def _planes(self, store: Store, crop: views.Crop) -> Planes | None:
        if self.planes is None:
            return None
        label = views.take_labels(self.planes[0], store, crop)
        agree = views.take_labels(self.planes[1], store, crop) == 1
        return Planes(label if self.labeled_store.stacked else label[:, 0].long(), agree)
