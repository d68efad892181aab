"""The command line: quick to start, one object with --json, the next command at the end, exit codes."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from _data import PLAIN, QUICK, make, tree
from _runner import SRC, Ended

Command = Callable[..., Ended]
HEAVY = (
    "torch",
    "torchvision",
    "timm",
    "segmentation_models_pytorch",
    "lightning_fabric",
    "torchmetrics",
    "safetensors",
)


def python(code: str, cwd: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter that runs `code` and prints which heavy modules it then holds, as its last line."""
    code += f"\nprint([m for m in {HEAVY} if m in sys.modules])"
    env = {"PYTHONPATH": str(SRC), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", "import sys\n" + code, *argv], cwd=cwd, env=env, text=True, capture_output=True
    )


def in_process(*argv: str) -> str:
    return (
        f"from semiseg import cli\nsys.argv = ['semiseg', *{list(argv)!r}]\n"
        "try:\n    cli.main()\nexcept SystemExit as end:\n    assert end.code == 0, end.code"
    )


@pytest.mark.parametrize("argv", [("--help",), ("train", "--help"), ("check", "data"), ("check", "data", "--json")])
def test_no_heavy_import_where_nothing_is_computed(tmp_path: Path, argv: tuple[str, ...]) -> None:
    make(tmp_path / "data", labeled=3)
    done = python(in_process(*argv), tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_real_process_has_the_exit_code_and_no_traceback(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "semiseg.cli", "check", "nowhere"], cwd=tmp_path, text=True,
                          capture_output=True, env={"PYTHONPATH": str(SRC)})  # fmt: skip
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1].startswith("semiseg: error D03: nowhere does not exist.") and done.stdout == ""
    assert "Traceback" not in done.stderr


def test_help_names_every_command_and_where_to_start(semiseg: Command) -> None:
    ended = semiseg("--help")
    assert ended.code == 0
    for word in ("check", "train", "predict", "evaluate", "report", "methods", "demo", "Start with: semiseg check"):
        assert word in ended.out
    nothing = semiseg()
    assert nothing.code == 0 and nothing.out == ended.out and not nothing.err
    assert semiseg("--version").out == f"semiseg {version('semiseg')}\n"


COMMANDS: dict[str, tuple[object, ...]] = {
    "check": ("check", "data"),
    "train": ("train", "data", "--out", "{tmp}/run", *PLAIN),
    "predict": ("predict", "run", "data/unlabeled", "--out", "{tmp}/pred"),
    "evaluate": ("evaluate", "{run}", "data", "--split", "val"),
    "report": ("report", "{run}"),
    "methods": ("methods",),
    "method": ("methods", "im"),
}
KEYS = {
    "check": {"ok", "counts", "channels", "dtype", "problems", "next"},
    "train": {"run", "arms", "hash", "model"},
    "predict": {"predicted", "skipped", "failed", "out"},
    "evaluate": {"split", "metrics", "model"},
    "report": {"report"},
    "methods": {"supervised", "fixmatch", "im"},
    "method": {"name", "doc", "arguments", "settings"},
}


@pytest.fixture
def typed(trained: Callable[..., Path], tmp_path: Path) -> Callable[[str], tuple[list[str], Path]]:
    """A command's words, with a copy of the run where the command writes into it."""

    def get(name: str) -> tuple[list[str], Path]:
        folder = trained("255", "im")
        if "{run}" in COMMANDS[name]:
            shutil.copytree(folder / "run", tmp_path / "copy")
        words = [str(w).format(tmp=tmp_path, run=tmp_path / "copy") for w in COMMANDS[name]]
        return words, folder

    return get


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_prints_one_object_or_ends_with_the_next_command(
    semiseg: Command, typed: Callable[[str], tuple[list[str], Path]], tmp_path: Path, name: str
) -> None:
    words, folder = typed(name)
    ended = semiseg(*words, "--json", cwd=folder)
    assert ended.code == 0, ended.text
    assert len(ended.out.splitlines()) == 1
    assert KEYS[name] <= set(json.loads(ended.out))
    assert ended.err == ""
    if name == "train":
        words[3] += "-2"
    ended = semiseg(*words, cwd=folder)
    assert ended.code == 0, ended.text
    last = ended.out.rstrip().splitlines()[-1]
    assert last.startswith("Next: "), ended.out
    assert "Traceback" not in ended.text


def test_the_next_commands_lead_from_check_to_a_mask(semiseg: Command, tmp_path: Path) -> None:
    """Exactly what is printed is typed, with the place of the new images filled in."""
    make(tmp_path / "my images", labeled=5)
    ended = semiseg("check", "my images")
    following = shlex.split(ended.out.rstrip().splitlines()[-1].removeprefix("Next: "))
    assert following[:3] == ["semiseg", "train", "my images"]
    ended = semiseg(*following[1:], *QUICK, "--set", "im.members=2")
    assert ended.code == 0, ended.text
    summary = json.loads((tmp_path / "runs/my images/summary.json").read_text())
    assert len(summary["generations"]) == 4 and summary["models_trained"] == 5
    assert summary["program"] == "im", "the unlabeled images are not used unless one asks for it"
    following = shlex.split(ended.out.rstrip().splitlines()[-1].removeprefix("Next: "))
    following[following.index("NEW_IMAGES")] = "my images/unlabeled"
    ended = semiseg(*following[1:])
    assert ended.code == 0, ended.text
    assert sorted(p.name for p in (tmp_path / "predictions/masks").iterdir()) == ["u0.png", "u1.png"]


def test_errors_with_json_are_one_object_on_stdout(semiseg: Command, tmp_path: Path) -> None:
    make(tmp_path / "data")
    (tmp_path / "data/masks/img0.png").unlink()
    for argv, code in ((("check", "data"), 3), (("train", "data", "--out", "run"), 3), (("train", "data", "--zise", "3"), 2),
                       (("predict", "run", "data", "--out", "p"), 4)):  # fmt: skip
        ended = semiseg(*argv, "--json")
        assert ended.code == code, ended.text
        said = json.loads(ended.out)["error"]
        assert said["exit"] == code and said["problems"][0]["code"] and ended.err == ""


def test_check_keeps_what_it_found_where_it_is_told(semiseg: Command, tmp_path: Path) -> None:
    """The same as training's check.json, whether the data are right or not; nothing else is written over."""
    root = make(tmp_path / "data", labeled=9)
    assert semiseg("check", "data", "--out", "found/check.json").code == 0
    said = json.loads((tmp_path / "found/check.json").read_text())
    assert semiseg("train", "data", "--out", "run", *PLAIN).code == 0
    assert said == json.loads((tmp_path / "run/check.json").read_text())
    for k in range(0, 9, 2):
        (root / f"masks/img{k}.png").unlink()
    before = tree(root)
    ended = semiseg("check", "data", "--out", "found/check.json")
    assert ended.code == 3 and "(2 more; all in found/check.json)" in ended.err, ended.text
    said = json.loads((tmp_path / "found/check.json").read_text())
    assert [p["code"] for p in said["problems"]].count("D01") == 5 and not said["ok"]
    for out, code in (("data/check.json", 2), ("data/images/img0.png", 2), ("run/run.json", 2), ("run", 2)):
        state = tree(tmp_path / "run")
        ended = semiseg("check", "data", "--out", out)
        assert ended.code == code and "Fix: choose a" in ended.err, ended.text
        assert tree(root) == before and tree(tmp_path / "run") == state


def test_labels_size_and_resize_are_obeyed(semiseg: Command, tmp_path: Path) -> None:
    make(tmp_path / "data", labeled=6, unlabeled=1)
    argv = ("train", "data", "--json", "--method", "supervised", "--steps", 1, "--batch", 2, "--size", 16)
    said = json.loads(semiseg(*argv, "--out", "a", "--labels", 3).out)
    assert said["counts"] == {"labeled": 3, "unlabeled": 4, "val": 0, "test": 0}
    said = json.loads(semiseg(*argv, "--out", "b", "--labels", 0.5).out)
    assert said["counts"]["labeled"] == 3
    said = json.loads(semiseg(*argv, "--out", "c", "--resize", 24, "--seed", 3).out)
    assert (said["size"], said["seed"]) == (16, 3)
    table = json.loads((tmp_path / "c/cache/labeled/table.json").read_text())
    assert set(table["height"]) == {24}


def test_a_recipe_and_its_order_with_options(semiseg: Command, tmp_path: Path) -> None:
    make(tmp_path / "data", labeled=3)
    (tmp_path / "recipe.yaml").write_text("method: supervised+im\nsteps: 4\nsize: 16\nlr: 1e-3\nim: {members: 2}\n")
    ended = semiseg(
        "train", "data", "--out", "run", "--config", "recipe.yaml", "--steps", 2, "--set", "batch=2", "--json"
    )
    assert ended.code == 0, ended.text
    config = json.loads((tmp_path / "run/run.json").read_text())["config"]
    assert (config["program"], config["steps"], config["lr"], config["batch"]) == ("im", 2, 1e-3, 2)
    assert config["program_args"]["members"] == 2


def test_methods_lists_what_there_is_and_each_says_its_arguments(semiseg: Command) -> None:
    known = json.loads(semiseg("methods", "--json").out)
    assert len(set(known.values())) == len(known), "two of them are said to be the same"
    assert all(known.values()), "a method without a line about itself"
    for name in known:
        ended = semiseg("methods", name)
        assert ended.code == 0 and "arguments (--set NAME=VALUE):" in ended.out, ended.text
        assert "  weight_decay = 0.01\n" in ended.out and "  steps = 'auto'\n" in ended.out, (
            "keys are listed nowhere else"
        )
        assert ended.out.rstrip().splitlines()[-1].startswith("Next: semiseg train")
