"""Synthetic brightfield cells with three overlapping labels (alive, dead, position), as the paper's HeLa set has.

No download, no licence: the data of `semiseg demo` and of the tests. How they look is in microscope.py.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semiseg.data import microscope
from semiseg.data.microscope import Blob, Mask
from semiseg.errors import BUSY, Problem, Refusal, usage

LABELS = ("alive", "dead", "position")
_VERSION = 1  # raise it whenever the pixels change: a folder of another version is not reused
_PAD = 24  # pixels drawn around the image: cells are cut by its edge, and the FFT's wrap-around stays outside
_FIRST = {"train": 0, "val": 1_000_000, "test": 2_000_000}  # index of a split's first image: adding one moves no other


def _numbers(**numbers: int) -> None:
    for name, number in numbers.items():
        least = 32 if name == "size" else 0
        if number < least:
            raise usage(name, f"is {number}", f"use {least} or more")


def _discs(cells: list[Blob], size: int) -> Mask:
    """(size, size) a disc at each centre in view: a quarter of the way to the nearest other one, 3 to 8 pixels."""
    centres = np.array([(c.y - _PAD, c.x - _PAD) for c in cells]).reshape(-1, 2)
    centres = centres[((centres >= 0) & (centres < size)).all(1)]
    y, x = np.mgrid[:size, :size]
    out = np.zeros((size, size), bool)
    for i, (cy, cx) in enumerate(centres):
        others = np.delete(centres, i, 0)
        nearest = np.hypot(*(others - (cy, cx)).T).min() if len(others) else 99
        out |= (y - cy) ** 2 + (x - cx) ** 2 <= np.clip(nearest // 4, 3, 8) ** 2
    return out


def cells(seed: int, index: int, size: int = 128) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image `index` of the series `seed`: (size, size, 1) uint8 grey values and (3, size, size) uint8 masks of 0 and 1.

    The masks are alive, dead and position (a disc at each cell's centre, on top of the other two). A dead cell may lie
    over a living one, which is then both. The same arguments give the same pixels, whatever was asked for before.
    `size` is the field of view in pixels, 32 or more; cells keep their size. Refusal (exit 2) for a smaller one and
    for negative numbers.
    """
    _numbers(seed=seed, index=index, size=size)
    rng = np.random.default_rng((seed, index))
    side = size + 2 * _PAD
    culture = microscope.culture(rng)
    alive: list[Blob] = []
    dead: list[Blob] = []
    for y, x, radius in microscope.place(rng, culture, side):
        if rng.random() < culture.dead:
            small = max(3.0, radius * rng.uniform(0.55, 0.8))
            dead.append(microscope.blob(rng, y, x, small, 1.01 + 0.15 * rng.random(), 0.06))
        elif rng.random() < 0.05:
            alive.append(microscope.blob(rng, y, x, radius * 0.75, 1, 0.01))
        else:
            alive.append(microscope.blob(rng, y, x, radius, culture.elongation * rng.uniform(0.9, 1.1), culture.ragged))
    thickness, living = microscope.living(rng, culture, alive, side)
    heap, absorbed, dying = microscope.dying(rng, culture, dead, side)
    specks, dark = microscope.debris(rng, culture, side)
    substrate = rng.uniform(0, 0.06) * microscope.smooth(rng, side, float(rng.uniform(0.8, 4)))
    grey = microscope.photograph(
        rng, thickness + heap + specks + substrate, culture.body * (thickness > 0) + absorbed + dark, living | dying
    )
    view = slice(_PAD, _PAD + size), slice(_PAD, _PAD + size)
    masks = np.stack([living[view], dying[view], _discs(alive + dead, size)]).astype(np.uint8)
    return grey[view][..., None], masks


def _series(labeled: int, unlabeled: int, val: int, test: int) -> dict[str, list[tuple[str, int]]]:
    """Per split the stem and the index of every image. Another number of images in one split moves none of the others."""
    train = [(f"train-{i:04d}", i) for i in range(labeled + unlabeled)]
    held = {s: [(f"{s}-{i:04d}", _FIRST[s] + i) for i in range(n)] for s, n in (("val", val), ("test", test))}
    return {"labeled": train[:labeled], "unlabeled": train[labeled:], **held}


def _draw(folder: Path, splits: dict[str, list[tuple[str, int]]], seed: int, size: int) -> None:
    """All images, masks and lists into `folder`."""
    for name in ("images", "splits", *(f"masks/{label}" for label in LABELS)):
        (folder / name).mkdir(parents=True)
    for split, series in splits.items():
        for stem, index in series:
            image, masks = cells(seed, index, size)
            Image.fromarray(image[..., 0]).save(folder / "images" / f"{stem}.png")
            for label, mask in zip(LABELS, masks, strict=True):
                Image.fromarray(mask * np.uint8(255)).save(folder / "masks" / label / f"{stem}.png")
        (folder / "splits" / f"{split}.txt").write_text("".join(f"{s}\n" for s, _ in series), encoding="utf-8")


def _missing(folder: Path, splits: dict[str, list[tuple[str, int]]]) -> bool:
    """Whether a list, an image or a mask of a finished folder is gone (a user may have deleted it since)."""
    stems = [f"{stem}.png" for series in splits.values() for stem, _ in series]
    parts = [folder / "images", *(folder / "masks" / label for label in LABELS)]
    files = [part / name for part in parts for name in stems] + [folder / "splits" / f"{s}.txt" for s in splits]
    return not all(file.is_file() for file in files)


def write_cells(
    folder: Path,
    *,
    labeled: int = 8,
    unlabeled: int = 202,
    val: int = 40,
    test: int = 80,
    size: int = 96,
    seed: int = 0,
) -> Path:
    """Write a data set of cells and return `folder`: images/, masks/{alive,dead,position}/ (0 and 255), splits/*.txt.

    Unlabeled images have masks too, which only a full-label baseline may open. cells.json records the arguments: a
    folder with the same ones is left alone, so a second call costs nothing. It appears under its name when complete.
    Refusal: exit 2 for a negative number or a size under 32, exit 7 for a folder that holds anything else.
    """
    folder = Path(folder)
    asked = {"labeled": labeled, "unlabeled": unlabeled, "val": val, "test": test, "size": size, "seed": seed}
    _numbers(**asked)
    splits = _series(labeled, unlabeled, val, test)
    record = json.dumps({"cells": _VERSION, **asked}, indent=1) + "\n"
    note = folder / "cells.json"
    if note.is_file() and note.read_text(encoding="utf-8") == record and not _missing(folder, splits):
        return folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        found = "exists and is not the complete data set of these numbers"
        raise Refusal(Problem("S10", str(folder), found, "name another folder, or delete this one"), BUSY)
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(f"{folder.name}.tmp-{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    try:
        _draw(part, splits, seed, size)
        (part / "cells.json").write_text(record, encoding="utf-8")
        os.replace(part, folder)  # replaces an empty folder, and no other
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder
