"""Stopping and going on: a stopped run that is resumed is the run that was never stopped."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from _data import PLAIN, QUICK, make
from _runner import Ended, Kill, Server, once

COMMAND = ("--method", "mean_teacher", "--steps", 12, "--size", 16, "--batch", 2, "--set", "checkpoint_every=4")
METRICS = ("baseline/metrics.csv", "generation-0/member-0/metrics.csv")
Command = Callable[..., Ended]


def summary(run: Path) -> dict:
    return json.loads((run / "summary.json").read_text())


def state(run: Path) -> dict:
    return json.loads((run / "run_state.json").read_text())


def reached(run: Path, event: str, count: int = 1) -> Callable[[], bool]:
    path = run / "events.jsonl"
    return lambda: path.exists() and path.read_text().count(f'"event": "{event}"') >= count


@pytest.fixture(scope="module")
def whole(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    make(folder / "data", labeled=5)
    ended = server.run("train", "data", "--out", "whole", *COMMAND, cwd=folder)
    assert ended.code == 0, ended.text
    return folder


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_a_signal_commits_the_state_and_the_rest_is_the_same_run(
    server: Server, whole: Path, number: int, code: int
) -> None:
    run = whole / f"signal-{code}"
    argv = ("train", "data", "--out", run.name, *COMMAND)
    ended = server.run(*argv, cwd=whole, watch=once(reached(run, "checkpoint", 2), number))
    assert ended.code == code, ended.text
    assert "--resume" in ended.err and "Traceback" not in ended.err
    said = state(run)
    assert (said["status"], said["code"]) == ("stopped", code)
    assert said["resume"] == f"semiseg train data --out {run.name} --resume"
    assert not (run / "summary.json").exists()

    ended = server.run(*said["resume"].split()[1:], cwd=whole)  # no option has to be repeated
    assert ended.code == 0, ended.text
    assert state(run)["status"] == "finished"
    assert summary(run)["hash"] == summary(whole / "whole")["hash"]
    assert "--method mean_teacher" in summary(run)["command"], "the resuming command is not what the training is"
    spent = summary(run)["seconds"]
    assert spent["total"] >= spent["training_all_tries"]
    for name in METRICS:
        assert (run / name).read_bytes() == (whole / "whole" / name).read_bytes(), name
    resumed = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert max(e["resumed_at"] for e in resumed if e["event"] == "member") > 0, "nothing was taken up again"


@pytest.mark.slow
def test_the_second_signal_ends_at_once(server: Server, whole: Path) -> None:
    run = whole / "twice"

    def twice(pid: int) -> None:
        once(reached(run, "checkpoint"), signal.SIGTERM)(pid)
        once(lambda: True, signal.SIGTERM)(pid)

    ended = server.run("train", "data", "--out", run.name, *COMMAND, cwd=whole, watch=twice)
    assert ended.code in (143, -signal.SIGTERM)  # one code for a shell
    ended = server.run("train", "data", "--out", run.name, "--resume", cwd=whole)
    assert ended.code == 0, ended.text
    assert summary(run)["hash"] == summary(whole / "whole")["hash"]


def test_nothing_to_resume(semiseg: Command, tmp_path: Path) -> None:
    make(tmp_path / "data")
    ended = semiseg("train", "data", "--out", "run", *PLAIN, "--resume")
    assert ended.code == 4
    assert "run holds no run" in ended.err and "Fix: " in ended.err and "--resume auto" in ended.err
    assert not (tmp_path / "run").exists()
    ended = semiseg("train", "data", "--out", "run", *PLAIN, "--resume", "auto")
    assert ended.code == 0, ended.text
    again = semiseg("train", "data", "--out", "run", *PLAIN, "--resume=auto")
    assert again.code == 0, again.text
    starts = [json.loads(line) for line in (tmp_path / "run/events.jsonl").read_text().splitlines()]
    assert [e["resumed"] for e in starts if e["event"] == "start"] == [False, True]
    assert [e["event"] for e in starts].count("member") == 1, "a finished run was trained again"


@pytest.mark.parametrize(
    "change",
    [("--seed", 5), ("--steps", 9), ("--method", "fixmatch"), ("--network", "unet1x1/2"), ("--set", "ema=0.5"),
     ("--augment", "none"), ("--labels", 3)],
)  # fmt: skip
def test_other_settings_are_another_run(server: Server, whole: Path, change: tuple[str, object]) -> None:
    before = (whole / "whole/run.json").read_bytes(), (whole / "whole/events.jsonl").read_bytes()
    ended = server.run("train", "data", "--out", "whole", *change, "--resume", cwd=whole)
    assert ended.code == 4 and "was started with other settings" in ended.err and "Fix: " in ended.err, ended.text
    assert "Traceback" not in ended.text
    assert before == ((whole / "whole/run.json").read_bytes(), (whole / "whole/events.jsonl").read_bytes())


def test_settings_of_programs_are_compared_too(semiseg: Command, tmp_path: Path) -> None:
    make(tmp_path / "data")
    base = ("train", "data", "--out", "run", "--method", "im", *QUICK)
    ended = semiseg(*base, "--set", "im.members=2", kill=Kill(2, call="semiseg.training.loop:_Run.one_step"))
    assert ended.code == -signal.SIGKILL
    ended = semiseg(*base, "--set", "im.members=3", "--resume")
    assert ended.code == 4 and "members" in ended.err, ended.text
    free = semiseg(*base, "--set", "im.members=2", "--set", "workers=1", "--resume")
    assert free.code == 0, free.text


def test_changed_data_is_another_run(semiseg: Command, tmp_path: Path) -> None:
    make(tmp_path / "data")
    assert semiseg("train", "data", "--out", "run", *PLAIN).code == 0
    make(tmp_path / "more", labeled=6)
    (tmp_path / "more/unlabeled/u1.png").rename(tmp_path / "data/unlabeled/u9.png")
    ended = semiseg("train", "data", "--out", "run", "--resume")
    assert ended.code == 4
    assert "data changed since run was started" in ended.err and "Fix: " in ended.err
