"""Where predictions may go: never over somebody's masks, never among the images, and nothing is lost by a second call."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from _data import PLAIN, discs, make, picture, save, tree
from _runner import Ended, Kill

Command = Callable[..., Ended]
Trained = Callable[..., Path]


def new(folder: Path, *names: str, seed: int = 700) -> Path:
    for k, name in enumerate(names):
        save(folder / f"{name}.png", picture(discs(seed + k), seed + k))
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def names(path: Path) -> list[str]:
    return [r["image"] for r in rows(path)]


@pytest.mark.parametrize("command", ["predict", "consensus"])
def test_no_place_that_is_somebody_elses(semiseg: Command, trained: Trained, tmp_path: Path, command: str) -> None:
    folder = trained("255", "im")
    shutil.copytree(folder / "run", tmp_path / "run")
    make(tmp_path / "my", labeled=3)
    new(tmp_path / "pics", "a")
    (tmp_path / "afile").write_text("mine")
    save(tmp_path / "made/masks/gt.png", np.zeros((9, 9), np.uint8))
    for name in ("table", "told"):
        (tmp_path / name).mkdir()
    (tmp_path / "told/classes.yaml").write_text("names: [mine]")
    for name in ("predictions", "consensus"):
        (tmp_path / f"table/{name}.csv").write_text("image,count\na,3\n")
    before = tree(tmp_path, (".lock",))
    for images, out, code, said in (
        ("my/images", "my", 2, "is a data folder"), ("my/unlabeled", "my", 2, "is a data folder"),
        ("my", "my/masks", 2, "lies in a data folder"), ("pics", "my/val/new", 2, "lies in a data folder"),
        ("pics", "run", 2, "is a run"), ("pics", "run/generation-0", 2, "lies in the run"),
        ("pics", "afile", 2, "is a file"), ("pics", "afile/x", 2, "lies below"), ("pics", "x" * 300, 6, "written"),
        ("pics", "pics/out", 2, "lies in it"), ("pics", "made", 7, "made/masks/gt.png is not listed"),
        ("pics", "table", 7, "was not written by this command"),
        ("pics", "told", 7, "told/classes.yaml is not what this command writes there"),
    ):  # fmt: skip
        argv = ("run", images) if command == "predict" else ("run", "--images", images)
        ended = semiseg(command, *argv, "--out", out)
        assert ended.code == code and said in ended.err and "Fix: " in ended.err, (out, ended.text)
        assert "Traceback" not in ended.text and tree(tmp_path, (".lock",)) == before, out


@pytest.mark.parametrize("command", ["predict", "consensus"])
def test_two_folders_of_images_fill_one_output(
    semiseg: Command, trained: Trained, tmp_path: Path, command: str
) -> None:
    run, table = trained("255", "im") / "run", {"predict": "predictions.csv"}.get(command, "consensus.csv")
    new(tmp_path / "A", "a1", "a2")
    new(tmp_path / "B", "b1", seed=800)
    new(tmp_path / "C", "a1", "c1", seed=900)

    def call(images: str, **options: Kill) -> Ended:
        argv = (run, images) if command == "predict" else (run, "--images", images)
        return semiseg(command, *argv, "--out", "out", **options)

    assert call("A").code == 0 and call("B").code == 0
    assert names(tmp_path / "out" / table) == ["a1", "a2", "b1"]
    if command == "consensus":
        assert sorted(names(tmp_path / "out/label_next.csv")) == ["a1", "a2", "b1"]
        assert all((tmp_path / r["path"]).exists() for r in rows(tmp_path / "out/label_next.csv"))
    before = tree(tmp_path / "out", (".lock",))
    clash = call("C")
    assert clash.code == 7 and "was made from ../A/a1.png, and C/a1.png has the same name" in clash.err, clash.text
    assert tree(tmp_path / "out", (".lock",)) == before
    for path in (tmp_path / "B").glob("*.png"):
        path.write_bytes(b"broken")
    broken = call("B")
    assert broken.code == 3 and "B/b1.png" in broken.err, broken.text
    assert names(tmp_path / "out" / table) == ["a1", "a2", "b1"]  # its mask is still there
    assert [r["file"] for r in rows(tmp_path / "out/failed.csv")] == ["B/b1.png"]
    shutil.copytree(tmp_path / "A", tmp_path / "moved")
    assert call("moved").code == 0  # the same images from elsewhere


def test_what_was_damaged_is_restored(semiseg: Command, trained: Trained, tmp_path: Path) -> None:
    run = trained("255", "im") / "run"
    new(tmp_path / "new", "a", "b", "c", "d")
    argv = ("predict", run, "new", "--out", "out", "--inconsistency", "--probabilities")
    assert semiseg(*argv).code == 0
    before = {k: v.split()[0] for k, v in tree(tmp_path / "out", (".lock",)).items()}
    (tmp_path / "out/masks/a.png").write_bytes(b"")
    shutil.rmtree(tmp_path / "out/inconsistency")
    assert json.loads(semiseg(*argv, "--json").out)["predicted"] == 4
    assert {k: v.split()[0] for k, v in tree(tmp_path / "out", (".lock",)).items()} == before
    next((tmp_path / "out/probabilities").rglob("b.png")).unlink()
    said = json.loads(semiseg(*argv, "--json").out)
    assert (said["predicted"], said["skipped"]) == (1, 3)
    assert {k: v.split()[0] for k, v in tree(tmp_path / "out", (".lock",)).items()} == before


def test_other_classes_are_not_mixed_in(semiseg: Command, trained: Trained, tmp_path: Path) -> None:
    new(tmp_path / "new", "a")
    assert semiseg("predict", trained() / "run", "new", "--out", "out").code == 0
    new(tmp_path / "more", "b")
    ended = semiseg("predict", trained("ids") / "run", "more", "--out", "out")
    assert (
        ended.code == 7 and "masks of other classes" in ended.err and names(tmp_path / "out/predictions.csv") == ["a"]
    )


def test_a_killed_call_knows_its_own_masks(semiseg: Command, trained: Trained, tmp_path: Path) -> None:
    run = trained() / "run"
    new(tmp_path / "new", "a", "b", "c")
    kill = Kill(2, point="replace", match="masks/")
    assert semiseg("predict", run, "new", "--out", "out", kill=kill).code == -9
    assert (tmp_path / "out/masks/a.png").exists() and not (tmp_path / "out/masks/c.png").exists()
    assert list((tmp_path / "out/masks").glob("*.tmp*"))
    (tmp_path / "new/c.png").unlink()
    assert semiseg("predict", run, "new", "--out", "out").code == 0
    assert names(tmp_path / "out/predictions.csv") == ["a", "b"]
    assert sorted(p.name for p in (tmp_path / "out/masks").iterdir()) == ["a.png", "b.png"]


def test_when_nothing_can_be_predicted_the_data_are_wrong(semiseg: Command, trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    for name in "ab":
        (tmp_path / f"new/{name}.png").write_bytes(b"no image")
    for images in ("new", "new/a.png"):
        ended = semiseg("predict", trained() / "run", images, "--out", "out")
        assert ended.code == 3 and "D12: new/a.png" in ended.err and "masks written" not in ended.out, ended.text
    assert not (tmp_path / "out/predictions.csv").exists()
    said = json.loads(semiseg("predict", trained() / "run", "new", "--out", "out", "--json").out)
    assert len(said["error"]["problems"]) == len(said["failed"]) == 2 and said["predicted"] == 0


def test_what_is_not_read_is_said(semiseg: Command, trained: Trained, tmp_path: Path) -> None:
    make(tmp_path / "my", labeled=2, unlabeled=1)
    save(tmp_path / "my/val/images/v.png", picture(discs(1), 1))
    (tmp_path / "my/images/notes.txt").write_text("x")
    ended = semiseg("predict", trained() / "run", "my", "--out", "out")
    assert ended.code == 0 and "of which only images/ was read, not unlabeled/, val/" in ended.out, ended.text
    assert "notes.txt" in ended.out and "Next: " in ended.out
    said = json.loads(semiseg("predict", trained() / "run", "my/unlabeled", "--out", "out", "--json").out)
    assert said["notes"] == [] and said["predicted"] == 1
    new(tmp_path / "trip/images", "a")
    new(tmp_path / "trip/day2", "b")
    said = semiseg("predict", trained() / "run", "trip", "--out", "trip/out")
    assert "1 mask written" in said.out and "of which only images/ was read, not day2/" in said.out, said.text
    again = semiseg("predict", trained() / "run", "trip", "--out", "trip/out")
    assert again.code == 0 and "out/" not in again.out.partition("Next")[0].partition("not day2/")[2], again.text


def test_images_among_images_is_a_folder_like_any_other(semiseg: Command, trained: Trained, tmp_path: Path) -> None:
    for folder, name in ((".", "a"), ("images", "b"), ("day2", "c")):
        new(tmp_path / "photos" / folder, name)
    ended = semiseg("predict", trained() / "run", "photos", "--out", "out")
    done = {row["image"] for row in rows(tmp_path / "out/predictions.csv")}
    assert ended.code == 0 and done == {"a", "images/b", "day2/c"}


def test_the_next_command_fits_the_run(semiseg: Command, tmp_path: Path) -> None:
    make(tmp_path / "data")
    quick = ("--steps", 1, "--size", 16, "--batch", 2)
    ended = semiseg("train", "data", "--out", "my run", "--method", "supervised", *quick)
    assert "Next: semiseg predict 'my run' NEW_IMAGES --out predictions" in ended.out, ended.text
    assert "--inconsistency" not in ended.out


def test_maps_of_another_model_do_not_stay_beside_its_masks(semiseg: Command, trained: Trained, tmp_path: Path) -> None:
    """Those of the same model and image stay when a later call does not ask for them."""
    one, other = trained("255") / "run", "other"
    make(tmp_path / "data", labeled=2)
    assert semiseg("train", "data", "--out", other, *PLAIN, "--seed", 1).code == 0
    new(tmp_path / "new", "a", "b")
    maps = tmp_path / "out/probabilities/foreground"
    assert semiseg("predict", one, "new", "--out", "out", "--probabilities").code == 0
    assert semiseg("predict", one, "new", "--out", "out").code == 0
    assert {p.name for p in maps.iterdir()} == {"a.png", "b.png"}
    new(tmp_path / "new", "a", seed=900)  # another picture of the same name
    assert semiseg("predict", one, "new", "--out", "out").code == 0
    assert {p.name for p in maps.iterdir()} == {"b.png"}
    assert semiseg("predict", other, "new", "--out", "out").code == 0
    assert not [*maps.iterdir()] and len(names(tmp_path / "out/predictions.csv")) == 2
