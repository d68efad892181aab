"""Crops, warps and colours: exact where nothing is interpolated, together everywhere, for any number of channels."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from semiseg.batch import IGNORE, generator_of
from semiseg.data import views
from tiny import plain_units, store_of

WILD = views.Geometry(scale=(0.5, 2.0), rotate=180.0, flip=True, turn=True)


def random_store(channels=1, sizes=((20, 24), (16, 16), (31, 18)), dtype="uint8", top=256):
    rng = np.random.default_rng(channels)
    return store_of(
        [rng.integers(0, top, (*s, channels)) for s in sizes],
        [rng.integers(0, 3, (*s, 1), np.uint8) for s in sizes],
        dtype,
    )


def crop_of(store, size, geometry, seed=0, index=None):
    index = torch.arange(len(store)) if index is None else torch.tensor(index)
    return views.draw_crop(store, index, size, geometry, generator_of(seed))


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize(("dtype", "top"), [("uint8", 256), ("uint16", 65536)])
def test_plain_geometry_gives_exact_pixels(channels, dtype, top):
    store = random_store(channels, dtype=dtype, top=top)
    corners = set()
    for seed in range(12):
        crop = crop_of(store, 12, views.PLAIN, seed)
        image = views.take_pixels(store, crop, plain_units(channels))
        label = views.take_labels(store.labels, store, crop)
        assert views.valid(store, crop).all()
        for i in range(3):
            x, y = int(crop.x[i, 0, 0]), int(crop.y[i, 0, 0])
            corners.add((i, x, y))
            assert torch.equal(image[i], store.image(i)[:, y : y + 12, x : x + 12])
            assert torch.equal(label[i, 0], store.label(i)[y : y + 12, x : x + 12])
    assert len(corners) > 20


def test_crops_reach_every_corner_of_the_image():
    store = random_store(sizes=((14, 13),))
    seen = {(int(c.x[0, 0, 0]), int(c.y[0, 0, 0])) for c in (crop_of(store, 12, views.PLAIN, s) for s in range(60))}
    assert seen == {(x, y) for x in range(2) for y in range(3)}


def test_sixteen_bits_are_not_quantised():
    ramp = np.arange(300, 300 + 16 * 16 * 3, 3).reshape(16, 16, 1)
    image = views.take_pixels(
        store := store_of([ramp], dtype="uint16"), crop_of(store, 16, views.PLAIN), plain_units(1)
    )
    assert image.unique().numel() == 256 and image.min() == 300 and image.max() == 300 + 255 * 3
    high = store_of([np.full((4, 4, 1), 65535)], dtype="uint16")
    assert (views.take_pixels(high, crop_of(high, 4, views.PLAIN), plain_units(1)) == 65535).all()


def test_small_images_are_centred_repeated_and_marked():
    store = random_store(sizes=((4, 6),))
    crop = crop_of(store, 8, views.PLAIN)
    inside = views.valid(store, crop)[0, 0]
    want = torch.zeros(8, 8).bool()
    want[2:6, 1:7] = True
    assert torch.equal(inside, want)
    image = views.take_pixels(store, crop, plain_units(1))[0, 0]
    assert torch.equal(image[want].view(4, 6), store.image(0)[0])
    assert (image[0, 1:7] == store.image(0)[0, 0]).all() and (image[7, 7] == store.image(0)[0, -1, -1]).all()
    label = views.take_labels(store.labels, store, crop)[0, 0]
    assert (label[~want] == IGNORE).all() and torch.equal(label[want].view(4, 6), store.label(0))


@given(st.integers(0, 10**6))
def test_image_mask_and_planes_move_together(seed):
    """A mask drawn as a channel of the image is read bilinearly; where it is flat, both say the same."""
    rng = np.random.default_rng(seed)
    masks = [np.kron(rng.integers(0, 3, (5, 4)), np.ones((8, 8))).astype(np.uint8)[..., None] for _ in range(2)]
    store = store_of([np.concatenate([m, 255 - m], 2) for m in masks], masks)
    plane = torch.cat([store.labels, 2 - store.labels], 1)
    crop = crop_of(store, 24, WILD, seed, [0, 1, 1])
    image = views.take_pixels(store, crop, plain_units(2))
    label = views.take_labels(store.labels, store, crop)
    planes = views.take_labels(plane, store, crop)
    inside = views.valid(store, crop)
    flat = inside & (image[:, :1] == image[:, :1].round()) & (image[:, 1:] == 255 - image[:, :1])
    # a whole number that lies between two classes by chance (0 and 2 mixed to 1) is no flat spot
    flat &= (image[:, :1] - label).abs() < 1e-3
    assert flat.sum() > 0.3 * inside.sum()
    off = inside & ((image[:, :1] - label).abs() > 1.01)
    assert off.float().mean() < 0.05  # the half pixel around a step from 0 to 2
    assert torch.equal(planes[:, :1], label) and torch.equal(planes[:, 1:][inside], 2 - label[inside])
    assert torch.equal(label == IGNORE, ~inside)


def test_a_coordinate_image_shows_where_each_pixel_came_from():
    """Bilinear interpolation of a plane is exact: the crop must read its own coordinates."""
    y, x = np.mgrid[:40, :50]
    store = store_of([np.stack([x, y], 2).astype(np.float32)], dtype="float32")
    for seed in range(8):
        crop = crop_of(store, 16, WILD, seed)
        image = views.take_pixels(store, crop, plain_units(2))[0]
        torch.testing.assert_close(image[0], crop.x[0].clamp(0, 49), atol=1e-3, rtol=0)
        torch.testing.assert_close(image[1], crop.y[0].clamp(0, 39), atol=1e-3, rtol=0)


@given(st.integers(0, 10**6))
def test_the_warp_is_a_similarity_within_its_ranges(seed):
    geometry = views.Geometry(scale=(0.7, 1.4), rotate=15.0, flip=True)
    store = random_store(sizes=((64, 64),))
    crop = crop_of(store, 8, geometry, seed, [0] * 4)
    right = torch.stack([crop.x[:, 0, 1] - crop.x[:, 0, 0], crop.y[:, 0, 1] - crop.y[:, 0, 0]], 1)
    down = torch.stack([crop.x[:, 1, 0] - crop.x[:, 0, 0], crop.y[:, 1, 0] - crop.y[:, 0, 0]], 1)
    scale = right.norm(dim=1)
    torch.testing.assert_close(scale, down.norm(dim=1), atol=1e-4, rtol=0)
    assert (scale > 0.69).all() and (scale < 1.41).all()
    assert ((right * down).sum(1).abs() < 1e-3).all()
    assert (down[:, 1] / scale >= np.cos(np.radians(15.01))).all()  # no turn, no up-down flip
    assert views.valid(store, crop).float().mean() > 0.8  # corners of a rotated crop may reach beyond the image
    straight = views.Geometry(scale=(0.7, 1.4), flip=True, turn=True)
    assert views.valid(store, crop_of(store, 8, straight, seed, [0] * 4)).all()


def test_parameters_differ_within_a_batch_and_flips_are_half():
    store = random_store(sizes=((64, 64),))
    crop = crop_of(store, 8, views.Geometry(flip=True), 0, [0] * 200)
    left_to_right = (crop.x[:, 0, 1] > crop.x[:, 0, 0]).float().mean()
    assert 0.35 < left_to_right < 0.65
    turned = crop_of(store, 8, views.Geometry(flip=True, turn=True), 0, [0] * 200)
    corner = {(round(float(dx)), round(float(dy)), round(float(ex)), round(float(ey))) for dx, dy, ex, ey in zip(
        turned.x[:, 0, 1] - turned.x[:, 0, 0], turned.y[:, 0, 1] - turned.y[:, 0, 0],
        turned.x[:, 1, 0] - turned.x[:, 0, 0], turned.y[:, 1, 0] - turned.y[:, 0, 0], strict=True)}  # fmt: skip
    assert len(corner) == 8  # the eight symmetries of the square


POLICIES = [*views.VIEWS.items(), ("all", views.Photometry(1, 0.3, 0.5, 0.5, 0.2, 0.5, 0.7, 0.1))]


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize(("name", "policy"), POLICIES)
def test_photometry(channels, name, policy):
    image = torch.rand(1, channels, 24, 24, generator=generator_of(1)).expand(8, -1, -1, -1)
    out = views.photometric(image, policy, generator_of(2))
    assert out.shape == image.shape and torch.isfinite(out).all()
    assert torch.equal(out, views.photometric(image, policy, generator_of(2)))
    assert not torch.equal(out, views.photometric(image, policy, generator_of(3)))
    changed = [i for i in range(8) if (out[i] - image[i]).abs().max() > 1e-4]
    assert len(changed) >= 3
    pairs = [(i, j) for i in changed for j in changed if i < j]
    assert all((out[i] - out[j]).abs().max() > 1e-4 for i, j in pairs), "parameters must differ per sample"
    assert torch.equal(image[0], torch.rand(1, channels, 24, 24, generator=generator_of(1))[0])


def test_nothing_drawn_changes_nothing():
    image = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(views.photometric(image, views.Photometry(), generator_of(0)), image)


def test_gray_replaces_all_channels_by_their_mean():
    image = torch.rand(64, 3, 6, 6)
    out = views.photometric(image, views.Photometry(gray=0.5), generator_of(0))
    gray = [i for i in range(64) if (out[i] - out[i].mean(0)).abs().max() < 1e-6]
    assert 20 < len(gray) < 44
    for i in range(64):
        want = image[i].mean(0).expand(3, -1, -1) if i in gray else image[i]
        torch.testing.assert_close(out[i], want)


def test_blur_keeps_the_mean_and_constant_images():
    image = torch.rand(6, 2, 20, 20)
    out = views.photometric(image, views.Photometry(blur=1.0), generator_of(0))
    assert (out.flatten(1).std(1) < image.flatten(1).std(1)).all()
    assert (out.mean((2, 3)) - image.mean((2, 3))).abs().max() < 0.05
    flat = torch.full((2, 1, 9, 9), 0.3)
    torch.testing.assert_close(views.photometric(flat, views.Photometry(blur=1.0), generator_of(0)), flat)


def test_contrast_turns_about_the_mean():
    image = torch.rand(5, 1, 8, 8)
    out = views.photometric(image, views.Photometry(jitter=1.0, contrast=0.5), generator_of(0))
    torch.testing.assert_close(out.mean((2, 3)), image.mean((2, 3)))
    ratio = out.flatten(1).std(1) / image.flatten(1).std(1)
    assert (ratio > 0.49).all() and (ratio < 1.51).all() and ratio.unique().numel() == 5
