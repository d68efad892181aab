"""Every figure against loops that a reader can check, and the interval against repeated experiments."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semiseg.compare import statistics as s


def made(seeds=3, images=7, classes=3, key=0):
    return np.random.default_rng(key).integers(0, 40, (seeds, images, classes, classes))


def plain_miou(matrices):
    """From a list of (K,K) matrices, by the definition."""
    total = [[sum(int(m[i][j]) for m in matrices) for j in range(len(matrices[0]))] for i in range(len(matrices[0]))]
    scores = []
    for k in range(len(total)):
        union = sum(total[k]) + sum(row[k] for row in total) - total[k][k]
        if union:
            scores.append(total[k][k] / union)
    return sum(scores) / len(scores) if scores else float("nan")


def test_pooled_iou_by_loops():
    matrices = made()
    found = s.miou(s.counts(matrices, False).sum(1))
    assert found == pytest.approx([plain_miou(list(m)) for m in matrices])


def test_labels_that_overlap():
    """(L,2,2): rows are the truth; background hits do not count."""
    matrix = np.array([[[50, 3], [2, 5]], [[60, 0], [0, 0]]])
    assert s.counts(matrix, True).tolist() == [[5, 3, 2], [0, 0, 0]]
    assert s.iou(s.counts(matrix, True))[0] == pytest.approx(0.5)
    assert s.miou(s.counts(matrix, True)) == pytest.approx(0.5)  # the absent label is left out
    assert s.dice(s.counts(matrix, True)) == pytest.approx(2 / 3)


def test_nothing_at_all_is_no_score():
    assert np.isnan(s.miou(np.zeros((2, 3), int)))


@pytest.mark.parametrize("seeds", [1, 2, 4])
def test_the_bootstrap_by_loops(seeds):
    arm, base = (made(seeds, key=k) for k in (1, 2))
    draws = s.draw(seeds, 7, draws=25, key=5)
    values = []
    for d in range(25):
        total = 0.0
        for seed in range(seeds):
            images = [i for i in range(7) for _ in range(int(draws.images[d, i]))]
            gain = plain_miou([arm[seed, i] for i in images]) - plain_miou([base[seed, i] for i in images])
            total += draws.seeds[d, seed] * gain
        values.append(total)
    found = s.difference(s.counts(arm, False), s.counts(base, False), draws)
    each = [plain_miou(list(arm[k])) - plain_miou(list(base[k])) for k in range(seeds)]
    assert found.per_seed == pytest.approx(each)
    assert found.value == pytest.approx(sum(each) / seeds)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))
    assert found.error == pytest.approx(np.std(values))


@given(seeds=st.integers(1, 5), images=st.integers(1, 9), blocks=st.integers(1, 12))
def test_weights(seeds, images, blocks):
    draws = s.draw(seeds, images, draws=20, blocks=blocks)
    assert draws.images.sum(1).tolist() == [images] * 20
    assert draws.seeds.sum(1) == pytest.approx(np.ones(20))


def test_the_mean_of_few_seeds_has_its_true_variance():
    """S - 1 of S: the variance of the drawn mean is s²/S, not smaller."""
    values = np.array([1.0, 2.0, 4.0])
    drawn = s.draw(3, 1, draws=40000).seeds @ values
    assert drawn.var() == pytest.approx(values.var(ddof=1) / 3, rel=0.03)


def test_blocks_hold_neighbours_together():
    weights = s.draw(1, 12, draws=200, blocks=4).images
    assert all(w[np.arange(-1, 11)][i] or w[(i + 1) % 12] for w in weights for i in range(12) if w[i])
    alone = s.draw(1, 12, draws=200).images
    assert alone[:, :6].sum(1).std() < 0.8 * weights[:, :6].sum(1).std()


def simulated(rng, seeds, images, gain=0.02):
    """Hits of 10 000 pixels an image; seeds and images have effects of their own on the difference."""
    base = rng.normal(0.55, 0.05, (1, images)) + rng.normal(0, 0.02, (seeds, 1))
    each = (
        gain
        + rng.normal(0, 0.008, (seeds, 1))
        + rng.normal(0, 0.05, (1, images))
        + rng.normal(0, 0.03, (seeds, images))
    )
    hits = [np.rint(np.clip(p, 0, 1) * 10000).astype(int) for p in (base + each, base)]
    return [np.stack([h, 0 * h, 10000 - h], -1)[:, :, None] for h in hits]


def test_the_interval_holds_the_truth():
    rng = np.random.default_rng(0)
    inside = 0
    for k in range(120):
        arm, base = simulated(rng, 5, 60)
        found = s.difference(arm, base, s.draw(5, 60, draws=400, key=k))
        inside += found.low <= 0.02 <= found.high
    assert 0.86 < inside / 120 <= 1.0


def test_gap_recovered():
    rng = np.random.default_rng(1)
    draws = s.draw(4, 60, draws=500)
    arm, base = simulated(rng, 4, 60, 0.05)
    full = base + np.array([1, 0, -1]) * np.minimum(base[..., 2:], 1500)  # 0.15 of every image
    found = s.recovered(arm, base, full, draws)
    assert found.why == "" and found.gap.value == pytest.approx(0.15, abs=0.01)
    assert found.share.value == pytest.approx(s.difference(arm, base, draws).value / found.gap.value)
    assert found.share.low < found.share.value < found.share.high
    itself = s.recovered(full, base, full, draws).share
    assert (itself.value, itself.low, itself.high) == pytest.approx((1, 1, 1))


@pytest.mark.parametrize(("pixels", "noise"), [(200, 0.0), (500, 0.3)])
def test_no_headroom(pixels, noise):
    """A gap of 0.02 is too small; one of 0.05 that is mostly noise is none either."""
    rng = np.random.default_rng(2)
    hits = rng.integers(4000, 6000, (2, 12))
    top = np.clip(hits + pixels + rng.normal(0, noise * 10000, hits.shape).astype(int), 0, 10000)
    base, full = (np.stack([h, 0 * h, 10000 - h], -1)[:, :, None] for h in (hits, top))
    found = s.recovered(base, base, full, s.draw(2, 12, draws=400))
    assert found.share is None and found.why == "no headroom"
