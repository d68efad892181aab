"""`semiseg consensus` and committees of every kind from the command line; stopped runs of them go on to the same bits."""

from __future__ import annotations

import csv
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from _data import ONE, QUICK, discs, make, picture, save, tree, write_mask
from _runner import Ended, Kill, Server
from PIL import Image

Command = Callable[..., Ended]
Trained = Callable[..., Path]
CLASSES = {"255": 2, "ids": 3, "palette": 4, "folders": 3, "colors": 3}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def foreign(root: Path, coding: str, seed: int) -> Path:
    """Masks for u0 and u1 by another tool, in a coding of `make`."""
    for k in range(2):
        write_mask(root, f"u{k}", discs(seed + k, classes=CLASSES[coding]), coding)
    return root


@pytest.mark.parametrize("coding", CLASSES)
def test_two_tools_agree_in_the_coding_of_the_user(
    semiseg: Command, trained: Trained, tmp_path: Path, coding: str
) -> None:
    """Masks by two other tools beside a run: where all say the same, that; elsewhere ignore, or background."""
    data = trained(coding) / "data"
    for name, seed in (("one", 300), ("two", 400)):
        foreign(tmp_path / name, coding, seed)
    known = ("run",) if coding in ("colors", "ids") else ()  # the others tell their coding themselves
    if known:
        shutil.copytree(trained(coding) / "run", tmp_path / "run")
    ended = semiseg("consensus", "one", "two", *known, "--images", data / "unlabeled", "--out", "out")
    assert ended.code == 0, ended.text
    assert ended.out.rstrip().splitlines()[-1].startswith("Next: ")
    listed = {r["image"]: r for r in rows(tmp_path / "out/consensus.csv")}
    assert set(listed) == {"u0", "u1"}
    part = "left/" if coding == "folders" else ""
    for name in listed:
        one, two, made = (pixels(tmp_path / where / f"masks/{part}{name}.png") for where in ("one", "two", "out"))
        doubt = pixels(tmp_path / f"out/inconsistency/{name}.png") == 255
        assert made.shape == one.shape and made.dtype == one.dtype and 0 < doubt.mean() < 1
        assert np.array_equal(made[~doubt], one[~doubt]) and np.array_equal(made[~doubt], two[~doubt])
        if not known:
            other = pixels(tmp_path / f"one/masks/{part.replace('left', 'right')}{name}.png")
            third = pixels(tmp_path / f"two/masks/{part.replace('left', 'right')}{name}.png")
            assert np.array_equal(doubt, (one != two) | (other != third))
        ignored = {"ids": 255, "palette": 255, "255": 0, "folders": 0, "colors": (40, 40, 40)}[coding]
        assert (made[doubt] == ignored).all()
        assert float(listed[name]["inconsistent_share"]) == pytest.approx(doubt.mean(), abs=1e-6)
    ranked = rows(tmp_path / "out/label_next.csv")
    shares = [float(r["inconsistent_share"]) for r in ranked]
    assert shares == sorted(shares, reverse=True) and [int(r["rank"]) for r in ranked] == [1, 2]
    assert not (tmp_path / "out/failed.csv").exists()


def test_what_fails_is_listed_and_the_rest_is_there(semiseg: Command, trained: Trained, tmp_path: Path) -> None:
    folder = trained()
    shutil.copytree(folder / "data/unlabeled", tmp_path / "new")
    foreign(tmp_path / "one", "255", 300)
    foreign(tmp_path / "two", "255", 400)
    (tmp_path / "one/masks/u1.png").unlink()
    for name in ("big", "broken"):
        shutil.copy(tmp_path / "new/u0.png", tmp_path / f"new/{name}.png")
        for tool in ("one", "two"):
            shutil.copy(tmp_path / tool / "masks/u0.png", tmp_path / tool / f"masks/{name}.png")
    save(tmp_path / "two/masks/big.png", np.zeros((40, 32), np.uint8))
    (tmp_path / "new/broken.png").write_bytes(b"\x89PNG")
    command = ("consensus", "one", "two", folder / "run", "--images", "new", "--out", "out")
    ended = semiseg(*command)
    assert ended.code == 8 and "Traceback" not in ended.text and "listed in out/failed.csv" in ended.out
    failed = {r["code"]: r["reason"] for r in rows(tmp_path / "out/failed.csv")}
    assert "holds no mask u1 for new/u1.png" in failed["P04"]
    assert "is 32x40 but new/big.png is 32x32" in failed["P05"] and len(failed) == 3
    assert [r["image"] for r in rows(tmp_path / "out/consensus.csv")] == ["u0"]
    said = json.loads(semiseg(*command, "--json").out)
    assert said["images"] == 1 and len(said["failed"]) == 3 and said["committee"][0] == "one"
    for tool in ("one", "two"):
        shutil.copy(tmp_path / tool / "masks/u0.png", tmp_path / tool / "masks/u1.png")
    semiseg(*command)
    assert {r["image"] for r in rows(tmp_path / "out/label_next.csv")} == {"u0", "u1"}
    save(tmp_path / "two/masks/u1.png", np.zeros((40, 32), np.uint8))
    semiseg(*command)  # whose mask is still there, but it is not ranked by what it was
    assert [r["image"] for r in rows(tmp_path / "out/label_next.csv")] == ["u0"]
    assert (tmp_path / "out/masks/u1.png").exists()


def test_a_call_in_which_everything_fails_leaves_the_place_free(
    semiseg: Command, trained: Trained, tmp_path: Path
) -> None:
    """Its class file spoke of no mask; the corrected call may write another one."""
    folder = trained()
    shutil.copytree(folder / "data/unlabeled", tmp_path / "new")
    foreign(tmp_path / "one", "255", 300)
    foreign(tmp_path / "two", "255", 400)
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(tmp_path / "new/u0.png", tmp_path / "elsewhere/other.png")
    failed = semiseg("consensus", "one", "two", "--images", "elsewhere", "--out", "out")
    assert failed.code == 3 and not (tmp_path / "out/classes.yaml").exists(), failed.text
    assert semiseg("consensus", folder / "run", "one", "--images", "new", "--out", "out").code == 0


def test_what_is_no_committee(semiseg: Command, trained: Trained, tmp_path: Path) -> None:
    folder = trained()
    run, new = folder / "run", folder / "data/unlabeled"
    other = trained("ids") / "run"
    (tmp_path / "empty").mkdir()
    shutil.copytree(new, tmp_path / "new")
    for members, images, code, text in (
        ((run,), new, 2, "has one member"), ((run, "nowhere"), new, 3, "nowhere does not exist"),
        ((run, "empty"), new, 3, "empty holds no masks"), ((run, other), new, 2, "speaks of multiclass"),
        ((run, run), "empty", 3, "holds no images"), ((run, "m.onnx"), new, 4, "m.onnx does not exist"),
        ((run, run), new, 2, "is named twice"),
    ):  # fmt: skip
        ended = semiseg("consensus", *members, "--images", images, "--out", "out")
        assert ended.code == code and text in ended.err and "Traceback" not in ended.text, ended.text
    foreign(tmp_path / "one", "255", 300)
    ended = semiseg("consensus", run, "one", "--images", "new", "--out", "new/out")
    assert ended.code == 2 and "lies in it" in ended.err
    assert not (tmp_path / "out").exists()


def test_one_output_is_of_one_committee(semiseg: Command, trained: Trained, tmp_path: Path) -> None:
    """Labels and ranks of another committee are never left beside its own, nor written over."""
    new = trained() / "data/unlabeled"
    for name, seed in (("one", 300), ("two", 400), ("three", 500)):
        foreign(tmp_path / name, "255", seed)
    (tmp_path / "three/masks/u1.png").unlink()
    assert semiseg("consensus", "one", "two", "--images", new, "--out", "out").code == 0
    before = tree(tmp_path / "out", (".lock",))
    for members in (("one", "three"), ("one", "two", "three"), ("one", trained() / "run")):
        ended = semiseg("consensus", *members, "--images", new, "--out", "out")
        assert ended.code == 7 and "labels of another committee" in ended.err and "--out" in ended.err, ended.text
        assert tree(tmp_path / "out", (".lock",)) == before
    (tmp_path / "all").mkdir()
    for name in ("one", "two", "out"):
        shutil.move(tmp_path / name, tmp_path / "all")
    again = semiseg("consensus", "two/masks", "one", "--images", new, "--out", "out", cwd=tmp_path / "all")
    assert again.code == 0, again.text  # the same members, in another order and at another place
    assert {k: v.split()[0] for k, v in tree(tmp_path / "all/out", (".lock",)).items() if k.startswith("masks")} == {
        k: v.split()[0] for k, v in before.items() if k.startswith("masks")
    }


def test_a_killed_call_left_masks_of_its_committee(semiseg: Command, trained: Trained, tmp_path: Path) -> None:
    new = trained() / "data/unlabeled"
    for name, seed in (("one", 300), ("two", 400), ("three", 500)):
        foreign(tmp_path / name, "255", seed)
    kill = Kill(2, point="replace", match="masks/")
    assert semiseg("consensus", "one", "two", "--images", new, "--out", "out", kill=kill).code == -signal.SIGKILL
    assert semiseg("consensus", "one", "three", "--images", new, "--out", "out").code == 7
    assert semiseg("consensus", "one", "two", "--images", new, "--out", "out").code == 0


def test_no_member_is_written_into(semiseg: Command, trained: Trained, tmp_path: Path) -> None:
    folder = trained()
    new = folder / "data/unlabeled"
    foreign(tmp_path / "one", "255", 300)
    foreign(tmp_path / "bare", "255", 400)
    (tmp_path / "bare/masks").rename(tmp_path / "flat")
    save(tmp_path / "labels/left/u0.png", discs(1) * 255)
    save(tmp_path / "labels/right/u0.png", discs(2) * 255)
    (tmp_path / "link").symlink_to("one")
    before = tree(tmp_path)
    for members, out, said in (
        (("one", "flat"), "one", "is the member one"), (("one", "flat"), "link", "is the member one"),
        (("one", "flat"), "flat", "is the member flat"), (("one", "flat"), "flat/new", "lies in the member flat"),
        (("one/masks", "flat"), "one", "would write into the member one/masks"),
        (("one", "flat"), "one/masks/new", "lies in the member one"),
    ):  # fmt: skip
        ended = semiseg("consensus", *members, "--images", new, "--out", out)
        assert ended.code == 2 and f"C10: --out {out}" in ended.err and said in ended.err, (out, ended.text)
    for run, out in ((folder / "run", "flat"), (trained("folders") / "run", "labels")):
        ended = semiseg("predict", run, new, "--out", out)
        assert ended.code == 2 and f"C10: --out {out} holds images" in ended.err, (out, ended.text)
    assert tree(tmp_path) == before
    assert semiseg("consensus", "one", "flat", "--images", new, "--out", ".").code == 0  # members beside what is made


def test_the_class_file_of_the_data_folder_is_that_of_its_images(
    semiseg: Command, trained: Trained, tmp_path: Path
) -> None:
    data = make(tmp_path / "data", "colors", labeled=1)
    for name, seed in (("one", 300), ("two", 400)):
        foreign(tmp_path / name, "colors", seed)
    (data / "unlabeled/classes.yaml").write_bytes((data / "classes.yaml").read_bytes())
    ended = semiseg("consensus", "one", "two", "--images", "data/unlabeled", "--out", "beside")
    assert ended.code == 0 and "D31" not in ended.text, ended.text
    (data / "unlabeled/classes.yaml").unlink()
    ended = semiseg("consensus", "one", "two", "--images", "data/unlabeled", "--out", "above")
    assert ended.code == 0, ended.text
    assert (tmp_path / "above/masks/u0.png").read_bytes() == (tmp_path / "beside/masks/u0.png").read_bytes()
    (data / "classes.yaml").unlink()
    ended = semiseg("consensus", "one", "two", "--images", "data/unlabeled", "--out", "none")
    assert ended.code == 3 and "write data/classes.yaml with these lines" in ended.err, ended.text
    ended = semiseg("consensus", "one", "above", "--images", "data/unlabeled", "--out", "own")
    assert ended.code == 0, ended.text  # consensus and predict write a class file beside their masks


def test_members_that_are_equal_and_a_class_that_nobody_predicts(
    semiseg: Command, trained: Trained, tmp_path: Path
) -> None:
    folder = trained()
    for tool in ("one", "two"):
        for k in range(2):
            save(tmp_path / tool / f"u{k}.png", np.zeros((32, 32), np.uint8))
    out = semiseg("consensus", "one", "two", "--images", folder / "data/unlabeled", "--out", "out", "--json").out
    same = semiseg("consensus", "one", "two", "--images", folder / "data/unlabeled", "--out", "out")
    assert "Note: the members never disagree" in same.out, same.text
    said = json.loads(out)
    assert said["inconsistent_share"] == 0 and said["never_predicted"] == said["classes"] == ["foreground"]
    save(tmp_path / "two/u0.png", np.ones((32, 32), np.uint8))
    ended = semiseg("consensus", "one", "two", "--images", folder / "data/unlabeled", "--out", "out2")
    assert "Note: images that are inconsistent everywhere and teach nothing (1): u0" in ended.out, ended.text
    assert (pixels(tmp_path / "out2/masks/u0.png") == 255).all()  # 0/1 masks: 255 is ignore


def test_all_members_of_runs(semiseg: Command, trained: Trained, tmp_path: Path) -> None:
    folder = trained("255", "im")
    new = folder / "data/unlabeled"
    alone = json.loads(semiseg("consensus", folder / "run", "--images", new, "--out", "a", "--json").out)
    assert len(alone["committee"]) == 2
    masks = foreign(tmp_path / "one", "255", 300)
    command = ("consensus", folder / "run", "--members", "--images", new, "--out", "b", "--json")
    said = json.loads(semiseg(*command, masks).out)
    assert len(said["committee"]) == 3
    ended = semiseg(*command[:-1], trained() / "run")  # the labels-only model of the same seed is its first member
    assert ended.code == 2 and "once more" in ended.err, ended.text
    assert semiseg("predict", folder / "run", new, "--out", "p", "--inconsistency").code == 0
    for k in range(2):
        assert np.array_equal(
            pixels(tmp_path / f"a/inconsistency/u{k}.png"), pixels(tmp_path / f"p/inconsistency/u{k}.png")
        )


def test_training_on_a_given_committee(semiseg: Command, trained: Trained, tmp_path: Path) -> None:
    folder = trained()
    foreign(tmp_path / "one", "255", 300)
    argv = ("train", folder / "data", "--out", "run", "--method", "im", *QUICK, "--committee", f"one,{folder / 'run'}")
    killed = semiseg(*argv, kill=Kill(2, point="write", match="generation-1/consensus"))
    assert killed.code == -signal.SIGKILL
    ended = semiseg(*argv, "--resume")
    assert ended.code == 0, ended.text
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["baseline"] == "baseline" and len(summary["generations"]) == 4
    whole = semiseg(*(a if a != "run" else "whole" for a in argv))
    assert whole.code == 0 and json.loads((tmp_path / "whole/summary.json").read_text())["hash"] == summary["hash"]
    changed = semiseg(*argv[:-1], f"one,{folder / 'run'},one", "--resume")
    assert changed.code == 4 and "committee" in changed.err


@pytest.mark.parametrize("way", ["folds", "snapshots", "bootstrap"])
def test_killed_committees_go_on_to_the_same_run(server: Server, tmp_path: Path, way: str) -> None:
    """Folds and bootstrap over one generation, snapshots as im takes them: over three, each from the one before."""
    make(tmp_path / "data", labeled=6, unlabeled=0)
    for k in range(3):
        save(tmp_path / f"data/unlabeled/u{k}.png", picture(discs(100 + k), 100 + k))
    recipe = ("--set", "im.members=2") if way == "snapshots" else (*ONE, "--set", f"members_by={way}")
    argv = ("train", "data", "--method", "im", "--steps", 8, "--size", 16, "--batch", 2, "--set", "checkpoint_every=2",
            *recipe)  # fmt: skip
    whole = server.run(*argv, "--out", "whole", cwd=tmp_path)
    assert whole.code == 0, whole.text
    kills = [Kill(5, call="semiseg.training.loop:_Run.one_step"), Kill(1, point="write", match="member-0/final"),
             Kill(1, point="write", match="generation-1/member-0/metrics.csv")]  # fmt: skip
    if way == "snapshots":
        kills[1:1] = [
            Kill(1, point="write", match="snapshot-0/final"),
            Kill(1, point="replace", match="member-0/step-00000006"),
        ]
        kills += [
            Kill(5, call="semiseg.training.loop:_Run.one_step"),
            Kill(1, point="write", match="generation-2/member-0/snapshot-0/final"),
            Kill(1, point="write", match="generation-3/member-0/metrics.csv"),
        ]
    for kill in kills:
        assert server.run(*argv, "--out", "run", "--resume", "auto", cwd=tmp_path, kill=kill).code == -signal.SIGKILL, (
            kill
        )
    assert server.run(*argv, "--out", "run", "--resume", "auto", cwd=tmp_path).code == 0
    one, two = ({p.relative_to(r): p.read_bytes() for r in [tmp_path / name] for p in r.rglob("weights.safetensors")}
                for name in ("whole", "run"))  # fmt: skip
    # with bootstrap no member learned from all labels, and with snapshots none as long as the last: a baseline does
    assert one == two and len(one) == {"folds": 3, "bootstrap": 4, "snapshots": 2 + 2 + 2 + 1 + 1}[way]
