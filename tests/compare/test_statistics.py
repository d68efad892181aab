"""Every figure against loops that a reader can check, and the interval against repeated experiments."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semiseg.compare import statistics as s


def made(seeds=3, images=7, classes=3, key=0):
    """Of the last class the truth of one image has pixels, so that many draws have none; it is predicted everywhere."""
    matrices = np.random.default_rng(key).integers(0, 40, (seeds, images, classes, classes))
    matrices[:, np.arange(images) != 3, -1] = 0
    return matrices


def plain_miou(matrices):
    """From a list of (K,K) matrices, by the definition: a mean over the classes that the truth has."""
    total = [[sum(int(m[i][j]) for m in matrices) for j in range(len(matrices[0]))] for i in range(len(matrices[0]))]
    scores = []
    for k in range(len(total)):
        union = sum(total[k]) + sum(row[k] for row in total) - total[k][k]
        if sum(total[k]):
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


def test_one_false_pixel_of_an_absent_class_moves_nothing():
    """The truth has no class 2: an arm that predicts it once is scored over the same classes as one that does not."""
    clean, wrong = np.array([[[90, 5, 5], [80, 10, 10], [0, 0, 0]]]), np.array([[[90, 5, 5], [80, 9, 11], [0, 1, 0]]])
    assert s.present(wrong.sum(0)).tolist() == [True, True, False]
    assert s.miou(clean.sum(0)) == s.miou(np.array([[90, 5, 5], [80, 10, 10]])) == pytest.approx(0.85)
    assert s.miou(wrong.sum(0)) == pytest.approx((0.9 + 0.8) / 2)
    assert s.dice(wrong.sum(0)) == pytest.approx((180 / 190 + 160 / 180) / 2)


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


@pytest.mark.parametrize(("images", "blocks"), [(1, 1), (4, 1), (40, 9), (40, 40), (40, 100)])
@pytest.mark.parametrize("seeds", [1, 3])
def test_too_few_images_give_no_interval(seeds, images, blocks):
    """Fewer than five independent runs: a longer run, meant to be careful, must not make a difference certain."""
    arm, base = simulated(np.random.default_rng(0), seeds, images, 0.1)
    draws = s.draw(seeds, images, blocks=blocks)
    found = s.difference(arm, base, draws)
    assert found.value > 0 and len(found.per_seed) == seeds
    assert np.isnan([found.low, found.high, found.error]).all()
    gap = s.recovered(arm, base, arm, draws)
    assert gap.share is None and gap.why == "too few images for an interval"


def test_five_runs_are_enough():
    arm, base = simulated(np.random.default_rng(0), 2, 40, 0.1)
    found = s.difference(arm, base, s.draw(2, 40, blocks=8))
    assert found.low < found.value < found.high


def test_blocks_hold_neighbours_together():
    weights = s.draw(1, 12, draws=200, blocks=4).images
    assert all(w[np.arange(-1, 11)][i] or w[(i + 1) % 12] for w in weights for i in range(12) if w[i])
    alone = s.draw(1, 12, draws=200).images
    assert alone[:, :6].sum(1).std() < 0.8 * weights[:, :6].sum(1).std()


def simulated(rng, seeds, images, *gains, noise=(0.008, 0.05, 0.03)):
    """Arms with these gains, then the base: hits of 10 000 pixels an image. noise: an arm's, of seeds, images, both."""
    base = rng.normal(0.55, 0.05, (1, images)) + rng.normal(0, 0.02, (seeds, 1))

    shapes = ((seeds, 1), (1, images), (seeds, images))

    def effect():
        return sum(rng.normal(0, n, shape) for n, shape in zip(noise, shapes, strict=True))

    hits = [np.rint(np.clip(p, 0, 1) * 10000).astype(int) for p in (*(base + g + effect() for g in gains), base)]
    return [np.stack([h, 0 * h, 10000 - h], -1)[:, :, None] for h in hits]


def test_the_interval_holds_the_truth():
    rng = np.random.default_rng(0)
    inside = 0
    for k in range(120):
        arm, base = simulated(rng, 5, 60, 0.02)
        found = s.difference(arm, base, s.draw(5, 60, draws=400, key=k))
        inside += found.low <= 0.02 <= found.high
    assert 0.86 < inside / 120 <= 1.0


def claims(tables, seeds, noise, gains):
    """How often (one interval for each arm, all at once) has a lower bound above 0 somewhere."""
    rng, alone, jointly = np.random.default_rng(3), 0, 0
    for key in range(tables):
        *arms, base = simulated(rng, seeds, 40, *gains, noise=noise)
        found = [s.difference(arm, base, s.draw(seeds, 40, draws=200, key=key)) for arm in arms]
        alone += any(f.low > 0 for f in found)
        jointly += any(low > 0 for low, _ in s.jointly(found, 40))
    return alone / tables, jointly / tables


@pytest.mark.parametrize("seeds", [2, 3])
@pytest.mark.parametrize("noise", [(0.003, 0.05, 0.03), (0.03, 0.02, 0.02)])
def test_the_best_of_many_without_effect_is_rarely_called_one(seeds, noise):
    """Eight arms that do nothing, whether images or seeds differ most: one by one far more than 5 % of tables claim."""
    alone, jointly = claims(60, seeds, noise, [0.0] * 8)
    assert alone > 0.12 and jointly <= 0.05


def test_a_large_effect_among_many_is_seen():
    assert claims(12, 3, (0.003, 0.05, 0.03), [0.05] + [0.0] * 7)[1] > 0.8


def test_all_at_once_is_wider_and_one_alone_is_not_much():
    *arms, base = simulated(np.random.default_rng(5), 5, 60, *[0.0] * 6, noise=(0.002, 0.05, 0.03))
    draws = s.draw(5, 60)
    found = [s.difference(arm, base, draws) for arm in arms]
    together, alone = s.jointly(found, 60), s.jointly(found[:1], 60)
    for one, (low, high) in zip(found, together, strict=True):
        assert low < one.low and high > one.high and (low + high) / 2 == pytest.approx(one.value)
    assert alone[0][1] - alone[0][0] == pytest.approx(found[0].high - found[0].low, rel=0.1)


def test_no_interval_from_arms_that_do_not_vary():
    arm, base = (np.full((2, 9, 1, 3), [hits, 0, 100 - hits]) for hits in (60, 50))
    found = s.difference(arm, base, s.draw(2, 9))
    assert found.value == pytest.approx(0.1) and np.isnan(s.jointly([found], 9)).all()


def test_students_t():
    """Tables of the 97.5 % quantile."""
    want = {2: 4.303, 3: 3.182, 5: 2.571, 10: 2.228, 30: 2.042, 10**6: 1.960}
    assert s.stretched(1.96, np.array([*want], float)) == pytest.approx([*want.values()], rel=0.05)
    assert s.stretched(1.96, np.array([1.0])) > 12.706


def test_gap_recovered():
    rng = np.random.default_rng(1)
    draws = s.draw(4, 60, draws=500)
    arm, base = simulated(rng, 4, 60, 0.05)
    more = rng.integers(1000, 2000, base.shape[:-1])[..., None]
    full = base + np.array([1, 0, -1]) * np.minimum(base[..., 2:], more)  # 0.15 of an image
    found = s.recovered(arm, base, full, draws)
    assert found.why == "" and found.gap.value == pytest.approx(0.15, abs=0.01)
    assert found.share.value == pytest.approx(s.difference(arm, base, draws).value / found.gap.value)
    assert found.share.low < found.share.value < found.share.high
    itself = s.recovered(full, base, full, draws).share
    assert (itself.value, itself.low, itself.high) == pytest.approx((1, 1, 1))


@pytest.mark.parametrize(("pixels", "noise"), [(200, 0.01), (500, 0.3), (500, 0.0)])
def test_no_headroom(pixels, noise):
    """A gap of 0.02 is too small; one of 0.05 that is mostly noise is none, nor one without a standard error."""
    rng = np.random.default_rng(2)
    hits = rng.integers(4000, 6000, (2, 12))
    top = np.clip(hits + pixels + rng.normal(0, noise * 10000, hits.shape).astype(int), 0, 10000)
    base, full = (np.stack([h, 0 * h, 10000 - h], -1)[:, :, None] for h in (hits, top))
    found = s.recovered(base, base, full, s.draw(2, 12, draws=400))
    assert found.share is None and found.why == ("no headroom" if pixels == 200 else "gap uncertain")
