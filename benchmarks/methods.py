"""What every method costs beside `supervised` at the same batch, and beyond the images that it sends through networks.

OMP_NUM_THREADS=1 python benchmarks/methods.py [--size 96] [--batch 8] [--network unet1x1] [--methods a,b] [--write]

A step is forward, losses, backward, optimiser and `after_step` on batches that are already there. Hooks write down what
passes the encoders, decoders and heads, and any other module of the method that has parameters (a discriminator, a
representation head): the shape, the mode, and whether parameters and input get gradients. The bare networks repeat just
these passes (a cross-entropy closes those of a head with a gradient), so that predicted = bare passes + the optimiser's
step, and overhead = measured / predicted - 1 is what the method itself adds: views, targets, losses, averages, banks.
Method, `supervised` and the bare passes take turns, and the overhead is the median over turns of the ratio within one
(its quartiles are given), so that a busy machine slows both sides alike. With one thread on a CPU the seconds are those
of the processor; freed memory is kept. The control is `supervised`: nearly nothing but its passes.
`--write` puts rows into results/methods_cost.csv. The limit is an overhead of 15 %.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semiseg.batch import Clock, Labeled, Unlabeled
from semiseg.methods import METHODS, method_class
from semiseg.methods.base import Method
from semiseg.networks import build
from semiseg.networks.base import Features, Network
from semiseg.task import Task, make_task
from semiseg.training.config import Config
from semiseg.training.optimizer import make_optimizer
from shared import commit, write

CLASSES = ("ground", "leaf", "stone", "water")
LIMIT = 0.15
TOTAL = 10**4  # steps of the training that is imitated, from its middle on: warm-ups are over
Part = Callable[..., list[Tensor]]


class Pass(NamedTuple):
    """One call of a part of a network, or of another module of the method."""

    who: str  # the network's name, or where the other module is
    part: str  # "encode", "decode", "head" (with its resizing) or "other"
    shape: tuple[int, ...]  # of the images, or of what the other module is given
    training: bool
    moves: bool  # the parameters get gradients
    through: bool  # the input does


class Bench:
    """Batches, networks and methods of one setting."""

    def __init__(self, size: int, batch: int, network: str, device: str) -> None:
        self.size, self.batch, self.network, self.device = size, batch, network, device
        self.task: Task = make_task("multiclass", CLASSES)
        draw = torch.Generator().manual_seed(0)
        self.image = torch.rand(batch, 3, size, size, generator=draw).to(device)
        self.mask = torch.randint(len(CLASSES), (batch, size, size), generator=draw).to(device)

    def make(self, role: str = "student", name: str = "", **options: object) -> Network:
        """As `Prepared.make`; the network remembers what it is called."""
        net = build(name or self.network, 3, len(CLASSES), **options).to(self.device)
        net.bench_name = name or self.network
        return net

    def step_of(self, name: str) -> tuple[Method, torch.optim.Optimizer, Callable[[], None]]:
        """The method, its optimiser, and one step of it."""
        torch.manual_seed(0)
        method = method_class(name)(self.make, self.task).to(self.device).train()
        optimizer = make_optimizer(method, Config(lr=1e-3))
        labeled = Labeled(self.image, self.mask)
        views = tuple(self.image * 0.9 + 0.01 * i for i, _ in enumerate(method.views))
        unlabeled = Unlabeled(self.image.flip(0), views, torch.ones_like(self.image[:, :1], dtype=torch.bool))
        count = iter(range(TOTAL // 2, TOTAL))

        def step() -> None:
            clock = Clock(next(count), TOTAL)
            loss = method.step(labeled, unlabeled if method.uses_unlabeled else None, clock)["loss"]
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            method.after_step(clock)

        return method, optimizer, step

    def bare(self, passes: Counter[Pass], modules: dict[str, nn.Module]) -> Callable[[], None]:
        """The same passes by networks, and copies of other modules, without a method around them."""
        jobs = [(self._pass(key, modules), n) for key, n in passes.items()]

        def run() -> None:
            for job, n in jobs:
                for _ in range(n):
                    job()

        return run

    def _pass(self, key: Pass, modules: dict[str, nn.Module]) -> Callable[[], None]:
        backward = key.moves or key.through
        x = torch.rand(key.shape, device=self.device)
        call, inputs = self._other(modules[key.who], key, x) if key.part == "other" else self._part(key, x)
        with torch.no_grad():
            ones = [torch.ones_like(y) / y.numel() for y in call(*inputs)]

        def run() -> None:
            given = [x.detach().requires_grad_(key.through) for x in inputs]
            with torch.set_grad_enabled(backward):
                made = call(*given)
            if backward:
                torch.autograd.backward(made, ones)

        return run

    def _other(self, module: nn.Module, key: Pass, x: Tensor) -> tuple[Part, list[Tensor]]:
        twin = copy.deepcopy(module).train(key.training).requires_grad_(key.moves)
        return lambda x: [twin(x)], [x]

    def _part(self, key: Pass, x: Tensor) -> tuple[Part, list[Tensor]]:
        net = self.make(name=key.who).train(key.training).requires_grad_(key.moves)
        with torch.no_grad():
            features = net.encode(x)
            decoded = net.decode(features)
        mask = torch.randint(len(CLASSES), (len(x), *x.shape[2:]), device=self.device)

        def head(decoded: Tensor) -> list[Tensor]:
            logits = net.resize(net.head(decoded), features)
            return [F.cross_entropy(logits, mask) if key.moves else logits]

        if key.part == "encode":
            return lambda x: net.encode(x).levels, [x]
        if key.part == "decode":
            return lambda *levels: [net.decode(replace(features, levels=list(levels)))], features.levels
        return head, [decoded]


@contextmanager
def counted(method: Method) -> Iterator[Counter[Pass]]:
    """What passes through the networks and the other modules of a method while the context lasts."""
    passes: Counter[Pass] = Counter()
    nets = [m for m in method.modules() if isinstance(m, Network)]

    def note(module: nn.Module, who: str, part: str, shape: tuple[int, ...], given: Tensor) -> None:
        graph = torch.is_grad_enabled()
        moves = graph and any(p.requires_grad for p in module.parameters())
        passes[Pass(who, part, shape, module.training, moves, graph and given.requires_grad)] += 1

    def hook(net: Network) -> None:
        encode, decode, resize = net.encode, net.decode, net.resize

        def image(n: int, features: Features) -> tuple[int, ...]:
            return n, net.channels, *features.size

        def note_encode(x: Tensor) -> Features:
            note(net, net.bench_name, "encode", tuple(x.shape), x)
            return encode(x)

        def note_decode(features: Features) -> Tensor:
            note(net, net.bench_name, "decode", image(len(features), features), features.levels[0])
            return decode(features)

        def note_head(low: Tensor, features: Features, size: tuple[int, int] | None = None) -> Tensor:
            note(net, net.bench_name, "head", image(len(low), features), low)
            return resize(low, features, size)

        net.encode, net.decode, net.resize = note_encode, note_decode, note_head

    def before(name: str) -> Callable[[nn.Module, tuple[Tensor]], None]:
        return lambda module, given: note(module, name, "other", tuple(given[0].shape), given[0])

    for net in nets:
        hook(net)
    handles = [module.register_forward_pre_hook(before(name)) for name, module in others(method).items()]
    try:
        yield passes
    finally:
        for net in nets:
            del net.encode, net.decode, net.resize
        for handle in handles:
            handle.remove()


def others(module: nn.Module, path: str = "") -> dict[str, nn.Module]:
    """The largest modules with parameters that are no network and have none inside, by where they are."""
    found: dict[str, nn.Module] = {}
    for name, child in module.named_children():
        here = f"{path}{name}"
        if isinstance(child, Network) or not any(True for _ in child.parameters()):
            continue
        if isinstance(child, nn.ModuleList) or any(isinstance(m, Network) for m in child.modules()):
            found |= others(child, f"{here}.")
        else:
            found[here] = child
    return found


def timed(jobs: list[Callable[[], None]], rounds: int, device: str) -> list[list[float]]:
    """Seconds of each job in each round; they take turns."""
    seconds: list[list[float]] = [[] for _ in jobs]
    clock = time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    for turn in range(rounds + 2):
        for job, mine in zip(jobs, seconds, strict=True):
            if device != "cpu":
                torch.cuda.synchronize()
            start = clock()
            job()
            if device != "cpu":
                torch.cuda.synchronize()
            if turn >= 2:
                mine.append(clock() - start)
    return seconds


def keep_memory() -> None:
    """Else glibc returns freed memory and faults it in again, at a cost that depends on the order of the frees."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD
        libc.mallopt(-3, 1 << 25)  # M_MMAP_THRESHOLD, its largest


def cost(bench: Bench, name: str, rounds: int) -> dict[str, object]:
    """One row of the table."""
    method, optimizer, step = bench.step_of(name)
    step()
    with counted(method) as passes:
        step()
    modules = others(method)
    nets, more = (Counter({k: n for k, n in passes.items() if (k.part == "other") == which}) for which in (False, True))
    _, _, supervised = bench.step_of("supervised")
    rows = timed([step, supervised, bench.bare(nets, modules), bench.bare(more, modules), optimizer.step], rounds,
                 bench.device)  # fmt: skip
    seconds, plain, bare, extra, moved = (statistics.median(row) for row in rows)
    ratios = sorted(whole / (a + b + c) - 1 for whole, _, a, b, c in zip(*rows, strict=True))
    drawn = bench.batch * (1 + method.uses_unlabeled)
    return {
        "method": name, "step_ms": round(1e3 * seconds, 2), "images_per_s": round(drawn / seconds, 1),
        "supervised_step_ms": round(1e3 * plain, 2), "supervised_images_per_s": round(bench.batch / plain, 1),
        "times_supervised": round(seconds / plain, 2),
        "forward_only": images(passes, "encode", False, bench.size),
        "forward_backward": images(passes, "encode", True, bench.size),
        "decoded_only": images(passes, "decode", False, bench.size),
        "decoded_backward": images(passes, "decode", True, bench.size),
        "other_modules_ms": round(1e3 * extra, 2), "predicted_ms": round(1e3 * (bare + extra + moved), 2),
        "overhead": round(statistics.median(ratios), 3),
        "overhead_q1": round(ratios[len(ratios) // 4], 3), "overhead_q3": round(ratios[-1 - len(ratios) // 4], 3),
    }  # fmt: skip


def images(passes: Counter[Pass], part: str, moves: bool, size: int) -> float:
    """How many images pass a part, with a gradient or without; those of another size count by their area."""
    found = ((k.shape, n) for k, n in passes.items() if (k.part, k.moves) == (part, moves))
    return round(sum(n * shape[0] * shape[2] * shape[3] for shape, n in found) / size**2, 1)


def main() -> None:
    parser = argparse.ArgumentParser()
    for key, kind, default in (("size", int, 96), ("batch", int, 8), ("network", str, "unet1x1"), ("device", str, "cpu"),
                               ("methods", str, ",".join(METHODS)), ("rounds", int, 20), ("threads", int, 0)):  # fmt: skip
        parser.add_argument(f"--{key}", type=kind, default=default)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    keep_memory()
    bench = Bench(args.size, args.batch, args.network, args.device)
    rows = []
    for name in args.methods.split(","):
        rows.append(cost(bench, name, args.rounds))
        mark = "" if rows[-1]["overhead"] <= LIMIT else f"  over {LIMIT:.0%}"
        print("  ".join(f"{k} {v}" for k, v in rows[-1].items()) + mark, flush=True)
    if args.write:
        record(args, rows)


def record(args: argparse.Namespace, rows: list[dict[str, object]]) -> None:
    """results/methods_cost.csv, written anew."""
    about = {"network": args.network, "size": args.size, "batch": f"{args.batch}+{args.batch}", "device": args.device,
             "threads": torch.get_num_threads(), "torch": torch.__version__, "commit": commit(),
             "command": "python " + " ".join(sys.argv)}  # fmt: skip
    write(Path("results/methods_cost.csv"), [{**row, **about} for row in rows])


if __name__ == "__main__":
    main()
