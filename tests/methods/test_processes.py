"""Two processes (gloo, CPU) train every method: students, teachers and banks stay equal, and nobody waits for ever."""

import json
import multiprocessing
import os
import socket

import pytest
import torch

import tiny
from semiseg.batch import Clock, Labeled
from semiseg.inconsistency import InconsistencyMask
from semiseg.methods import METHODS, method_class
from semiseg.storage import hash_tensors
from semiseg.training.distributed import average_norms, fabric_of, key_of

WORLD = 2
STEPS = 2


def join(rank, port):
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(WORLD), LOCAL_WORLD_SIZE=str(WORLD),
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_RUN_ID="walk",
    )  # fmt: skip
    torch.set_num_threads(1)
    return fabric_of(tiny.config(device="cpu"))


def batch_of(kind, planes, rank, step, views):
    """Each process its own images; at the second step the second one has only padding."""
    unlabeled = tiny.unlabeled(kind, n=2, seed=100 + 10 * rank + step, views=views, planes=planes)
    if rank == 1 and step == 1:
        unlabeled = unlabeled.replace(valid=torch.zeros_like(unlabeled.valid))
    return tiny.labeled(kind, seed=10 * rank + step), unlabeled


def trained(fabric, name, kind):
    """The loop's order of things: step, backward, optimiser, norms, after_step."""
    task, cls = tiny.task_of(kind), method_class(name)
    torch.manual_seed(0)
    method = cls(tiny.make_of(task), task, **tiny.easy(cls)).train()
    planes = None
    if not cls.uses_unlabeled:
        method.refine, planes = InconsistencyMask(), tiny.planes(kind, n=2)
    optimizer = torch.optim.AdamW([p for g in method.groups() for p in g["params"]], lr=1e-2)
    wrapped, optimizer = fabric.setup(method, optimizer)
    wrapped.mark_forward_method("step")
    for step in range(STEPS):
        rank = fabric.global_rank
        clock = Clock(step, STEPS, key_of((7,), rank))
        torch.manual_seed(rank)
        losses = wrapped.step(*batch_of(kind, planes, rank, step, len(cls.views)), clock)
        optimizer.zero_grad()
        fabric.backward(losses["loss"])
        optimizer.step()
        average_norms(method)
        method.after_step(clock)
    return method


def walk(rank, port, path):
    fabric = join(rank, port)
    found = {}
    for name in METHODS:
        for kind in ("multiclass", "multilabel"):
            state = trained(fabric, name, kind).state_dict()
            bad = [k for k, v in state.items() if v.is_floating_point() and not torch.isfinite(v).all()]
            found[f"{name} {kind}"] = [hash_tensors({k: v}) for k, v in state.items()] if not bad else bad
            keys = list(state)
            gathered = [None] * WORLD
            torch.distributed.all_gather_object(gathered, found[f"{name} {kind}"])
            found[f"{name} {kind}"] = bad or [k for k, a, b in zip(keys, *gathered, strict=True) if a != b]
    if rank == 0:
        path.write_text(json.dumps(found))


def plain(rank, port, path):
    """Labels only, without batch normalisation: unequal numbers of ignored pixels on the two processes."""
    fabric = join(rank, port)
    method = method_class("supervised")(pixels, tiny.task_of("multiclass", "ce"))
    wrapped, optimizer = fabric.setup(method, torch.optim.SGD(method.parameters(), lr=0.5))
    wrapped.mark_forward_method("step")
    whole = global_batch()
    mine = slice(2 * rank, 2 * rank + 2)
    fabric.backward(wrapped.step(Labeled(whole.image[mine], whole.mask[mine]), None, Clock(0, 1))["loss"])
    optimizer.step()
    if rank == 0:
        torch.save({k: v.clone() for k, v in method.state_dict().items()}, path)


def pixels(role="student", **options):
    torch.manual_seed(3)
    return tiny.Pixelwise(1, 3)


def global_batch():
    whole = tiny.labeled("multiclass", n=4)
    whole.mask[:2, :, 4:] = 255  # the first process counts a quarter of its pixels
    return whole


def spawn(target, path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=target, args=(rank, port, path)) for rank in range(WORLD)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [w.exitcode for w in workers] == [0] * WORLD


@pytest.mark.slow
def test_every_method_stays_equal_on_both_processes(tmp_path):
    spawn(walk, tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found) == 2 * len(METHODS)
    assert {name: keys for name, keys in found.items() if keys} == {}


def test_the_gradient_is_that_of_the_global_batch(tmp_path):
    spawn(plain, tmp_path / "weights.pt")
    found = torch.load(tmp_path / "weights.pt")
    method = method_class("supervised")(pixels, tiny.task_of("multiclass", "ce"))
    optimizer = torch.optim.SGD(method.parameters(), lr=0.5)
    method.step(global_batch(), None, Clock(0, 1))["loss"].backward()
    before = {k: v.clone() for k, v in method.state_dict().items()}
    optimizer.step()
    for key, value in method.state_dict().items():
        assert torch.allclose(found[key], value, atol=1e-6), key
    assert not all(torch.equal(before[k], v) for k, v in method.state_dict().items())
