"""A run folder has one writer, and nothing that somebody else made is written over or taken away."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from _data import PLAIN, QUICK, discs, make, picture, save, tree
from _messages import clear
from _runner import Ended, once

Command = Callable[..., Ended]
CHANGING = (".lock", "events.jsonl")


def test_a_run_folder_has_one_writer(semiseg: Command, tmp_path: Path) -> None:
    from semiseg import storage

    make(tmp_path / "data", labeled=2)
    with storage.lock(tmp_path / "run"):
        clear(semiseg("train", "data", "--out", "run", *PLAIN), 7, "run is in use by pid", "since")
    assert semiseg("train", "data", "--out", "run", *PLAIN).code == 0
    with storage.lock(tmp_path / "run"):  # the same once it has its run.json: --resume would be the wrong advice
        for more in ((), ("--resume",), ("--resume", "auto")):
            ended = semiseg("train", "data", "--out", "run", *PLAIN, *more)
            clear(ended, 7, "run is in use by pid", f"{os.getpid()}")
            assert "--resume" not in ended.err


def test_finished_runs_and_foreign_folders_are_not_written_into(semiseg: Command, tmp_path: Path) -> None:
    make(tmp_path / "data", labeled=2)
    assert semiseg("train", "data", "--out", "run", *PLAIN).code == 0
    before = tree(tmp_path / "run", CHANGING)
    clear(semiseg("train", "data", "--out", "run", *PLAIN), 7, "run holds a run already", "--resume", "--out run-2")
    clear(semiseg("train", "data", "--out", "run", "--seed", 3, *PLAIN), 7)
    assert tree(tmp_path / "run", CHANGING) == before
    state = before
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
    assert not (tmp_path / "run").exists()  # what needs no data to be refused leaves nothing behind
    clear(semiseg(*argv, "--set", "im.discs=alive"), 2, "im.discs is 'alive'")
    assert json.loads((tmp_path / "run/run_state.json").read_text())["status"] == "refused"
    assert semiseg(*argv).code == 0


def test_what_was_refused_is_trained_on_the_data_as_they_are_now(semiseg: Command, tmp_path: Path) -> None:
    """A refusal that comes after the images were decoded leaves nothing of them to the corrected command."""
    make(tmp_path / "data", labeled=2)
    make(tmp_path / "more", labeled=4, size=(48, 48))
    argv = ("--out", "run", "--method", "im", *QUICK, "--set", "im.members=2")
    clear(semiseg("train", "data", *argv, "--set", "im.discs=alive"), 2, "im.discs is 'alive'")
    assert not (tmp_path / "run/cache").exists()
    assert semiseg("train", "more", *argv).code == 0
    counts = json.loads((tmp_path / "run/summary.json").read_text())["counts"]
    assert counts["labeled"] + counts["val"] == 4
    assert json.loads((tmp_path / "run/cache/labeled/table.json").read_text())["height"][0] == 48


def test_what_a_killed_writer_left_is_nobodys(semiseg: Command, tmp_path: Path) -> None:
    make(tmp_path / "data", labeled=2)
    for out, name in (("run", "check.json.tmp-999999999-0"), ("grid", "grid.json.tmp-999999999-0")):
        (tmp_path / out).mkdir()
        (tmp_path / out / name).write_text("{")
    assert semiseg("train", "data", "--out", "run", *PLAIN, "--resume", "auto").code == 0
    words = ("compare", "data", "--methods", "fixmatch@steps=3", "--out", "grid", "--seeds", 1, "--steps", 2)
    clear(semiseg(*words), 2, "steps=3")  # looked at, not S10
    assert not [p for p in (tmp_path / "run").rglob("*.tmp-*")]


def test_the_advice_for_a_run_that_is_not_finished_can_be_pasted(semiseg: Command, tmp_path: Path) -> None:
    make(tmp_path / "my data #1", labeled=2)
    assert semiseg("train", "my data #1", "--out", "a run", *PLAIN).code == 0
    (tmp_path / "a run/summary.json").unlink()
    clear(semiseg("predict", "a run", "my data #1/unlabeled", "--out", "out"), 4,
          "semiseg train 'my data #1' --out 'a run' --resume")  # fmt: skip
    clear(semiseg("train", "my data #1", "--out", "a run", *PLAIN), 7, "--out 'a run-2'")


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


@pytest.mark.parametrize("held", [".", "im"])
def test_a_demo_takes_nothing_away_from_somebody_who_works_on_it(semiseg: Command, tmp_path: Path, held: str) -> None:
    from semiseg import storage

    (tmp_path / "demo/ensemble").mkdir(parents=True)
    (tmp_path / "demo/ensemble/run.json").write_text("{}")
    before = tree(tmp_path / "demo/ensemble", CHANGING)
    with storage.lock(tmp_path / "demo" / held):
        clear(semiseg("demo", "--quick", "--out", "demo"), 7, "in use by pid", f"{os.getpid()}")
        assert tree(tmp_path / "demo/ensemble", CHANGING) == before


@pytest.mark.parametrize("json_", [(), ("--json",)])
def test_a_stopped_demo_says_what_to_type(semiseg: Command, tmp_path: Path, json_: tuple[str, ...]) -> None:
    """A demo has no --resume; and with --json a signal ends in one object, as everything else does."""
    events = tmp_path / "demo/ensemble/events.jsonl"
    begun = once(lambda: events.exists() and '"event": "member"' in events.read_text(), signal.SIGTERM)
    ended = semiseg("demo", "--quick", "--out", "demo", *json_, watch=begun)
    assert ended.code == 143, ended.text
    assert "--resume" not in ended.text and "The same command makes the demo anew." in ended.text
    if json_:
        said = json.loads(ended.out)["error"]
        assert said["exit"] == 143 and said["problems"][0]["code"] == "R06" and ended.err == ""
    else:
        assert ended.out == "" and "semiseg: stopped by signal 15." in ended.err
