"""What other systems lack or do otherwise: signals, the account of memory, names, paths."""

import os
import signal
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import semiseg
import tiny
from semiseg.data import walk
from semiseg.data.classes import ClassMap
from semiseg.errors import Refusal
from semiseg.model import Model
from semiseg.predict import evaluate_split, scan_images
from semiseg.programs import outputs
from semiseg.programs.train import default_method
from semiseg.training.signals import Stop

SMALL = {"size": 16, "steps": 2, "batch": 2, "network": "unet1x1:0.25", "device": "cpu", "threads": 1, "workers": 1,
         "quiet": True}  # fmt: skip


def test_a_system_without_usr1(monkeypatch):
    monkeypatch.delattr(signal, "SIGUSR1")
    stop, before = Stop(), signal.getsignal(signal.SIGTERM)
    stop.install()
    assert signal.getsignal(signal.SIGTERM) != before
    stop.release()
    assert signal.getsignal(signal.SIGTERM) == before


def test_memory_is_counted_in_what_a_system_counts_in(monkeypatch):
    """Kilobytes on Linux, bytes on macOS, nothing on Windows."""
    import resource

    monkeypatch.setattr(resource, "getrusage", lambda _: SimpleNamespace(ru_maxrss=3 * 2**20))
    assert outputs._peak() == 3 * 2**10
    monkeypatch.setattr(sys, "platform", "darwin")
    assert outputs._peak() == 3
    monkeypatch.setitem(sys.modules, "resource", None)
    assert outputs._peak() is None


def test_a_name_that_is_not_utf8_is_a_problem_and_no_bug(tmp_path):
    """It is named when the folder is read, not in the last step of a training. What is there is still found."""
    data = tiny.write_folder(tmp_path / "data", "binary")
    for part in ("images", "masks"):
        first = min((data / part).iterdir())
        try:
            os.rename(first, os.fsencode(data / part) + b"/Zelle_\xe4.png")
        except OSError:
            pytest.skip("this file system has no such names")
    with pytest.raises(Refusal, match=r"D17: .*Zelle_.*has a name that is not UTF-8\. Fix: rename it"):
        semiseg.train(data, tmp_path / "run", method="supervised", **SMALL)
    assert len(walk.scan(data / "images").files) == len(list((data / "images").iterdir()))


def test_one_image_has_the_name_that_it_has_in_a_folder(tmp_path):
    """macOS writes é as two characters."""
    image = tmp_path / "cafe\u0301.png"
    tiny.save(image, np.zeros((8, 8), np.uint8))
    assert list(scan_images(image)[0].files) == list(scan_images(tmp_path)[0].files) == ["caf\u00e9"]


def test_the_folder_of_the_training_is_known_from_everywhere(tmp_path, monkeypatch):
    """val was carved from its labels: of another folder there is none."""
    data = tiny.write_folder(tmp_path / "data", "binary", labeled=12, val=0)
    monkeypatch.chdir(tmp_path)
    run = semiseg.train("data", "run", method="supervised", **SMALL)
    assert run["val_source"] == "carved"
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    assert evaluate_split(Model(tmp_path / "run"), data, "val")["images"] == run["counts"]["val"] > 0


def test_as_many_labels_as_there_are_leave_nothing_to_learn_from(tmp_path):
    data = tiny.write_folder(tmp_path / "data", "binary", unlabeled=0)
    count = len(list((data / "images").iterdir()))
    for labels, method in ((None, "supervised"), ("all", "supervised"), (str(count), "supervised"),
                           (str(count - 1), "im"), ("0.5", "im")):  # fmt: skip
        assert default_method({"data": data, "labels": labels}) == method, labels


def test_the_palette_of_one_label_is_not_that_of_the_labels():
    palette = tuple((k, k, 9) for k in range(256))
    two = ClassMap("multilabel", ("alive", "dead"), "folders", (0, 255), palette=palette)
    assert outputs._colors(two) is None
    assert outputs._colors(replace(two, names=("cell",))) == [palette[255]]
