"""The Python interface: quick to import, four names, methods from a file of the user's own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from _data import QUICK, discs, make, picture, save
from _runner import SRC, Ended
from PIL import Image

MINE = '''
import torch
from semiseg.methods.base import Method

class Mine(Method):
    """Agree with yourself."""
    views = ("strong",)

    def __init__(self, make, task, *, weight: float = 0.5) -> None:
        super().__init__(make, task)
        self.weight = weight

    def step(self, labeled, unlabeled, clock):
        logits = self.student(torch.cat([labeled.image, unlabeled.weak, unlabeled.strong[0]]))
        n = len(unlabeled.weak)
        known, weak, strong = logits.split([len(labeled.image), n, n])
        unlabeled, target = self.refine(unlabeled, self.believe(unlabeled, weak.detach()), clock)
        sup, own = self.task.supervised(known, labeled), self.task.mse(strong, target)
        return {"loss": sup + self.weight * own, "sup": sup, "own": own}
'''
Command = Callable[..., Ended]


def test_import_is_lazy(tmp_path: Path) -> None:
    code = (
        "import sys, semiseg\nassert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
        "assert {'supervised', 'fixmatch'} <= set(semiseg.METHODS) and {'im', 'ensemble'} <= set(semiseg.PROGRAMS)\n"
        "assert 'torch' not in sys.modules\n"
        "try:\n    semiseg.nothing\nexcept AttributeError as error:\n    print(error)\n"
    )
    env = {"PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["module 'semiseg' has no attribute 'nothing'"]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small pictures and no waiting for the disk, which both take longer than training here."""
    from semiseg.report import pictures

    monkeypatch.setattr(pictures, "SIDE", 48)
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.mark.usefixtures("small")
def test_train_load_and_predict_in_python(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import semiseg

    make(tmp_path / "data")
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    summary = semiseg.train(tmp_path / "data", tmp_path / "run", method="im", steps=2, size=16, batch=2, quiet=True,
                            sets=["im.members=2"])  # fmt: skip
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before, "the signals are given back"
    assert summary == json.loads((tmp_path / "run/summary.json").read_text())
    assert capfd.readouterr() == ("", "")

    model = semiseg.load(tmp_path / "run")
    image = picture(discs(3, (21, 45)), 3)
    save(tmp_path / "new.png", image)
    one, two = model.predict(image), model.predict(str(tmp_path / "new.png"), inconsistency=True)
    assert np.array_equal(one.label, two.label) and np.array_equal(one.prob, two.prob)
    assert one.label.shape == (21, 45) and one.label.dtype == np.uint8 and set(np.unique(one.label)) <= {0, 1}
    assert one.prob.shape == (1, 21, 45) and one.prob.dtype == np.float32 and 0 <= one.prob.min() <= one.prob.max() <= 1
    assert one.inconsistency is None and one.share is None
    assert two.inconsistency.shape == (21, 45) and two.inconsistency.dtype == bool
    assert two.share == pytest.approx(two.inconsistency.mean())
    together = semiseg.load(tmp_path / "run", ensemble=True).predict(image)
    assert not np.array_equal(together.prob, one.prob)
    with pytest.raises(Exception, match=r"has 1 channels?, the model was trained on 3") as caught:
        model.predict(image[..., 0])
    assert caught.value.exit == 3
    with pytest.raises(Exception, match=r"float64.*uint8"):
        model.predict(image / 255.0)


def test_the_operator_for_loops_of_ones_own() -> None:
    import torch

    import semiseg

    labels = torch.tensor([[[[0, 1, 2]]], [[[0, 1, 1]]]])
    made = semiseg.inconsistency_mask(labels)
    assert made.inconsistent.flatten().tolist() == [False, False, True]


@pytest.mark.usefixtures("small")
def test_a_stopped_training_in_python_can_be_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import semiseg
    from semiseg.training import loop
    from semiseg.training.signals import Stopped

    make(tmp_path / "data", labeled=3)
    options = {"method": "supervised", "steps": 6, "size": 16, "batch": 2, "quiet": True}
    whole = semiseg.train(tmp_path / "data", tmp_path / "whole", **options)
    real = loop._Run.one_step

    def stops(run: loop._Run) -> None:
        real(run)
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(loop._Run, "one_step", stops)
        with pytest.raises(Stopped) as caught:
            semiseg.train(tmp_path / "data", tmp_path / "run", **options)
    assert caught.value.code == 143
    again = semiseg.train(tmp_path / "data", tmp_path / "run", resume="force", quiet=True)
    assert again["hash"] == whole["hash"]


def test_a_method_in_a_file_of_ones_own(semiseg: Command, tmp_path: Path) -> None:
    make(tmp_path / "data")
    (tmp_path / "mine.py").write_text(MINE)
    told = semiseg("methods", "./mine.py:Mine")
    assert told.code == 0 and "weight = 0.5" in told.out and "Agree with yourself" in told.out, told.text
    ended = semiseg("train", "data", "--out", "run", "--method", "./mine.py:Mine", "--set", "weight=0.25", *QUICK)
    assert ended.code == 0, ended.text
    assert "labels only" in ended.out
    assert json.loads((tmp_path / "run/run.json").read_text())["config"]["method_args"] == {"weight": 0.25}
    assert "own=" in (tmp_path / "run/generation-0/member-0/metrics.csv").read_text()
    ended = semiseg("predict", "run", "data/unlabeled", "--out", "out")
    assert ended.code == 0, ended.text
    assert Image.open(tmp_path / "out/masks/u0.png").size == (32, 32)
    with_im = semiseg(
        "train", "data", "--out", "run2", "--method", "./mine.py:Mine+im", "--set", "im.members=2", *QUICK
    )
    assert with_im.code == 0, with_im.text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (MINE.replace("def step(", "def step(("), "mine.py:13"),
        ("import torch\n\nx = 1 / 0\n", "mine.py:3"),
        ("import torch\nclass Mine: ...\n", "which is no semiseg.methods.base.Method"),
        (MINE.replace("class Mine", "class Mien"), "Did you mean 'Mien'?"),
        (MINE + "\n        return {}\n    def step(self, labeled, unlabeled, clock):\n        return 1 / 0\n", "mine.py:"),
        (MINE.replace("self.task.mse(strong, target)", "self.task.msee(strong, target)"), "mine.py:18"),
    ],
)  # fmt: skip
def test_a_broken_file_names_the_line(semiseg: Command, tmp_path: Path, text: str, said: str) -> None:
    make(tmp_path / "data", labeled=2, unlabeled=1)
    (tmp_path / "mine.py").write_text(text)
    ended = semiseg("train", "data", "--out", "run", "--method", "./mine.py:Mine", "--set", "baseline=no", *QUICK)
    assert ended.code in (1, 2), ended.text
    assert said in ended.err and "Traceback" not in ended.text, ended.text
