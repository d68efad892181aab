"""What every method costs beside `supervised` at the same batch, and beyond the images that it sends through networks.

python benchmarks/methods.py [--size 96] [--batch 8] [--network unet1x1] [--methods a,b] [--rounds 20] [--write]

A step is forward, losses, backward, optimiser and `after_step` on batches that are already there. Hooks on `encode` and
`decode` write down how many images pass each, with and without a gradient. The bare network repeats just these passes
(a cross-entropy closes those with a gradient), so that predicted = passes of the bare network + the optimiser's step,
and overhead = measured / predicted - 1 is what the method itself adds: views, targets, losses, averages, banks.
Method, `supervised` and the bare passes alternate, so that a busy machine slows all alike; medians are kept.
`--write` puts rows into results/methods_cost.csv. The limit is an overhead of 15 %.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semiseg.batch import Clock, Labeled, Unlabeled
from semiseg.methods import METHODS, method_class
from semiseg.methods.base import Method
from semiseg.networks import build
from semiseg.networks.base import Features, Network, batch_stats
from semiseg.task import Task, make_task
from semiseg.training.config import Config
from semiseg.training.loop import make_optimizer

CLASSES = ("ground", "leaf", "stone", "water")
LIMIT = 0.15
TOTAL = 10**4  # steps of the training that is imitated, from its middle on: warm-ups are over
Pass = tuple[str, str, tuple[int, ...], bool]
"""Network, "encode" or "decode", shape of the images, with gradient."""


class Bench:
    """Batches, networks and methods of one setting."""

    def __init__(self, size: int, batch: int, network: str, device: str) -> None:
        self.size, self.batch, self.network, self.device = size, batch, network, device
        self.task: Task = make_task("multiclass", CLASSES)
        draw = torch.Generator().manual_seed(0)
        self.image = torch.rand(batch, 3, size, size, generator=draw).to(device)
        self.mask = torch.randint(len(CLASSES), (batch, size, size), generator=draw).to(device)
        self.parts: dict[tuple[str, str], nn.Module] = {}

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

    def bare(self, passes: Counter[Pass]) -> Callable[[], None]:
        """The same passes by networks without a method around them."""
        jobs = [(self._pass(*key), n) for key, n in passes.items()]

        def run() -> None:
            for job, n in jobs:
                for _ in range(n):
                    job()

        return run

    def _pass(self, name: str, part: str, shape: tuple[int, ...], grad: bool) -> Callable[[], None]:
        net = self.make(name=name).train()
        x = torch.rand(shape, device=self.device)
        with torch.no_grad():
            features = net.encode(x)
            ones = [torch.ones_like(level) / level.numel() for level in features.levels]
        mask = torch.randint(len(CLASSES), (len(x), self.size, self.size), device=self.device)

        def encode() -> None:
            with torch.set_grad_enabled(grad), batch_stats(net, track=grad):
                levels = net.encode(x).levels
            if grad:
                torch.autograd.backward(levels, ones)

        def decode() -> None:
            inside = features.map(lambda i, level: level.detach().requires_grad_(grad))
            with torch.set_grad_enabled(grad), batch_stats(net, track=grad):
                logits = net.logits(inside)
            if grad:
                F.cross_entropy(logits, mask).backward()

        return encode if part == "encode" else decode


@contextmanager
def counted(method: Method) -> Iterator[Counter[Pass]]:
    """What passes through the encoders and decoders of a method's networks while the context lasts."""
    passes: Counter[Pass] = Counter()
    nets = [m for m in method.modules() if isinstance(m, Network)]
    for net in nets:
        encode, decode = net.encode, net.decode

        def count_encode(x: Tensor, net: Network = net, inner: Callable = encode) -> object:
            passes[net.bench_name, "encode", tuple(x.shape), _moves(net)] += 1
            return inner(x)

        def count_decode(features: Features, net: Network = net, inner: Callable = decode) -> Tensor:
            passes[net.bench_name, "decode", (len(features), net.channels, *features.size), _moves(net)] += 1
            return inner(features)

        net.encode, net.decode = count_encode, count_decode
    try:
        yield passes
    finally:
        for net in nets:
            del net.encode, net.decode


def _moves(net: Network) -> bool:
    return torch.is_grad_enabled() and any(p.requires_grad for p in net.parameters())


def timed(jobs: list[Callable[[], None]], rounds: int, device: str) -> list[float]:
    """Median seconds of each job; they take turns."""
    seconds: list[list[float]] = [[] for _ in jobs]
    for turn in range(rounds + 2):
        for job, mine in zip(jobs, seconds, strict=True):
            if device != "cpu":
                torch.cuda.synchronize()
            start = time.perf_counter()
            job()
            if device != "cpu":
                torch.cuda.synchronize()
            if turn >= 2:
                mine.append(time.perf_counter() - start)
    return [statistics.median(s) for s in seconds]


def cost(bench: Bench, name: str, rounds: int) -> dict[str, object]:
    """One row of the table."""
    method, optimizer, step = bench.step_of(name)
    step()
    with counted(method) as passes:
        step()
    _, _, supervised = bench.step_of("supervised")
    seconds, plain, bare, moved = timed([step, supervised, bench.bare(passes), optimizer.step], rounds, bench.device)
    images = {grad: sum(n * k[2][0] * k[2][2] * k[2][3] for k, n in passes.items() if k[1] == "encode" and k[3] == grad)
              / bench.size**2 for grad in (False, True)}  # fmt: skip
    predicted = bare + moved
    drawn = bench.batch * (1 + method.uses_unlabeled)
    return {
        "method": name, "step_ms": round(1e3 * seconds, 2), "images_per_s": round(drawn / seconds, 1),
        "supervised_step_ms": round(1e3 * plain, 2), "times_supervised": round(seconds / plain, 2),
        "forward_only": round(images[False], 1), "forward_backward": round(images[True], 1),
        "predicted_ms": round(1e3 * predicted, 2), "overhead": round(seconds / predicted - 1, 3),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    for key, kind, default in (("size", int, 96), ("batch", int, 8), ("network", str, "unet1x1"), ("device", str, "cpu"),
                               ("methods", str, ",".join(METHODS)), ("rounds", int, 20), ("threads", int, 0)):  # fmt: skip
        parser.add_argument(f"--{key}", type=kind, default=default)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
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
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    about = {"network": args.network, "size": args.size, "batch": f"{args.batch}+{args.batch}", "device": args.device,
             "threads": torch.get_num_threads(), "torch": torch.__version__, "commit": commit.stdout.strip(),
             "command": "python " + " ".join(sys.argv)}  # fmt: skip
    with Path("results/methods_cost.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *about], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, **about} for row in rows)


if __name__ == "__main__":
    main()
