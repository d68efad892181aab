import math
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from semiseg.batch import IGNORE, Clock, Target, generator_of, seed_of, send

SOURCE = Path(__file__).parents[1] / "src" / "semiseg"


def belief(**changes):
    prob = torch.tensor([0.7, 0.2, 0.1]).view(1, 3, 1, 1).expand(2, 3, 2, 2)
    ones = torch.ones(2, 1, 2, 2)
    return Target(prob, prob.argmax(1), ones, ones.bool()).replace(**changes)


def test_equal_keys_equal_draws_and_nothing_else():
    assert seed_of(0, "labeled", 3) == seed_of(0, "labeled", 3)
    keys = [(0, "labeled", 3), (0, "labeled", 4), (1, "labeled", 3), (0, "unlabeled", 3), ("0", "labeled3")]
    assert len({seed_of(*k) for k in keys}) == len(keys)
    assert torch.equal(torch.rand(3, generator=generator_of(1, "a")), torch.rand(3, generator=generator_of(1, "a")))


@given(st.lists(st.integers() | st.text(max_size=5), max_size=4))
def test_seeds_fit_a_generator(key):
    assert 0 <= seed_of(*key) < 2**63
    generator_of(*key)


def test_the_global_generator_is_neither_read_nor_moved():
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    first = torch.rand(2, generator=Clock(5, 10, (1,)).generator("box"))
    torch.manual_seed(4)
    assert torch.equal(first, torch.rand(2, generator=Clock(5, 10, (1,)).generator("box")))
    torch.manual_seed(3)
    assert torch.equal(before, torch.random.get_rng_state())


def test_streams_steps_and_members_differ():
    draws = [
        torch.rand(1, generator=clock.generator(name)).item()
        for clock in (Clock(5, 10, (0, 1)), Clock(6, 10, (0, 1)), Clock(5, 10, (0, 2)))
        for name in ("box", "share")
    ]
    assert len(set(draws)) == 6


def test_ramp():
    assert Clock(0, 10).ramp(0.4) == pytest.approx(math.exp(-5))
    assert Clock(2, 10).ramp(0.4) == pytest.approx(math.exp(-5 * 0.5**2))
    assert [Clock(s, 10).ramp(0.4) for s in (4, 9)] == [1, 1]
    assert Clock(0, 10).ramp(0) == 1 and Clock(0, 0).progress == 0


def test_confidence_is_the_largest_class_or_the_nearer_side_of_each_label():
    assert torch.equal(belief().confidence, torch.full((2, 1, 2, 2), 0.7))
    prob = torch.tensor([0.9, 0.2]).view(1, 2, 1, 1)
    two = Target(prob, (prob > 0.5).to(torch.uint8), torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1, 1).bool())
    assert two.multilabel and not belief().multilabel
    torch.testing.assert_close(two.confidence.flatten(), torch.tensor([0.9, 0.8]))


def test_keep_multiplies_the_weight():
    half = torch.full((2, 1, 2, 2), 0.5)
    left = torch.tensor([[True, False], [True, False]])
    kept = belief(weight=half).keep(lambda t: left.expand_as(t.weight))
    assert torch.equal(kept.weight, half * left)
    assert torch.equal(kept.label, belief().label) and torch.equal(kept.prob, belief().prob)


@pytest.mark.parametrize("multilabel", [False, True])
def test_a_belief_as_a_mask_is_ignored_outside_the_image(multilabel):
    valid = torch.ones(2, 1, 2, 2, dtype=torch.bool)
    valid[0, 0, 0] = False
    label = torch.ones(2, 3, 2, 2, dtype=torch.uint8) if multilabel else torch.ones(2, 2, 2, dtype=torch.int64)
    mask = belief(label=label, valid=valid).as_labeled(torch.zeros(2, 1, 2, 2))
    seen = valid.expand(2, 3, 2, 2) if multilabel else valid[:, 0]
    assert torch.equal(mask.mask == IGNORE, ~seen) and torch.equal(mask.mask == 1, seen)
    assert torch.equal(mask.weight, valid.float())


def test_a_step_sends_and_never_waits():
    """`.to(device)` from pageable memory waits until a GPU has done all that is queued; see `batch.send`."""
    inside = [
        *(SOURCE / "methods").glob("*.py"),
        *(SOURCE / "data" / f"{n}.py" for n in ("views", "sampler", "mixing")),
    ]
    waits = re.compile(
        r"\.to\([^)]*device|\.to\((image|mask|colour|x)\)|torch\.tensor\([^)]*device=|\.item\(\)|\.tolist\(\)"
    )
    found = [
        f"{p.name}:{n}" for p in inside for n, line in enumerate(p.read_text().splitlines(), 1) if waits.search(line)
    ]
    assert not found
    x = torch.arange(3)
    assert send(x, "cpu") is x
