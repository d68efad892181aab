"""Drawing of the synthetic cells: thickness and absorption maps, photographed by a defocused brightfield microscope.

Every image draws its own culture (size, shape, density, share of dead cells, stain, dirt) and its own optics (light,
focus on either side of the sample, blur, noise), so a few labels do not cover what a new image looks like. Halos and
rings are not painted: they come from the transfer function of a weak object, which also turns them inside out from one
side of the focus to the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_ANGLES = np.linspace(-np.pi, np.pi, 128, endpoint=False)

Plane = NDArray[np.float32]
Mask = NDArray[np.bool_]
Random = np.random.Generator


@dataclass(frozen=True)
class Culture:
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


def culture(rng: Random) -> Culture:
    """Draw what one image shows. Rare on purpose: spindles, stain that leaves the dead brighter than the ground."""
    radius = float(rng.uniform(10, 15))
    spindle = rng.random() < 0.25
    return Culture(
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
        body=float(rng.uniform(0.08, 0.22)),
        debris=float(rng.gamma(1.2, 0.25)),
    )


def _squared_frequency(side: int) -> Plane:
    """(side, side // 2 + 1) squared spatial frequency of a real FFT, in 1 / pixel^2."""
    return (np.fft.fftfreq(side)[:, None] ** 2 + np.fft.rfftfreq(side)[None] ** 2).astype(np.float32)


def smooth(rng: Random, side: int, sigma: float) -> Plane:
    """(side, side) random field, mean 0, variance 1, correlated over about `sigma` pixels."""
    spectrum = np.fft.rfft2(rng.standard_normal((side, side), np.float32))
    spectrum *= np.exp(np.float32(-2 * (np.pi * sigma) ** 2) * _squared_frequency(side))
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, (side, side))
    return field / (field.std() + np.float32(1e-9))


@dataclass
class Blob:
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
        stretch, cos, sin = np.array([self.elongation**0.5, np.cos(self.turn), np.sin(self.turn)], np.float32)
        u, v = (dx * cos + dy * sin) / stretch, (dy * cos - dx * sin) * stretch
        distance = np.hypot(u, v)
        # The outline over the angle, from a table: four cosines a pixel were a third of the whole time.
        turns = _ANGLES[:, None] * [k for k, _, _ in self.waves] + [p for _, _, p in self.waves]
        table = ((1 + np.cos(turns) @ [a for _, a, _ in self.waves]) * self.radius).astype(np.float32)
        edge = table[((np.arctan2(v, u) + np.float32(np.pi)) * np.float32(len(_ANGLES) / 6.2832)).astype(np.int32)]
        return window, edge - distance, distance / np.float32(self.radius)


def blob(rng: Random, y: float, x: float, radius: float, elongation: float, ragged: float) -> Blob:
    """A `Blob` that is turned at random; `ragged` is the relative amplitude of its edge, 0 a plain ellipse."""
    waves = [(k, float(rng.normal(0, ragged / np.sqrt(k - 1))), float(rng.uniform(0, 6.28))) for k in (2, 3, 4, 5)]
    return Blob(y, x, radius, elongation, float(rng.uniform(0, np.pi)), waves)


def place(rng: Random, culture: Culture, side: int) -> list[tuple[float, float, float]]:
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


def living(rng: Random, culture: Culture, cells: list[Blob], side: int) -> tuple[Plane, Mask]:
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
    grain = 1 + culture.grain * smooth(rng, side, culture.grain_size)
    return np.where(inside, culture.phase * lift * profile * grain, 0).astype(np.float32), inside


def dying(rng: Random, culture: Culture, cells: list[Blob], side: int) -> tuple[Plane, Plane, Mask]:
    """Thickness, absorption and place of the dead: shrunken, round, blebbing, coarsely granulated."""
    phase, absorption = np.zeros((2, side, side), np.float32)
    inside = np.zeros((side, side), bool)
    grain = 1 + 0.45 * smooth(rng, side, float(rng.uniform(0.7, 1.3)))
    for cell in cells:
        window, level, _ = cell.level(side)
        profile = np.sqrt(np.clip(level / cell.radius, 0, 1) * (2 - np.clip(level / cell.radius, 0, 1)))
        phase[window] = np.maximum(phase[window], profile * rng.uniform(1.2, 2.4))
        absorption[window] = np.maximum(absorption[window], profile * (culture.stain + 0.05) * rng.uniform(0.4, 1.3))
        inside[window] |= level > 0
    return phase * grain, absorption * np.clip(grain, 0.2, 2), inside


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


def debris(rng: Random, culture: Culture, side: int) -> tuple[Plane, Plane]:
    """Thickness and absorption of what is no cell; every image has a dirt of its own."""
    phase, absorption = np.zeros((2, side, side), np.float32)
    share = rng.dirichlet([d.share for d in _DIRT])
    tone, glass = rng.normal(0.15, 0.25), rng.normal(0.3, 0.7)
    for kind in rng.choice(len(_DIRT), rng.poisson(culture.debris * side * side / 1000), p=share):
        dirt, (y, x) = _DIRT[kind], rng.uniform(0, side, 2)
        for _ in range(rng.integers(*dirt.pieces)):
            dy, dx = rng.normal(0, 1, 2) * dirt.spread * culture.radius
            piece = blob(rng, y + dy, x + dx, rng.uniform(*dirt.radius), rng.uniform(*dirt.stretch), dirt.ragged)
            window, level, _ = piece.level(side)
            profile = np.clip(level, 0, 1.5) / 1.5
            phase[window] += profile * (glass + rng.uniform(-0.4, 0.4))
            absorption[window] += profile * (tone + rng.uniform(-0.2, 0.2))
    return phase, absorption


def photograph(rng: Random, phase: Plane, absorption: Plane, cells: Mask) -> NDArray[np.uint8]:
    """(S, S) grey values: light, defocus of either sign, blur and noise of one exposure."""
    side = phase.shape[0]
    q = _squared_frequency(side)
    focus = float(rng.uniform(10, 24) * rng.choice([-1, 1], p=[0.15, 0.85]))  # pi * wavelength * z, in square pixels
    blur = np.exp(-2 * (np.pi * rng.uniform(0.4, 1.2)) ** 2 * q)
    wave = np.fft.rfft2(phase) * np.sin(focus * q) - np.fft.rfft2(absorption) * np.cos(focus * q)
    contrast = np.fft.irfft2(wave * blur, (side, side))
    strength = np.sqrt(np.mean(contrast[cells] ** 2)) + 1e-3 if cells.any() else 1
    contrast *= rng.uniform(0.24, 0.42) / strength
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    turn, cy, cx = rng.uniform(0, 2 * np.pi), *rng.uniform(-0.4, 0.4, 2)
    light = 1 + rng.uniform(0, 0.3) * (x * np.cos(turn) + y * np.sin(turn))
    light -= rng.uniform(0, 0.3) * ((y - cy) ** 2 + (x - cx) ** 2) / 2
    light += rng.uniform(0, 0.05) * smooth(rng, side, 12)
    grey = rng.uniform(75, 175) * light * (1 + contrast)
    grey += rng.uniform(1, 3) * rng.standard_normal((side, side), np.float32) * np.sqrt(np.clip(grey, 1, None) / 128)
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)
