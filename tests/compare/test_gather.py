"""What a table and a page say about readings whose numbers are known: verdict, limits, absent classes, no NaN."""

import csv
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from semiseg import storage
from semiseg.compare import figures, gather, page, statistics, table
from semiseg.compare.cells import Row
from semiseg.compare.pictures import run_of

BASE = "labels only"
BEST, MEAN = f"{BASE}, best of 3 on val", f"{BASE}, average of 3 at prediction"


def hits(gain, seed, images=12):
    """Confusion of binary images (N,1,2,2): 50 of 100 true pixels and `gain` of them more, with noise of its own."""
    rng = np.random.default_rng((seed, 7))
    found = 50 + gain + rng.integers(-4, 5, images)
    zero = np.zeros(images, int)
    return np.stack([np.stack([900 + zero, zero], -1), np.stack([100 - found, found], -1)], 1)[:, None]


class Grids:
    """Writes finished cells and gathers them."""

    def __init__(self, out):
        self.out, self.cells, self.rows = out, [], []

    def add(self, arm, seed, *arms, generation=0, last=0, share=None, classes=("cell",), program="", last_val=0.4,
            shipped=0, labeled=0):  # fmt: skip
        """arms: (name, members, confusions (N,K,K) or (N,L,2,2)) of the cell. shipped: the best of its members."""
        arms = [(arm, 1, confusion) for confusion in arms] if not isinstance(arms[0], tuple) else arms
        name = f"{arm}-{seed}"
        run = self.out / "cells" / name
        names = [f"generation-{generation}/member-{i}" for i in range(3)]
        tensors = {}
        for n, (_, _, found) in enumerate(arms):
            tensors[f"{n}.confusion"] = torch.from_numpy(found.astype(np.int32))
            tensors[f"{n}.boundary"] = torch.ones(len(found), len(classes), 3, dtype=torch.int64)
            tensors[f"{n}.bins"] = torch.ones(len(found), 16, 3, dtype=torch.float64)
        if share is not None:
            tensors["share"] = torch.from_numpy(share)
        about = {
            "images": [f"{i:02d}" for i in range(len(arms[0][2]))], "multilabel": arms[0][2].ndim == 4,
            "arms": [{"name": title, "members": names[:members]} for title, members, _ in arms],
        }  # fmt: skip
        reading = {"counts.safetensors": tensors, "reading.json": json.dumps(about)}
        storage.save_folder(run / "reading-test", reading, {"split": "test"})
        member = {"folder": names[0], "seconds": 1.0, "images_forwarded": 8}
        for i, folder in enumerate(names):
            result = {"val_last": {"miou": last_val}, "parameters": 10 + i}
            storage.write_json(run / folder / "final/result.json", result)
        storage.write_json(run / "summary.json", {
            "program": program or ("im" if last else None), "classes": list(classes), "committee": names,
            "model": {"folder": names[shipped], "generation": generation, "val": {"miou": 0.5 + 0.1 * shipped}},
            "generations": [{"generation": g, "members": [member]} for g in range(last + 1)],
            "arms": [{"name": t, "folder": "" if m > 1 else names[shipped * (n > 0)],
                      "val": {"miou": 0.5 + 0.1 * shipped * (n > 0)}} for n, (t, m, _) in enumerate(arms)],
            "seconds": {"training_all_tries": 3.0}, "images_forwarded": 24,
            "counts": {"labeled": labeled or (16 if arm.startswith("full") else 4)},
        })  # fmt: skip
        self.cells.append(SimpleNamespace(name=name, path=self.out, data="d", labels="4", seed=seed, arm=arm,
                                          split="test"))  # fmt: skip
        self.rows.append(
            Row(name, "finished", "", "d", "4", seed, arm, "test", 0.5, 0.5, 1.0, 8, "abc", "semiseg train")
        )

    def committee(self, seed, base, best, mean, **more):
        """A labels-only committee: its three rows."""
        self.add(BASE, seed, (BASE, 1, base), (BEST, 1, best), (MEAN, 3, mean), program="committee", **more)

    def group(self, blocks=1, seeds=2):
        request = SimpleNamespace(out=self.out, labels=["4"], blocks=blocks, seeds=seeds, steps=4, baselines="all")
        self.grid = SimpleNamespace(cells=self.cells, request=request, notes=[], models=3)
        (group,) = gather.gather(self.grid, self.rows)
        return group

    def html(self, group):
        return page.page(self.grid, [group], self.rows, "semiseg compare")


@pytest.fixture
def grids(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "side_by_side", lambda *_: "")  # there are no images
    return Grids(tmp_path)


def compared(grids, gains, seeds=2, images=12, **more):
    """Labels only, and arms that gain so many of 100 pixels in every seed."""
    for seed in range(seeds):
        grids.committee(seed, *(hits(0, 10 * seed + k, images) for k in range(3)))
        for n, (arm, gain) in enumerate(gains.items()):
            grids.add(arm, seed, hits(gain, 10 * seed + 4 + n, images), **more.get(arm, {}))
    return grids.group(seeds=seeds)


def rows_of(grids, group):
    made = [table.as_row(arm, group, "semiseg compare") for arm in group.arms]
    table.write_csv(grids.out / "table.csv", made)
    with (grids.out / "table.csv").open(newline="") as file:
        return {r["arm"]: r for r in csv.DictReader(file)}, {r["arm"]: r for r in made}


def test_every_pair_by_counting(grids, tmp_path):
    """Δ of two arms is the mean over seeds of the difference of their pooled IoU, whoever comes first; labels only too."""
    group = compared(grids, {"fixmatch": 5, "fixmatch+im": 15})
    found = group.pairs
    names = [a.name for a in group.arms]
    assert set(found) == {(a, b) for a in names for b in names if a != b}
    for (a, b), gain in found.items():
        one, two = (group.arm(n) for n in (a, b))
        each = [float(statistics.miou(one.readings[s].found.sum(0)) - statistics.miou(two.readings[s].found.sum(0)))
                for s in (0, 1)]  # fmt: skip
        assert gain.value == pytest.approx(sum(each) / 2) and gain.per_seed == pytest.approx(each)
        back = found[b, a]
        assert (back.value, back.low, back.high) == pytest.approx((-gain.value, -gain.high, -gain.low))
    assert found["fixmatch+im", "fixmatch"].low > 0
    rows = table.pair_rows([group])
    table.write_csv(tmp_path / "pairs.csv", rows, table.PAIRS)
    with (tmp_path / "pairs.csv").open(newline="") as file:
        assert [(r["arm"], r["rival"]) for r in csv.DictReader(file)] == list(found)
    few = table.pair_rows([compared(grids, {"im": 5}, images=3)])
    assert json.dumps(few, allow_nan=False) and {r["low"] for r in few if r["arm"] == "im"} == {None}
    assert "Every arm (row) against every other (column)" in grids.html(group)


def test_a_method_that_helped(grids):
    group = compared(grids, {"im": 20, "csl": 0})
    said, tone = page.verdict(group)
    assert tone == "helped" and "im helped: +0.1" in said
    im = group.arm("im")
    assert 0 < im.joint[0] < im.gain.low and im.joint[1] > im.gain.high
    assert table.bounds(im.gain.value, *im.joint) in said
    assert "all methods at once" in grids.html(group)


def test_its_own_interval_is_not_enough(grids):
    """The best of seven, a little above 0 by its own interval, not by one that holds for all seven."""
    group = compared(grids, {f"m{i}": 4 * (i == 0) for i in range(7)})
    best = max((a for a in group.arms if a.asked), key=lambda a: a.gain.value)
    assert best.gain.low > 0 > best.joint[0]
    said, tone = page.verdict(group)
    assert tone == "flat" and "no clear difference" in said


def test_no_clear_difference(grids):
    said, tone = page.verdict(compared(grids, {"im": 1, "csl": 0}))
    assert tone == "flat" and "no clear difference" in said


def test_one_seed_cannot_tell(grids):
    group = compared(grids, {"im": 20}, seeds=1)
    said, tone = page.verdict(group)
    assert tone == "flat" and "one seed cannot tell" in said and "helped:" not in said
    assert group.arm("im").gain.low > 0
    text = table.markdown([group], [])
    assert "One seed cannot tell" in text and "One seed cannot tell" in grids.html(group)


def test_a_method_of_one_seed_among_others_is_not_judged(grids):
    compared(grids, {"csl": 1})
    grids.add("im", 0, hits(20, 50))
    group = grids.group()
    said, tone = page.verdict(group)
    assert group.arm("im").joint is None and np.isfinite(group.arm("csl").joint).all()
    assert tone == "flat" and "csl" in said


@pytest.mark.parametrize("seeds", [1, 2])
def test_too_few_images(grids, seeds):
    group = compared(grids, {"im": 20}, seeds=seeds, images=4)
    said, tone = page.verdict(group)
    assert tone == "flat" and "helped:" not in said
    lines, made = rows_of(grids, group)
    assert (made["im"]["low"], made["im"]["high"]) == (None, None) and made["im"]["delta"] > 0.1
    assert lines["im"]["low"] == "" and "too few images for an interval" in lines["im"]["note"]
    for text in (table.markdown([group], []), grids.html(group)):
        assert "4 images: too few images for an interval" in text and "nan" not in text
        assert f"{table.digits(made['im']['delta'], '+.3f')} [" not in text
    assert made[BASE]["note"] == ""


def test_a_test_set_without_any_class_says_so(grids):
    group = compared(grids, {"im": 20})
    for arm in group.arms:
        arm.gain = arm.gain and replace(arm.gain, value=np.nan, low=np.nan, high=np.nan)
    group.absent = ["foreground"]
    why = "no mIoU: the truth of test has no pixel of foreground"
    assert page.verdict(group) == (f"{page._title(group)}: no method could be compared ({why}).", "flat")
    assert rows_of(grids, group)[0]["im"]["note"] == why


def test_a_model_of_generation_0_is_not_credited(grids):
    """Its gain is the choice among several on val, not what the method did after it."""
    group = compared(grids, {"im": 20, "csl": 1}, im={"generation": 0, "last": 2})
    said, tone = page.verdict(group)
    assert tone == "flat" and "csl" in said and "im" not in said.split(": ")[1]
    lines, _ = rows_of(grids, group)
    assert lines["im"]["note"] == "kept generation 0 in 2 of 2"
    assert "kept generation 0 in 2 of 2" in grids.html(group) and "kept generation 0" in table.markdown([group], [])
    only = Grids(grids.out / "only")
    said, tone = page.verdict(compared(only, {"im": 20}, im={"generation": 0, "last": 2}))
    assert tone == "flat" and "no method made a better model" in said


def test_an_earlier_generation(grids):
    group = compared(grids, {"im": 20}, im={"generation": 1, "last": 2})
    assert page.verdict(group)[1] == "helped" and table.remark(group.arm("im")) == "earlier generation kept in 2 of 2"


def test_differences_to_what_labels_only_can_do(grids):
    for seed in range(2):
        grids.committee(seed, *(hits(gain, seed + 3 * k) for k, gain in enumerate((0, 15, 25))))
        grids.add("im", seed, hits(20, seed + 20))
    group = grids.group()
    lines, made = rows_of(grids, group)
    im = made["im"]
    value = {a: sum(r["miou_per_seed"]) / 2 for a, r in made.items()}
    assert im["delta_to_best"] == pytest.approx(value["im"] - value[BEST]) and im["best_low"] > 0
    assert im["delta_to_average"] == pytest.approx(value["im"] - value[MEAN]) and im["average_high"] < 0
    assert im["best_low"] < im["delta_to_best"] < im["best_high"] and lines[BEST]["delta_to_best"] == ""
    text = grids.html(group)
    assert "Δ to best of 3 on val" in text and "Δ to average of 3 at prediction" in text
    assert "no method is clearly better than the average of 3" in text and "better than the best of 3" not in text
    assert "Δ to best of K" in table.markdown([group], [])


@pytest.mark.parametrize(("longer", "tone"), [(20, "flat"), (5, "helped")])
def test_labels_only_with_as_many_steps_may_be_as_good(grids, longer, tone):
    """Then it was the steps, and the verdict says so."""
    group = compared(grids, {"im": 20, "csl": 0, f"{BASE}, 4× steps": longer})
    said, found = page.verdict(group)
    assert found == tone and "im" in said and "mIoU on test over labels only" in said
    assert ("no method is clearly above labels only, 4× steps; im: " in said) == (tone == "flat")
    assert ("im helped" in said) == (tone == "helped")


@pytest.mark.parametrize(("longer", "said"), [(20, True), (5, False)])
def test_steps_that_are_worth_more_than_any_method_are_a_caveat(grids, longer, said):
    text = grids.html(compared(grids, {"im": 10, "csl": 0, f"{BASE}, 4× steps": longer}))
    assert ("labels only, 4× steps is above every method: +0." in text) == said


def test_the_method_that_is_said_to_have_helped_is_above_that_too(grids):
    """The largest difference may be one that the steps alone explain."""
    group = compared(grids, {"im": 20, "csl": 18, f"{BASE}, 4× steps": 5})
    rival = group.longer.name
    group.arm("im").above = (-0.01, 0.1)
    assert group.pairs["csl", rival].low > group.arm("csl").above[0] > 0
    said, tone = page.verdict(group)
    assert tone == "helped" and "csl helped" in said


def test_one_of_many_methods_may_be_above_the_steps_by_chance(grids):
    """Its interval to labels only with as many steps holds for all methods at once, as the one to labels only does."""
    many = {name: 20 for name in ("im", "csl", "fixmatch", "cps", "fpl", "u2pl", "imas", "segkc")}
    group = compared(grids, {**many, f"{BASE}, 4× steps": 20})
    for name in many:
        alone, (low, high) = group.pairs[name, group.longer.name], group.arm(name).above
        assert low < alone.low and alone.high < high
    said, tone = page.verdict(group)
    assert tone == "flat" and "no method is clearly above labels only, 4× steps" in said


def test_a_snapshot_that_is_shipped_has_a_curve_and_a_run(tmp_path):
    """The curve is that of the training it is of; the run lies one folder higher."""
    training = tmp_path / "generation-0/member-0"
    training.mkdir(parents=True)
    (tmp_path / "run.json").write_text("{}")
    (training / "metrics.csv").write_text("step,split,loss,miou\n5,val,,0.25\n10,val,,0.5\n")
    for member in (training, training / "snapshot-1"):
        arm = gather.Arm("im", "d", "4", folders={0: [member]})
        group = gather.Group("d", "4", "test", [arm])
        assert "0.5" in figures.curves(group) and run_of(member) == tmp_path


def test_the_curve_of_a_student_begins_where_its_teachers_ended(tmp_path):
    """Its steps come after theirs: it does not learn in ten steps what took them twenty before."""
    for g in range(3):
        member = tmp_path / f"generation-{g}/member-0"
        member.mkdir(parents=True)
        (member / "metrics.csv").write_text(f"step,split,loss,miou\n5,val,,0.{g}1\n10,val,,0.{g}5\n")
    assert figures.in_a_row(member) == [(5, 0.01), (10, 0.05), (15, 0.11), (20, 0.15), (25, 0.21), (30, 0.25)]
    assert figures.in_a_row(member.parent.parent / "generation-0/member-0") == [(5, 0.01), (10, 0.05)]


def test_full_labels_are_no_row_where_all_are_in_use(grids):
    for seed in range(2):
        grids.add(BASE, seed, hits(0, seed))
        grids.add("full labels", seed, hits(0, seed), labeled=4)
        grids.add("csl", seed, hits(9, 10 + seed))
    group = grids.group()
    assert [a.name for a in group.arms] == [BASE, "csl"] and group.full is None
    assert group.arm("csl").gain is not None and group.arm("csl").share is None


def test_each_commit_once(grids):
    compared(grids, {"csl": 9})
    for n, row in enumerate(grids.rows):
        row.commit = "abc; def" if n % 2 else "abc"
    group = gather.gather(grids.grid, grids.rows)[0]
    assert {c for arm in group.arms for c in arm.commits} == {"abc", "def"}
    assert grids.html(group).count("<code>abc</code>") == 1 and "abc; def" not in grids.html(group)


@pytest.mark.parametrize(("split", "said"), [("test", "test was read once"), ("val", "flatter whoever chooses")])
def test_the_page_says_what_models_were_chosen_on(grids, split, said):
    group = compared(grids, {"csl": 9})
    group.split = split
    assert said in grids.html(group)


def test_a_class_that_the_truth_has_not(grids):
    """Half of the class-0 pixels are called class 2, which is nowhere: named, and no class of the mean."""
    names = ("ground", "leaf", "stone")
    clean = np.array([[[80, 20, 0], [0, 100, 0], [0, 0, 0]]] * 6)
    wrong = np.array([[[80, 0, 20], [0, 100, 0], [0, 0, 0]]] * 6)
    for seed in range(2):
        grids.add(BASE, seed, clean, classes=names)
        grids.add("im", seed, wrong, classes=names)
    group = grids.group()
    lines, _ = rows_of(grids, group)
    assert group.absent == ["stone"]
    assert float(lines[BASE]["miou"]) == pytest.approx((0.8 + 100 / 120) / 2, abs=1e-5)
    assert float(lines["im"]["miou"]) == pytest.approx((0.8 + 1) / 2, abs=1e-5)
    assert "left out of the means: stone" in table.markdown([group], [])


def test_nothing_to_score_is_no_nan(grids):
    """No foreground in the truth: no mIoU, no difference, and JSON that can be read."""
    empty = np.zeros((6, 1, 2, 2), int) + np.array([[100, 3], [0, 0]])
    for seed in range(2):
        grids.add(BASE, seed, empty)
        grids.add("im", seed, empty)
    group = grids.group()
    lines, made = rows_of(grids, group)
    json.dumps(list(made.values()), allow_nan=False)
    assert made["im"]["miou"] is None and made["im"]["delta"] is None and made["im"]["miou_per_seed"] == [None, None]
    assert lines["im"]["miou"] == lines["im"]["delta"] == "" and "nan" not in (grids.out / "table.csv").read_text()
    assert "nan" not in grids.html(group).lower().split() and "no method could be compared" in page.verdict(group)[0]


def test_an_empty_image_in_which_something_is_predicted_counts_for_labels(grids):
    """Images: IoU 1/2, and empty with a false alarm: 0. The classes of an image are those of its truth alone."""
    grids.add("im", 0, np.array([[[[5, 1], [1, 2]]], [[[9, 1], [0, 0]]]]))
    grids.add("csl", 0, np.array([[[1, 0], [1, 2]], [[3, 1], [0, 0]]]), classes=("a", "b"))
    _, made = rows_of(grids, grids.group(seeds=1))
    assert made["im"]["iou_per_image"] == pytest.approx((2 / 4 + 0) / 2)
    assert made["csl"]["iou_per_image"] == pytest.approx(((1 / 2 + 2 / 3) / 2 + 3 / 4) / 2)


def test_only_a_committee_of_its_own_tells_an_arm_what_to_distrust(grids):
    share = np.linspace(0, 1, 12)
    for seed in range(2):
        grids.committee(seed, *(hits(k, seed) for k in range(3)), share=share)
        grids.add("im", seed, hits(5, seed), share=share)
        grids.add("csl", seed, hits(5, seed))
    group = grids.group()
    lines, _ = rows_of(grids, group)
    assert {a for a, r in lines.items() if r["mean_risk"]} == {MEAN, "im"}
    assert 0.3 < float(lines["im"]["mean_risk"]) < 0.6


def test_the_last_checkpoint_beside_the_best(grids):
    for seed in range(2):
        grids.committee(seed, *(hits(k, seed) for k in range(3)), last_val=0.25 + 0.1 * seed)
    group = grids.group()
    lines, _ = rows_of(grids, group)
    assert (lines[BASE]["val_miou"], lines[BASE]["val_last"], lines[MEAN]["val_last"]) == ("0.5", "0.3", "")
    head = next(line for line in table.markdown([group], []).splitlines() if line.startswith("| arm"))
    for column in ("val, best", "val, last", "boundary IoU", "calibration error", "seeds"):
        assert f"| {column} |" in head
    assert "MCCE" not in head and "remarks" not in head
    assert "Val, last" in grids.html(group)


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [(-0.0, "+.3f", "+0.000"), (-0.0001, "+.3f", "+0.000"), (-0.0, ".3f", "0.000"), (-0.02, "+.3f", "−0.020"),
     (16000.0, ",.0f", "16,000"), (-0.004, ".0%", "0%"), (0.02, "+.3f", "+0.020"), (None, ".3f", "–")],
)  # fmt: skip
def test_numbers_for_people(value, form, text):
    """A difference of nothing is no loss."""
    assert table.digits(value, form) == text
