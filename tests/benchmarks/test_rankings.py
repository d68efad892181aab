"""Orders of images to be labeled, by hand; and the facts that they are made from."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import rankings
from rankings import (
    RANKINGS,
    Facts,
    diverse,
    drawn,
    feature,
    measure,
    per_foreground,
    per_outline,
    plain,
    typical,
    typical_doubt,
)
from tiny import KINDS, Pixelwise, task_of

EAST, NORTH = np.array([1.0, 0.0]), np.array([0.0, 1.0])
POOL = [
    Facts("d", 0.20, 0.80, 0.10, 4 * EAST),  # large and ragged: much is disputed along a long outline
    Facts("a", 0.20, 0.50, 0.40, 4.5 * EAST),
    Facts("c", 0.12, 0.10, 0.05, 3 * NORTH),
    Facts("b", 0.02, 0.00, 0.00, 9 * NORTH),
]
HOME = [np.zeros(2)]


def names(ranking, *args):
    return "".join(POOL[i].image for i in ranking(POOL, *args))


def test_plain_is_by_share_and_then_by_name():
    assert names(plain, HOME) == "adcb"


def test_size_is_taken_out():
    assert names(per_foreground, HOME) == "bcad"  # 2.0 for nothing is .01 of an image, 1.2, .4, .25
    assert names(per_outline, HOME) == "cbda"  # 2.4, then 2.0 twice, b before d by name, .5


def test_diverse_is_disputed_and_new():
    """a .9, d .8, c .36, b .18; beside a, d is .5 away: .1, so c is next, .36, then b is 6 from c: .12, and d."""
    assert names(diverse, HOME) == "acbd"
    assert names(diverse, [4.5 * EAST]) == "cbda"  # c .65, b .2; a is labeled in all but name


def test_without_labels_the_most_disputed_is_first():
    assert names(diverse, []) == "acbd"
    assert diverse([], []) == [] == plain([], [])


def test_typical_stands_for_many():
    """Distances to home: d 4, a 4.5, c 3, b 9; d to a .5, c to b 6, others across. Gains: d 4 + 4, a 4.5 + 3.5, c 3 + 3,
    b 3 (of c, 9 from 3: none) + 9 = 9, so b; then d and a 8 both, a first by name; then c 3, and d .5.
    """
    assert names(typical, HOME) == "bacd"
    assert names(typical_doubt, HOME) == "acbd"  # d .8 + .8, a .9 + .7; c .36 + .06, b .18; c; b .12, d .1


def test_only_the_first_are_chosen_one_after_the_other(monkeypatch):
    """Of the three with the largest scores two; the others follow by score, and nobody is asked how far they are."""
    monkeypatch.setattr(rankings, "FIRST", 2)
    monkeypatch.setattr(rankings, "POOL", 3)
    assert names(typical_doubt, HOME) == "acdb"
    assert names(typical, HOME) == "acdb"  # b, which is far, is not in the pool


def test_features_that_are_no_numbers_or_very_large_do_not_decide():
    far = np.array([8000.0, 8000.0])
    pool = [replace(f, feature=f.feature + far) for f in POOL]
    assert "".join(pool[i].image for i in typical(pool, [HOME[0] + far])) == "bacd"
    broken = [replace(POOL[0], feature=np.array([np.nan, np.inf])), *POOL[1:]]
    assert sorted(typical_doubt(broken, HOME)) == [0, 1, 2, 3] and typical_doubt(broken, HOME)[:2] == [1, 2]


def test_features_of_a_large_image_are_those_of_its_tiles(monkeypatch):
    monkeypatch.setattr(rankings, "TILE", 8)
    network = Pixelwise(1, 1).eval()
    image = torch.rand(2, 1, 20, 11)
    torch.testing.assert_close(torch.from_numpy(feature(network, image)), image.mean((-2, -1)))


@pytest.mark.parametrize("ranking", RANKINGS.values(), ids=RANKINGS)
def test_every_image_once_in_whatever_order_they_come(ranking):
    assert sorted(ranking(POOL, HOME)) == [0, 1, 2, 3]
    turned = POOL[::-1]
    assert [turned[i].image for i in ranking(turned, HOME)] == list(names(ranking, HOME))


def test_equal_images_are_chosen_by_name():
    same = [Facts(n, 0.1, 0.1, 0.1, EAST) for n in "cab"]
    assert all("".join(same[i].image for i in r(same, HOME)) == "abc" for r in RANKINGS.values())


def test_drawn_depends_on_the_key_alone():
    pool = [Facts(f"{i:02d}", i / 100) for i in range(40)]
    first = [pool[i].image for i in drawn(pool, "0/0")]
    assert first == [pool[::-1][i].image for i in drawn(pool[::-1], "0/0")]
    assert sorted(first) == [f.image for f in pool]
    assert first != [pool[i].image for i in drawn(pool, "0/1")]


def test_tiny_objects_are_not_divided_by():
    """.004, .001 and nothing at all count as .01 of an image: .8, .7, .6; b has .5."""
    sizes = {"a": (0.008, 0.004), "b": (0.01, 0.02), "c": (0.006, 0.0), "d": (0.007, 0.001)}
    pool = [Facts(name, score, size, size) for name, (score, size) in sizes.items()]
    assert per_foreground(pool, HOME) == per_outline(pool, HOME) == [0, 3, 2, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_measured(kind):
    """The last class is where it is bright, 4 × 4 of 8 × 8 px at the lower, and at the left edge.

    Pixels that differ from the one right or below: 8 beside and 4 above; 4 beside, 4 above, 4 below, one of them twice.
    """
    task = task_of(kind)
    network = Pixelwise(1, task.channels).eval()
    with torch.no_grad():
        network.conv.weight.fill_(0)
        network.conv.weight[-1] = 20
        network.conv.bias.fill_(-10)
        network.conv.bias[0] = 0 if kind == "multiclass" else -10
    image = torch.zeros(3, 1, 8, 8)
    image[0, :, 4:8, 2:6] = image[1, :, 2:6, 0:4] = 1
    foreground, outline, feature = measure(network, task, image)
    assert foreground == pytest.approx([16 / 64, 16 / 64, 0])
    assert outline == pytest.approx([12 / 64, 11 / 64, 0])
    assert feature == pytest.approx(np.array([[16 / 64], [16 / 64], [0]]))
