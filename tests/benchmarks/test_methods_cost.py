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


def test_other_modules_are_counted_and_repeated(bench):
    """A discriminator works twice: frozen, with gradients for its input, and trained, on detached features."""
    module, setting = bench
    method, _, step = setting.step_of("sufd")
    with module.counted(method) as passes:
        step()
    found = {(key.who, key.shape[0], key.moves, key.through): n for key, n in passes.items() if key.part == "other"}
    assert found == {("discriminator", 2, False, True): 1, ("discriminator", 4, True, False): 1}
    heads = {(key.shape[0], key.moves): n for key, n in passes.items() if key.part == "head"}
    assert heads == {(2, False): 1, (2, True): 2}  # the teacher; labeled and strong images, not judged ones
    before = [p.clone() for p in method.parameters()]
    setting.bare(passes, module.others(method))()
    assert all(torch.equal(a, b) for a, b in zip(before, method.parameters(), strict=True))


def test_heads_of_teachers_are_other_modules(bench):
    module, setting = bench
    method, _, _ = setting.step_of("u2pl")
    assert set(module.others(method)) == {"represent", "teacher.represent"}
