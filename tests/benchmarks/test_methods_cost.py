"""The benchmark counts what methods send through networks; its table needs these counts to be right."""

import importlib.util
from pathlib import Path

import pytest
import torch

PATH = Path(__file__).parents[2] / "benchmarks" / "methods.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("benchmark_of_methods", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.set_num_threads(1)
    return module, module.Bench(16, 2, "unet1x1:0.25", "cpu")


@pytest.mark.parametrize(
    ("name", "still", "moving", "decoded"),
    [
        ("supervised", 0, 2, 2),
        ("fixmatch", 0, 6, 6),  # labeled and weak, strong
        ("mean_teacher", 2, 4, 6),  # the teacher, labeled and strong
        ("unimatch", 0, 8, 10),  # labeled and weak, two strong ones; features of the weak one are decoded twice
    ],
)
def test_images_are_counted(bench, name, still, moving, decoded):
    module, setting = bench
    method, _, step = setting.step_of(name)
    with module.counted(method) as passes:
        step()
    assert sum(n * key[2][0] for key, n in passes.items() if key[1] == "encode" and not key[3]) == still
    assert sum(n * key[2][0] for key, n in passes.items() if key[1] == "encode" and key[3]) == moving
    assert sum(n * key[2][0] for key, n in passes.items() if key[1] == "decode") == decoded
    assert {key[2][1:] for key in passes} == {(3, 16, 16)}
    before = sum(passes.values())
    step()
    assert sum(passes.values()) == before  # only inside the context


def test_a_row_of_the_table(bench):
    module, setting = bench
    row = module.cost(setting, "fixmatch", 1)
    assert row["forward_only"] == 0 and row["forward_backward"] == 6
    assert row["overhead"] == pytest.approx(row["step_ms"] / row["predicted_ms"] - 1, rel=0.1, abs=0.02)
    assert row["times_supervised"] == pytest.approx(row["step_ms"] / row["supervised_step_ms"], rel=0.05, abs=0.02)
