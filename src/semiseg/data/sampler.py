"""Which images, and which views of them, are seen at a step: a pure function of (seed, stream, step)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import lru_cache

import torch
from torch import Tensor

from semiseg.batch import Labeled, Planes, Unlabeled, generator_of, send
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


AUGMENT = {"none": None, "default": views.VIEWS["train"], "strong": views.VIEWS["strong"]}
"""--augment -> the colours of labeled images, which the view "train" has as well; "none" leaves the geometry alone, too."""


@dataclass(frozen=True)
class Drawing:
    """How unlabeled images are drawn; by default each once in a pass, augmented as labeled ones are.

    multiplicity: (N,) long >= 0, how often each image comes in a pass; 0 leaves it out. clean: it comes once more as it
    is, without any augmentation, when its multiplicity is not 0. geometry, colors: of the augmented copies (colors is
    what the view "train" does). stream: labeled images a step of the arms this one is compared with, 0 = as many.
    """

    multiplicity: Tensor | None = None
    clean: bool = False
    geometry: views.Geometry | None = None
    colors: views.Photometry | None = None
    stream: int = 0


def copies(multiplicity: Tensor, clean: bool = False) -> tuple[Tensor, Tensor]:
    """One pass over images that come several times: (total,) image of each place, and bool: is this the clean copy?"""
    number = multiplicity + (multiplicity > 0) * int(clean)
    image = torch.repeat_interleave(torch.arange(len(number)), number)
    first = torch.ones_like(image, dtype=torch.bool)
    first[1:] = image[1:] != image[:-1]
    return image, first & clean


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
    drawing: Drawing = Drawing()
    geometry: views.Geometry = field(init=False)
    once: tuple[Tensor, Tensor] | None = field(init=False, default=None)  # `copies` of one pass; None = each image once

    def __post_init__(self) -> None:
        if self.augment not in AUGMENT:
            raise usage("--augment", f"is '{self.augment}'", expected=" or ".join(AUGMENT))
        base = views.DEFAULT
        on = self.augment != "none"
        self.geometry = views.Geometry(base.scale, base.rotate, base.flip, self.turn) if on else views.PLAIN
        number, clean = self.drawing.multiplicity, self.drawing.clean
        if self.unlabeled_store is not None and (number is not None or clean):
            once = torch.ones(len(self.unlabeled_store), dtype=torch.int64)
            self.once = copies(once if number is None else number, clean)

    def labeled(self, step: int) -> Labeled:
        """The labeled batch of a step."""
        store, key = self.labeled_store, (*self.key, "labeled")
        generator = generator_of(*key, "views", step)
        crop = views.draw_crop(store, indices(step, self.batch, len(store), *key), self.size, self.geometry, generator)
        assert store.labels is not None
        mask = views.take_labels(store.labels, store, crop)
        image = views.take_pixels(store, crop, self.units)
        if colors := AUGMENT[self.augment]:
            image = views.photometric(image, colors, generator)
        mask = send(mask, image.device)
        return Labeled(image, mask if store.stacked else mask[:, 0].long())

    def unlabeled(self, step: int, names: tuple[str, ...]) -> Unlabeled | None:
        """The unlabeled batch of a step, with the strong views a method names; None when there is nothing to draw."""
        store, key = self.unlabeled_store, (*self.key, "unlabeled")
        if store is None or not self.drawn:
            return None
        generator = generator_of(*key, "views", step)
        chosen, clean = self._chosen(step, store)
        geometry = self.drawing.geometry or self.geometry
        crop = views.draw_crop(store, chosen, self.size, geometry, generator)
        if self.drawing.clean:
            plain = views.draw_crop(store, chosen, self.size, views.PLAIN, generator_of(*key, "clean", step))
            on = send(clean.view(-1, 1, 1), crop.x.device)
            crop = views.Crop(crop.index, torch.where(on, plain.x, crop.x), torch.where(on, plain.y, crop.y))
        weak = views.take_pixels(store, crop, self.units)
        strong = tuple(self._view(weak, name, generator_of(*key, i, name, step), clean) for i, name in enumerate(names))
        inside = send(views.valid(store, crop), weak.device)
        return Unlabeled(weak, strong, inside, self._planes(store, crop, weak.device))

    @property
    def drawn(self) -> int:
        """Unlabeled images a step really draws."""
        return self.unlabeled_batch if self.unlabeled_store is not None and len(self.unlabeled_store) else 0

    def names(self, step: int) -> list[str]:
        """The images of a step, for messages."""
        rows = indices(step, self.batch, len(self.labeled_store), *self.key, "labeled")
        names = [self.labeled_store.names[i] for i in rows]
        if self.drawn and self.unlabeled_store is not None:
            names += [self.unlabeled_store.names[i] for i in self._chosen(step, self.unlabeled_store)[0]]
        return names

    def first_batch_hash(self) -> str:
        """SHA-256 of the first labeled batch: arms that claim the same labeled stream must show the same.

        A feed that reads the stream in smaller steps shows what it would draw in the steps of the others.
        """
        batch = (replace(self, batch=self.drawing.stream) if self.drawing.stream else self).labeled(0)
        data = batch.image.cpu().numpy().tobytes() + batch.mask.cpu().numpy().tobytes()
        return hashlib.sha256(data).hexdigest()

    def _chosen(self, step: int, store: Store) -> tuple[Tensor, Tensor]:
        """(U,) unlabeled images of a step, and which of them are clean copies: a pure function of the step."""
        key = (*self.key, "unlabeled")
        if self.once is None:
            chosen = indices(step, self.unlabeled_batch, len(store), *key)
            return chosen, torch.zeros_like(chosen, dtype=torch.bool)
        image, clean = self.once
        place = indices(step, self.unlabeled_batch, len(image), *key)
        return image[place], clean[place]

    def _view(self, weak: Tensor, name: str, generator: torch.Generator, clean: Tensor) -> Tensor:
        own = self.drawing.colors or AUGMENT[self.augment]
        colors = own if name == "train" else None if name == "weak" else views.VIEWS[name]
        if colors is None:
            return weak
        view = views.photometric(weak, colors, generator)
        if name == "train" and self.drawing.clean:
            view = torch.where(send(clean.view(-1, 1, 1, 1), weak.device), weak, view)
        return view

    def _planes(self, store: Store, crop: views.Crop, device: torch.device) -> Planes | None:
        if self.planes is None:
            return None
        label, agree = (send(views.take_labels(plane, store, crop), device) for plane in self.planes)
        agree = agree == 1
        return Planes(label if self.labeled_store.stacked else label[:, 0].long(), agree)
