"""Which masks a command opens: those of unlabeled images when asked only, and all that it opens it checks first."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from _data import PLAIN, QUICK, discs, make, picture, save
from _runner import Ended

Command = Callable[..., Ended]
Trained = Callable[..., Path]
ORACLE, DIAGNOSE = ("--oracle",), ("--set", "diagnose=yes")


def lists(root: Path) -> Path:
    """Four labeled images and four unlabeled ones, of which two have masks."""
    make(root, labeled=8, unlabeled=0)
    for path in [*root.rglob("sub/*.png")]:
        path.rename(path.parents[1] / path.name)
    for name in ("img6", "img7"):
        (root / f"masks/{name}.png").unlink()
    (root / "splits").mkdir()
    (root / "splits/labeled.txt").write_text("img0\nimg1\nimg2\nimg3\n")
    (root / "splits/unlabeled.txt").write_text("img4\nimg5\nimg6\nimg7\n")
    return root


@pytest.mark.parametrize("size", [(24, 24), (40, 40)], ids=["smaller", "larger"])
@pytest.mark.parametrize("asked", [ORACLE, DIAGNOSE, (*ORACLE, "--resize", 16)], ids=["oracle", "diagnose", "resize"])
def test_masks_that_do_not_fit_are_all_refused_before_the_run_begins(
    semiseg: Command, tmp_path: Path, asked: tuple[object, ...], size: tuple[int, int]
) -> None:
    root = lists(tmp_path / "data")
    save(root / "masks/img4.png", np.zeros(size, np.uint8))
    save(root / "masks/img5.png", np.full((32, 32), 7, np.uint8))
    ended = semiseg("train", "data", "--out", "run", *PLAIN, *asked)
    assert ended.code == 3 and "Traceback" not in ended.text, ended.text
    side = size[0]
    assert f"D07: data/masks/img4.png is {side}x{side} but data/images/img4.png is 32x32" in ended.err
    assert "D08: data/masks/img5.png holds the value 7" in ended.err
    assert not (tmp_path / "run/run.json").exists() and not (tmp_path / "run/cache").exists()


def test_without_them_those_masks_stay_closed_and_with_them_they_are_used(semiseg: Command, tmp_path: Path) -> None:
    root = lists(tmp_path / "data")
    kept = {name: (root / f"masks/{name}.png").read_bytes() for name in ("img4", "img5")}
    for name in kept:
        (root / f"masks/{name}.png").write_bytes(b"no image")
    plain = semiseg("train", "data", "--out", "plain", *PLAIN)
    assert plain.code == 0, plain.text
    for name, data in kept.items():
        (root / f"masks/{name}.png").write_bytes(data)
    compared = semiseg("train", "data", "--out", "plain", *PLAIN, *DIAGNOSE, "--resume")  # may be asked for later
    assert compared.code == 0 and "opens 2 masks of unlabeled images to count errors" in compared.text, compared.text
    full = semiseg("train", "data", "--out", "full", *PLAIN, *ORACLE)
    assert full.code == 0 and "--oracle opens the masks of 2 unlabeled images" in full.text, full.text
    data = json.loads((tmp_path / "full/run.json").read_text())["data"]
    assert data["splits"]["labeled"] == ["img0", "img1", "img2", "img3", "img4", "img5"]
    assert data["counts"] == {"labeled": 6, "unlabeled": 2, "val": 0, "test": 0}
    again = semiseg("train", "data", "--out", "full", *PLAIN, *ORACLE, "--resume")
    assert again.code == 0, again.text


def test_a_crop_larger_than_the_resized_images_is_refused(semiseg: Command, tmp_path: Path) -> None:
    make(tmp_path / "data", labeled=2, size=(48, 64))
    ended = semiseg("train", "data", "--out", "run", "--method", "supervised", "--size", 40, "--resize", 24)
    assert ended.code == 3 and "D29" in ended.err and "after --resize 24). Fix: use --size 32" in ended.err, ended.text
    ended = semiseg("train", "data", "--out", "run", *PLAIN, "--size", 28, "--resize", 24)
    assert ended.code == 0 and "smaller after --resize 24 than the crop of 28" in ended.text, ended.text


def test_the_task_is_one_however_many_labels_are_used(semiseg: Command, tmp_path: Path) -> None:
    make(tmp_path / "data", labeled=5)
    ids = discs(77, (32, 32), 3)
    save(tmp_path / "data/images/more.png", picture(ids, 77))
    save(tmp_path / "data/masks/more.png", ids)
    for k in range(5):
        path = next((tmp_path / "data/masks").rglob(f"img{k}.png"))
        save(path, discs(k, (32, 32), 2))
    kinds = []
    for n in range(1, 7):
        ended = semiseg("check", "data", "--labels", n, "--json")
        assert ended.code == 0, ended.text
        kinds.append((said := json.loads(ended.out))["kind"])
        lacking = [p for p in said["problems"] if p["code"] == "D27" and "'class 2'" in p["found"]]
        assert bool(lacking) != bool(said["pixels"]["labeled"]["class 2"])
    assert kinds == ["multiclass"] * 6
    ended = semiseg("train", "data", "--out", "run", *PLAIN, "--labels", 1, "--oracle")
    assert ended.code == 0, ended.text
    assert json.loads((tmp_path / "run/run.json").read_text())["data"]["counts"]["labeled"] == 6


def test_evaluate_needs_the_split_that_it_scores_only(semiseg: Command, trained: Trained, tmp_path: Path) -> None:
    shutil.copytree(trained("ids") / "run", tmp_path / "run")
    for k in range(3):
        ids = discs(800 + k, (33, 47), 3)
        save(tmp_path / f"new/test/images/t{k}.png", picture(ids, 800 + k))
        save(tmp_path / f"new/test/masks/t{k}.png", ids)
    ended = semiseg("evaluate", "run", "new", "--split", "test", "--json")
    assert ended.code == 0 and json.loads(ended.out)["images"] == 3, ended.text
    for split in ("val", "labeled"):
        ended = semiseg("evaluate", "run", "new", "--split", split)
        assert ended.code == 3 and "D03: new has no folder images/" in ended.err, ended.text
    (tmp_path / "new/test").rename(tmp_path / "new/more")
    (tmp_path / "new/splits").mkdir()
    (tmp_path / "new/splits/test.txt").write_text("more/images/t0.png more/masks/t0.png\n")
    ended = semiseg("evaluate", "run", "new", "--split", "test", "--json")
    assert ended.code == 0 and json.loads(ended.out)["images"] == 1, ended.text


def test_labels_only_depends_on_nothing_but_the_labels(semiseg: Command, tmp_path: Path) -> None:
    """Other unlabeled images, of another brightness and size: the same weights to the last bit; the committee's differ."""
    weights = {}
    for name, method in (("one", "supervised"), ("other", "supervised"), ("third", "im")):
        root = make(tmp_path / name, labeled=6, unlabeled=4)
        if name == "other":
            for path in sorted((root / "unlabeled").glob("*.png")):
                save(path, np.full((96, 80, 3), 250, np.uint8))
        ended = semiseg("train", name, "--out", f"{name}-run", "--method", method, *QUICK)
        assert ended.code == 0, ended.text
        weights[name] = (tmp_path / f"{name}-run/generation-0/member-0/final/weights.safetensors").read_bytes()
    assert weights["one"] == weights["other"] == weights["third"]
