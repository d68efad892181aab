"""A run that was stopped and resumed is the same run, bit for bit, for every method."""

import csv

import pytest
import torch

import tiny
from semiseg.data.sampler import Feed
from semiseg.inconsistency import InconsistencyMask
from semiseg.methods import METHODS, method_class
from semiseg.training.signals import STOP, Stopped


@pytest.fixture(params=METHODS)
def name(request):
    return request.param


def fit(session, folder, **options):
    return session.train(0, 1, "member", folder=folder, **options).result


def stop_after(monkeypatch, steps):
    """Ask for a stop, as a signal does, while these steps are computed."""
    original = Feed.labeled

    def labeled(self, step):
        if step in steps:
            STOP.requested = 143
        return original(self, step)

    monkeypatch.setattr(Feed, "labeled", labeled)
    monkeypatch.setattr(STOP, "requested", 0)


def resumed(monkeypatch, run, data, folder, stops_at, options, **config):
    """The result of training that is stopped after each of `stops_at`, in a new session each time."""
    stops = set(stops_at)
    stop_after(monkeypatch, stops)
    for count in range(len(stops_at) + 1):
        STOP.requested = 0
        try:
            return fit(tiny.session(run, data, **config), folder, **options), count
        except Stopped:
            stops.remove(min(stops))
    raise AssertionError("stopped too often")


def assert_same_training(monkeypatch, run, data, stops_at, options, **config):
    whole = fit(tiny.session(run, data, **config), "whole", **options)
    parts, stops = resumed(monkeypatch, run, data, "parts", stops_at, options, **config)
    assert stops == len(stops_at)
    for key in ("hash", "val", "val_last", "best_step", "chosen", "first_batch", "images_forwarded"):
        assert parts[key] == whole[key], key
    assert (run / "parts/metrics.csv").read_bytes() == (run / "whole/metrics.csv").read_bytes()


def last_row(run):
    """What the newest step logged, by name."""
    with (run / "whole/metrics.csv").open() as file:
        detail = [row["detail"] for row in csv.DictReader(file) if row["split"] == "train"][-1]
    return {key: float(value) for key, value in (part.split("=") for part in detail.split(";"))}


def test_stopped_and_resumed_is_the_same_run(name, kind, prepared, tmp_path, monkeypatch):
    """With every unlabeled term at work: what is always 0 would resume as the same."""
    easy = tiny.easy(method_class(name))
    assert_same_training(monkeypatch, tmp_path, prepared(kind), (0, 3, 6), {}, method=name, method_args=easy)
    assert 0 not in last_row(tmp_path).values(), last_row(tmp_path)


def test_also_with_masks_an_average_and_rows_of_two_steps(prepared, tmp_path, monkeypatch):
    data = prepared("multilabel")
    g = torch.Generator().manual_seed(0)
    n = len(data.unlabeled.pixels)
    planes = tuple(torch.randint(2, (n, c), generator=g, dtype=torch.uint8) for c in (2, 1))
    options = {"refine": InconsistencyMask(share=0.5, rest="own", fill="noise"), "planes": planes}
    config = {"method": "fixmatch", "method_args": {"threshold": 0.0}, "steps": 40, "average": 0.9, "eval_every": 7,
              "checkpoint_every": 9}  # fmt: skip
    assert_same_training(monkeypatch, tmp_path, data, (4, 13, 30), options, **config)


DROPOUT = """
import torch
from semiseg.methods.supervised import Supervised

class Dropout(Supervised):
    def step(self, labeled, unlabeled, clock):
        losses = super().step(labeled, unlabeled, clock)
        return {**losses, "loss": losses["loss"] * (1 + torch.rand(()))}
"""


def test_also_for_a_method_that_draws_from_the_global_generator(prepared, tmp_path, monkeypatch):
    path = tmp_path / "mine.py"
    path.write_text(DROPOUT)
    assert_same_training(monkeypatch, tmp_path, prepared("binary"), (2, 5), {}, method=f"{path}:Dropout")
