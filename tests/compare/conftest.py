"""A data folder with a test set, and cells that need no process."""

import signal

import numpy as np
import pytest
import torch

import tiny
from semiseg.compare.request import Request
from semiseg.programs.train import train


def add_test(root, kind, n=6, size=24):
    """A test split beside what tiny.write_folder makes."""
    masks = tiny.truth(kind, n, size, 3)
    for i, image in enumerate(tiny.draw(masks, 3)):
        tiny.save(root / f"test/images/{i:02d}.png", (image[0].clamp(0, 1) * 255).round().to(torch.uint8).numpy())
        mask = masks[i].numpy().astype(np.uint8)
        if kind == "multilabel":
            for name, plane in zip(tiny.NAMES[kind], mask, strict=True):
                tiny.save(root / f"test/masks/{name}/{i:02d}.png", plane * 255)
        else:
            tiny.save(root / f"test/masks/{i:02d}.png", mask[0] * 255 if kind == "binary" else mask)
    return root


@pytest.fixture(scope="session")
def tested(tmp_path_factory):
    """{kind: data folder with val (20 images, so that it may choose) and test (6, so that there are intervals)}."""
    root = tmp_path_factory.mktemp("tested")
    return {k: add_test(tiny.write_folder(root / k, k, val=20), k) for k in tiny.KINDS}


class Ended:
    """A process that is over."""

    def __init__(self, code):
        self.code = code

    def poll(self):
        return self.code

    def terminate(self):
        pass

    def wait(self, timeout=None):
        return self.code


@pytest.fixture
def here():
    """begin(cell, out, extra): trains in this process; `begin.started` lists the cells."""
    before = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}

    def begin(cell, out, extra):
        begin.started.append(cell.name)
        if cell.name in begin.broken:
            (out / "logs").mkdir(exist_ok=True)
            (out / "logs" / f"{cell.name}.json").write_text(
                '{"error": {"exit": 5, "problems": [{"code": "R05", "where": "fixmatch", "found": "has diverged"}]}}\n'
            )
            return Ended(5)
        torch.set_num_threads(1)
        train(cell.path, out / "cells" / cell.name, resume="auto", sets=list(cell.sets), quiet=True, **cell.options)
        return Ended(0)

    begin.started, begin.broken = [], set()
    yield begin
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def ask(tested, tmp_path):
    """A small request."""

    def made(*methods, kind="binary", **changes):
        options = {"size": 16, "batch": 2, "network": "unet1x1:0.25"}
        changes = {"seeds": 1, "steps": 4, "sets": ["threads=1", "workers=1", "device=cpu"][:2], **changes}
        return Request([tested[kind]], list(methods), tmp_path / "out", options=options, **changes)

    return made
