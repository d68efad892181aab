"""MCCE: golden values of the paper's procedure, computed once by its own functions under OpenCV 5.0."""

import numpy as np
import pytest

from semiseg.compare import counting


def dots(places, size=64, radius=4):
    y, x = np.ogrid[:size, :size]
    out = np.zeros((size, size), bool)
    for cy, cx in places:
        out |= (y - cy) ** 2 + (x - cx) ** 2 <= radius**2
    return out


GRID = [(y, x) for y in (10, 32, 54) for x in (10, 32, 54)]


def cells(alive, dead):
    """(3,64,64): alive, dead, position of that many cells."""
    one, two = dots(GRID[:alive], radius=6), dots(GRID[alive : alive + dead], radius=6)
    return np.stack([one, two, dots(GRID[: alive + dead])]).astype(np.uint8)


def test_golden_of_the_paper():
    """Predicted (alive 5, dead 2), truth (7, 1): an error of 3."""
    assert counting.count(*(cells(5, 2)[k] == 1 for k in (2, 0, 1))) == (5, 2)
    assert counting.cell_error(cells(5, 2), cells(7, 1), (0, 1, 2)) == 3
    assert counting.cell_error(cells(4, 3), cells(4, 3), (0, 1, 2)) == 0


def test_centres_are_those_of_opencv():
    """A disc, one with a hole (which is a contour of its own), a line (which has no area after erosion)."""
    plane = dots([(12, 12), (40, 40)], radius=7)
    plane[40, 40] = False
    plane[58:61, 5:40] = True
    plane[50:62, 50] = True
    found = counting.positions(plane)
    assert sorted(found) == [(13, 13), (41, 41), (41, 41)]


def test_contours_are_closed_rows_of_border_pixels():
    plane = np.zeros((6, 7), bool)
    plane[1:5, 1:6] = True
    plane[2:4, 3] = False
    rows = [set(path) for path in counting.contours(plane)]
    outer = {(y, x) for y in (1, 4) for x in range(1, 6)} | {(y, x) for y in (2, 3) for x in (1, 5)}
    assert rows[0] == outer
    assert rows[1] == {(1, 3), (2, 2), (3, 2), (4, 3), (3, 4), (2, 4)}
    assert len(rows) == 2


def test_a_single_pixel_is_a_contour_without_area():
    plane = np.zeros((5, 5), bool)
    plane[2, 2] = True
    assert list(counting.contours(plane)) == [[(2, 2)]]
    assert counting.positions(plane) == []


@pytest.mark.parametrize(("apart", "radius"), [(10, 3), (20, 5), (40, 8), (90, 8)])
def test_discs_grow_with_the_distance(apart, radius):
    """8 px -> 3, 20 -> 5, 40 -> 8, as in the paper's code; blurring by 2 x 2 takes the tips off."""
    plane = dots([(64, 20), (64, 20 + apart)], size=128, radius=3)
    made = counting.redraw(plane)
    first = made[:, : 20 + apart // 2]
    assert first.any(0).sum() == 2 * (radius - 1)


def test_a_lone_centre_gets_the_smallest_disc():
    assert counting.redraw(dots([(30, 30)], radius=9)).any(0).sum() == 4


def test_windows_at_the_border_are_pushed_inside():
    alive = np.zeros((20, 20), bool)
    alive[:8, :8] = True
    assert counting.count(dots([(2, 2)], size=20), alive, ~alive) == (1, 0)


def test_equal_windows_are_not_counted():
    both = np.ones((64, 64), bool)
    assert counting.count(dots([(30, 30)]), both, both) == (0, 0)
    assert counting.count(dots([(30, 30)]), ~both, ~both) == (0, 0)


def test_which_labels_it_has_a_meaning_for():
    assert counting.order_of(("dead", "Alive", "pos")) == (1, 0, 2)
    assert counting.order_of(("alive", "dead", "position")) == (0, 1, 2)
    assert counting.order_of(("alive", "dead")) is None
