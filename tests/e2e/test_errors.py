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
CHANGING = (".lock", "events.jsonl")


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
    "negative steps": (("--steps", -5), ("steps",)),
    "no steps": (("--steps", 0), ("sets steps to 0", "1 to 1e+08")),
    "no batch": (("--batch", 0), ("sets batch to 0", "1 to 4096")),
    "no size": (("--set", "size=0"), ("sets size to 0", "8 to 4096")),
    "endless steps": (("--set", "steps=inf"), ("steps", "a whole number")),
    "data": (("--set", "data=other"), ("--set data=other sets data", "use DATA")),
    "out": (("--set", "out=other"), ("--set out=other sets out", "use --out")),
    "method by a key": (("--set", "method=im"), ("use --method",)),
    "device": (("--set", "device=foo"), ("device", "auto or cpu or cuda or mps")),
    "no such device": (("--set", "device=cuda"), ("device is cuda", "device=cpu")),
    "half on a CPU": (("--set", "precision=16-mixed"), ("precision is 16-mixed", "bf16-mixed")),
    "threshold": (("--method", "fixmatch", "--set", "threshold=2"), ("threshold to 2", "0 to 1")),
    "decay": (("--method", "mean_teacher", "--set", "ema=1"), ("ema to 1", "0 to 0.99999")),
    "weight": (("--method", "fixmatch", "--set", "fixmatch.weight=-1"), ("weight to -1",)),
    "another program's key": (("--method", "fixmatch", "--set", "im.members=2"), ("belongs to +im", "--method fixmatch+im")),
    "another method's key": (("--set", "fixmatch.threshold=.9"), ("belongs to the method fixmatch", "--method fixmatch")),
    "among the images": (("--out", "data/images/run"), ("--out data/images/run lies in data/images",)),
    "among the masks": (("--out", "data/masks/sub/../sub/run"), ("lies in data/masks",)),
    "among what is unlabeled": (("--out", "data/unlabeled"), ("lies in data/unlabeled",)),
}  # fmt: skip


@pytest.mark.parametrize("name", TYPED)
def test_what_is_typed_wrong_is_said_with_what_is_right(semiseg: Command, tmp_path: Path, name: str) -> None:
    extra, words = TYPED[name]
    root = make(tmp_path / "data", labeled=2)
    before = tree(root)
    ended = semiseg("train", "data", "--out", "run", *PLAIN, *extra)
    clear(ended, 2, *words)
    assert tree(root) == before and not list(tmp_path.rglob("*.safetensors"))
    assert name == "oracle" or not (tmp_path / "run").exists(), "what is typed wrong leaves nothing"


def test_commands_and_recipes_typed_wrong(semiseg: Command, tmp_path: Path) -> None:
    clear(semiseg("trian", "data"), 2, "trian")
    clear(semiseg("predict", "run"), 2)
    clear(semiseg("methods", "fixmach"), 2, "Did you mean 'fixmatch'?")
    make(tmp_path / "data", labeled=2)
    for text, word in (("steps: 3\nsteps: 4\n", "twice"), ("- steps\n", "key: value"), ("a: &x 1\nb: *x\n", "aliases"),
                       ("!!python/object/apply:os.system ['touch harm']\n", "recipe"), ("stepps: 3\n", "steps"),
                       ("steps: 0\n", "1 to 1e+08"), ("data: other\n", "use DATA"), ("program: im\n", "METHOD+PROGRAM"),
                       ("method: fixmatch\nim: {members: 2}\n", "belongs to +im"),
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
        found = json.loads((tmp_path / method / "check.json").read_text())
        assert [p["code"] for p in found["problems"] if p["level"] == "error"] == ["D32"]
        assert not (tmp_path / method / "cache").exists(), "decoded before it was refused"
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
    state = tree(tmp_path / "run", CHANGING)
    clear(semiseg("train", "data", "--out", "run", "--seed", 3, "--resume"), 4, "seed: 0 → 3")
    assert tree(tmp_path / "run", CHANGING) == state, "a refused resume says nothing about the run"
    make(tmp_path / "data", labeled=4)
    save(tmp_path / "data/images/img0.png", picture(discs(0), 77))
    (tmp_path / "data/unlabeled/u1.png").unlink()
    clear(semiseg("train", "data", "--out", "run", "--resume"), 4,
          "data changed since run was started: of its images 2 added, 1 removed, 1 changed")  # fmt: skip
    assert tree(tmp_path / "run", CHANGING) == state
    assert semiseg("predict", "run", "data/unlabeled", "--out", "out").code == 0, "the refused resume broke the run"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("a file")
    clear(semiseg("train", "data", "--out", "mine", *PLAIN), 7, "mine is not empty (thesis.txt)")
    clear(semiseg("train", "data", "--out", "mine", "--resume", "auto", *PLAIN), 7)
    clear(semiseg("train", "data", "--out", "file", *PLAIN), 7, "file is a file")
    assert (tmp_path / "mine/thesis.txt").read_text() == "years of work" and (tmp_path / "file").read_text() == "a file"


def test_masks_that_changed_are_no_changed_images(semiseg: Command, tmp_path: Path) -> None:
    make(tmp_path / "data", labeled=2)
    assert semiseg("train", "data", "--out", "run", *PLAIN).code == 0
    save(tmp_path / "data/masks/img0.png", discs(7) * 255)
    ended = semiseg("train", "data", "--out", "run", "--resume")
    clear(ended, 4, "data changed since run was started: its masks, lists or classes, not its images")


def test_what_the_data_refuse_can_be_corrected_in_the_same_run(semiseg: Command, tmp_path: Path) -> None:
    make(tmp_path / "data", labeled=2)
    argv = ("train", "data", "--out", "run", "--method", "im", *QUICK, "--set", "im.members=2")
    clear(semiseg(*argv, "--set", "im.route=online"), 2, "im.route is 'online'")
    assert json.loads((tmp_path / "run/run_state.json").read_text())["status"] == "refused"
    assert semiseg(*argv).code == 0


def test_a_folder_that_cannot_be_made(semiseg: Command, tmp_path: Path) -> None:
    make(tmp_path / "data", labeled=2)
    (tmp_path / "file").write_text("a file")
    for out in ("file/run", "file/a/run", "x" * 300):
        ended = semiseg("train", "data", "--out", out, *PLAIN)
        clear(ended, 6, out.removesuffix("/run"), "choose another --out")
        assert "make room" not in ended.err and "0 bytes" not in ended.err
    for out in ("file", "file/demo"):
        clear(semiseg("demo", "--quick", "--out", out), 6, f"{out} cannot be written", "choose another --out")
    assert (tmp_path / "file").read_text() == "a file"


def test_a_demo_overwrites_nothing_but_a_demo(semiseg: Command, tmp_path: Path) -> None:
    root = make(tmp_path / "data", labeled=2)
    save(tmp_path / "photos/im/a.png", picture(discs(0), 0))
    before = tree(tmp_path)
    clear(semiseg("demo", "--quick", "--out", "data"), 7, "data is not empty (images, masks, unlabeled)")
    clear(semiseg("demo", "--quick", "--out", "photos"), 7, "photos/im is not empty (a.png) and is no run")
    assert tree(tmp_path) == before and tree(root)


def test_resume_in_python_is_a_flag_or_a_word(tmp_path: Path) -> None:
    from semiseg.errors import Refusal
    from semiseg.programs.train import train

    make(tmp_path / "data", labeled=2)
    for resume in (True, "force"):
        with pytest.raises(Refusal, match="holds no run") as refused:
            train(tmp_path / "data", tmp_path / "run", resume=resume)
        assert refused.value.exit == 4
    with pytest.raises(Refusal, match=r"resume is 'yes'. Expected: True to continue"):
        train(tmp_path / "data", tmp_path / "run", resume="yes")
    assert not (tmp_path / "run").exists()


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
