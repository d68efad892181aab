"""The metric of `evaluate`, and what must not be scored: masks that mean something else, masks that are missing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from _data import discs, make, picture, save
from _runner import Ended
from PIL import Image

Command = Callable[..., Ended]
Trained = Callable[..., Path]


def more(root: Path, count: int, classes: int = 3) -> None:
    for k in range(count):
        ids = discs(800 + k, (33, 47), classes)
        save(root / f"images/t{k}.png", picture(ids, 800 + k))
        save(root / f"masks/t{k}.png", ids)


def test_evaluate_scores_the_masks_that_predict_writes(semiseg: Command, trained: Trained, tmp_path: Path) -> None:
    """The metric is computed again here, from files alone."""
    folder = trained("ids")
    shutil.copytree(folder / "run", tmp_path / "run")
    shutil.copytree(folder / "data", tmp_path / "data")
    more(tmp_path / "data/test", 3)
    said = json.loads(semiseg("evaluate", "run", "data", "--split", "test", "--json").out)
    assert said["images"] == 3
    assert semiseg("predict", "run", "data/test", "--out", "out").code == 0
    found = np.stack([np.asarray(Image.open(tmp_path / f"out/masks/t{k}.png")) for k in range(3)])
    truth = np.stack([discs(800 + k, (33, 47), 3) for k in range(3)])
    each = [((found == c) & (truth == c)).sum() / ((found == c) | (truth == c)).sum() for c in range(3)]
    assert said["metrics"]["miou"] == pytest.approx(np.mean(each), abs=1e-5)
    assert (tmp_path / "run/evaluation-test.json").exists()
    assert '"evaluated"' in (tmp_path / "run/events.jsonl").read_text()
    wrong = semiseg("evaluate", "run", "data", "--split", "tset")
    assert wrong.code == 2 and "Did you mean 'test'?" in wrong.err
    absent = semiseg("evaluate", folder / "run", folder / "data", "--split", "test")
    assert absent.code == 3 and "has no test set" in absent.err and "Fix: " in absent.err


def test_scores_on_other_data_are_not_the_runs_own(semiseg: Command, trained: Trained, tmp_path: Path) -> None:
    """Their file has their name; what the report shows of test is of the data that were trained on, also if they moved."""
    folder = trained("ids")
    shutil.copytree(folder / "data", tmp_path / "data")
    shutil.copytree(folder / "run", tmp_path / "run")
    more(tmp_path / "data/test", 3)
    shutil.copytree(tmp_path / "data", tmp_path / "theirs")
    for path in (tmp_path / "theirs/images").rglob("*.png"):  # of the same names
        save(path, np.asarray(Image.open(path)) // 2)
    for path in (tmp_path / "theirs/test/masks").iterdir():
        save(path, (np.asarray(Image.open(path)) + 1) % 3)
    mine, theirs = (semiseg("evaluate", "run", data, "--split", "test") for data in ("data", "theirs"))
    assert mine.code == theirs.code == 0 and "run/evaluation-test-on-theirs-" in theirs.err + theirs.out
    own = json.loads((tmp_path / "run/evaluation-test.json").read_text())["metrics"]["miou"]
    [other] = (tmp_path / "run").glob("evaluation-test-on-theirs-*.json")
    assert json.loads(other.read_text())["metrics"]["miou"] != own
    from semiseg.report.load import load

    assert [t["metrics"]["miou"] for t in load(tmp_path / "run").tests.values()] == [own]


def test_all_that_cannot_be_scored_is_said_at_once(semiseg: Command, trained: Trained, tmp_path: Path) -> None:
    folder = trained("ids")
    shutil.copytree(folder / "run", tmp_path / "run")
    shutil.copytree(folder / "data", tmp_path / "data")
    more(tmp_path / "data/test", 5)
    test = tmp_path / "data/test"
    (test / "masks/t0.png").unlink()
    (test / "images/t1.png").write_bytes((test / "images/t1.png").read_bytes()[:60])
    save(test / "masks/t2.png", np.full((33, 47), 9, np.uint8))
    save(test / "masks/t3.png", np.zeros((9, 9), np.uint8))
    save(test / "images/t4.png", picture(discs(804, (33, 47), 3), 804, 1))
    before = (tmp_path / "run/events.jsonl").read_text()
    ended = semiseg("evaluate", "run", "data", "--split", "test", "--json")
    problems = json.loads(ended.out)["error"]["problems"]
    assert ended.code == 3
    assert {(p["code"], Path(p["where"]).stem) for p in problems} == {
        ("D01", "t0"), ("D12", "t1"), ("D08", "t2"), ("D07", "t3"), ("P01", "t4")}  # fmt: skip
    assert (tmp_path / "run/events.jsonl").read_text() == before and not list(tmp_path.glob("run/evaluation*"))


def test_another_folder_has_its_own_splits_and_must_mean_the_same(
    semiseg: Command, trained: Trained, tmp_path: Path
) -> None:
    shutil.copytree(trained("ids") / "run", tmp_path / "run")
    shutil.copytree(trained("ids") / "data", tmp_path / "data")
    shutil.copytree(tmp_path / "data", tmp_path / "moved")
    shutil.copytree(tmp_path / "data", tmp_path / "other")
    for path in (tmp_path / "other/images").rglob("*.png"):  # of the same names
        save(path, np.asarray(Image.open(path)) // 2)
    splits = json.loads((tmp_path / "run/run.json").read_text())["data"]["splits"]
    assert len(splits["val"]) == 1
    for data, split, images in (
        ("data", "labeled", 4), ("data", "val", 1), ("moved", "labeled", 4), ("moved", "val", 1), ("other", "labeled", 5),
    ):  # fmt: skip
        ended = semiseg("evaluate", "run", data, "--split", split, "--json")
        assert ended.code == 0 and json.loads(ended.out)["images"] == images, ended.text
    ended = semiseg("evaluate", "run", "other", "--split", "val")
    assert ended.code == 3 and "has no val set" in ended.err
    for coding, said in (
        ("255", "255 is class 'foreground', but in the masks of the training it is ignored"),
        ("folders", "holds folders left, right"),
        ("colors", "(40, 40, 40) is class 'ground', but in the masks of the training it is no value"),
    ):
        make(tmp_path / coding, coding)
        ended = semiseg("evaluate", "run", coding, "--split", "labeled")
        assert ended.code == 3 and said in ended.err and "Fix: " in ended.err, ended.text
    assert "Fix: write the masks with the values of the training (0 'class 0', 1 'class 1', " in ended.err
    for name in splits["val"]:
        next((tmp_path / "data/images").rglob(f"{Path(name).name}.png")).unlink()
        next((tmp_path / "data/masks").rglob(f"{Path(name).name}.png")).unlink()
    ended = semiseg("evaluate", "run", "data", "--split", "val")
    assert ended.code == 3 and "lacks 1 of the 1 images of the run's val set" in ended.err
