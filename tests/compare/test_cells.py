"""The runner: order, several at a time, failures that stay alone, and going on where it stopped."""

import csv
import os
import signal
import threading
from pathlib import Path

import pytest

from semiseg import storage
from semiseg.compare.cells import Runner, last_step, message, slots
from semiseg.compare.grid import Cell, Grid
from semiseg.compare.streams import Streams
from semiseg.errors import Refusal
from semiseg.methods import own
from semiseg.programs.train import configure
from semiseg.training.logs import Log
from semiseg.training.signals import STOP, Stopped


def cell(name, *needs, **changes):
    options = {"method": "supervised", "steps": 10, **changes.pop("options", {})}
    return Cell(name, "data", "d", "4", 0, name, options, (), needs, 1, "test", **changes)


def grid_of(out, cells, jobs=1):
    request = type("Request", (), {"out": out, "jobs": jobs})()
    return Grid(request, cells, [], 1, {"d": "test"})


def write_run(run, batch="same", miou=0.5, later="", **options):
    """A finished run; later: the first batch of its second generation, if it has one."""
    options = {"method": "supervised", "steps": 10, **options}
    resolved = {"size": 64, "batch": 16, "unlabeled_batch": 16, "lr": 0.003, "eval_every": 1}
    storage.write_json(run / "run.json", {"config": configure(options, [], None, {}).to_json() | resolved})
    batches = {f"generation-{g}/member-0": hashed for g, hashed in enumerate([batch, later]) if hashed}
    for folder, hashed in batches.items():
        storage.write_json(run / folder / "final/result.json", {"first_batch": hashed})
    storage.write_json(run / "summary.json", {
        "generations": [{"members": [{"folder": folder}]} for folder in batches],
        "model": {"folder": "generation-0/member-0", "val": {"miou": miou}},
        "seconds": {"training_all_tries": 2.0}, "images_forwarded": 20, "commit": "theirs", "command": "semiseg train …",
    })  # fmt: skip
    storage.write_json(run / "run_state.json", {"status": "finished"})


class Fake:
    """Processes that end after some looks at them; writes what a training would."""

    def __init__(self, out, fail=(), looks=2, batches=None):
        self.out, self.fail, self.looks, self.batches = out, fail, looks, batches or {}
        self.started, self.together, self.alive, self.asked_to_stop, self.places = [], 0, set(), [], []

    def __call__(self, cell, out, extra):
        self.places.append((cell.name, extra.get("CUDA_VISIBLE_DEVICES")))
        return Process(self, cell)


class Process:
    def __init__(self, fake, cell):
        self.fake, self.name, self.left, self.method = fake, cell.name, fake.looks, cell.options["method"]
        fake.started.append(self.name)
        fake.alive.add(self.name)
        fake.together = max(fake.together, len(fake.alive))

    def poll(self):
        self.left -= 1
        if self.left > 0:
            return None
        if self.name in self.fake.alive and self.name not in self.fake.fail:
            batch = self.fake.batches.get(self.name, "same")
            write_run(self.fake.out / "cells" / self.name, batch, method=self.method)
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


def run(out, cells, fake, jobs=1, read=lambda cell, run: 0.4):
    out.mkdir(exist_ok=True)
    return {r.cell: r for r in Runner(grid_of(out, cells, jobs), Log(quiet=True), read, fake).run()}


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


@pytest.fixture
def gpus(monkeypatch):
    """A machine with three."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.setattr("semiseg.compare.cells.slots", slots)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize(
    ("shown", "jobs", "places"),
    [(None, 0, ["0", "1", "2"]), (None, 2, ["0", "1"]), (None, 4, ["0", "1", "2", "0"]), ("2,GPU-5a", 0, ["2", "GPU-5a"]),
     ("1", 2, ["1", "1"])],
)  # fmt: skip
def test_a_process_on_every_gpu_that_is_shown(gpus, monkeypatch, shown, jobs, places):
    if shown:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in slots(jobs)] == places


def test_cells_share_the_cpu_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert slots(0) == slots(1) == [{}]
    assert slots(3) == 3 * [{"OMP_NUM_THREADS": "2"}]


def test_a_gpu_is_given_to_the_next_cell_when_it_is_free(gpus, tmp_path):
    fake = Fake(tmp_path, fail={"b"})
    run(tmp_path, [cell(name) for name in "abcdef"], fake, jobs=0)
    assert fake.together == 3 and [name for name, _ in fake.places] == [*"abcdef"]
    first, second = (sorted(place for _, place in fake.places[i : i + 3]) for i in (0, 3))
    assert first == second == ["0", "1", "2"]


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


@pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory"), KeyError("first"), MemoryError("none left")])
def test_a_reading_that_fails_is_one_failed_cell(tmp_path, error):
    def read(cell, run):
        if cell.name == "a":
            raise error
        return 0.4

    rows = run(tmp_path, [cell("a"), cell("b"), cell("c")], Fake(tmp_path), read=read)
    assert [rows[n].status for n in "abc"] == ["failed", "finished", "finished"]
    assert rows["a"].message == f"{type(error).__name__}: {error}"


def test_a_finished_cell_that_lacks_something_stops_nobody(tmp_path):
    write_run(tmp_path / "cells/a")
    storage.write_json(tmp_path / "cells/a/generation-0/member-0/final/result.json", {})
    rows = run(tmp_path, [cell("a"), cell("b", "a")], Fake(tmp_path))
    assert (rows["a"].status, rows["a"].message) == ("failed", "KeyError: 'first_batch'")
    assert rows["b"].status == "finished"


def test_the_next_cell_starts_while_one_is_read(tmp_path):
    """The reading of a waits for the start of b: where one waits for the other, it never comes."""
    fake, started = Fake(tmp_path), threading.Event()

    def begin(cell, out, extra):
        if cell.name == "b":
            started.set()
        return fake(cell, out, extra)

    def read(cell, run):
        return float(started.wait(20))

    rows = run(tmp_path, [cell("a"), cell("b", "a")], begin, read=read)
    assert [rows[n].score for n in "ab"] == [1, 1]


def test_one_cell_is_read_at_a_time_in_the_order_of_their_ends(tmp_path):
    read, inside = [], threading.Lock()

    def slow(cell, run):
        assert inside.acquire(blocking=False)
        read.append(cell.name)
        inside.release()
        return 0.4

    write_run(tmp_path / "cells/d")
    rows = run(tmp_path, [cell(n) for n in "abcd"], Fake(tmp_path), jobs=2, read=slow)
    assert read == ["d", "a", "b", "c"] and {r.status for r in rows.values()} == {"finished"}


def test_a_signal_ends_a_reading(tmp_path):
    """What is read asks for it; what waits to be read is left."""
    read = []

    def long(cell, run):
        read.append(cell.name)
        STOP.requested = 143
        raise Stopped(143)

    for name in "ab":
        write_run(tmp_path / "cells" / name)
    try:
        with pytest.raises(Stopped):
            run(tmp_path, [cell("a"), cell("b"), cell("c")], Fake(tmp_path, looks=10**9), read=long)
    finally:
        STOP.requested = 0
    assert set(read) <= {"a", "b"}
    assert not (tmp_path / "cells.csv").exists()  # nothing ended


def test_a_row_says_what_trained_it(tmp_path, monkeypatch):
    """Also where another source goes on later; what an older run did not note is not made up."""
    monkeypatch.setattr("semiseg.compare.cells.commit", lambda: "ours")
    write_run(tmp_path / "cells/a")
    write_run(tmp_path / "cells/b")
    summary = storage.read_json(tmp_path / "cells/b/summary.json")
    storage.write_json(tmp_path / "cells/b/summary.json", {k: v for k, v in summary.items() if k[:4] != "comm"})
    rows = run(tmp_path, [cell("a"), cell("b"), cell("c")], Fake(tmp_path, fail={"c"}))
    assert [rows[n].commit for n in "abc"] == ["theirs", "", "ours"]
    assert rows["a"].command == "semiseg train …" and rows["b"].command.startswith("semiseg train data")


def test_other_labeled_batches_are_an_error_and_no_silence(tmp_path):
    fake = Fake(tmp_path, batches={"b": "others"})
    rows = run(tmp_path, [cell("a"), cell("b"), cell("c")], fake)
    assert [rows[n].status for n in "abc"] == ["finished", "failed", "finished"]
    assert "saw other labeled batches than a" in rows["b"].message


def test_a_student_must_have_seen_what_its_teacher_saw(tmp_path):
    write_run(tmp_path / "a", later="same")
    write_run(tmp_path / "b", later="others")
    streams = Streams()
    streams.check(cell("a"), tmp_path / "a")
    with pytest.raises(Refusal, match="saw other labeled batches"):
        streams.check(cell("b"), tmp_path / "b")


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


def test_members_with_parts_of_the_labels_are_held_to_no_batch(tmp_path):
    """Not to each other's either: a fold of two parts begins with another image than one of three."""
    streams = Streams()
    for name, batch in (("a", "one"), ("b", "two")):
        write_run(tmp_path / name, batch)
        record = storage.read_json(tmp_path / name / "run.json")
        record["config"]["program_args"] = {"members_by": "folds"}
        storage.write_json(tmp_path / name / "run.json", record)
        streams.check(cell(name), tmp_path / name)
    record["config"]["program_args"] = {"members_by": "snapshots"}
    storage.write_json(tmp_path / "b/run.json", record)
    write_run(tmp_path / "c", "one")
    streams.check(cell("b"), tmp_path / "b")
    with pytest.raises(Refusal, match="saw other labeled batches"):
        streams.check(cell("c"), tmp_path / "c")


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


def test_a_cache_that_goes_while_steps_are_counted_stops_nothing(tmp_path, monkeypatch):
    for part in ("cache/labeled", "generation-0/member-0"):
        (tmp_path / "cells/a" / part).mkdir(parents=True)
    (tmp_path / "cells/a/generation-0/member-0/metrics.csv").write_text("step,split,loss\n7,train,1.0\n")
    scandir = os.scandir

    def gone(path):
        return scandir("nowhere" if Path(path).name == "cache" else path)

    runner = Runner(grid_of(tmp_path, [cell("a")]), Log(quiet=True), lambda cell, run: 0.4, Fake(tmp_path))
    runner.rows["a"].status = "running"
    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", gone)
        assert runner._steps() == 7


def test_what_a_log_says(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,split,loss\n10,train,1.0\n20,train,0.5\n")
    assert last_step(tmp_path / "metrics.csv") == 20
    assert last_step(tmp_path / "nothing.csv") == 0
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/x.txt").write_text("first\nKilled\n")
    assert message(tmp_path, "x", -9) == "ended with code -9: Killed"
    assert message(tmp_path, "y", 1) == "ended with code 1"


def test_a_cell_that_outlived_another_call_is_waited_for(tmp_path, monkeypatch):
    """`b` needs `a`, which a process of a killed call still trains; `c` need not wait."""
    looks = []

    def held(run):
        if run.name != "a":
            return False
        looks.append(run)
        if len(looks) == 5:
            write_run(run)
        return len(looks) < 5

    monkeypatch.setattr(storage, "held", held)
    fake = Fake(tmp_path)
    rows = run(tmp_path, [cell("a"), cell("b", "a"), cell("c")], fake, jobs=2)
    assert fake.started == ["c", "b"], "a was finished by the other process"
    assert {(r.status, r.message) for r in rows.values()} == {("finished", "")}


def test_a_lock_can_be_looked_at(tmp_path):
    assert not storage.held(tmp_path / "run") and not (tmp_path / "run").exists()
    with storage.lock(tmp_path / "run"):
        assert storage.held(tmp_path / "run")
    assert not storage.held(tmp_path / "run")


def test_what_was_killed_has_said_nothing(tmp_path):
    """Its logs are empty; the row says how it ended, and the next cell is trained."""
    (tmp_path / "logs").mkdir()
    for name in ("a.json", "a.txt"):
        (tmp_path / "logs" / name).write_text("")
    assert message(tmp_path, "a", -9) == "ended with code -9"


def test_what_was_begun_with_another_file_of_ones_own_begins_anew(tmp_path, monkeypatch):
    """What is finished stays, and is looked at by `adopted.check`."""
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from semiseg.methods.base import Method\n\n\nclass Mine(Method):\n    def step(self, labeled, unlabeled, clock):\n"
        '        return {"loss": self.task.supervised(self.student(labeled.image), labeled)}\n'
    )
    cells = [cell(n, options={"method": f"{mine}:Mine"}) for n in ("begun", "same")]
    for name, code in (("begun", "of another file"), ("same", own.digest(f"{mine}:Mine"))):
        storage.write_json(tmp_path / "cells" / name / "run.json", {"code": code})
    seen = {}

    def begin(cell, out, extra):
        seen[cell.name] = (out / "cells" / cell.name / "run.json").exists()
        raise OSError("that is all")

    Runner(grid_of(tmp_path, cells), Log(tmp_path, True), lambda cell, run: 0.0, begin).run()
    assert seen == {"begun": False, "same": True}
