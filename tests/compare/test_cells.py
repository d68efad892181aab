"""The runner: order, several at a time, failures that stay alone, and going on where it stopped."""

import csv
import signal

import pytest

from semiseg import storage
from semiseg.compare.cells import Runner, last_step, message
from semiseg.compare.grid import Cell, Grid
from semiseg.compare.streams import Streams
from semiseg.errors import Refusal
from semiseg.training.logs import Log
from semiseg.training.signals import STOP, Stopped


def cell(name, *needs, **changes):
    options = {"steps": 10, **changes.pop("options", {})}
    return Cell(name, "data", "d", "4", 0, name, options, (), needs, 1, "test", **changes)


def grid_of(out, cells, jobs=1):
    request = type("Request", (), {"out": out, "jobs": jobs})()
    return Grid(request, cells, [], 1, {"d": "test"})


def write_run(run, batch="same", miou=0.5):
    member = {"folder": "generation-0/member-0"}
    storage.write_json(run / "run.json", {"config": dict.fromkeys(("size", "batch", "augment", "resize", "turn"), 1)})
    storage.write_json(run / "generation-0/member-0/final/result.json", {"first_batch": batch})
    storage.write_json(run / "summary.json", {
        "generations": [{"members": [member]}], "model": {"folder": member["folder"], "val": {"miou": miou}},
        "seconds": {"training_all_tries": 2.0}, "images_forwarded": 20,
    })  # fmt: skip
    storage.write_json(run / "run_state.json", {"status": "finished"})


class Fake:
    """Processes that end after some looks at them; writes what a training would."""

    def __init__(self, out, fail=(), looks=2, batches=None):
        self.out, self.fail, self.looks, self.batches = out, fail, looks, batches or {}
        self.started, self.together, self.alive, self.asked_to_stop = [], 0, set(), []

    def __call__(self, cell, out, extra):
        return Process(self, cell.name)


class Process:
    def __init__(self, fake, name):
        self.fake, self.name, self.left = fake, name, fake.looks
        fake.started.append(name)
        fake.alive.add(name)
        fake.together = max(fake.together, len(fake.alive))

    def poll(self):
        self.left -= 1
        if self.left > 0:
            return None
        if self.name in self.fake.alive and self.name not in self.fake.fail:
            write_run(self.fake.out / "cells" / self.name, self.fake.batches.get(self.name, "same"))
        self.fake.alive.discard(self.name)
        return 5 if self.name in self.fake.fail else 0

    def terminate(self):
        self.fake.asked_to_stop.append(self.name)

    def wait(self, timeout=None):
        return 0


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr("semiseg.compare.cells.POLL", 0)
    monkeypatch.setattr("semiseg.compare.cells.slots", lambda jobs: [{} for _ in range(jobs)])


def run(out, cells, fake, jobs=1):
    out.mkdir(exist_ok=True)
    runner = Runner(grid_of(out, cells, jobs), Log(quiet=True), lambda cell, run: 0.4, fake)
    return {r.cell: r for r in runner.run()}


def test_a_cell_waits_for_what_it_takes_over(tmp_path):
    cells = [cell("a"), cell("b", "a"), cell("c", "a", "b"), cell("d")]
    fake = Fake(tmp_path)
    rows = run(tmp_path, cells, fake, jobs=4)
    assert fake.started == ["a", "d", "b", "c"] and fake.together == 2
    assert {r.status for r in rows.values()} == {"finished"}
    assert (rows["a"].val, rows["a"].score, rows["a"].seconds) == (0.5, 0.4, 2.0)


def test_one_at_a_time(tmp_path):
    fake = Fake(tmp_path)
    run(tmp_path, [cell("a"), cell("b"), cell("c")], fake)
    assert fake.started == ["a", "b", "c"] and fake.together == 1


def test_a_failed_cell_stops_nobody_and_is_tried_again(tmp_path):
    cells = [cell("a"), cell("b", "a"), cell("c")]
    (tmp_path / "logs").mkdir()
    said = '{"error": {"exit": 5, "problems": [{"code": "R05", "where": "a", "found": "has diverged"}]}}'
    (tmp_path / "logs/a.json").write_text(said)
    rows = run(tmp_path, cells, Fake(tmp_path, fail={"a"}))
    assert [rows[n].status for n in "abc"] == ["failed", "finished", "finished"]
    assert rows["a"].message == "R05: a has diverged."
    with (tmp_path / "cells.csv").open() as file:
        stored = {r["cell"]: r["status"] for r in csv.DictReader(file)}
    assert stored == {"a": "failed", "b": "finished", "c": "finished"}
    again = Fake(tmp_path)
    rows = run(tmp_path, cells, again)
    assert again.started == ["a"] and rows["a"].status == "finished"


def test_a_reading_that_fails_is_a_failed_cell(tmp_path):
    def broken(cell, run):
        raise RuntimeError("CUDA out of memory")

    grid = grid_of(tmp_path, [cell("a")])
    rows = Runner(grid, Log(quiet=True), broken, Fake(tmp_path)).run()
    assert rows[0].status == "failed" and "out of memory" in rows[0].message


def test_other_labeled_batches_are_an_error_and_no_silence(tmp_path):
    fake = Fake(tmp_path, batches={"b": "others"})
    rows = run(tmp_path, [cell("a"), cell("b"), cell("c")], fake)
    assert [rows[n].status for n in "abc"] == ["finished", "failed", "finished"]
    assert "saw other labeled batches than a" in rows["b"].message


def test_arms_with_another_batch_size_are_not_held_to_it(tmp_path):
    for name, batch in (("a", "one"), ("b", "two")):
        write_run(tmp_path / name, batch)
    record = storage.read_json(tmp_path / "b/run.json")
    streams = Streams()
    streams.check(cell("a"), tmp_path / "a")
    with pytest.raises(Refusal, match="saw other labeled batches"):
        streams.check(cell("b"), tmp_path / "b")
    record["config"]["batch"] = 8
    storage.write_json(tmp_path / "b/run.json", record)
    streams.check(cell("b"), tmp_path / "b")


def test_a_signal_lets_the_processes_save_their_state(tmp_path):
    fake = Fake(tmp_path, looks=10**9)
    fake.alive = set()
    before = signal.getsignal(signal.SIGTERM)
    STOP.install()
    try:
        STOP.requested = 143
        with pytest.raises(Stopped):
            run(tmp_path, [cell("a"), cell("b")], fake, jobs=2)
    finally:
        STOP.release()
        STOP.requested = 0
    assert fake.asked_to_stop == ["a", "b"]
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_a_log_says(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,split,loss\n10,train,1.0\n20,train,0.5\n")
    assert last_step(tmp_path / "metrics.csv") == 20
    assert last_step(tmp_path / "nothing.csv") == 0
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/x.txt").write_text("first\nKilled\n")
    assert message(tmp_path, "x", -9) == "ended with code -9: Killed"
    assert message(tmp_path, "y", 1) == "ended with code 1"
