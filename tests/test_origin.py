"""The command that a run names, whoever started it."""

import shlex

import semiseg
import tiny
from semiseg.programs.train import configure
from semiseg.training.config import settings
from semiseg.training.origin import OPTIONS, command_of


def test_a_call_from_python_names_the_command_that_does_the_same(folders, tmp_path):
    """Typed, it is configured as the call was."""
    options = {"method": "im", "steps": 4, "batch": 2, "size": 16, "network": "unet1x1:0.25", "seed": None}
    sets = [*tiny.words(members=2), "lr=0.01"]
    run = tmp_path / "a run"
    command = semiseg.train(folders["binary"], run, sets=sets, baseline=False, **options)["command"]
    words = shlex.split(command)
    assert words[:3] == ["semiseg", "train", str(folders["binary"])] and "--seed" not in words
    asked = dict(zip(words[3::2], words[4::2], strict=True))
    assert asked["--method"] == "im" and asked["--out"] == str(run) and asked["--steps"] == "4"
    given = [w for o, w in zip(words[3::2], words[4::2], strict=True) if o == "--set"]
    assert given == ["baseline=false", *sets]
    mine = configure({**options, "baseline": False}, sets, None, {}).to_json()
    typed = {k.removeprefix("--"): v for k, v in asked.items() if k not in ("--set", "--out")}
    assert configure(typed, given, None, {}).to_json() == mine


def test_a_recipe_and_every_setting_can_be_typed():
    named = {*OPTIONS} - {"method", "committee", "out"}
    assert named <= {*settings()}
    assert (
        command_of({"data": "my data", "out": "r"}, recipe="a.yaml")
        == "semiseg train 'my data' --config a.yaml --out r"
    )
