"""MCCE: the mean error of counted cells, by the procedure of the IM paper's code.

[0] Vorndran and Roeck, arXiv 2401.14387   [1] MichaelVorndran/InconsistencyMasks, functions.py: get_pos_contours,
mod_pos_size, get_cell_count. Rewritten from the procedure; contours follow Suzuki and Abe, CVGIP 30, 1985, as OpenCV does.
Differs from [1]: nothing; 300 random masks gave the same centres, discs and counts as [1] under OpenCV 5.0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.bool_]
Point = tuple[int, int]

_RING = ((0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1))  # (dy, dx), clockwise from the left


def contours(plane: Plane) -> Iterator[list[Point]]:
    """Every border of a plane (H,W) as its closed row of pixels (y, x): outer ones and those around holes."""
    field = np.pad(plane.astype(np.int32), 1)
    on = field > 0
    starts = np.argwhere(on & ~(np.roll(on, 1, 1) & np.roll(on, -1, 1)))
    label = 1
    for y, x in starts.tolist():
        if field[y, x] == 1 and field[y, x - 1] == 0:
            origin = (y, x - 1)
        elif field[y, x] >= 1 and field[y, x + 1] == 0:
            origin = (y, x + 1)
        else:
            continue
        label += 1
        yield [(j - 1, i - 1) for j, i in _follow(field, (y, x), origin, label)]


def _follow(field: NDArray[np.int32], start: Point, origin: Point, label: int) -> list[Point]:
    """Walk one border from `start`, whose neighbour `origin` lies outside; marks it so that it is walked once."""
    first = next((p for p in _around(start, origin, 1) if field[p] != 0), None)
    if first is None:
        field[start] = -label
        return [start]
    path: list[Point] = []
    before, here = first, start
    while True:
        path.append(here)
        right_is_off = False
        for p in _around(here, before, -1):
            if field[p] != 0:
                following = p
                break
            right_is_off = right_is_off or p == (here[0], here[1] + 1)
        if right_is_off:
            field[here] = -label
        elif field[here] == 1:
            field[here] = label
        if following == start and here == first:
            return path
        before, here = here, following


def _around(centre: Point, after: Point, turn: int) -> Iterator[Point]:
    """The eight neighbours, beginning behind `after` (clockwise for turn 1), which comes last."""
    at = _RING.index((after[0] - centre[0], after[1] - centre[1]))
    for k in range(1, 9):
        dy, dx = _RING[(at + turn * k) % 8]
        yield centre[0] + dy, centre[1] + dx


def _centre(path: Sequence[Point]) -> Point | None:
    """(y, x) of the polygon's centroid, cut to a whole number, plus 1; None without an area."""
    y, x = np.array(path, float).T
    cross = np.roll(x, 1) * y - x * np.roll(y, 1)
    area = cross.sum() / 2
    if area == 0:
        return None
    cy, cx = (((np.roll(v, 1) + v) * cross).sum() / (6 * area) for v in (y, x))
    return int(cy + 1e-9) + 1, int(cx + 1e-9) + 1


def positions(plane: Plane) -> list[Point]:
    """Centres (y, x) of the spots of a position mask, after one erosion by 3 x 3."""
    padded = np.pad(plane, 1, constant_values=True)  # the border of the image does not erode
    core: Plane = np.asarray(np.lib.stride_tricks.sliding_window_view(padded, (3, 3)).all((2, 3)))
    return [c for path in contours(core) if (c := _centre(path)) is not None]


def redraw(plane: Plane) -> Plane:
    """A predicted position mask with a disc at each centre: a quarter of the way to the next one, 3 to 8 pixels."""
    found = positions(plane)
    out = np.zeros(plane.shape, bool)
    y, x = np.ogrid[: plane.shape[0], : plane.shape[1]]
    for cy, cx in found:
        apart = np.hypot(*(np.array(found) - (cy, cx)).T)
        nearest = apart[apart > 0].min() if (apart > 0).any() else 0.0
        radius = int(np.clip(nearest // 4, 3, 8))
        out |= (y - cy) ** 2 + (x - cx) ** 2 <= radius**2
    before = np.pad(out, ((1, 0), (1, 0)), mode="reflect")  # a mean over 2 x 2 stays above 254 / 255 where all are on
    return before[1:, 1:] & before[:-1, 1:] & before[1:, :-1] & before[:-1, :-1]


def count(position: Plane, alive: Plane, dead: Plane) -> tuple[int, int]:
    """(alive, dead) cells: at each centre the larger one in a window of 6 x 6; equal ones are not counted."""
    height, width = position.shape
    found = [0, 0]
    for y, x in positions(position):
        x = min(x + 3 if x <= 3 else x, width - 3)  # [1] tests the left border unlike the upper one
        y = min(y + 3 if y < 3 else y, height - 3)
        window = slice(max(0, y - 3), max(0, y + 3)), slice(max(0, x - 3), max(0, x + 3))
        a, d = int(alive[window].sum()), int(dead[window].sum())
        if a != d:
            found[a < d] += 1
    return found[0], found[1]


def cell_error(predicted: NDArray[np.uint8], truth: NDArray[np.uint8], order: tuple[int, int, int]) -> int:
    """|alive - alive| + |dead - dead| of one image. Both (L,H,W) 0/1; order: the places of alive, dead, position."""
    a, d, p = order
    mine = count(redraw(predicted[p] == 1), predicted[a] == 1, predicted[d] == 1)
    theirs = count(truth[p] == 1, truth[a] == 1, truth[d] == 1)
    return abs(mine[0] - theirs[0]) + abs(mine[1] - theirs[1])


def order_of(names: Sequence[str]) -> tuple[int, int, int] | None:
    """Where alive, dead and position (or pos) stand among the labels; None when MCCE has no meaning for them."""
    known = {n.strip().lower(): i for i, n in enumerate(names)}
    place = known.get("position", known.get("pos", known.get("mod_position")))
    if place is None or "alive" not in known or "dead" not in known:
        return None
    return known["alive"], known["dead"], place
