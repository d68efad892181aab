"""Images a second of the whole training step beside the bare network step, and their ratio.

python benchmarks/step.py [--size 96] [--batch 16] [--network unet1x1] [--method supervised] [--seconds 20]

Whole: draw, crop, warp, augment, forward, loss, backward, optimiser, log row: `training.loop` as it is.
Bare: forward, the same loss, backward, optimiser on one batch that is already there. Both alternate in short blocks, so
that a busy machine slows both; the medians are printed. Appends a row to results/step.csv with --write.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from semiseg.batch import Clock
from semiseg.training.config import Config
from semiseg.training.logs import Log
from semiseg.training.optimizer import make_optimizer
from semiseg.training.prepare import look, prepare
from shared import commit, read, write


def write_data(root: Path, side: int) -> None:
    """A small RGB binary set of random images: their content does not matter for speed."""
    rng = np.random.default_rng(0)
    for folder, count in (("images", 32), ("masks", 32), ("unlabeled", 64)):
        (root / folder).mkdir(parents=True)
        for i in range(count):
            shape = (side, side) if folder == "masks" else (side, side, 3)
            pixels = rng.integers(0, 2, shape) * 255 if folder == "masks" else rng.integers(0, 256, shape)
            Image.fromarray(pixels.astype(np.uint8)).save(root / folder / f"{i}.png")


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, kind, default in (("size", int, 96), ("batch", int, 16), ("network", str, "unet1x1"),
                                ("method", str, "supervised"), ("seconds", float, 20.0), ("threads", int, 0)):  # fmt: skip
        parser.add_argument(f"--{name}", type=kind, default=default)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder) / "data", 2 * args.size)
        config = Config(data=f"{folder}/data", method=args.method, network=args.network, size=args.size,
                        batch=args.batch, steps=10**6)  # fmt: skip
        log = Log(quiet=True)
        data = prepare(config, look(config, log), Path(folder) / "cache", log)
        whole, bare, images = measure(data, args.seconds)
    rate = [images / statistics.median(t) for t in (whole, bare)]
    ratio = rate[0] / rate[1]
    print(f"whole step {rate[0]:.1f} images/s, bare network step {rate[1]:.1f} images/s, ratio {ratio:.3f}")
    if args.write:
        record(args, rate, ratio)


def measure(data: object, seconds: float) -> tuple[list[float], list[float], int]:
    """Seconds per step of both, in alternating blocks of 4 steps; images per step."""
    method = data.method().train()
    optimizer = make_optimizer(method, data.config)
    feed = data.feed((0, 0), unlabeled=type(method).uses_unlabeled, planes=None)
    still = (feed.labeled(0), feed.unlabeled(0, method.views))
    times: tuple[list[float], list[float]] = ([], [])
    end, step = time.perf_counter() + seconds, 0
    while time.perf_counter() < end or len(times[0]) < 16:
        for kind in (0, 1):
            for _ in range(4):
                start = time.perf_counter()
                batch = still if kind else (feed.labeled(step), feed.unlabeled(step, method.views))
                losses = method.step(*batch, Clock(step, 10**6))
                optimizer.zero_grad(set_to_none=True)
                losses["loss"].backward()
                torch.nn.utils.clip_grad_norm_(method.parameters(), 1.0)
                optimizer.step()
                if not kind:
                    method.after_step(Clock(step, 10**6))
                    step += 1
                times[kind].append(time.perf_counter() - start)
    return times[0][8:], times[1][8:], method.images_per_step(data.config.batch, feed.drawn)


def record(args: argparse.Namespace, rate: list[float], ratio: float) -> None:
    """A row for results/step.csv."""
    path = Path("results/step.csv")
    row = {
        "command": "python " + " ".join(sys.argv), "commit": commit(), "network": args.network,
        "method": args.method, "size": args.size, "batch": args.batch, "threads": torch.get_num_threads(),
        "whole_images_per_s": round(rate[0], 1), "bare_images_per_s": round(rate[1], 1), "ratio": round(ratio, 3),
        "torch": torch.__version__,
    }  # fmt: skip
    write(path, [*read(path), row])


if __name__ == "__main__":
    main()
