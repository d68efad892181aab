"""What the inconsistency mask is said to be worth, against counting by hand."""

import csv
import random
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import semiseg
import tiny
from semiseg.batch import IGNORE
from semiseg.programs.consensus import Rule, Stored, load
from semiseg.programs.diagnostics import COUNTS, Counts, class_shares, collapse, mask_counts, mute, quality, unusual

SIZE = 6


def drawn(kind, seed):
    """Label, agreement and truth of two images; the truth ignores some pixels."""
    g = torch.Generator().manual_seed(seed)
    task = tiny.task_of(kind)
    shape = (2, task.channels, SIZE, SIZE) if task.multilabel else (2, SIZE, SIZE)
    values = 2 if task.multilabel else task.channels
    label, truth = (torch.randint(values, shape, generator=g) for _ in range(2))
    truth[torch.rand(shape, generator=g) < 0.2] = IGNORE
    agree = torch.rand(2, 1, SIZE, SIZE, generator=g) < 0.6
    return task, label, agree, truth


@pytest.mark.parametrize("seed", range(3))
def test_counts_by_hand(kind, seed):
    task, label, agree, truth = drawn(kind, seed)
    for i, found in enumerate(mask_counts(task, label, agree, truth)):
        want = dict.fromkeys(COUNTS, 0)
        for where in torch.cartesian_prod(*(torch.arange(n) for n in label.shape[1:])).tolist():
            y, x = where[-2:]
            said, true = label[i][tuple(where)].item(), truth[i][tuple(where)].item()
            if true == IGNORE:
                continue
            masked = not agree[i, 0, y, x].item()
            want["pixels"] += 1
            want["wrong"] += said != true
            want["inconsistent"] += masked
            want["caught"] += masked and said != true
        assert vars(found) == want


def test_rates():
    """100 pixels, 20 wrong, 25 inconsistent, 15 of them wrong: precision 15/25, recall 15/20, 5 of 75 agreed are wrong."""
    rates = Counts(100, 20, 25, 15).rates()
    assert rates == {"inconsistent_share": 0.25, "precision": 0.6, "recall": 0.75, "agreed_wrong": 5 / 75}
    given = Counts(60, 3, 15, None) + Counts(40, 2, 10, None)  # 5 wrong of the 75 that are agreed upon
    assert given.rates() == {**rates, "precision": None, "recall": None}
    nothing = Counts(0, 0, 0, 0).rates()
    assert set(nothing.values()) == {None}
    assert Counts(4, 0, 4, 0).rates() == {"inconsistent_share": 1, "precision": 0, "recall": None, "agreed_wrong": None}


def test_class_shares_count_only_what_is_sure(kind, monkeypatch):
    monkeypatch.setattr("semiseg.programs.diagnostics.CHUNK", 7)  # several chunks
    task, label, agree, _ = drawn(kind, 5)
    rows = label.permute(0, 2, 3, 1).reshape(-1, task.channels) if task.multilabel else label.reshape(-1, 1)
    sure = agree.permute(0, 2, 3, 1).reshape(-1, 1)
    found = class_shares(rows.to(torch.uint8), sure.to(torch.uint8), task)
    chosen = [row for row, ok in zip(rows.tolist(), sure.flatten().tolist(), strict=True) if ok]
    for k, name in enumerate(task.names):
        hits = sum(row[k] == 1 if task.multilabel else row[0] == k for row in chosen)
        assert found[name] == pytest.approx(hits / len(chosen))
    masked = rows.to(torch.uint8).clone()
    masked[sure.flatten() == 0] = IGNORE
    assert class_shares(masked, None, task) == found
    assert set(class_shares(rows.to(torch.uint8), torch.zeros_like(sure), task).values()) == {None}


def test_a_class_that_the_consensus_loses_is_named():
    labeled = {"sky": 0.7, "car": 0.29, "pole": 0.01}
    assert collapse({"sky": 0.72, "car": 0.275, "pole": 0.005}, labeled) == []
    rare = [bool(collapse({"pole": labeled["pole"] / times}, labeled)) for times in (2.9, 3.1)]
    assert rare == [False, True]  # a third is too little
    (said,) = collapse({"sky": 0.71, "car": 0.29, "pole": 0.0}, labeled)
    assert "pole (1.0% of the labeled pixels, 0.00% of these)" in said and "car" not in said
    both = collapse({"sky": 0.999, "car": 0.001, "pole": 0.0}, labeled)
    assert len(both) == 2 and both[1].endswith("is sky.")
    assert collapse({"cell": None}, {"cell": 0.1}) == []
    (said,) = collapse({"air": 0.67, "lesion": 0.33}, {"air": 0.92, "lesion": 0.08})
    assert "too much of lesion (8.0% of the labeled pixels, 33.0% of these): do the unlabeled images look like" in said
    for kept, labels in ((0.23, 0.08), (0.09, 0.01)):  # not three times as much; too little to matter
        assert collapse({"air": 1 - kept, "lesion": kept}, {"air": 1 - labels, "lesion": labels}) == []


def test_quality_of_a_committee_on_val_and_where_it_may_look(tmp_path, kind):
    folder = tiny.write_folder(tmp_path / "data", kind)
    data = tiny.prepare(folder, tmp_path / "cache")
    session = tiny.session(tmp_path / "run", data)
    networks = [data.make().eval() for _ in range(2)]
    (tmp_path / "run/generation-1").mkdir(parents=True)
    found = quality(session, networks, Rule(), 1)
    assert set(found) == {"val"} and 0 <= found["val"]["inconsistent_share"] <= 1
    path = tmp_path / "run/generation-1/errors.csv"
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [r["image"] for r in rows] == data.val.names and {r["split"] for r in rows} == {"val"}
    total = sum((Counts(*(int(r[k]) for k in COUNTS)) for r in rows), Counts(0, 0, 0, 0))
    assert found["val"] == total.rates() and total.pixels == data.val.labels.numel()
    assert quality(session, [], Rule(), 1) == found  # stored: nobody is asked again


def hidden(root, kind="binary"):
    """A data folder with two unlabeled images whose masks are there; their names."""
    folder = tiny.write_folder(root, kind)
    with_masks = sorted((folder / "images").glob("*"))
    moved = random.Random(0).sample(with_masks, 2)
    splits = folder / "splits"
    splits.mkdir()
    (splits / "unlabeled.txt").write_text("\n".join(p.stem for p in moved))
    (splits / "labeled.txt").write_text("\n".join(p.stem for p in with_masks if p not in moved))
    shutil.rmtree(folder / "unlabeled")
    shutil.rmtree(folder / "val")
    return folder, moved


def test_masks_of_unlabeled_images_are_opened_on_request_only(tmp_path):
    folder, moved = hidden(tmp_path / "data")
    plain = tiny.prepare(folder, tmp_path / "plain")
    assert plain.truth is None and not (tmp_path / "plain/truth").exists()
    data = tiny.prepare(folder, tmp_path / "asked", diagnose=True)
    assert sorted(data.truth.names) == sorted(p.stem for p in moved) == sorted(data.unlabeled.names)
    assert data.unlabeled.labels is None
    (tmp_path / "run/generation-1").mkdir(parents=True)
    found = quality(tiny.session(tmp_path / "run", data), [data.make().eval() for _ in range(2)], Rule(), 1)
    assert "unlabeled" in found and found["unlabeled"]["inconsistent_share"] is not None


def test_what_is_stored_of_other_splits_is_counted_again(tmp_path):
    data = tiny.prepare(hidden(tmp_path / "data")[0], tmp_path / "cache", diagnose=True)
    networks = [data.make().eval() for _ in range(2)]
    (tmp_path / "run/generation-1").mkdir(parents=True)
    session = tiny.session(tmp_path / "run", replace(data, val=data.truth))
    closed = tiny.session(tmp_path / "run", replace(data, val=data.truth, truth=None))
    found = quality(session, networks, Rule(), 1)
    assert set(found) == {"val", "unlabeled"}
    with pytest.raises(TypeError):  # without anybody to ask: only what is stored could be said
        quality(closed, None, Rule(), 1)
    assert quality(closed, networks, Rule(), 1) == {"val": found["val"]}
    assert quality(session, networks, Rule(), 1) == found  # asked again: the file held val alone
    assert quality(session, None, Rule(), 1) == found


SMALL = {"size": 16, "steps": 4, "batch": 2, "network": "unet1x1:0.25", "device": "cpu", "threads": 1, "workers": 1,
         "unlabeled_batch": 2, "checkpoint_every": 4, "quiet": True}  # fmt: skip


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_a_given_committee_against_the_truth_of_unlabeled_images(tmp_path, kind):
    """One tool is right, the other paints over the upper half of one image: all that is agreed upon is right there."""
    folder, moved = hidden(tmp_path / "data", kind)
    for tool in ("one", "two"):
        for path in moved:
            mask = np.asarray(Image.open(folder / "masks" / path.name)).copy()
            mask[:, :4] = mask[:, :4] * (tool == "one" and path == moved[0])  # both err in the left of the second
            mask[:12] = mask.max() - mask[:12] if tool == "two" and path == moved[0] else mask[:12]
            tiny.save(tmp_path / tool / path.name, mask)
    run = tmp_path / "run"
    committee = f"{tmp_path / 'one'},{tmp_path / 'two'}"
    summary = semiseg.train(folder, run, method="self_training", committee=committee, sets=["diagnose=yes"], **SMALL)
    first = summary["generations"][0]
    rows = {r["image"]: r for r in table(run / "generation-1/errors.csv")}
    assert set(first["quality"]) == {"unlabeled"} and {r["split"] for r in rows.values()} == {"unlabeled"}
    pixels = wrong = doubtful = 0
    for path in moved:
        truth, one, two = (np.asarray(Image.open(d / path.name)) for d in
                           (folder / "masks", tmp_path / "one", tmp_path / "two"))  # fmt: skip
        row, differ, err = rows[path.stem], one != two, (one == two) & (one != truth)
        assert (int(row["pixels"]), int(row["inconsistent"])) == (truth.size, differ.sum()) and row["caught"] == ""
        assert int(row["wrong"]) == err.sum()
        pixels, wrong, doubtful = pixels + truth.size, wrong + int(err.sum()), doubtful + int(differ.sum())
    assert wrong and doubtful
    assert first["quality"]["unlabeled"] == {
        "inconsistent_share": doubtful / pixels, "precision": None, "recall": None,
        "agreed_wrong": wrong / (pixels - doubtful),
    }  # fmt: skip
    classes = table(run / "generation-1/classes.csv")
    assert [r["class"] for r in classes] == summary["classes"]
    for row in classes:
        for key in ("inconsistent", "kept", "labeled"):
            assert float(row[f"{key}_share"]) == pytest.approx(first[f"{key}_per_class"][row["class"]])
    assert load(run / "generation-1/consensus").share == first["inconsistent_share"]


def test_no_quality_of_a_mask_that_nobody_is_taught_by(folders, tmp_path):
    """Of several teachers the best one labels every pixel; what they disagree about says nothing of its mistakes."""
    sets = ["self_training.members=2"]
    summary = semiseg.train(folders["binary"], tmp_path / "run", method="self_training", sets=sets, **SMALL)
    assert "quality" not in summary["generations"][0] and "kept_per_class" in summary["generations"][0]
    assert not (tmp_path / "run/generation-1/errors.csv").exists()
    assert len(table(tmp_path / "run/generation-1/classes.csv")) == 1


def test_settings_that_leave_out_more_than_is_disputed_are_said_as_such():
    assert "hardly trained" in unusual(0.6, False)[0] and "settings" not in unusual(0.6, False)[0]
    assert unusual(0.6, False, plain=False) == unusual(0.6, True, plain=False)
    assert "by the settings" in unusual(0.6, False, plain=False)[0]


def test_a_committee_whose_settings_leave_nothing_is_not_said_to_agree_on_nothing(prepared, tmp_path):
    session = tiny.session(tmp_path, prepared("binary"))
    for rule, share, said in (
        (Rule(), 1.0, "agrees on no pixel"), (Rule(dilate=9), 1.0, "agrees on no pixel"),
        (Rule(dilate=9), 0.3, "its settings leave none"),
    ):  # fmt: skip
        planes = torch.zeros(4, 1, dtype=torch.uint8), torch.zeros(4, 1, dtype=torch.uint8)
        stored = Stored(planes, 1.0, {}, [{"image": "a", "inconsistent_share": 1.0, "disagreement": share}])
        assert mute(session, stored, 2, rule) and said in session.warnings[-1]
