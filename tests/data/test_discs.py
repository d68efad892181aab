"""Position discs: objects found, their centres, radii by the nearest neighbour, what is drawn."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from semiseg.batch import generator_of
from semiseg.data.discs import centres, components, position_discs, radii


def flood(mask):
    """Objects by flood fill: a set of sets of pixels."""
    left, found = {tuple(p) for p in mask.nonzero().tolist()}, set()
    while left:
        todo, group = [left.pop()], set()
        while todo:
            y, x = todo.pop()
            group.add((y, x))
            near = {(y + a, x + b) for a in (-1, 0, 1) for b in (-1, 0, 1)} & left
            left -= near
            todo += near
        found.add(frozenset(group))
    return found


@given(st.integers(0, 10**6), st.sampled_from([0.2, 0.4, 0.6]), st.integers(1, 12), st.integers(1, 12))
def test_components_are_those_of_a_flood_fill(seed, share, height, width):
    mask = torch.rand(height, width, generator=generator_of(seed)) < share
    ids = components(mask)
    groups = {frozenset(map(tuple, (ids == i).nonzero().tolist())) for i in ids.unique().tolist() if i}
    assert groups == flood(mask) and torch.equal(ids > 0, mask)
    want = sorted((sum(p[0] for p in g) / len(g), sum(p[1] for p in g) / len(g)) for g in groups)
    assert sorted(map(tuple, centres(mask).tolist())) == [pytest.approx(w) for w in want]


def test_a_long_snake_is_one_object():
    mask = torch.zeros(41, 41, dtype=torch.bool)
    mask[::4] = True
    mask[2::8, -1] = mask[1::8, -1] = mask[3::8, -1] = True
    mask[6::8, 0] = mask[5::8, 0] = mask[7::8, 0] = True
    assert len(flood(mask)) == 1 and len(components(mask).unique()) == 2


@pytest.mark.parametrize(("distance", "radius"), [(40, 8), (36, 8), (20, 5), (19, 4), (16, 4), (15, 3), (8, 3)])
def test_radius_by_the_nearest_neighbour(distance, radius):
    """floor(d / 4), 3 to 8; the third centre is farther away and changes nothing for the first two."""
    points = torch.tensor([[0.0, 0.0], [0.0, distance], [500.0, 500.0]], dtype=torch.float64)
    assert radii(points).tolist() == [radius, radius, 8]


def test_a_lone_object_is_8_px():
    assert radii(torch.zeros(1, 2, dtype=torch.float64)).tolist() == [8] and len(radii(torch.zeros(0, 2))) == 0
    mask = torch.zeros(40, 40)
    mask[19:22, 19:22] = 1
    disc = position_discs(mask)
    want = torch.tensor([[(y - 20) ** 2 + (x - 20) ** 2 <= 64 for x in range(40)] for y in range(40)])
    assert torch.equal(disc, want)


def test_two_near_and_one_at_the_border():
    mask = torch.zeros(60, 60)
    mask[10, 10] = mask[10, 30] = mask[59, 0] = 1  # 20 px apart: 5 px; the corner: 8 px, cut off
    want = torch.zeros(60, 60, dtype=torch.bool)
    for (cy, cx), r in {(10, 10): 5, (10, 30): 5, (59, 0): 8}.items():
        for y in range(60):
            for x in range(60):
                want[y, x] |= (y - cy) ** 2 + (x - cx) ** 2 <= r * r
    assert torch.equal(position_discs(mask), want)


def test_nothing_stays_nothing():
    assert not position_discs(torch.zeros(5, 6)).any()
