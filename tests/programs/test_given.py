"""A given committee: masks of any origin, runs and members; what is wrong with one is said before anything is trained."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import semiseg
import tiny
from semiseg.errors import Refusal
from semiseg.programs._generations import FIRST
from semiseg.programs.base import Outcome
from semiseg.programs.consensus import Rule, load
from semiseg.programs.given import given_consensus, open_all, ready, split
from semiseg.programs.im import IM
from semiseg.programs.outputs import label_next

SMALL = {"size": 16, "steps": 4, "batch": 2, "network": "unet1x1:0.25", "device": "cpu", "threads": 1,
         "workers": 1, "unlabeled_batch": 2, "checkpoint_every": 4, "quiet": True}  # fmt: skip
CODE = {"multiclass": lambda m: m, "binary": lambda m: m * 255}


def foreign(folder, kind, seed, size=None, hole=None):
    """Masks for the unlabeled images of `tiny.write_folder`, drawn by somebody else."""
    for i in range(5):
        side = size or (24 if i < 2 else 32)
        mask = tiny.truth(kind, 1, side, seed + i)[0].numpy().astype(np.uint8)
        planes = zip(tiny.NAMES[kind], mask, strict=True) if kind == "multilabel" else [("", mask.reshape(side, side))]
        for name, plane in planes:
            plane = plane * 255 if kind == "multilabel" else CODE[kind](plane)
            if hole is not None:
                plane = np.where(hole(plane), 255, plane).astype(np.uint8)
            tiny.save(folder / name / f"{i:02d}.png", plane)
    return folder


def two(tmp_path, kind, **options):
    return [str(foreign(tmp_path / n, kind, s, **options)) for n, s in (("one", 50), ("two", 70))]


def truth_of(kind, seed, i, side):
    return tiny.truth(kind, 1, side, seed + i)[0]


def test_planes_are_where_the_masks_agree(kind, prepared, tmp_path):
    data = prepared(kind)
    session = tiny.session(tmp_path / "run", data, committee=",".join(two(tmp_path, kind)))
    stored = given_consensus(session, "c", Rule())
    store = data.unlabeled
    for i in range(len(store)):
        h, w, start = int(store.height[i]), int(store.width[i]), int(store.offset[i])
        label, agree = (p[start : start + h * w].view(h, w, -1).permute(2, 0, 1) for p in stored.planes)
        one, other = (truth_of(kind, seed, i, h) for seed in (50, 70))
        same = (one == other).reshape(-1, h, w).all(0)
        assert torch.equal(agree[0] == 1, same) and 0 < same.float().mean() < 1
        assert torch.equal(label.reshape(one.shape)[..., same].long(), one[..., same].long())
        assert (label[:, ~same] == 255).all()
    again = given_consensus(tiny.session(tmp_path / "run", data, committee="gone,lost"), "c", Rule())
    assert again.share == stored.share  # a finished answer needs nobody any more


def test_no_opinion_is_no_agreement(prepared, tmp_path):
    """Two tools that leave out the same pixels do not teach that there is nothing."""
    data = prepared("multiclass")
    paths = [str(foreign(tmp_path / n, "multiclass", 50, hole=lambda m: m == 1)) for n in ("one", "two")]
    stored = given_consensus(tiny.session(tmp_path / "run", data, committee=",".join(paths)), "c", Rule())
    label, agree = stored.planes
    assert stored.share > 0 and ((label == 255) == (agree == 0)).all() and set(label.unique().tolist()) == {0, 2, 255}
    assert stored.per_class["class 1"] is None


def test_training_with_a_given_committee(kind, folders, tmp_path):
    run = tmp_path / "run"
    paths = two(tmp_path, kind)
    summary = semiseg.train(folders[kind], run, method="im", committee=",".join(paths), **SMALL)
    assert [a["name"] for a in summary["arms"]] == ["labels only", *(f"im, generation {g}" for g in (1, 2, 3))]
    assert [m["folder"] for m in summary["generations"][0]["members"]] == ["baseline"]
    assert not (run / "generation-0").exists() and summary["baseline"] == "baseline"
    ranked = (run / "label_next.csv").read_text().splitlines()[1:]
    shares = {r["image"]: r["inconsistent_share"] for r in load(run / "generation-1/consensus").rows}
    for line in ranked:
        _, image, _, _, share = line.split(",")
        assert float(share) == pytest.approx(shares[image], abs=1e-6)
    assert all(a["val"]["miou"] is not None for a in summary["arms"])


def test_labels_only_stays_beside_a_given_committee(folders, tmp_path):
    """It is what its students are held against, so baseline=no cannot be."""
    sets = ["baseline=no", "im.generations=1"]
    paths = ",".join(two(tmp_path, "binary"))
    summary = semiseg.train(folders["binary"], tmp_path / "run", method="im", committee=paths, sets=sets, **SMALL)
    assert summary["baseline"] == "baseline" and any("baseline=no was left aside" in w for w in summary["warnings"])


def flat(folder, values):
    """Masks for the unlabeled images of one value each."""
    for i, value in enumerate(values):
        side = 24 if i < 2 else 32
        tiny.save(folder / f"{i:02d}.png", np.full((side, side), value, np.uint8))
    return str(folder)


def test_a_mask_that_covers_an_image_teaches_nothing_and_breaks_nothing(folders, tmp_path):
    committee = f"{flat(tmp_path / 'one', [1] * 5)},{flat(tmp_path / 'two', [1] + 4 * [2])}"
    options = {**SMALL, "method": "im", "sets": tiny.words()}
    summary = semiseg.train(folders["multiclass"], tmp_path / "run", committee=committee, **options)
    text = " ".join(summary["warnings"])
    assert "4 of 5" in text and "No member of the committee predicts class 0" in text
    sizes = json.loads((tmp_path / "run/cache/unlabeled/table.json").read_text())
    first, *others = (h * w for h, w in zip(sizes["height"], sizes["width"], strict=True))
    share = sum(others) / (first + sum(others))
    assert (
        f"The given committee disagrees on {share:.0%} of the pixels: do all" in text and "hardly trained" not in text
    )
    assert len(summary["warnings"]) == len(set(summary["warnings"]))
    log = (tmp_path / "run/generation-1/member-0/metrics.csv").read_text()
    assert "nan" not in log.lower() and summary["generations"][0]["inconsistent_per_class"]["class 0"] is None


def test_a_committee_that_agrees_on_nothing_has_nothing_to_teach(folders, tmp_path):
    committee = f"{flat(tmp_path / 'one', [1] * 5)},{flat(tmp_path / 'two', [2] * 5)}"
    error = refused(folders["multiclass"], tmp_path, committee, trained=["baseline/final/result.json"])
    assert error.exit == 3 and "agrees on no pixel" in str(error) and "semiseg consensus" in str(error)


def refused(data, tmp_path, committee, method="im", sets=(), trained=()):
    with pytest.raises(Refusal) as error:
        semiseg.train(data, tmp_path / "run", method=method, committee=committee, sets=list(sets), **SMALL)
    found = [p.relative_to(tmp_path / "run").as_posix() for p in (tmp_path / "run").rglob("result.json")]
    assert found == list(trained)
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    return error.value


def test_missing_masks_and_other_sizes_are_all_said_at_once(folders, tmp_path):
    one, other = two(tmp_path, "binary")
    (tmp_path / "one/03.png").unlink()
    tiny.save(tmp_path / "two/01.png", np.zeros((24, 20), np.uint8))
    error = refused(folders["binary"], tmp_path, f"{one},{other}")
    assert [p.code for p in error.problems] == ["P04", "P05"] and error.exit == 3
    assert "holds no mask 03 for" in str(error) and "is 20x24 but" in str(error) and "is 24x24" in str(error)


def test_what_is_no_committee(folders, tmp_path):
    one, other = two(tmp_path, "binary")
    data = folders["binary"]
    (tmp_path / "empty-one").mkdir()
    assert "has one member" in str(refused(data, tmp_path, one))
    lost = refused(data, tmp_path, f"{one},nowhere,neither")
    assert [p.where for p in lost.problems] == ["nowhere", "neither"] and "does not exist" in str(lost)
    with pytest.raises(Refusal, match="does not exist"):
        semiseg.train(data, tmp_path / "new", method="im", committee=f"{one},nowhere", **SMALL)
    assert not (tmp_path / "new").exists()  # so that the corrected command is no second run in the folder
    assert "learns from none" in str(refused(data, tmp_path, f"{one},{other}", "fixmatch"))
    assert "averages probabilities" in str(refused(data, tmp_path, f"{one},{other}", "ensemble"))
    few = refused(data, tmp_path, f"{one},{other}", sets=["im.agreement=3"])
    assert "has 2 members" in str(few) and few.exit == 2
    for method, sets in (("ensemble", []), ("im", ["im.agreement=3", "generations=1"])):  # before anything is written
        with pytest.raises(Refusal, match=r"averages probabilities|has 2 members"):
            semiseg.train(data, tmp_path / "new", method=method, committee=f"{one},{other}", sets=sets, **SMALL)
        assert not (tmp_path / "new").exists()
    with pytest.raises(Refusal, match="holds no masks"):
        semiseg.train(data, tmp_path / "again", method="im", committee=f"{one},{tmp_path}/empty-one", **SMALL)
    semiseg.train(data, tmp_path / "again", method="im", committee=f"{one},{other}", **SMALL)  # corrected, same --out
    (tmp_path / "same").symlink_to(tmp_path / "one")
    twice = refused(data, tmp_path, f"{one},{other},{tmp_path / 'same'},{other}/")
    assert [p.where for p in twice.problems] == [str(tmp_path / "same"), other] and twice.exit == 2
    assert "is named twice" in str(twice) and f"is {one} once more" in str(twice)
    (tmp_path / "empty").mkdir()
    assert "holds no masks" in str(refused(data, tmp_path, f"{one},{tmp_path / 'empty'}"))
    tiny.save(tmp_path / "two/00.png", np.full((24, 24), 7, np.uint8))
    assert "values outside the classes" in str(refused(data, tmp_path, f"{one},{other}"))


@pytest.fixture(scope="module")
def run(folders, tmp_path_factory):
    folder = tmp_path_factory.mktemp("given") / "run"
    semiseg.train(folders["binary"], folder, method="im", sets=tiny.words(members=2), **SMALL)
    return folder


def test_runs_and_their_members(run, folders, tmp_path):
    names = [v.title for v in open_all([str(run)], None, tmp_path)]
    assert names == [f"{run}/generation-0/member-{i}" for i in range(2)]  # alone, a run is its committee
    member = str(run / "generation-0/member-1")
    masks = str(foreign(tmp_path / "masks", "binary", 50))
    opened = open_all([str(run), member, masks], None, tmp_path)
    assert [v.title for v in opened] == [str(run), member, masks]
    assert len(open_all([str(run), masks], None, tmp_path, members=True)) == 3
    shutil.copytree(run, tmp_path / "copy")
    for same in (member, str(run), str(tmp_path / "copy")):
        with pytest.raises(Refusal, match="name every member once") as error:
            open_all([str(run), same], None, tmp_path, members=same == member)
        assert error.value.exit == 2
    path = folders["binary"] / "unlabeled/00.png"
    image = np.asarray(Image.open(path))[..., None]
    model = semiseg.load(run)
    assert np.array_equal(opened[0].label("00", path, image)[0], model.predict(image).label)
    votes = [v.label("00", path, image) for v in open_all([str(run)], None, tmp_path)]
    assert np.array_equal((votes[0] != votes[1])[0], model.predict(image, inconsistency=True).inconsistency)
    shutil.copytree(run / "generation-0/member-1", tmp_path / "stray")
    for wrong, text in (("stray", "lies in no run"), ("gone.onnx", "does not exist")):
        with pytest.raises(Refusal, match=text) as error:
            open_all([str(run), str(tmp_path / wrong)], None, tmp_path)
        assert error.value.exit == 4


def test_other_classes_are_refused(run, folders, tmp_path, prepared):
    with pytest.raises(Refusal, match=r"speaks of binary: .* Expected: multiclass: class 0, class 1, class 2") as error:
        open_all([str(run), str(run / "generation-0/member-1")], prepared("multiclass").classes, tmp_path)
    assert error.value.exit == 2 and error.value.problems[0].code == "P03"


def test_models_that_cannot_label_the_images_are_said_at_once(run, tmp_path):
    """Before anything is trained, all images, by the name of the member."""
    data = tiny.write_folder(tmp_path / "data", "binary")
    for path in data.rglob("*.png"):
        if "masks" not in path.parts:
            tiny.save(path, np.asarray(Image.open(path))[..., None].repeat(3, 2))
    masks = str(foreign(tmp_path / "masks", "binary", 50))
    error = refused(data, tmp_path, f"{run},{masks}")
    assert error.exit == 3 and [p.code for p in error.problems] == 5 * ["P01"]
    assert {p.where for p in error.problems} == {str(run)}
    assert "00.png, which has 3 channels, the model was trained on 1" in str(error)


def test_agreement_counts_the_given_members(prepared, tmp_path):
    """im trains three members where none are given; of five that are, four may have to agree."""
    data = prepared("binary")
    paths = [str(foreign(tmp_path / str(k), "binary", 50 + 20 * k)) for k in range(5)]
    session = tiny.session(tmp_path / "run", data, committee=",".join(paths))
    assert len(ready(session, IM(agreement=4).rule())) == 5
    with pytest.raises(Refusal, match="has 5 members"):
        ready(session, IM(agreement=6).rule())
    with pytest.raises(Refusal, match=r"im\.agreement is 4\. Expected: 0, or 2 to the 3 members"):
        IM(agreement=4).fits(tiny.session(tmp_path / "none", data).data.config)
    IM(agreement=6, generations=1).fits(session.data.config)  # whose number `ready` knows
    with pytest.raises(Refusal, match=r"im\.agreement is 6\. Expected: 0, or 2 to the 3 members"):
        IM(agreement=6).fits(session.data.config)  # the committees of later generations are im's own


def test_a_soft_teacher_takes_no_labels(prepared, tmp_path):
    """Where foreign masks say nothing (255) they would be taught as a class, with preset=paper as with the mean."""
    session = tiny.session(tmp_path / "run", prepared("binary"), committee=",".join(two(tmp_path, "binary")))
    for vote in ("mean", "intersection"):
        with pytest.raises(Refusal, match=r"C11: --committee .*use --method im"):
            ready(session, Rule(vote))


@pytest.mark.parametrize("rule", [Rule(agreement=2), Rule(erode=9, dilate=9)])
def test_what_to_label_next_is_where_a_given_committee_differs_whatever_its_mask_leaves(prepared, tmp_path, rule):
    data = prepared("binary")
    committee = ",".join([*two(tmp_path, "binary"), str(foreign(tmp_path / "three", "binary", 90))])
    scores = []
    for name, how in (("plain", Rule()), ("other", rule)):
        session = tiny.session(tmp_path / name, data, committee=committee)
        stored = given_consensus(session, FIRST, how)
        model = session.train(0, 0, "m")
        scores.append([(r["image"], r["score"]) for r in label_next(session, Outcome(model, [model], ""))])
    assert scores[0] == scores[1] and stored.share < 0.9 * sum(s for _, s in scores[0]) / len(scores[0])


def test_what_to_label_next_is_never_ranked_by_a_constant(prepared, tmp_path):
    """By what the given committee said, also where the newest teacher is one model; else by the doubt of the model."""
    data = prepared("binary")
    session = tiny.session(tmp_path / "run", data, committee=",".join(two(tmp_path, "binary")))
    first = given_consensus(session, FIRST, Rule())
    model = session.train(0, 0, "m")
    ranked = label_next(session, Outcome(model, [model], ""))
    want = sorted(first.rows, key=lambda r: (-r["inconsistent_share"], r["image"]))
    assert [r["image"] for r in ranked] == [r["image"] for r in want] and len({r["score"] for r in ranked}) > 1
    for name in ("three", "four"):
        shutil.copytree(tmp_path / "one", tmp_path / name)
    paths = f"{tmp_path / 'three'},{tmp_path / 'four'}"
    alike = tiny.session(tmp_path / "alike", data, committee=paths)
    assert given_consensus(alike, FIRST, Rule()).share == 0
    model = alike.train(0, 0, "m")
    doubtful = label_next(alike, Outcome(model, [model], ""))
    alone = label_next(tiny.session(tmp_path / "alike", data), Outcome(model, [model], ""))
    assert [(r["image"], r["score"]) for r in doubtful] == [(r["image"], r["score"]) for r in alone]
    assert len({r["score"] for r in doubtful}) > 1 and {r["inconsistent_share"] for r in doubtful} == {""}


def test_one_path_may_hold_a_comma(tmp_path):
    (tmp_path / "a,b").mkdir()
    assert split(str(tmp_path / "a,b")) == [str(tmp_path / "a,b")] and split("a, b,") == ["a", "b"]
