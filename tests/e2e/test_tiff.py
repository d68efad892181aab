"""Five channels of 16 bits, from the file to the mask: what only channel 4's low byte says must be learned.

Channels 0 to 3 are noise, and the high byte of channel 4 is constant. Any stage that sees fewer channels or 8 bits
leaves nothing to learn from; the same training on such copies shows that the test can tell.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from _data import SPECTRAL, iou, make_spectral, spectral
from _runner import Server
from PIL import Image

NEW = range(500, 504)
TRAIN = ("--method", "supervised", "--steps", 90, "--size", 16, "--batch", 8, "--set", "lr=0.01")
Change = Callable[[np.ndarray], np.ndarray]


def whole(image: np.ndarray) -> np.ndarray:
    return image


def high_bytes(image: np.ndarray) -> np.ndarray:
    return (image >> 8).astype(np.uint8)


def four_channels(image: np.ndarray) -> np.ndarray:
    return image[..., :4]


def learn(server: Server, folder: Path, change: Change) -> tuple[float, Path]:
    """IoU of the foreground on images the run has never seen, from the mask files; and the run."""
    make_spectral(folder / "data", change)
    (folder / "new").mkdir()
    truth = {}
    for seed in NEW:
        image, truth[f"n{seed}"] = spectral(seed, (37, 41))
        tifffile.imwrite(folder / f"new/n{seed}.tif", change(image), photometric="minisblack", planarconfig="contig")
    ended = server.run("train", "data", "--out", "run", *TRAIN, cwd=folder)
    assert ended.code == 0, ended.text
    ended = server.run("predict", "run", "new", "--out", "pred", cwd=folder)
    assert ended.code == 0, ended.text
    masks = {name: np.asarray(Image.open(folder / f"pred/masks/{name}.png")) for name in truth}
    assert all(masks[n].shape == truth[n].shape and set(np.unique(masks[n])) <= {0, 255} for n in truth)
    found = np.stack([masks[n] == 255 for n in truth])
    return iou(found, np.stack([truth[n] == 1 for n in truth])), folder / "run"


def record(run: Path) -> dict[str, Any]:
    return json.loads((run / "run.json").read_text())["data"]


def test_sixteen_bits_and_five_channels_reach_every_stage(server: Server, tmp_path: Path) -> None:
    import semiseg
    from semiseg.data import cache
    from semiseg.storage import read_tensors

    score, run = learn(server, tmp_path, whole)
    assert score > 0.9

    checked = json.loads(server.run("check", "data", "--json", cwd=tmp_path).out)
    assert (checked["channels"], checked["dtype"]) == (5, "uint16")
    assert (record(run)["channels"], record(run)["dtype"]) == (5, "uint16")
    units = record(run)["units"]
    assert [len(units[k]) for k in ("low", "high", "mean", "std")] == [5] * 4
    assert SPECTRAL < units["low"][4] < units["high"][4] < SPECTRAL + 256
    assert max(units["low"][:4]) < 21_000 and min(units["high"][:4]) > 39_000

    for split in ("labeled", "unlabeled", "val"):
        store = cache.load(run / "cache" / split)
        assert (store.channels, store.dtype, len(store) > 0) == (5, "uint16", True)
        for i, name in enumerate(store.names):
            image, ids = spectral(int(name.rpartition("s")[2]))
            assert np.array_equal(store.image(i).permute(1, 2, 0).numpy(), image.astype(np.float32)), name
            label = store.label(i)
            assert label is None or np.array_equal(label.squeeze().numpy(), ids), name

    weights = read_tensors(run / "generation-0/member-0/final/weights.safetensors")
    assert weights["encoder.stem.0.weight"].shape[1] == 5

    model = semiseg.load(run)
    assert model.channels == 5
    image, ids = spectral(900)
    made = model.predict(image)
    assert iou(made.label == 1, ids == 1) > 0.9
    low = image.copy()
    low[..., 4] &= 0xFF00
    assert iou(model.predict(low).label == 1, ids == 1) < 0.5
    assert np.array_equal(model.predict(tmp_path / "new/n500.tif").label * 255,
                          np.asarray(Image.open(tmp_path / "pred/masks/n500.png")))  # fmt: skip


@pytest.mark.parametrize("change", [high_bytes, four_channels])
def test_copies_of_eight_bits_or_fewer_channels_teach_nothing(server: Server, tmp_path: Path, change: Change) -> None:
    score, run = learn(server, tmp_path, change)
    assert (record(run)["channels"], record(run)["dtype"]) != (5, "uint16")
    assert score < 0.6


@pytest.mark.filterwarnings("ignore::DeprecationWarning:tifffile")
def test_infrared_beside_red_green_and_blue_is_a_channel(server: Server, tmp_path: Path) -> None:
    """A bare array of four channels is declared as colours with alpha; nothing of it is dropped on the way to a mask."""
    make_spectral(tmp_path / "data", lambda a: (a[..., 1:] >> 8).astype(np.uint8), labeled=3)
    for path in (tmp_path / "data").rglob("*.tif"):
        image = tifffile.imread(path)
        tifffile.imwrite(path, image)
    ended = server.run(
        "train", "data", "--out", "run", *TRAIN[:2], "--steps", 2, "--size", 16, "--batch", 2, cwd=tmp_path
    )
    assert ended.code == 0 and "alpha" not in ended.text, ended.text
    assert (record(tmp_path / "run")["channels"], record(tmp_path / "run")["dtype"]) == (4, "uint8")
    assert server.run("predict", "run", "data/images", "--out", "pred", cwd=tmp_path).code == 0


def test_floating_point_and_three_page_files_are_themselves(server: Server, tmp_path: Path) -> None:
    """float32 stays float32; a stack of pages is refused, not cut to its first page."""
    make_spectral(tmp_path / "data", lambda a: (a[..., 3:].astype(np.float32) - SPECTRAL) / 7, labeled=3)
    ended = server.run(
        "train", "data", "--out", "run", *TRAIN[:2], "--steps", 2, "--size", 16, "--batch", 2, cwd=tmp_path
    )
    assert ended.code == 0, ended.text
    assert (record(tmp_path / "run")["channels"], record(tmp_path / "run")["dtype"]) == (2, "float32")
    with tifffile.TiffWriter(tmp_path / "data/images/s0.tif") as file:
        for _ in range(3):
            file.write(np.zeros((32, 32), np.uint16), photometric="minisblack", contiguous=False)
    ended = server.run("check", "data", cwd=tmp_path)
    assert ended.code == 3 and "data/images/s0.tif" in ended.err, ended.text
