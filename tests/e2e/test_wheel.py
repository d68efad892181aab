"""The wheel, in an empty environment outside the checkout: what a user who types `pip install semiseg` gets."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*words, cwd, **env):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(words, cwd=cwd, env=clean | env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_the_wheel_installs_into_an_empty_environment_and_runs_the_demo(tmp_path):
    run(sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT), cwd=tmp_path)
    (wheel,) = tmp_path.glob("semiseg-*.whl")
    run(sys.executable, "-m", "venv", "env", cwd=tmp_path)
    python = tmp_path / "env/bin/python"
    run(str(python), "-m", "pip", "install", "--quiet", str(wheel), cwd=tmp_path)
    where = run(str(python), "-c", "import semiseg; print(semiseg.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(tmp_path), "the demo would run from the checkout"
    said = run(str(tmp_path / "env/bin/semiseg"), "demo", "--quick", "--out", "demo", "--json", cwd=tmp_path,
               OMP_NUM_THREADS="1")  # fmt: skip
    result = json.loads(said)
    names = [arm["name"] for arm in result["arms"]]
    assert names[0] == "labels only" and names[-2:] == ["ensemble, generation 3", "im, generation 3"]
    page = tmp_path / result["report"]
    assert page.stat().st_size > 50_000 and "supervised+im" in page.read_text()
