"""What is wrong with data, and what goes wrong on the way: the path as it was typed, a way out, and nothing is lost."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from _data import COLORS, PLAIN, QUICK, discs, make, picture, save, tree
from _messages import clear
from _runner import Ended, Kill

Command = Callable[..., Ended]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def colored(root: Path) -> None:
    for k in range(5):
        for mask in (root / "masks").rglob(f"img{k}.png"):
            save(mask, np.array(list(COLORS.values()), np.uint8)[discs(k)])


def ignored(root: Path) -> None:
    for k in range(5):
        for mask in (root / "masks").rglob(f"img{k}.png"):
            save(mask, np.full((32, 32), 255, np.uint8))


Spoil = Callable[[Path], object]
DATA: dict[str, tuple[str, Spoil, tuple[str, ...]]] = {
    "no folder": ("255", shutil.rmtree, ("my data does not exist",)),
    "no images": ("255", lambda r: [p.unlink() for p in [*(r / "images").rglob("*.png")]], ("my data/images",)),
    "mask missing": ("255", lambda r: (r / "masks/img2.png").unlink(),
                     ("my data/images/img2.png", "my data/masks/img2.png")),
    "mask in a subfolder missing": ("255", lambda r: (r / "masks/sub/img1.png").unlink(), ("my data/images/sub/img1.png",)),
    "sizes differ": ("255", lambda r: save(r / "masks/img2.png", np.zeros((30, 32), np.uint8)),
                     ("my data/masks/img2.png", "30", "32")),
    "class out of range": ("ids", lambda r: save(r / "masks/img2.png", np.full((32, 32), 77, np.uint8)),
                           ("my data/masks/img2.png", "77")),
    "RGB masks": ("ids", colored, ("my data/masks", "classes.yaml")),
    "truncated image": ("255", lambda r: cut(r / "images/img2.png"), ("my data/images/img2.png",)),
    "truncated mask": ("255", lambda r: cut(r / "masks/img2.png"), ("my data/masks/img2.png",)),
    "truncated unlabeled image": ("255", lambda r: cut(r / "unlabeled/u1.png"), ("my data/unlabeled/u1.png",)),
    "empty file": ("255", lambda r: (r / "images/img0.png").write_bytes(b""), ("my data/images/img0.png",)),
    "all masks ignored": ("ids", ignored, ("my data", "ignored everywhere")),
    "mixed channels": ("255", lambda r: save(r / "images/img4.png", picture(discs(4), 4, 1)),
                       ("my data/images/img4.png", "1 channel")),
    "class file": ("colors", lambda r: (r / "classes.yaml").write_text("colors: {tree: [0, 200, 0]}\n"), ("my data/",)),
}  # fmt: skip


@pytest.mark.parametrize("name", DATA)
def test_data_errors_come_before_training_and_change_nothing(semiseg: Command, tmp_path: Path, name: str) -> None:
    coding, spoil, words = DATA[name]
    root = make(tmp_path / "my data", coding)
    if coding == "ids":  # ids 0, 1, 2 are fixed, so that another value is another value
        (root / "classes.yaml").write_text("values: {ground: 0, tree: 1, sky: 2}\nignore: [255]\n")
    if name == "RGB masks":
        (root / "classes.yaml").unlink()
    spoil(root)
    before = tree(root)
    if name in ("mask missing", "class out of range", "truncated mask"):  # the same check as training's
        clear(semiseg("check", "my data"), 3, *words)
    clear(semiseg("train", "my data", "--out", "run", *PLAIN), 3, *words)
    assert tree(root) == before
    assert not list((tmp_path / "run").rglob("*.safetensors"))
    state = json.loads((tmp_path / "run/run_state.json").read_text())
    assert (state["status"], state["code"]) == ("refused", 3) and words[0] in state["reason"]
    assert not (tmp_path / "run/run.json").exists(), "the corrected data must be able to start here"


def test_all_problems_are_reported_at_once_and_the_corrected_data_trains(semiseg: Command, tmp_path: Path) -> None:
    root = make(tmp_path / "data", labeled=6)
    (root / "masks/img0.png").unlink()
    save(root / "masks/img2.png", np.zeros((9, 9), np.uint8))
    cut(root / "images/sub/img3.png")
    ended = semiseg("train", "data", "--out", "run", *PLAIN)
    clear(ended, 3, "data/images/img0.png", "data/masks/img2.png", "data/images/sub/img3.png")
    make(root, labeled=6)
    ended = semiseg("train", "data", "--out", "run", *PLAIN)
    assert ended.code == 0, ended.text


def test_one_labeled_image_works_and_says_what_cannot_be_known(semiseg: Command, tmp_path: Path) -> None:
    make(tmp_path / "data", labeled=1, unlabeled=3)
    ended = semiseg("train", "data", "--out", "run", "--method", "im", "--set", "im.members=2", *QUICK)
    assert ended.code == 0, ended.text
    assert "1 labeled image and no val set" in ended.err and "no val set, so nothing could be scored" in ended.out
    assert semiseg("predict", "run", "data/unlabeled", "--out", "out").code == 0


def test_one_mask_ignored_everywhere_is_left_out_and_said(semiseg: Command, tmp_path: Path) -> None:
    make(tmp_path / "data", "ids", labeled=4)
    save(tmp_path / "data/masks/img2.png", np.full((32, 32), 255, np.uint8))
    ended = semiseg("train", "data", "--out", "run", *PLAIN)
    assert ended.code == 0, ended.text
    assert "data/masks/img2.png is ignored everywhere" in ended.err
    assert json.loads((tmp_path / "run/run.json").read_text())["data"]["counts"]["labeled"] == 3


def test_crops_larger_than_images(semiseg: Command, tmp_path: Path) -> None:
    """Larger than every image: refused. Larger than some: padded, and padding is not learned from."""
    make(tmp_path / "data", labeled=3)
    clear(semiseg("train", "data", "--out", "run", "--size", 64, "--method", "supervised"), 3, "64", "--size 32")
    save(tmp_path / "data/images/img0.png", picture(discs(0, (20, 48)), 0))
    save(tmp_path / "data/masks/img0.png", discs(0, (20, 48)) * 255)
    ended = semiseg("train", "data", "--out", "run", "--size", 40, "--steps", 2, "--batch", 2, "--method", "supervised")
    assert ended.code == 0, ended.text
    assert "padded" in ended.err


def test_methods_that_need_unlabeled_images(semiseg: Command, tmp_path: Path) -> None:
    make(tmp_path / "data", labeled=2, unlabeled=0)
    for method in ("im", "fixmatch"):
        clear(
            semiseg("train", "data", "--out", method, "--method", method, *QUICK), 3, "unlabeled", "--method supervised"
        )
        found = json.loads((tmp_path / method / "check.json").read_text())
        assert [p["code"] for p in found["problems"] if p["level"] == "error"] == ["D32"]
        assert not (tmp_path / method / "cache").exists(), "decoded before it was refused"
    assert semiseg("train", "data", "--out", "run", *PLAIN).code == 0


def test_a_full_disk_ends_with_exit_6_and_the_last_checkpoint(semiseg: Command, tmp_path: Path) -> None:
    make(tmp_path / "data", labeled=2)
    argv = (
        "train",
        "data",
        "--method",
        "supervised",
        "--steps",
        6,
        "--size",
        16,
        "--batch",
        2,
        "--set",
        "checkpoint_every=1",
    )
    assert semiseg(*argv, "--out", "whole").code == 0
    first = semiseg(*argv, "--out", "run", kill=Kill(4, call="semiseg.training.loop:_Run.one_step"))
    assert first.code == -signal.SIGKILL
    for fault in ("fsync:9:enospc", "write:7:short"):
        ended = semiseg(*argv, "--out", "run", "--resume", env={"SEMISEG_FAULT": fault})
        clear(ended, 6)
        assert json.loads((tmp_path / "run/run_state.json").read_text())["status"] in ("refused", "running")
    assert semiseg(*argv, "--out", "run", "--resume").code == 0
    hashes = [json.loads((tmp_path / f"{r}/summary.json").read_text())["hash"] for r in ("whole", "run")]
    assert hashes[0] == hashes[1]


def test_a_loss_that_is_not_finite_ends_with_exit_5(semiseg: Command, tmp_path: Path) -> None:
    make(tmp_path / "data", labeled=2)
    (tmp_path / "mine.py").write_text(
        "from semiseg.methods.supervised import Supervised\n\n\nclass Mine(Supervised):\n    '''x'''\n"
        "    def step(self, labeled, unlabeled, clock):\n        made = super().step(labeled, unlabeled, clock)\n"
        "        return {**made, 'loss': made['loss'] * (float('nan') if clock.step == 3 else 1.0)}\n"
    )
    ended = semiseg("train", "data", "--out", "run", "--method", "./mine.py:Mine", "--steps", 8, "--size", 16, "--batch", 2,
                    "--set", "baseline=no", "--set", "checkpoint_every=1")  # fmt: skip
    clear(ended, 5, "step 3", "img", "lr=")
    kept = sorted(p.name for p in (tmp_path / "run/generation-0/member-0").glob("step-*"))
    assert kept and kept[-1] == "step-00000003", "a checkpoint was written after the loss was not finite"
