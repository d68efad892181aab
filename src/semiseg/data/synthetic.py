"""Synthetic brightfield cells with three overlapping labels (alive, dead, position), as the paper's HeLa set has.

No download, no licence: the data of `semiseg demo` and of the tests. Each image draws its own culture (size, shape,
density, share of dead cells, stain, debris) and its own optics (light, focus on either side of the sample, blur,
noise), so a few labels do not cover what a new image looks like. Cells are thickness and absorption maps seen through
the weak-object transfer function of a defocused microscope, which is what makes halos and rings, and what turns
them inside out from one side of the focus to the other.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semiseg.errors import BUSY, Problem, Refusal, usage

LABELS = ("alive", "dead", "position")
_VERSION = 1  # raise it whenever the pixels change: a folder of another version is not reused
_PAD = 24  # pixels drawn around the image: cells are cut by its edge, and the FFT's wrap-around stays outside
_FIRST = {"train": 0, "val": 1_000_000, "test": 2_000_000}  # index of a split's first image: adding one moves no other

_ANGLES = np.linspace(-np.pi, np.pi, 128, endpoint=False)

Plane = NDArray[np.float32]
Random = np.random.Generator


@dataclass(frozen=True)
class _Culture:
    """What one image shows; lengths in pixels, phases in radians at the thickest point."""

    radius: float
    elongation: float
    ragged: float  # relative amplitude of the outline
    crowd: float  # share of the area that cells would cover without overlap
    clump: float  # probability that a cell is set beside another one
    dead: float  # share of dead cells
    phase: float  # thickness of a living cell
    dome: float  # 0.15 a flat cell with a steep edge .. 1 a dome
    nucleus: float
    grain: float  # contrast of the texture inside
    grain_size: float
    stain: float  # absorption of dead cells
    body: float  # absorption of living cells
    debris: float  # pieces per 1000 pixels


def _culture(rng: Random) -> _Culture:
    radius = float(rng.uniform(10, 15))
    spindle = rng.random() < 0.25
    return _Culture(
        radius=radius,
        elongation=float(rng.uniform(1.5, 2.2) if spindle else rng.uniform(1, 1.45)),
        ragged=float(rng.uniform(0.02, 0.1)),
        crowd=float(rng.uniform(0.16, 0.5)),
        clump=float(rng.uniform(0.3, 0.9)),
        dead=float(rng.beta(1.2, 2.2)),
        phase=float(rng.uniform(0.9, 2)),
        dome=float(rng.uniform(0.15, 0.7)),
        nucleus=float(rng.uniform(0.6, 1.3)),
        grain=float(rng.uniform(0.02, 0.15)),
        grain_size=float(rng.uniform(0.8, 2)),
        stain=float(rng.choice([rng.uniform(-0.5, -0.2), rng.uniform(0.25, 0.8)], p=[0.15, 0.85])),
        body=float(rng.uniform(0.06, 0.22)),
        debris=float(rng.gamma(1.2, 0.25)),
    )


def _squared_frequency(side: int) -> Plane:
    """(side, side // 2 + 1) squared spatial frequency of a real FFT, in 1 / pixel^2."""
    return (np.fft.fftfreq(side)[:, None] ** 2 + np.fft.rfftfreq(side)[None] ** 2).astype(np.float32)


@dataclass(frozen=True)
class _Dirt:
    """One kind of debris: ranges of the number of pieces, radius in pixels and elongation; spread in cell radii."""

    share: float
    pieces: tuple[int, int]
    spread: float
    radius: tuple[float, float]
    stretch: tuple[float, float]
    ragged: float


_DIRT = (
    _Dirt(1.0, (1, 2), 0.0, (0.8, 3.5), (1.0, 2.0), 0.15),  # specks
    _Dirt(0.8, (3, 9), 0.28, (0.8, 3.0), (1.0, 2.0), 0.15),  # heaps of specks, as large and as rough as a dead cell
    _Dirt(0.5, (1, 2), 0.0, (4.0, 9.0), (1.0, 1.3), 0.0),  # drops, as round as a dead cell
    _Dirt(0.3, (1, 2), 0.0, (3.0, 6.0), (7.0, 14.0), 0.0),  # fibres
)


def _smooth(rng: Random, side: int, sigma: float) -> Plane:
    """(side, side) random field, mean 0, variance 1, correlated over about `sigma` pixels."""
    spectrum = np.fft.rfft2(rng.standard_normal((side, side), np.float32))
    spectrum *= np.exp(np.float32(-2 * (np.pi * sigma) ** 2) * _squared_frequency(side))
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, (side, side))
    return field / (field.std() + np.float32(1e-9))


@dataclass
class _Blob:
    """One outline: an ellipse with a wavy edge. `turn` in radians, `waves` rows of (order, amplitude, phase)."""

    y: float
    x: float
    radius: float
    elongation: float
    turn: float
    waves: list[tuple[int, float, float]]

    def level(self, side: int) -> tuple[tuple[slice, slice], Plane, Plane]:
        """Window, pixels to the edge (> 0 inside), and distance to the centre in radii, both (h, w)."""
        reach = int(self.radius * self.elongation * 1.4) + 3
        top, left = max(int(self.y) - reach, 0), max(int(self.x) - reach, 0)
        bottom, right = (min(max(int(c) + reach, 0), side) for c in (self.y, self.x))
        window = slice(top, bottom), slice(left, right)
        dy = (np.arange(window[0].start, window[0].stop, dtype=np.float32) - np.float32(self.y))[:, None]
        dx = (np.arange(window[1].start, window[1].stop, dtype=np.float32) - np.float32(self.x))[None]
        stretch, cos, sin = np.float32([np.sqrt(self.elongation), np.cos(self.turn), np.sin(self.turn)])
        u, v = (dx * cos + dy * sin) / stretch, (dy * cos - dx * sin) * stretch
        distance = np.hypot(u, v)
        # The outline over the angle, from a table: four cosines a pixel were a third of the whole time.
        turns = _ANGLES[:, None] * [k for k, _, _ in self.waves] + [p for _, _, p in self.waves]
        table = ((1 + np.cos(turns) @ [a for _, a, _ in self.waves]) * self.radius).astype(np.float32)
        edge = table[((np.arctan2(v, u) + np.float32(np.pi)) * np.float32(len(_ANGLES) / 6.2832)).astype(np.int32)]
        return window, edge - distance, distance / np.float32(self.radius)


def _blob(rng: Random, y: float, x: float, radius: float, elongation: float, ragged: float) -> _Blob:
    waves = [(k, float(rng.normal(0, ragged / np.sqrt(k - 1))), float(rng.uniform(0, 6.28))) for k in (2, 3, 4, 5)]
    return _Blob(y, x, radius, elongation, float(rng.uniform(0, np.pi)), waves)


def _place(rng: Random, culture: _Culture, side: int) -> list[tuple[float, float, float]]:
    """(y, x, radius) of every cell: scattered, or beside an earlier one so that the two touch."""
    cells: list[tuple[float, float, float]] = []
    count = max(3, round(culture.crowd * side * side / (np.pi * culture.radius**2)))
    for _ in range(4 * count):
        if len(cells) == count:
            break
        radius = culture.radius * float(np.clip(rng.normal(1, 0.15), 0.65, 1.4))
        y, x = rng.uniform(0, side, 2)
        if cells and rng.random() < culture.clump:
            py, px, pr = cells[rng.integers(len(cells))]
            turn, gap = rng.uniform(0, 2 * np.pi), (pr + radius) * rng.uniform(0.78, 0.98)
            y, x = py + gap * np.sin(turn), px + gap * np.cos(turn)
        inside = 0 <= y < side and 0 <= x < side
        if inside and all((y - b) ** 2 + (x - a) ** 2 > (0.72 * (radius + r)) ** 2 for b, a, r in cells):
            cells.append((float(y), float(x), radius))
    return cells


def _living(rng: Random, culture: _Culture, cells: list[_Blob], side: int) -> tuple[Plane, NDArray[np.bool_]]:
    """Thickness of the living layer, and where it is. Where two cells meet, a valley: the edges push each other."""
    first, second = np.full((2, side, side), -99, np.float32)
    lift = np.zeros((side, side), np.float32)
    scale = np.ones((side, side), np.float32)
    for cell in cells:
        window, level, distance = cell.level(side)
        best, other = first[window], second[window]
        mine = level > best
        second[window] = np.where(mine, best, np.maximum(other, level))
        first[window] = np.where(mine, level, best)
        # A rounded, dividing cell is alive, yet thick and round as a dead one.
        thick = rng.uniform(1.3, 1.9) if cell.elongation == 1 else rng.uniform(0.7, 1.2)
        nucleus = culture.nucleus * np.exp(-((distance / rng.uniform(0.3, 0.5)) ** 4))
        lift[window] = np.where(mine, thick * (1 + nucleus), lift[window])
        scale[window] = np.where(mine, cell.radius, scale[window])
    inside = first > 0
    depth = np.clip(np.minimum(first, (first - second) / 2 + 0.3), 0, None) / scale
    profile = 1 - np.exp(-3 * depth / culture.dome)
    grain = 1 + culture.grain * _smooth(rng, side, culture.grain_size)
    return np.where(inside, culture.phase * lift * profile * grain, 0).astype(np.float32), inside


def _dying(rng: Random, culture: _Culture, cells: list[_Blob], side: int) -> tuple[Plane, Plane, NDArray[np.bool_]]:
    """Thickness, absorption and place of the dead: shrunken, round, blebbing, coarsely granulated."""
    phase, absorption = np.zeros((2, side, side), np.float32)
    inside = np.zeros((side, side), bool)
    grain = 1 + 0.45 * _smooth(rng, side, float(rng.uniform(0.7, 1.3)))
    for cell in cells:
        window, level, _ = cell.level(side)
        profile = np.sqrt(np.clip(level / cell.radius, 0, 1) * (2 - np.clip(level / cell.radius, 0, 1)))
        phase[window] = np.maximum(phase[window], profile * rng.uniform(1.2, 2.4))
        absorption[window] = np.maximum(absorption[window], profile * (culture.stain + 0.05) * rng.uniform(0.4, 1.3))
        inside[window] |= level > 0
    return phase * grain, absorption * np.clip(grain, 0.2, 2), inside


def _debris(rng: Random, culture: _Culture, side: int) -> tuple[Plane, Plane]:
    """Thickness and absorption of what is no cell; every image has a dirt of its own."""
    phase, absorption = np.zeros((2, side, side), np.float32)
    share = rng.dirichlet([d.share for d in _DIRT])
    tone, glass = rng.normal(0.15, 0.25), rng.normal(0.3, 0.7)
    for kind in rng.choice(len(_DIRT), rng.poisson(culture.debris * side * side / 1000), p=share):
        dirt, (y, x) = _DIRT[kind], rng.uniform(0, side, 2)
        for _ in range(rng.integers(*dirt.pieces)):
            dy, dx = rng.normal(0, 1, 2) * dirt.spread * culture.radius
            piece = _blob(rng, y + dy, x + dx, rng.uniform(*dirt.radius), rng.uniform(*dirt.stretch), dirt.ragged)
            window, level, _ = piece.level(side)
            profile = np.clip(level, 0, 1.5) / 1.5
            phase[window] += profile * (glass + rng.uniform(-0.4, 0.4))
            absorption[window] += profile * (tone + rng.uniform(-0.2, 0.2))
    return phase, absorption


def _photograph(rng: Random, phase: Plane, absorption: Plane, cells: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """(S, S) grey values: light, defocus of either sign, blur and noise of one exposure."""
    side = phase.shape[0]
    q = _squared_frequency(side)
    focus = float(rng.uniform(10, 24) * rng.choice([-1, 1], p=[0.15, 0.85]))  # pi * wavelength * z, in square pixels
    blur = np.exp(-2 * (np.pi * rng.uniform(0.4, 1.2)) ** 2 * q)
    wave = np.fft.rfft2(phase) * np.sin(focus * q) - np.fft.rfft2(absorption) * np.cos(focus * q)
    contrast = np.fft.irfft2(wave * blur, (side, side))
    strength = np.sqrt(np.mean(contrast[cells] ** 2)) + 1e-3 if cells.any() else 1
    contrast *= rng.uniform(0.14, 0.32) / strength
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    turn, cy, cx = rng.uniform(0, 2 * np.pi), *rng.uniform(-0.4, 0.4, 2)
    light = 1 + rng.uniform(0, 0.3) * (x * np.cos(turn) + y * np.sin(turn))
    light -= rng.uniform(0, 0.3) * ((y - cy) ** 2 + (x - cx) ** 2) / 2
    light += rng.uniform(0, 0.05) * _smooth(rng, side, 12)
    grey = rng.uniform(75, 175) * light * (1 + contrast)
    grey += rng.uniform(1, 3) * rng.standard_normal((side, side), np.float32) * np.sqrt(np.clip(grey, 1, None) / 128)
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)


def _discs(cells: list[_Blob], size: int) -> NDArray[np.bool_]:
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
    `size` is the field of view in pixels, 32 or more; cells keep their size. Refusal (exit 2) for a smaller one.
    """
    if size < 32:
        raise usage("size", f"is {size}", "use 32 or more")
    rng = np.random.default_rng((seed, index))
    side = size + 2 * _PAD
    culture = _culture(rng)
    alive: list[_Blob] = []
    dead: list[_Blob] = []
    for y, x, radius in _place(rng, culture, side):
        if rng.random() < culture.dead:
            small = max(3.0, radius * rng.uniform(0.55, 0.8))
            dead.append(_blob(rng, y, x, small, 1.01 + 0.15 * rng.random(), 0.06))
        elif rng.random() < 0.05:
            alive.append(_blob(rng, y, x, radius * 0.75, 1, 0.01))
        else:
            alive.append(_blob(rng, y, x, radius, culture.elongation * rng.uniform(0.9, 1.1), culture.ragged))
    thickness, living = _living(rng, culture, alive, side)
    heap, absorbed, dying = _dying(rng, culture, dead, side)
    specks, dark = _debris(rng, culture, side)
    substrate = rng.uniform(0, 0.06) * _smooth(rng, side, float(rng.uniform(0.8, 4)))
    grey = _photograph(
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


def write_cells(
    folder: Path, *, labeled: int = 10, unlabeled: int = 200, val: int = 40, test: int = 80, size: int = 96, seed: int = 0
) -> Path:
    """Write a data set of cells and return `folder`: images/, masks/{alive,dead,position}/ (0 and 255), splits/*.txt.

    Unlabeled images have masks too, which only a full-label baseline may open. cells.json records the arguments: a
    folder with the same ones is left alone, so a second call costs nothing. It appears under its name when complete.
    Refusal: exit 2 for a negative number or a size under 32, exit 7 for a folder that holds anything else.
    """
    folder = Path(folder)
    asked = {"labeled": labeled, "unlabeled": unlabeled, "val": val, "test": test, "size": size, "seed": seed}
    wrong = [name for name, number in asked.items() if number < (32 if name == "size" else 0)]
    if wrong:
        raise usage(wrong[0], f"is {asked[wrong[0]]}", f"use {32 if wrong[0] == 'size' else 0} or more")
    splits = _series(labeled, unlabeled, val, test)
    record = json.dumps({"cells": _VERSION, **asked}, indent=1) + "\n"
    note = folder / "cells.json"
    if note.is_file() and note.read_text(encoding="utf-8") == record:
        return folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        found = "exists and was not written with these numbers"
        raise Refusal(Problem("D40", str(folder), found, "name another folder, or delete this one"), BUSY)
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
