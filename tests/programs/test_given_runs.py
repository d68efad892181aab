"""One run as a given committee: it speaks with all its members, and its finished answer needs nobody any more."""

import csv
import shutil

import pytest

import semiseg
import tiny
from semiseg.errors import Refusal

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
