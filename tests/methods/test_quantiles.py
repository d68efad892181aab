"""Quantiles that U2PL tells unreliable pixels by: those of torch, on rows of any length."""

import pytest
import torch

from semiseg.batch import generator_of
from semiseg.methods.u2pl import quantiles

SHARES = (0.0, 0.03, 0.2, 0.5, 0.8, 1.0)


@pytest.mark.parametrize("longest", [0, 2**24])
def test_they_are_those_of_torch(longest):
    """Rows with ties, with a hole, with one value alone and with none."""
    g = generator_of("quantiles")
    for length in (1, 2, 7, 500):
        values = torch.rand(5, length, generator=g)
        values[0] = values[0].mul(4).round()
        inside = torch.rand(5, length, generator=g) < 0.7
        inside[1], inside[2], inside[3] = True, False, False
        inside[3, length // 2] = True
        found = quantiles(values, inside, SHARES, longest=longest)
        want = torch.nanquantile(values.masked_fill(~inside, float("nan")), torch.tensor(SHARES), dim=1)
        torch.testing.assert_close(found, want, rtol=0, atol=1e-6, equal_nan=True)
        assert found[:, 2].isnan().all() and torch.equal(found[[0, -1], 1], torch.stack(values[1].aminmax()))


@pytest.mark.parametrize("longest", [0, 2**24])
def test_by_hand(longest):
    """0, 1, 4 of four columns: rank .25 · 2 = .5 lies between 0 and 1, rank .75 · 2 = 1.5 between 1 and 4."""
    values, inside = torch.tensor([[4.0, 9.0, 0.0, 1.0]]), torch.tensor([[True, False, True, True]])
    assert quantiles(values, inside, (0.25, 0.75), longest=longest).flatten().tolist() == [0.5, 2.5]


@pytest.mark.slow
def test_rows_longer_than_floats_count():
    """2^24 + 4 columns, more than float32 can tell apart: the largest value is found, and no index leaves the row."""
    values = torch.zeros(1, 2**24 + 4)
    values[0, 5], values[0, 6:9] = 3.0, 1.0
    inside = torch.ones_like(values, dtype=torch.bool)
    assert quantiles(values, inside, (0.0, 0.5, 1.0)).flatten().tolist() == [0.0, 0.0, 3.0]
