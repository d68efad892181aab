"""Prediction on images the run has never seen: complete, in the user's coding, and nothing stops at one bad file."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from _data import COLORS, PALETTE, discs, picture, save, tree
from _runner import Ended, Kill
from PIL import Image

Command = Callable[..., Ended]
Trained = Callable[..., Path]
SIZES = {"a": (40, 30), "sub/b": (31, 37), "sub/deep/c": (1, 19), "line": (23, 1), "dot": (1, 1), "café": (17, 64)}
CLASSES = {"255": 2, "ids": 3, "palette": 4, "folders": 3, "colors": 3}


def new(folder: Path, names: dict[str, tuple[int, int]] = SIZES, classes: int = 3, channels: int = 3) -> Path:
    for k, (name, size) in enumerate(names.items()):
        save(folder / f"{name}.png", picture(discs(700 + k, size, classes), 700 + k, channels))
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def checked(folder: Path) -> dict:
    return json.loads((folder / "run/run.json").read_text())["data"]["classes"]


def masks(out: Path) -> dict[str, np.ndarray]:
    root = out / "masks"
    return {p.relative_to(root).with_suffix("").as_posix(): np.asarray(Image.open(p)) for p in root.rglob("*.png")}


@pytest.mark.parametrize("coding", CLASSES)
def test_one_mask_per_image_in_the_coding_of_the_user(
    semiseg: Command, trained: Trained, tmp_path: Path, coding: str
) -> None:
    folder = trained(coding)
    new(tmp_path / "new", classes=CLASSES[coding])
    before = tree(tmp_path / "new"), tree(folder)
    ended = semiseg("predict", folder / "run", "new", "--out", "out")
    assert ended.code == 0, ended.text
    assert f"{len(SIZES)} masks written to out/masks" in ended.out
    assert (tree(tmp_path / "new"), tree(folder)) == before
    found = masks(tmp_path / "out")
    parts = ("left/", "right/") if coding == "folders" else ("",)
    assert set(found) == {part + name for part in parts for name in SIZES}
    for name, size in SIZES.items():
        for part in parts:
            array = found[part + name]
            assert array.shape[:2] == size
            if coding == "colors":
                assert {tuple(c) for c in array.reshape(-1, 3).tolist()} <= {tuple(c) for c in COLORS.values()}
            else:
                assert array.ndim == 2
                assert set(np.unique(array)) <= (
                    {0, 255} if coding in ("255", "folders") else set(range(CLASSES[coding]))
                )
    if coding == "palette":
        image = Image.open(tmp_path / "out/masks/a.png")
        assert image.mode == "P" and tuple(image.getpalette()[:12]) == PALETTE
    listed = rows(tmp_path / "out/predictions.csv")
    assert {r["image"]: (int(r["height"]), int(r["width"])) for r in listed} == SIZES
    assert not (tmp_path / "out/failed.csv").exists()

    # images and predictions together are a labeled set that means the same
    shutil.copytree(tmp_path / "new", tmp_path / "set/images")
    shutil.copytree(tmp_path / "out/masks", tmp_path / "set/masks")
    for path in (tmp_path / "set").rglob("*.png"):
        if min(Image.open(path).size) < 8:  # can be predicted, but not trained on
            path.unlink()
    said = json.loads(semiseg("check", "set", "--json").out)
    if coding == "colors":
        assert not said["ok"] and "classes.yaml" in said["problems"][0]["fix"].split("\n")[0], said
    else:
        assert said["ok"] and said["classes"]["coding"] == checked(folder)["coding"], said
    shutil.copy(tmp_path / "out/classes.yaml", tmp_path / "set")
    said = json.loads(semiseg("check", "set", "--json").out)
    same = ("task", "names", "coding", "values", "colors", "ignore")
    assert said["ok"] and [said["classes"][k] for k in same] == [checked(folder)[k] for k in same], said


def test_a_broken_image_is_listed_and_the_others_are_there(semiseg: Command, trained: Trained, tmp_path: Path) -> None:
    run = trained() / "run"
    new(tmp_path / "new")
    whole = (tmp_path / "new/sub/b.png").read_bytes()
    (tmp_path / "new/sub/b.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "new/notes.txt").write_text("not an image")
    save(tmp_path / "new/grey.png", picture(discs(1), 1, 1))
    save(tmp_path / "new/deep.png", np.zeros((9, 9), np.uint16))
    ended = semiseg("predict", run, "new", "--out", "out")
    assert ended.code == 8
    assert "new/sub/b.png" in ended.out and "listed in out/failed.csv" in ended.out and "Traceback" not in ended.text
    failed = {r["file"]: r for r in rows(tmp_path / "out/failed.csv")}
    assert set(failed) == {"new/sub/b.png", "new/grey.png", "new/deep.png"}
    assert "1 channel" in failed["new/grey.png"]["reason"] and "3" in failed["new/grey.png"]["reason"]
    assert all(r["code"] and r["reason"] for r in failed.values())
    assert set(masks(tmp_path / "out")) == set(SIZES) - {"sub/b"}

    before = tree(tmp_path / "out/masks")
    again = json.loads(semiseg("predict", run, "new", "--out", "out", "--json").out)
    assert (again["predicted"], again["skipped"], len(again["failed"])) == (0, len(SIZES) - 1, 3)
    assert tree(tmp_path / "out/masks") == before
    (tmp_path / "new/sub/b.png").write_bytes(whole)
    for name in ("grey", "deep"):
        (tmp_path / f"new/{name}.png").unlink()
    ended = semiseg("predict", run, "new", "--out", "out", "--json")
    assert ended.code == 0 and json.loads(ended.out)["predicted"] == 1
    assert not (tmp_path / "out/failed.csv").exists()
    assert set(masks(tmp_path / "out")) == set(SIZES)


def test_a_changed_image_or_a_lost_mask_is_predicted_again(semiseg: Command, trained: Trained, tmp_path: Path) -> None:
    run = trained("folders") / "run"
    new(tmp_path / "new")
    assert semiseg("predict", run, "new", "--out", "out").code == 0
    before = tree(tmp_path / "out/masks")
    new(tmp_path / "other", {"y": (40, 30), "x": (40, 30)})
    (tmp_path / "other/x.png").rename(tmp_path / "new/a.png")
    (tmp_path / "out/masks/left/line.png").unlink()
    (tmp_path / "out/masks/right/dot.png").unlink()
    said = json.loads(semiseg("predict", run, "new", "--out", "out", "--json").out)
    assert (said["predicted"], said["skipped"]) == (3, len(SIZES) - 3)
    after = tree(tmp_path / "out/masks")
    assert set(before) == set(after)
    assert after["left/café.png"] == before["left/café.png"]


@pytest.mark.parametrize("kill", [Kill(3, call="semiseg.predict:Model.predict"), Kill(2, point="write", match="masks/"),
                                  Kill(1, point="replace", match="predictions.csv")])  # fmt: skip
def test_a_killed_prediction_is_completed(semiseg: Command, trained: Trained, tmp_path: Path, kill: Kill) -> None:
    run = trained() / "run"
    new(tmp_path / "new")
    assert semiseg("predict", run, "new", "--out", "whole").code == 0
    assert semiseg("predict", run, "new", "--out", "out", kill=kill).code == -9
    for array in masks(tmp_path / "out").values():
        assert array.size  # what exists is complete
    ended = semiseg("predict", run, "new", "--out", "out")
    assert ended.code == 0, ended.text
    for name in ("predictions.csv", *(f"masks/{n}.png" for n in SIZES)):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert masks(tmp_path / "out").keys() == SIZES.keys()


def test_the_committee_and_its_inconsistency(semiseg: Command, trained: Trained, tmp_path: Path) -> None:
    import semiseg as package

    run = trained("255", "im") / "run"
    new(tmp_path / "new")
    one = semiseg("predict", run, "new", "--out", "one", "--inconsistency", "--probabilities")
    assert one.code == 0, one.text
    both = semiseg("predict", run, "new", "--out", "both", "--ensemble", "--probabilities")
    assert both.code == 0, both.text
    shares = {r["image"]: r["inconsistent_share"] for r in rows(tmp_path / "one/predictions.csv")}
    committee = [package.load(run).network(f) for f in json.loads((run / "summary.json").read_text())["committee"]]
    assert len(committee) == 2
    for name, size in SIZES.items():
        map_ = np.asarray(Image.open(tmp_path / f"one/inconsistency/{name}.png"))
        assert map_.shape == size and set(np.unique(map_)) <= {0, 255}
        assert float(shares[name]) == pytest.approx((map_ == 255).mean(), abs=1e-6)
        alone, together = (np.asarray(Image.open(tmp_path / f"{out}/probabilities/foreground/{name}.png"))
                           for out in ("one", "both"))  # fmt: skip
        assert alone.shape == size and alone.dtype == together.dtype == np.uint16
        assert not np.array_equal(alone, together), "the committee is the single model"
        mask = np.asarray(Image.open(tmp_path / f"both/masks/{name}.png"))
        assert np.array_equal(mask == 255, together > 32767.5) or np.abs(together.astype(int) - 32767).min() <= 1
    assert max(float(s) for s in shares.values()) > 0
    assert not (tmp_path / "both/inconsistency").exists()
    single = semiseg("predict", trained() / "run", "new", "--out", "alone", "--ensemble")
    assert single.code == 2 and "needs a committee" in single.err and not (tmp_path / "alone").exists()
    single = semiseg("predict", trained() / "run", "new", "--out", "alone", "--inconsistency")
    assert single.code == 2 and "--inconsistency needs a committee" in single.err and "Fix: " in single.err
    assert not (tmp_path / "alone").exists()


def test_one_image_a_data_folder_and_nothing(semiseg: Command, trained: Trained, tmp_path: Path) -> None:
    folder = trained()
    new(tmp_path / "new")
    assert semiseg("predict", folder / "run", "new/a.png", "--out", "single").code == 0
    assert set(masks(tmp_path / "single")) == {"a"}
    assert semiseg("predict", folder / "run", folder / "data", "--out", "all").code == 0
    assert set(masks(tmp_path / "all")) == {p.relative_to(folder / "data/images").with_suffix("").as_posix()
                                            for p in (folder / "data/images").rglob("*.png")}  # fmt: skip
    (tmp_path / "empty").mkdir()
    for images, run, code, said in (
        ("empty", folder / "run", 3, "empty holds no images"), ("nowhere", folder / "run", 3, "nowhere"),
        ("new", "empty", 4, "empty is no run"), ("new", "gone", 4, "gone is no run"),
    ):  # fmt: skip
        ended = semiseg("predict", run, images, "--out", "p")
        assert ended.code == code and said in ended.err and "Fix: " in ended.err, ended.text
        assert not (tmp_path / "p").exists()


@pytest.mark.parametrize("out", ["new", "new/pred", "new/sub"])
def test_images_are_never_written_over(semiseg: Command, trained: Trained, tmp_path: Path, out: str) -> None:
    new(tmp_path / "new")
    before = tree(tmp_path / "new")
    ended = semiseg("predict", trained() / "run", "new", "--out", out)
    assert ended.code == 2 and "--out" in ended.err and "Fix: " in ended.err, ended.text
    assert tree(tmp_path / "new") == before


def test_unfinished_and_damaged_runs_are_refused(semiseg: Command, trained: Trained, tmp_path: Path) -> None:
    new(tmp_path / "new", {"a": (16, 16)})
    shutil.copytree(trained() / "run", tmp_path / "run")
    weights = next((tmp_path / "run").rglob("weights.safetensors"))
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-3] + b"xyz")
    ended = semiseg("predict", "run", "new", "--out", "p")
    assert ended.code == 4 and "weights.safetensors" in ended.err and "Fix: " in ended.err, ended.text
    weights.write_bytes(whole)
    (tmp_path / "run/summary.json").unlink()
    ended = semiseg("predict", "run", "new", "--out", "p")
    assert ended.code == 4 and "not finished" in ended.err and "--resume" in ended.err


def test_clashing_names_and_dangling_links_are_said(semiseg: Command, trained: Trained, tmp_path: Path) -> None:
    new(tmp_path / "new", {"a": (16, 16), "b": (16, 16)})
    (tmp_path / "new/lost.png").symlink_to("nothing.png")
    ended = semiseg("predict", trained() / "run", "new", "--out", "out")
    assert ended.code == 8 and "new/lost.png" in ended.out, ended.text
    assert set(masks(tmp_path / "out")) == {"a", "b"}
    (tmp_path / "new/lost.png").unlink()
    Image.open(tmp_path / "new/a.png").convert("RGB").save(tmp_path / "new/a.jpg")
    ended = semiseg("predict", trained() / "run", "new", "--out", "out2")
    assert ended.code == 3 and "new/a." in ended.err and not (tmp_path / "out2").exists()
