"""What users get wrong: the exit code, the path as they typed it, a way out, and nothing is lost or changed."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from _data import COLORS, PLAIN, QUICK, discs, make, picture, save, tree
from _runner import Ended, Kill

Command = Callable[..., Ended]
CHANGING = (".lock", "run_state.json", "events.jsonl")


def clear(ended: Ended, code: int, *words: str) -> None:
    """The contract of a message."""
    assert ended.code == code, ended.text
    lines = [line for line in ended.err.splitlines() if line.startswith("semiseg: error ")]
    assert lines, ended.text
    for line in lines:
        assert any(word in ended.err for word in ("Fix: ", "Expected: ", "Did you mean", "Possible ")), line
    for word in words:
        assert word in ended.err, (word, ended.err)
    assert "Traceback" not in ended.text and "B01" not in ended.text


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


TYPED: dict[str, tuple[tuple[object, ...], tuple[str, ...]]] = {
    "option": (("--sise", 16), ("--sise", "--size")),
    "key": (("--set", "larning_rate=1"), ("larning_rate",)),
    "near key": (("--set", "schedul=poly"), ("Did you mean 'schedule'?",)),
    "key of a program": (("--method", "im", "--set", "im.member=2"), ("im.member", "Did you mean")),
    "no equals sign": (("--set", "lr"), ("--set lr", "key=value")),
    "type": (("--set", "lr=fast"), ("lr", "a number")),
    "range": (("--set", "lr=-1"), ("lr", "Expected: ")),
    "nan": (("--set", "lr=nan"), ("lr",)),
    "choice": (("--set", "schedule=cosin"), ("Did you mean 'cosine'?",)),
    "method": (("--method", "fixmach"), ("Did you mean 'fixmatch'?",)),
    "program": (("--method", "fixmatch+in"), ("Did you mean 'im'?",)),
    "method's file": (("--method", "./gone.py:Mine"), ("gone.py does not exist",)),
    "network": (("--network", "unet1x2"), ("unet1x",)),
    "one member": (("--method", "im", "--set", "im.members=1"), ("im.members", "at least 2")),
    "labels": (("--labels", 99), ("99",)),
    "labels word": (("--labels", "many"), ("many",)),
    "labels nan": (("--labels", "nan"), ("nan",)),
    "augment": (("--augment", "strong"), ("none or default",)),
    "recipe": (("--config", "gone.yaml"), ("gone.yaml",)),
    "oracle": (("--oracle",), ("--oracle",)),
    "zero steps": (("--steps", -5), ("steps",)),
}  # fmt: skip


@pytest.mark.parametrize("name", TYPED)
def test_what_is_typed_wrong_is_said_with_what_is_right(semiseg: Command, tmp_path: Path, name: str) -> None:
    extra, words = TYPED[name]
    root = make(tmp_path / "data", labeled=2)
    before = tree(root)
    quick = ("--size", 16, "--batch", 2) if name == "zero steps" else PLAIN
    ended = semiseg("train", "data", "--out", "run", *quick, *extra)
    clear(ended, 2, *words)
    assert tree(root) == before and not list(tmp_path.rglob("*.safetensors"))


def test_commands_and_recipes_typed_wrong(semiseg: Command, tmp_path: Path) -> None:
    clear(semiseg("trian", "data"), 2, "trian")
    clear(semiseg("predict", "run"), 2)
    clear(semiseg("methods", "fixmach"), 2, "Did you mean 'fixmatch'?")
    make(tmp_path / "data", labeled=2)
    for text, word in (("steps: 3\nsteps: 4\n", "twice"), ("- steps\n", "key: value"), ("a: &x 1\nb: *x\n", "aliases"),
                       ("!!python/object/apply:os.system ['touch harm']\n", "recipe"), ("stepps: 3\n", "steps"),
                       ("steps: [1\n", "recipe")):  # fmt: skip
        (tmp_path / "recipe.yaml").write_text(text)
        clear(semiseg("train", "data", "--out", "run", "--config", "recipe.yaml"), 2, "recipe.yaml", word)
    assert not (tmp_path / "harm").exists()


def test_several_mistakes_are_said_together(semiseg: Command, tmp_path: Path) -> None:
    make(tmp_path / "data", labeled=2)
    ended = semiseg("train", "data", "--out", "run", "--set", "lr=fast", "--set", "schedule=never", "--set", "stepps=1")
    clear(ended, 2, "lr=fast", "schedule", "Did you mean 'steps'?")


def test_methods_that_need_unlabeled_images(semiseg: Command, tmp_path: Path) -> None:
    make(tmp_path / "data", labeled=2, unlabeled=0)
    for method in ("im", "fixmatch"):
        clear(
            semiseg("train", "data", "--out", method, "--method", method, *QUICK), 3, "unlabeled", "--method supervised"
        )
    assert semiseg("train", "data", "--out", "run", *PLAIN).code == 0


def test_a_run_folder_has_one_writer(semiseg: Command, tmp_path: Path) -> None:
    from semiseg import storage

    make(tmp_path / "data", labeled=2)
    with storage.lock(tmp_path / "run"):
        clear(semiseg("train", "data", "--out", "run", *PLAIN), 7, "run is in use by pid", "since")
    assert semiseg("train", "data", "--out", "run", *PLAIN).code == 0


def test_finished_runs_and_foreign_folders_are_not_written_into(semiseg: Command, tmp_path: Path) -> None:
    make(tmp_path / "data", labeled=2)
    assert semiseg("train", "data", "--out", "run", *PLAIN).code == 0
    before = tree(tmp_path / "run")
    clear(semiseg("train", "data", "--out", "run", *PLAIN), 7, "run holds a run already", "--resume", "--out run-2")
    clear(semiseg("train", "data", "--out", "run", "--seed", 3, *PLAIN), 7)
    assert tree(tmp_path / "run") == before
    before = tree(tmp_path / "run", CHANGING)
    clear(semiseg("train", "data", "--out", "run", "--seed", 3, "--resume"), 4, "seed: 0 → 3")
    make(tmp_path / "data", labeled=3)
    clear(semiseg("train", "data", "--out", "run", "--resume"), 4, "data changed since run was started")
    assert tree(tmp_path / "run", CHANGING) == before
    assert semiseg("predict", "run", "data/unlabeled", "--out", "out").code == 0, "the refused resume broke the run"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("a file")
    clear(semiseg("train", "data", "--out", "mine", *PLAIN), 7, "mine is not empty (thesis.txt)")
    clear(semiseg("train", "data", "--out", "mine", "--resume", "auto", *PLAIN), 7)
    clear(semiseg("train", "data", "--out", "file", *PLAIN), 7, "file is a file")
    assert (tmp_path / "mine/thesis.txt").read_text() == "years of work" and (tmp_path / "file").read_text() == "a file"


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
