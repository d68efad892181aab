"""One run as a given committee: it speaks with all its members, and its finished answer needs nobody any more."""

import csv
import shutil

import numpy as np
import pytest
from PIL import Image

import semiseg
import tiny
from semiseg import storage
from semiseg.errors import Refusal
from semiseg.programs.consensus_folder import consensus_folder

SMALL = {"size": 16, "steps": 4, "batch": 2, "network": "unet1x1:0.25", "device": "cpu", "threads": 1,
         "workers": 1, "unlabeled_batch": 2, "checkpoint_every": 4, "quiet": True}  # fmt: skip


@pytest.fixture(scope="module")
def committee(folders, tmp_path_factory):
    run = tmp_path_factory.mktemp("given") / "k"
    semiseg.train(folders["binary"], run, method="committee", sets=["members=3"], **SMALL)
    return run


def ranks(run):
    with (run / "label_next.csv").open(newline="") as file:
        return [(row["image"], row["score"], row["inconsistent_share"]) for row in csv.DictReader(file)]


def test_it_is_the_same_committee_as_its_members(folders, committee, tmp_path):
    members = ",".join(str(committee / f"generation-0/member-{i}") for i in range(3))
    runs = tmp_path / "one", tmp_path / "all"
    one, three = (
        semiseg.train(folders["binary"], run, method="im", committee=given, **SMALL)
        for run, given in zip(runs, (str(committee), members), strict=True)
    )
    for key in ("inconsistent_share", "inconsistent_per_class"):
        assert one["generations"][0][key] == three["generations"][0][key]
    share = one["generations"][0]["inconsistent_share"]
    assert share > 0.5 and any(f"given committee disagrees on {share:.0%}" in w for w in one["warnings"])
    assert ranks(runs[0]) == ranks(runs[1]) and all(share for _, _, share in ranks(runs[0]))
    assert one["hash"] == three["hash"] and one["images_forwarded"] == three["images_forwarded"]


def test_one_unlabeled_image(committee, tmp_path):
    data = tiny.write_folder(tmp_path / "data", "binary", unlabeled=1)
    made = semiseg.train(data, tmp_path / "run", method="im", committee=str(committee), **SMALL)
    ((image, score, share),) = ranks(tmp_path / "run")
    assert image == "unlabeled/00" and score == share
    assert float(score) == pytest.approx(made["generations"][0]["inconsistent_share"], abs=1e-6)


def test_its_finished_answer_needs_nobody(folders, committee, tmp_path):
    given, run = shutil.copytree(committee, tmp_path / "k"), tmp_path / "run"
    first = semiseg.train(folders["binary"], run, method="im", committee=str(given), **SMALL)
    given.rename(tmp_path / "elsewhere")
    again = semiseg.train(folders["binary"], run, method="im", committee=str(given), resume=True, **SMALL)
    assert again["hash"] == first["hash"] and again["images_forwarded"] == first["images_forwarded"]
    with pytest.raises(Refusal, match="does not exist"):
        semiseg.train(folders["binary"], tmp_path / "new", method="im", committee=str(given), **SMALL)


def spoiled(run, place, change):
    """A copy of a run whose members' weights are changed, and sealed again."""
    shutil.copytree(run, place)
    for final in sorted((place / "generation-0").glob("member-*/final")):
        weights = {k: change(v) for k, v in storage.read_tensors(final / "weights.safetensors").items()}
        storage.write_bytes(final / "weights.safetensors", storage.tensors_to_bytes(weights))
        (final / "manifest.json").unlink()
        storage.seal(final, {})
    return place


def test_a_model_of_nan_predicts_nothing(folders, committee, tmp_path):
    """It would say background everywhere, and a committee would agree."""
    bad = spoiled(committee, tmp_path / "bad", lambda v: v * float("nan") if v.is_floating_point() else v)
    images = folders["binary"] / "unlabeled"
    said = r"S01: .*bad/generation-0/member-\d predicts NaN"
    with pytest.raises(Refusal, match=said) as error:
        consensus_folder([str(bad)], images, tmp_path / "out")
    assert error.value.exit == 4 and len(error.value.problems) == 1, "once, and not for every image"
    with pytest.raises(Refusal, match=said):
        semiseg.train(folders["binary"], tmp_path / "run", method="im", committee=str(bad), **SMALL)
    with pytest.raises(Refusal, match=said):
        semiseg.load(bad).predict(next(images.iterdir()))


def test_a_damaged_member_is_said_once(folders, committee, tmp_path):
    bad = shutil.copytree(committee, tmp_path / "bad")
    file = bad / "generation-0/member-1/final/weights.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(Refusal, match="S01") as error:
        consensus_folder([str(bad)], folders["binary"] / "unlabeled", tmp_path / "out")
    assert error.value.exit == 4 and len(error.value.problems) == 1


def test_a_share_of_pixels_is_not_a_mean_over_images(tmp_path):
    """100 pixels that are disputed and 40,000 that are not."""
    for name, values in (("images", (7, 9)), ("a", (0, 255)), ("b", (255, 255))):
        (tmp_path / name).mkdir()
        for image, side, value in (("small", 10, values[0]), ("large", 200, values[1])):
            pixels = np.full((side, side), value, np.uint8)
            pixels[0, 0] = 0
            pixels[0, 1] = 255
            Image.fromarray(pixels).save(tmp_path / name / f"{image}.png")
    made = consensus_folder([str(tmp_path / n) for n in "ab"], tmp_path / "images", tmp_path / "out")
    assert made["inconsistent_share"] == pytest.approx(98 / 40_100)
