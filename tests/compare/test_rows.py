"""What the rows of a table are of: which models, which seeds, at which cost."""

import pytest
from test_gather import BASE, BEST, MEAN, Grids, compared, hits, rows_of

from semiseg.compare import page, statistics, table


@pytest.fixture
def grids(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "side_by_side", lambda *_: "")  # there are no images
    return Grids(tmp_path)


def test_a_program_that_taught_nobody_is_not_credited(grids):
    """Its committee agreed on nothing, so generation 0 is all there is; a committee without a next generation is one."""
    group = compared(grids, {"im": 20, "fixmatch+committee": 20}, im={"program": "im"},
                     **{"fixmatch+committee": {"program": "committee"}})  # fmt: skip
    assert table.remark(group.arm("im")) == "kept generation 0 in 2 of 2" and group.arm("im").joint is None
    assert table.remark(group.arm("fixmatch+committee")) == "" and group.arm("fixmatch+committee").joint[0] > 0


def test_a_committee_of_a_method_has_rows_of_its_own(grids):
    """Named after its cell, the first model at its own cost, each with its own val and its own parameters."""
    for seed in range(2):
        grids.committee(seed, *(hits(k, seed) for k in range(3)))
        grids.add("fixmatch", seed, hits(5, seed))
        for n, arm in enumerate(("fixmatch+committee", "fixmatch+committee, threshold=0")):
            inner = ("fixmatch", "fixmatch, best of 3 on val", "fixmatch, average of 3 at prediction")
            found = [(t, 1 + 2 * (k == 2), hits(10 * n + k, seed)) for k, t in enumerate(inner)]
            grids.add(arm, seed, *found, program="committee", shipped=1)
    lines, made = rows_of(grids, grids.group())
    own = ["", ", best of 3 on val", ", average of 3 at prediction"]
    assert list(lines) == [BASE, BEST, MEAN, "fixmatch", *(f"fixmatch+committee{o}" for o in own),
                           *(f"fixmatch+committee, threshold=0{o}" for o in own)]  # fmt: skip
    for front, gain in (("fixmatch+committee", 0), ("fixmatch+committee, threshold=0", 10)):
        rows = [made[front + o] for o in own]
        score = [[float(statistics.miou(statistics.counts(hits(gain + k, s), True).sum(0))) for s in (0, 1)]
                 for k in range(3)]  # fmt: skip
        assert [r["miou_per_seed"] for r in rows] == score
        assert [r["images_forwarded"] for r in rows] == [8, 24, 24] and [r["seconds"] for r in rows] == [1, 3, 3]
        assert [r["val_miou"] for r in rows] == [0.5, 0.6, 0.6] and [r["parameters"] for r in rows] == [10, 11, 33]
    assert made["fixmatch"]["images_forwarded"] == 24 and made["fixmatch"]["miou"] != made["fixmatch+committee"]["miou"]


def test_seeds_are_those_that_a_difference_is_over(grids):
    """Labels only have one seed, im three: an interval without seeds, and it is said."""
    grids.committee(0, *(hits(k, k) for k in range(3)))
    for seed in range(3):
        grids.add("im", seed, hits(20, seed + 4))
    group = grids.group()
    lines, made = rows_of(grids, group)
    assert (lines["im"]["n_seeds"], lines["im"]["seeds"], lines[BASE]["n_seeds"]) == ("1", "0;1;2", "1")
    assert "Δ over 1 seed of 3" in lines["im"]["note"] and len(made["im"]["miou_per_seed"]) == 3
    text = table.markdown([group], [])
    assert "One seed cannot tell" in text and "| 1 | Δ over 1 seed of 3 |" in text


def test_the_gap_is_that_of_full_labels_on_their_own_seeds(grids):
    """The first arm has one seed of two; what full labels are worth is over both."""
    for seed in range(2):
        grids.add(BASE, seed, hits(0, seed))
        if not seed:
            grids.add("csl", seed, hits(5, 30))
        grids.add("full labels, 3 of 4 masks", seed, hits(40, 10 + seed))
    group = grids.group()
    assert not group.full.asked and len(group.full.gain.per_seed) == 2 and group.arm("csl").share is not None
    assert f"Full labels, 3 of 4 masks are worth {table.span(group.full.gain)} mIoU here" in grids.html(group)
