"""Decoded pixels in flat memory-mapped files: round trips, units, and whether masks know up from down."""

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import tiny
from semiseg import storage
from semiseg.data import cache
from semiseg.data.classes import ClassMap
from semiseg.data.index import Item
from semiseg.errors import Refusal
from semiseg.storage import faults

CLASSES = ClassMap("multiclass", ("a", "b", "c"), values=(0, 1, 2), ignore=(255,))
CELLS = ClassMap("multilabel", ("alive", "dead"), coding="folders", values=(0, 255))
SIZES = [(5, 7), (4, 4), (9, 3), (1, 1), (1, 6)]


def write(root, dtype="uint8", channels=1, sizes=SIZES, labels=True):
    """Images (TIFF) and class masks of mixed sizes; returns items, arrays and masks."""
    rng = np.random.default_rng(1)
    items, images, masks = [], [], []
    for i, size in enumerate(sizes):
        top = {"uint8": 256, "uint16": 65536, "float32": 1}[dtype]
        image = (rng.random((*size, channels)) * top).astype(dtype)
        mask = rng.choice([0, 1, 2, 255], size).astype(np.uint8)
        path = root / f"images/{i}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, image if channels > 1 else image[..., 0], photometric="minisblack")
        tiny.save(root / f"masks/{i}.png", mask)
        items.append(Item(str(i), path, (root / f"masks/{i}.png",) if labels else ()))
        images.append(image)
        masks.append(mask)
    return items, images, masks


def padded(array, fill=None):
    """What becomes of images thinner than 2 px: the edge is repeated, its label is unknown."""
    pad = [(0, max(0, 2 - s)) for s in array.shape[:2]] + [(0, 0)] * (array.ndim - 2)
    return np.pad(array, pad, mode="edge") if fill is None else np.pad(array, pad, constant_values=fill)


@pytest.mark.parametrize(
    ("dtype", "channels"), [("uint8", 1), ("uint8", 3), ("uint16", 1), ("uint16", 4), ("float32", 2)]
)
def test_what_goes_in_comes_out(tmp_path, dtype, channels):
    thin = SIZES[3:] if channels == 1 else [(9, 9), (30, 7)]  # with one pixel nothing tells channels from rows
    items, images, masks = write(tmp_path, dtype, channels, [(12, 14), (40, 12), (15, 15), *thin])
    seen = []
    cache.build(tmp_path / "c", items, CLASSES, progress=lambda done, total: seen.append((done, total)))
    store = cache.load(tmp_path / "c")
    assert seen == [(i + 1, 5) for i in range(5)]
    assert store.names == list("01234") and store.channels == channels and store.dtype == dtype and len(store) == 5
    for i, (image, mask) in enumerate(zip(images, masks, strict=True)):
        assert np.array_equal(store.image(i).permute(1, 2, 0).numpy(), padded(image).astype(np.float32))
        assert store.image(i).dtype == torch.float32
        assert np.array_equal(store.label(i).numpy(), padded(mask, 255))


def test_images_without_masks(tmp_path):
    items, *_ = write(tmp_path)
    store = cache.build(tmp_path / "c", items, None)
    assert store.labels is None and store.label(0) is None and not store.stacked


def test_overlapping_and_binary_labels_keep_their_axis(tmp_path):
    planes = np.random.default_rng(2).choice([0, 255], (2, 6, 5)).astype(np.uint8)
    tiny.save(tmp_path / "i.png", planes[0])
    for name, plane in zip("ab", planes, strict=True):
        tiny.save(tmp_path / f"{name}.png", plane)
    item = Item("i", tmp_path / "i.png", (tmp_path / "a.png", tmp_path / "b.png"))
    both = cache.build(tmp_path / "two", [item], CELLS)
    assert both.stacked and np.array_equal(both.label(0).numpy(), planes // 255)
    one = ClassMap("multilabel", ("cell",), values=(0, 255))
    single = cache.build(tmp_path / "one", [Item("i", item.image, item.masks[:1])], one)
    assert single.stacked and single.label(0).shape == (1, 6, 5)


@pytest.mark.parametrize("resize", [0, 4])
def test_a_mask_of_another_size_is_named_and_never_stored(tmp_path, resize):
    items, *_ = write(tmp_path, sizes=[(8, 8), (8, 9), (8, 8)])
    tiny.save(tmp_path / "masks/1.png", np.zeros((7, 9), np.uint8))
    with pytest.raises(Refusal, match=r"masks/1.png is 9x7 but .*images/1.tif is 9x8") as caught:
        cache.build(tmp_path / "c", items, CLASSES, resize=resize)
    assert caught.value.problems[0].code == "D07" and not storage.is_sealed(tmp_path / "c")


def test_an_empty_split(tmp_path):
    store = cache.build(tmp_path / "c", [], CLASSES)
    assert len(store) == 0 and store.pixels.shape[0] == 0


def test_larger_images_shrink_to_the_shorter_side(tmp_path):
    mask = np.zeros((20, 40), np.uint8)
    mask[:, 20:] = 2
    tiny.save(tmp_path / "i.png", mask * 100)
    tiny.save(tmp_path / "m.png", mask)
    item = Item("i", tmp_path / "i.png", (tmp_path / "m.png",))
    store = cache.build(tmp_path / "c", [item], CLASSES, resize=10)
    assert store.image(0).shape == (1, 10, 20)
    assert torch.equal(store.label(0)[:, [0, 9, 10, 19]], torch.tensor([0, 0, 2, 2], dtype=torch.uint8).expand(10, 4))
    assert store.image(0)[0, 5, [0, 19]].tolist() == [0, 200]
    assert store.image(0).mean().item() == pytest.approx(100, abs=2)
    small = cache.build(tmp_path / "d", [item], CLASSES, resize=64)
    assert small.image(0).shape == (1, 20, 40)


def test_a_finished_store_is_not_written_again(tmp_path):
    items, *_ = write(tmp_path)
    cache.build(tmp_path / "c", items, CLASSES)
    before = (tmp_path / "c/pixels.bin").stat().st_mtime_ns
    cache.build(tmp_path / "c", items, CLASSES, progress=lambda *_: pytest.fail("decoded again"))
    assert (tmp_path / "c/pixels.bin").stat().st_mtime_ns == before


def test_a_broken_off_one_is(tmp_path):
    items, images, _ = write(tmp_path)
    folder = tmp_path / "c"
    cache.build(folder, items, CLASSES)
    (folder / "manifest.json").unlink()
    (folder / "pixels.bin").write_bytes(b"\x07" * 11)
    assert not storage.is_sealed(folder)
    store = cache.build(folder, items, CLASSES)
    assert storage.is_sealed(folder) and np.array_equal(store.image(0)[0].numpy(), images[0][..., 0].astype(np.float32))


def test_writing_into_a_store_leaves_its_file_alone(tmp_path):
    items, *_ = write(tmp_path)
    store = cache.build(tmp_path / "c", items, CLASSES)
    before = (tmp_path / "c/pixels.bin").read_bytes()
    store.pixels.zero_()
    assert (tmp_path / "c/pixels.bin").read_bytes() == before


def test_one_store_holds_one_type_of_image(tmp_path):
    items, *_ = write(tmp_path)
    tifffile.imwrite(items[2].image, np.zeros((9, 3), np.uint16))
    with pytest.raises(Refusal, match=r"2\.tif has 1 channels of uint16"):
        cache.build(tmp_path / "c", items, CLASSES)
    assert not storage.is_sealed(tmp_path / "c")


def test_results_do_not_depend_on_the_number_of_workers(tmp_path):
    items, *_ = write(tmp_path, sizes=SIZES * 4)
    stores = [cache.build(tmp_path / str(w), items, CLASSES, workers=w) for w in (1, 3)]
    assert torch.equal(stores[0].pixels, stores[1].pixels) and torch.equal(stores[0].labels, stores[1].labels)


def test_units_of_8_bit_images(tmp_path):
    items, images, _ = write(tmp_path, channels=3, sizes=[(8, 9), (7, 5)])
    store = cache.build(tmp_path / "c", items, None)
    units = cache.measure(store)
    assert units.low == (0.0,) * 3 and units.high == (255.0,) * 3
    flat = np.concatenate([i.reshape(-1, 3) for i in images]) / 255
    assert units.mean == pytest.approx(flat.mean(0)) and units.std == pytest.approx(flat.std(0))
    assert units.apply(store.image(0)).max() <= 1


def test_units_of_other_images_are_percentiles_per_channel(tmp_path):
    items, images, _ = write(tmp_path, "uint16", 2, sizes=[(40, 40)])
    for path in [i.image for i in items]:
        array = images[0].copy()
        array[..., 1] //= 64
        tifffile.imwrite(path, array, photometric="minisblack")
    units = cache.measure(cache.build(tmp_path / "c", items, None))
    low, high = np.percentile(array.reshape(-1, 2), [0.1, 99.9], axis=0)
    assert units.low == pytest.approx(low) and units.high == pytest.approx(high) and units.high[1] < 1100


def test_a_constant_channel_divides_by_something(tmp_path):
    path = tmp_path / "i.tif"
    tifffile.imwrite(path, np.full((4, 4), 700, np.uint16))
    store = cache.build(tmp_path / "c", [Item("i", path)], None)
    units = cache.measure(store)
    assert units.high[0] > units.low[0] and units.std[0] > 0
    assert torch.isfinite(units.apply(store.image(0))).all()


def scenes(folder, label, n=12):
    """A store of n class masks made by `label(rng)`."""
    rng = np.random.default_rng(0)
    items = []
    for i in range(n):
        mask = label(rng).astype(np.uint8)
        tiny.save(folder / f"{i}.png", mask)
        items.append(Item(str(i), folder / f"{i}.png", (folder / f"{i}.png",)))
    return cache.build(folder / "cache", items, CLASSES)


def street(rng):
    mask = np.zeros((24, 24))
    mask[rng.integers(8, 14) :] = 1  # road below, sky above
    mask[10:20, rng.integers(0, 16) :][:, :6] = 2
    return mask


def blobs(rng):
    mask = np.zeros((24, 24))
    for k in (1, 2):
        y, x = rng.integers(0, 18, 2)
        mask[y : y + 6, x : x + 6] = k
    return mask


def test_streets_have_an_up_and_blobs_do_not(tmp_path):
    assert cache.has_an_up(scenes(tmp_path / "streets", street))
    assert not cache.has_an_up(scenes(tmp_path / "blobs", blobs))
    assert not cache.has_an_up(scenes(tmp_path / "few", street, 4))  # too few to tell


def test_it_opens_what_pillow_wrote(tmp_path):
    Image.new("L", (3, 3), 9).save(tmp_path / "i.png")
    assert cache.build(tmp_path / "c", [Item("i", tmp_path / "i.png")], None).image(0).unique().tolist() == [9]


@pytest.mark.parametrize(
    ("fault", "found"), [("write:3:short", "does not fit on the disk"), ("write:2:eio", "cannot be written")]
)
def test_a_full_disk_is_said_to_be_full(tmp_path, monkeypatch, fault, found):
    """While images are decoded, too; the next call starts that store anew."""
    items, *_ = write(tmp_path)
    whole = cache.build(tmp_path / "whole", items, CLASSES)
    monkeypatch.setenv("SEMISEG_FAULT", fault)
    faults.counts.clear()
    with pytest.raises(Refusal, match=found) as caught:
        cache.build(tmp_path / "c", items, CLASSES)
    assert caught.value.exit == 6 and str(tmp_path / "c") in str(caught.value) and not storage.is_sealed(tmp_path / "c")
    monkeypatch.delenv("SEMISEG_FAULT")
    again = cache.build(tmp_path / "c", items, CLASSES)
    assert torch.equal(again.pixels, whole.pixels) and torch.equal(again.labels, whole.labels)
