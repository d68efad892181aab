"""Finished cells that were trained with other settings than the same words mean today."""

import pytest
from test_cells import Fake, cell, run, soon, write_run  # noqa: F401

from semiseg import storage
from semiseg.compare.adopted import begun_otherwise
from semiseg.methods import own
from semiseg.training.origin import files


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("program_args", {"members": 2}, "im.members: 2 → 3"),
        ("method_args", {"threshold": 0.9}, "fixmatch.threshold: 0.9 → 0.95"),
        ("", {"weight_decay": 0.1, "lr": 0.1}, "lr: 0.1 → 0.003, weight_decay: 0.1 → 0.01"),
    ],
)
def test_a_finished_cell_of_other_defaults_is_no_result(tmp_path, part, change, said):
    run_of(tmp_path, part, change)
    one = cell("a", options={"method": "fixmatch+im"})
    row = run(tmp_path, [one], Fake(tmp_path))["a"]
    assert row.status == "failed" and row.message.startswith("S08: cells/a was trained with other settings")
    assert f"mean today: {said}." in row.message


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("program_args", {"balance": None, "doubt": None, "view": None}),
        ("", {"eps": None}),
        ("", {"size": 32, "device": "cuda"}),
    ],
)
def test_what_an_older_version_did_not_know_and_what_the_data_settle_change_nothing(tmp_path, part, change):
    run_of(tmp_path, part, change)
    fake = Fake(tmp_path)
    assert run(tmp_path, [cell("a", options={"method": "fixmatch+im"})], fake)["a"].status == "finished"
    assert fake.started == []


def test_what_a_program_makes_its_default_later_is_none_of_an_older_version(tmp_path):
    """`im` makes the weight of a consensus .3; where it was not noted it was the method's own, 1."""
    run_of(tmp_path, "method_args", {"weight": None}, method="im")
    row = run(tmp_path, [cell("a", options={"method": "im"})], Fake(tmp_path))["a"]
    assert row.status == "failed" and "mean today: supervised.weight: 1.0 → 0.3." in row.message


def run_of(out, part, change, method="fixmatch+im"):
    """A finished cell `a` with some settings changed; None: they were not noted."""
    write_run(out / "cells/a", method=method)
    record = storage.read_json(out / "cells/a/run.json")
    settings = record["config"][part] if part else record["config"]
    for key, value in change.items():
        assert key in settings
        if value is None:
            del settings[key]
        else:
            settings[key] = value
    storage.write_json(out / "cells/a/run.json", record)


def test_a_finished_cell_of_another_file_is_no_result(tmp_path):
    path = tmp_path / "mine.py"
    step = "def step(self, labeled, unlabeled, clock):\n        return {}"
    path.write_text(f"from semiseg.methods.base import Method\n\n\nclass Mine(Method):\n    {step}\n")
    options = {"method": f"{path}:Mine+im", "steps": 10}
    rows = finished_with(tmp_path, options, {"code": "of another file"})
    assert rows["a"].status == "failed" and f"{path}:Mine changed since this cell was trained" in rows["a"].message
    assert rows["b"].status == "finished"
    rows = finished_with(tmp_path, options, {"code": own.digest(options["method"].partition("+")[0])})
    assert rows["a"].status == "finished"


def test_a_finished_cell_of_other_weights_is_no_result(tmp_path):
    file = tmp_path / "w.safetensors"
    file.write_bytes(b"never opened here")
    options = {"method": "supervised", "weights": str(file)}
    rows = finished_with(tmp_path, options, {"weights": "of another file"})
    assert rows["a"].status == "failed" and f"{file} changed since this cell was trained" in rows["a"].message
    assert begun_otherwise(cell("a", options=options), tmp_path / "out/cells/a")
    assert finished_with(tmp_path, options, files("supervised", str(file)))["a"].status == "finished"
    assert not begun_otherwise(cell("a", options=options), tmp_path / "out/cells/a")
    file.unlink()
    assert not begun_otherwise(cell("a", options=options), tmp_path / "out/cells/a"), "its own process says so"


def finished_with(out, options, noted):
    """The rows of a cell `a` that was trained with these options, and of a plain one."""
    write_run(out / "out/cells/a", **options)
    about = storage.read_json(out / "out/cells/a/run.json")
    storage.write_json(out / "out/cells/a/run.json", {**about, **noted})
    return run(out / "out", [cell("a", options=options), cell("b")], Fake(out / "out"))
