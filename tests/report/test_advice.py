"""What a report advises: the commands of the run, and the trainings that may be better than it."""

import json
import shlex

import pytest
from fake_run import fake_run, put

from semiseg.report.advice import advice, again
from semiseg.report.load import load
from semiseg.report.verdict import judge


def changed(run, file, **values):
    value = json.loads((run / file).read_text())
    for key, new in values.items():
        value[key] = value.get(key, {}) | new if isinstance(new, dict) else new
    put(run / file, value)


def said(run):
    facts = load(run)
    return advice(facts, judge(facts.summary))


def longer(run, gain):
    """Labels only beside the run has `gain` above generation 0."""
    summary = json.loads((run / "summary.json").read_text())
    first = summary["arms"][0]
    base = {"name": "labels only", "folder": "baseline", "val": {**first["val"], "miou": first["val"]["miou"] + gain}}
    changed(
        run, "summary.json", baseline="baseline", arms=[base, {**first, "name": "generation 0"}, *summary["arms"][1:]]
    )


@pytest.mark.parametrize(("gain", "advised"), [(0.05, True), (0.01, False), (-0.05, False)])
def test_longer_trainings_where_labels_only_gained_from_more_steps(tmp_path, gain, advised):
    run = fake_run(tmp_path / "run")
    longer(run, gain)
    page = said(run)
    assert ("semiseg train my_data --method im --steps 4000 --out run-longer" in page) == advised
    assert ("labels only had +0.050" in page) == advised


def test_what_the_data_and_the_training_leave_open(tmp_path):
    run = fake_run(tmp_path / "run")
    assert "run-longer" not in said(run) and "run-strong" not in said(run)  # nothing is known of settings and steps
    changed(run, "run.json", data={"channels": 1}, config={"augment": "default", "weights": "", "network": "unet1x1"})
    assert "run-strong" in said(run) and "run-pretrained" not in said(run)
    changed(run, "run.json", data={"channels": 3})
    page = said(run)
    assert "--augment strong --out run-strong" in page
    assert "--weights imagenet --out run-pretrained" in page and "Worth a try" in page
    changed(run, "run.json", config={"augment": "strong", "weights": "imagenet"})
    changed(run, "summary.json", method="fixmatch")
    assert "Worth a try" not in said(run)


def test_another_method_takes_no_arguments_of_this_one(tmp_path):
    run = fake_run(tmp_path / "run")
    changed(
        run,
        "summary.json",
        command="semiseg train d --method im --set im.members=4 --set lr=0.01 --set members_by=seed",
    )
    command = "semiseg train d --set lr=0.01 --method mean_teacher+im_moving --steps 6000 --out run-teacher"
    assert command in said(run)
    changed(run, "summary.json", method="fixmatch")
    assert "run-teacher" not in said(run)


def test_no_advice_where_val_cannot_tell(tmp_path):
    run = fake_run(tmp_path / "run")
    longer(run, 0.05)
    changed(run, "run.json", data={"channels": 3}, config={"augment": "default"})
    assert "run-longer" in said(run) and "run-strong" in said(run)
    changed(run, "summary.json", scored={"images": 19})
    assert "Worth a try" not in said(run) and "semiseg predict run" in said(run)
    assert "Worth a try" not in said(fake_run(tmp_path / "blind", val=False))


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("semiseg train 'my data' --out=a --steps 9 --resume auto --seed 1", "'my data' --seed 1 --steps 18"),
        ("semiseg train --resume d --set steps=9 --set im.members=2 --oracle", "d --set im.members=2 --oracle --steps 18"),
        ("semiseg train d --set baseline=false --resume auto --json", "d --set baseline=false --steps 18"),
        ("python mine.py", "my_data --steps 18"),
        ("", "my_data --steps 18"),
    ],
)  # fmt: skip
def test_the_command_of_a_run_with_other_options(tmp_path, typed, expected):
    run = fake_run(tmp_path / "a run")
    changed(run, "summary.json", command=typed)
    command = again(load(run), "longer", steps="18")
    assert command == f"semiseg train {expected} --out 'a run-longer'"
    assert shlex.split(command)[-1] == "a run-longer"
