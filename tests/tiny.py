"""Tiny things the tests train on: batches, planes, networks, folders. Brightness tells the class, so it can be learned."""

from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch import nn

from semiseg.batch import Labeled, Planes, Unlabeled, generator_of
from semiseg.data.cache import Store, Units
from semiseg.methods import arguments
from semiseg.networks import build
from semiseg.networks.base import Network
from semiseg.task import make_task

KINDS = ("multiclass", "binary", "multilabel")
NAMES = {"multiclass": ("ground", "leaf", "stone"), "binary": ("cell",), "multilabel": ("alive", "dead")}
# One generation, members of a training each, students from scratch: for tests of what happens within a generation.
ONE = {"generations": 1, "patience": 1, "members_by": "seed", "start": "fresh"}
ALONE = {key: value for key, value in ONE.items() if key != "members_by"}  # for programs of one teacher


def words(program="im", basis=None, **more):
    """What is typed after --set for that recipe and whatever else."""
    return [f"{program}.{key}={value}" for key, value in {**(ONE if basis is None else basis), **more}.items()]


def task_of(kind, loss="ce+dice"):
    return make_task(kind, NAMES[kind], loss)


def truth(kind, n, size, seed=0):
    """Masks as the task wants them, of rectangles: (n,H,W) long or (n,K,H,W) uint8, overlapping when they may."""
    rng = np.random.default_rng((seed, size))
    masks = np.zeros((n, 2, size, size), np.uint8)
    for i in range(n):
        for k in range(2):
            y, x = rng.integers(0, size // 2, 2)
            masks[i, k, y : y + size // 2, x : x + size // 2] = 1
    if kind == "multiclass":
        return torch.from_numpy(np.where(masks[:, 0] == 1, 1, 2 * masks[:, 1]).astype(np.int64))
    return torch.from_numpy(masks[:, :1] if kind == "binary" else masks)


def draw(mask, seed=0, channels=1):
    """Unit-range images (n,C,H,W) in which brightness tells the label."""
    levels = mask[:, None] * 0.4 if mask.ndim == 3 else (mask * torch.tensor([0.3, 0.5])[: mask.shape[1], None, None])
    bright = levels.float().sum(1, keepdim=True) + 0.1
    noise = torch.randn((len(mask), channels, *mask.shape[-2:]), generator=generator_of("draw", seed))
    return bright + 0.02 * noise


def labeled(kind, n=2, size=16, seed=0):
    mask = truth(kind, n, size, seed)
    return Labeled(draw(mask, seed), mask)


def unlabeled(kind, n=3, size=16, seed=100, views=1, planes=None):
    weak = draw(truth(kind, n, size, seed), seed)
    strong = tuple(weak * 0.9 + 0.02 * (i + 1) for i in range(views))
    return Unlabeled(weak, strong, torch.ones(n, 1, size, size, dtype=torch.bool), planes)


def planes(kind, n=3, size=16, seed=100):
    """A committee that knows the truth of `unlabeled` but disagrees in the upper left quarter."""
    label = truth(kind, n, size, seed)
    agree = torch.ones(n, 1, size, size, dtype=torch.bool)
    agree[..., : size // 2, : size // 2] = False
    hidden = ~agree if label.ndim == 4 else ~agree[:, 0]
    return Planes(label.masked_fill(hidden, 255), agree)


def make_of(task, channels=1, network="unet1x1:0.25"):
    """`make` of a method: the paper's U-Net at a quarter of its width."""
    return lambda role="student", name=network, **options: build(name, channels, task.channels, **options)


def easy(cls):
    """Arguments with which a method's unlabeled terms count from the first step on, at every pixel."""
    return {key: 0.0 for key in ("threshold", "ramp", "warmup") if key in arguments(cls)}


class Pixelwise(Network):
    """A 1x1 convolution: nothing leaks from a pixel to its neighbours. Its one level of features is the image."""

    def __init__(self, channels, classes):
        super().__init__(channels, classes, stride=1)
        self.conv = nn.Conv2d(channels, classes, 1)
        self.decoded_channels, self.level_channels = channels, (channels,)

    def extract(self, x):
        return [x], {}

    def decode(self, features):
        return features.levels[0]

    def head(self, decoded):
        return self.conv(decoded)

    def backbone(self):
        return nn.Identity()


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def store_of(images, masks=None, dtype="uint8"):
    """A store from arrays (h,w,C) and masks (h,w,L)."""
    sizes = torch.tensor([i.shape[:2] for i in images])
    offset = torch.cat([torch.zeros(1, dtype=torch.int64), (sizes[:, 0] * sizes[:, 1]).cumsum(0)[:-1]])
    flat = np.concatenate([np.asarray(i, dtype).reshape(-1, i.shape[2]) for i in images])
    flat = flat.view(np.int16) if dtype == "uint16" else flat
    labels = None if masks is None else torch.from_numpy(np.concatenate([m.reshape(-1, m.shape[2]) for m in masks]))
    names = [str(i) for i in range(len(images))]
    return Store(names, sizes[:, 0], sizes[:, 1], offset, torch.from_numpy(flat), labels, dtype)


def plain_units(channels, high=1.0):
    return Units((0.0,) * channels, (high,) * channels, (0.0,) * channels, (1.0,) * channels)


def write_folder(root, kind, labeled=6, unlabeled=5, val=3, size=24):
    """A data folder of layout 1; unlabeled images come in two sizes."""
    for split, n, seed in (("", labeled, 1), ("val/", val, 2)):
        masks = truth(kind, n, size, seed)
        for i, image in enumerate(draw(masks, seed)):
            save(root / f"{split}images/{i:02d}.png", _bytes(image))
            mask = masks[i].numpy().astype(np.uint8)
            if kind == "multilabel":
                for name, plane in zip(NAMES[kind], mask, strict=True):
                    save(root / f"{split}masks/{name}/{i:02d}.png", plane * 255)
            else:
                save(root / f"{split}masks/{i:02d}.png", mask[0] * 255 if kind == "binary" else mask)
    for i in range(unlabeled):
        side = size if i < unlabeled // 2 else size + 8
        save(root / f"unlabeled/{i:02d}.png", _bytes(draw(truth(kind, 1, side, 10 + i), 10 + i)[0]))
    return root


def others(root, kind, seeds=(50, 70)):
    """Masks of the unlabeled images of `write_folder` by a tool for each seed, as --committee takes them."""
    for seed in seeds:
        for i in range(5):
            mask = truth(kind, 1, 24 if i < 2 else 32, seed + i)[0].numpy().astype(np.uint8)
            planes = zip(NAMES[kind], mask * 255, strict=True) if kind == "multilabel" else [("", mask.squeeze())]
            for name, plane in planes:
                save(root / f"tool-{seed}" / name / f"{i:02d}.png", plane * (255 if kind == "binary" else 1))
    return ",".join(str(root / f"tool-{seed}") for seed in seeds)


def _bytes(image):
    return (image[0].clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def config(data="", **changes):
    """A configuration small enough for a test."""
    from semiseg.training.config import Config

    basis = Config(data=str(data), size=16, steps=8, batch=2, unlabeled_batch=2, lr=3e-3, network="unet1x1:0.25",
                   threads=1, workers=1, device="cpu", eval_every=4, checkpoint_every=100)  # fmt: skip
    return replace(basis, **changes)


def prepare(data, cache, **changes):
    """Prepared, by the functions that `semiseg train` uses."""
    from semiseg.training.logs import Log
    from semiseg.training.prepare import look
    from semiseg.training.prepare import prepare as prepare_data

    chosen, log = config(data, **changes), Log(quiet=True)
    return prepare_data(chosen, look(chosen, log), cache, log)


def session(run, data, **changes):
    """A Session on prepared data, with some of the configuration changed."""
    from semiseg.programs.session import Session
    from semiseg.training.logs import Log

    return Session(run, replace(data, config=replace(data.config, **changes)), Log(run, quiet=True))
