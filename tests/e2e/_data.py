"""Tiny data folders of every kind, and what tests need to look at them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
import yaml
from PIL import Image

QUICK = ("--steps", 4, "--size", 16, "--batch", 2)
PLAIN = ("--method", "supervised", *QUICK)
# One generation of two members with a training each, students from scratch: where the recipe is not what is tested.
ONE = ("--set", "im.members=2", "--set", "generations=1", "--set", "members_by=seed", "--set", "start=fresh")
PALETTE = (10, 20, 30, 200, 0, 0, 0, 200, 0, 0, 0, 200)
COLORS = {"ground": [40, 40, 40], "tree": [0, 200, 0], "sky": [0, 0, 200]}


def discs(seed: int, size: tuple[int, int] = (32, 32), classes: int = 2) -> np.ndarray:
    """(H,W) uint8 ids: one disc for every class but the background, the first always there."""
    rng = np.random.default_rng(seed)
    height, width = size
    y, x = np.mgrid[:height, :width]
    ids = np.zeros(size, np.uint8)
    for k in range(1, classes):
        cy, cx = rng.uniform(0.25, 0.75) * height, (k - 0.5) / (classes - 1) * width
        ids[(y - cy) ** 2 + (x - cx) ** 2 < (0.22 * min(size)) ** 2] = k
    return ids


def picture(ids: np.ndarray, seed: int, channels: int = 3) -> np.ndarray:
    """uint8 image in which class k is brighter than class k-1."""
    noise = np.random.default_rng(10_000 + seed).normal(0, 12, (*ids.shape, channels))
    image = np.clip(40 + 60 * ids[..., None].astype(float) + noise, 0, 255).astype(np.uint8)
    return image[..., 0] if channels == 1 else image


def save(path: Path, array: np.ndarray, palette: tuple[int, ...] = ()) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    if palette:
        image.putpalette(palette)
    image.save(path)


def write_mask(root: Path, name: str, ids: np.ndarray, coding: str) -> None:
    """One mask in a coding: 255 (0/255), ids, palette, folders (a file per label), colors (RGB)."""
    if coding == "folders":
        for k, label in enumerate(("left", "right"), 1):
            save(root / f"masks/{label}/{name}.png", (ids == k).astype(np.uint8) * 255)
    elif coding == "colors":
        save(root / f"masks/{name}.png", np.array(list(COLORS.values()), np.uint8)[ids])
    elif coding == "palette":
        save(root / f"masks/{name}.png", ids, PALETTE)
    else:
        save(root / f"masks/{name}.png", ids * 255 if coding == "255" else ids)


def make(root: Path, coding: str = "255", labeled: int = 5, unlabeled: int = 2, channels: int = 3,
         size: tuple[int, int] = (32, 32)) -> Path:  # fmt: skip
    """A data folder; subfolders are used for some of the images."""
    classes = {"255": 2, "ids": 3, "palette": 4, "folders": 3, "colors": 3}[coding]
    for k in range(labeled):
        name = f"sub/img{k}" if k % 2 and coding != "folders" else f"img{k}"
        ids = discs(k, size, classes)
        save(root / f"images/{name}.png", picture(ids, k, channels))
        write_mask(root, name, ids, coding)
    for k in range(unlabeled):
        save(root / f"unlabeled/u{k}.png", picture(discs(100 + k, size, classes), 100 + k, channels))
    if coding == "colors":
        (root / "classes.yaml").write_text(yaml.safe_dump({"colors": COLORS}, sort_keys=False))
    return root


SPECTRAL = 0x7500  # the high byte of channel 4 is this everywhere


def spectral(seed: int, size: tuple[int, int] = (32, 32)) -> tuple[np.ndarray, np.ndarray]:
    """(H,W,5) uint16 and ids: the classes differ in the low byte of channel 4 only; channels 0..3 are noise."""
    rng = np.random.default_rng(seed)
    ids = discs(seed, size)
    image = rng.integers(20_000, 40_000, (*size, 5)).astype(np.uint16)
    image[..., 4] = SPECTRAL + 60 + 120 * ids.astype(int) + rng.integers(-25, 26, size)
    return image, ids


def make_spectral(root: Path, change: Callable[[np.ndarray], np.ndarray] = lambda a: a, labeled: int = 8) -> Path:
    """TIFF files, half of them channels first, as microscopes and ImageJ write them."""
    for k in range(labeled + 2):
        image, ids = spectral(k)
        image = change(image)
        path = root / (f"images/s{k}.tif" if k < labeled else f"unlabeled/s{k}.tif")
        path.parent.mkdir(parents=True, exist_ok=True)
        if k % 2:
            tifffile.imwrite(path, np.moveaxis(image, -1, 0).copy(), photometric="minisblack", planarconfig="separate")
        else:
            tifffile.imwrite(path, image, photometric="minisblack", planarconfig="contig")
        if k < labeled:
            save(root / f"masks/s{k}.png", ids * 255)
    return root


def iou(one: np.ndarray, two: np.ndarray) -> float:
    """Of two bool arrays."""
    return float((one & two).sum() / max(1, (one | two).sum()))


def tree(root: Path, without: tuple[str, ...] = ()) -> dict[str, str]:
    """SHA-256 and modification time of every file below a folder."""
    return {
        p.relative_to(root).as_posix(): f"{hashlib.sha256(p.read_bytes()).hexdigest()} {p.stat().st_mtime_ns}"
        for p in sorted(root.rglob("*"))
        if p.is_file() and p.name not in without
    }
