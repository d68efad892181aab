"""Which images at which step: a pure function of the step, and the labeled stream of no other data."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from semiseg.data.sampler import Drawing, Feed, copies, indices
from semiseg.data.views import Geometry, Photometry
from semiseg.errors import Refusal
from tiny import plain_units, store_of


def store(n, seed, size=20, labels=1):
    rng = np.random.default_rng(seed)
    images = [rng.integers(0, 256, (size + i % 3, size, 1)) for i in range(n)]
    masks = [rng.integers(0, 2, (*i.shape[:2], labels), np.uint8) for i in images]
    return store_of(images, masks)


def feed(stacked=False, **changes):
    known, other = store(5, 1, labels=2 if stacked else 1), store(7, 2)
    known.stacked, other.labels = stacked, None
    made = {"units": plain_units(1, 255.0), "size": 12, "batch": 3, "key": (0, 0), "labeled_store": known,
            "unlabeled_store": other, "unlabeled_batch": 4}  # fmt: skip
    return Feed(**{**made, **changes})


@given(st.integers(1, 9), st.integers(1, 12), st.integers(0, 5))
def test_every_pass_shows_every_image_once(n, batch, key):
    stream = torch.cat([indices(step, batch, n, key) for step in range(2 * n)])
    assert len(stream) == 2 * n * batch
    for start in range(0, len(stream) - n + 1, n):
        assert sorted(stream[start : start + n].tolist()) == list(range(n))


def test_a_step_does_not_depend_on_the_steps_before():
    forward = [indices(s, 3, 7, "k") for s in range(20)]
    backward = [indices(s, 3, 7, "k") for s in reversed(range(20))]
    assert all(torch.equal(a, b) for a, b in zip(forward, reversed(backward), strict=True))
    orders = {tuple(torch.cat([indices(s, 7, 7, "k") for s in (e,)]).tolist()) for e in range(6)}
    assert len(orders) > 4  # every pass in its own order
    assert any(not torch.equal(a, indices(s, 3, 7, "other")) for s, a in enumerate(forward))


def same(a, b):
    return torch.equal(a.image, b.image) and torch.equal(a.mask, b.mask)


def test_batches_are_a_pure_function_of_the_step():
    one, two = feed(), feed()
    two.labeled(0)
    for step in (4, 0, 9):
        assert same(one.labeled(step), two.labeled(step))
        a, b = one.unlabeled(step, ("strong", "train")), two.unlabeled(step, ("strong", "train"))
        assert torch.equal(a.weak, b.weak) and all(map(torch.equal, a.strong, b.strong))
    assert not same(one.labeled(0), one.labeled(1))
    assert not same(one.labeled(0), feed(key=(0, 1)).labeled(0))


def test_the_labeled_stream_is_the_same_in_every_arm():
    arms = [feed(), feed(unlabeled_store=None), feed(unlabeled_batch=1), feed(unlabeled_store=store(2, 9))]
    arms.append(feed(planes=(torch.zeros(1, 1), torch.zeros(1, 1))))
    assert len({a.first_batch_hash() for a in arms}) == 1
    arms[0].unlabeled(0, ("strong",))
    assert all(same(arms[0].labeled(3), a.labeled(3)) for a in arms)
    others = [feed(key=(1, 0)), feed(augment="none"), feed(size=10), feed(batch=2)]
    assert len({a.first_batch_hash() for a in [arms[0], *others]}) == 5


def test_masks_are_ids_or_stacked_planes():
    batch = feed().labeled(0)
    assert batch.image.shape == (3, 1, 12, 12) and batch.mask.shape == (3, 12, 12) and batch.mask.dtype == torch.int64
    batch = feed(stacked=True).labeled(0)
    assert batch.mask.shape == (3, 2, 12, 12) and batch.mask.dtype == torch.uint8


def test_without_augmentation_labeled_images_are_exact_crops():
    f = feed(augment="none")
    batch, chosen = f.labeled(2), indices(2, 3, 5, 0, 0, "labeled")
    for image, i in zip(batch.image, chosen, strict=True):
        whole = f.labeled_store.image(int(i)) / 255
        assert any(torch.equal(image, w) for w in whole.unfold(1, 12, 1).unfold(2, 12, 1).flatten(1, 2).transpose(0, 1))


def test_views_lie_on_the_weak_one():
    f = feed(augment="none")
    batch = f.unlabeled(0, ("strong", "strong", "weak", "train"))
    assert torch.equal(batch.strong[2], batch.weak) and torch.equal(batch.strong[3], batch.weak)
    assert not torch.equal(batch.strong[0], batch.strong[1])
    assert batch.valid.shape == (4, 1, 12, 12) and batch.size == (12, 12) and batch.planes is None
    colored = feed().unlabeled(0, ("train",))
    assert not torch.equal(colored.strong[0], colored.weak)


@pytest.mark.parametrize("stacked", [False, True])
def test_planes_move_with_the_image(stacked):
    """Planes made of the pixels themselves: grey value modulo 200 as label, its parity as agreement."""
    f = feed(stacked, units=plain_units(1), augment="none")
    pixels = f.unlabeled_store.pixels
    f.planes = (torch.cat([pixels % 200] * (2 if stacked else 1), 1), pixels % 2)
    batch = f.unlabeled(0, ())
    assert batch.valid.all()
    grey = batch.weak.long()
    assert torch.equal(batch.planes.label.long(), (grey % 200).expand(-1, 2, -1, -1) if stacked else grey[:, 0] % 200)
    assert torch.equal(batch.planes.agree, grey % 2 == 1)
    small = replace(f, size=30).unlabeled(0, ())
    outside = ~small.valid
    assert outside.any() and not small.planes.agree[outside].any()
    assert (small.planes.label[outside.expand_as(small.planes.label) if stacked else outside[:, 0]] == 255).all()


def test_nothing_to_draw():
    for f in (feed(unlabeled_store=None), feed(unlabeled_batch=0)):
        assert f.unlabeled(0, ("strong",)) is None and f.drawn == 0


def test_names_of_a_step():
    f = feed()
    want = [str(int(i)) for i in indices(1, 3, 5, 0, 0, "labeled")] + [
        str(int(i)) for i in indices(1, 4, 7, 0, 0, "unlabeled")
    ]
    assert f.names(1) == want
    assert len(feed(unlabeled_store=None).names(1)) == 3


@given(st.lists(st.integers(0, 5), min_size=7, max_size=7).filter(any), st.booleans(), st.integers(1, 9))
def test_a_pass_shows_every_image_as_often_as_it_counts(number, clean, batch):
    f = feed(drawing=Drawing(torch.tensor(number), clean), unlabeled_batch=batch)
    want = [n + int(clean and n > 0) for n in number]
    total = sum(want)
    places = [f._chosen(step, f.unlabeled_store) for step in range(-(-2 * total // batch))]
    image, plain = (torch.cat([p[k] for p in places]) for k in (0, 1))
    for start in (0, total):
        assert torch.bincount(image[start : start + total], minlength=7).tolist() == want
        seen = torch.bincount(image[start : start + total][plain[start : start + total]], minlength=7)
        assert seen.tolist() == [int(clean and n > 0) for n in number]
    again = feed(drawing=Drawing(torch.tensor(number), clean), unlabeled_batch=batch)
    step = len(places) - 1  # asked for first, with no step before it
    assert torch.equal(again._chosen(step, again.unlabeled_store)[0], places[step][0])
    assert f.names(0)[3:] == [str(int(i)) for i in places[0][0]]


def test_copies_by_hand():
    image, clean = copies(torch.tensor([2, 0, 1]), clean=True)
    assert image.tolist() == [0, 0, 0, 2, 2] and clean.tolist() == [True, False, False, True, False]
    image, clean = copies(torch.tensor([2, 0, 1]))
    assert image.tolist() == [0, 0, 2] and not clean.any()


def test_one_copy_of_each_changes_nothing():
    plain, counted = feed(), feed(drawing=Drawing(torch.ones(7, dtype=torch.int64)))
    for step in range(3):
        a, b = (f.unlabeled(step, ("train",)) for f in (plain, counted))
        assert torch.equal(a.weak, b.weak) and torch.equal(a.strong[0], b.strong[0])
        assert same(plain.labeled(step), counted.labeled(step))


def test_noised_copies_beside_clean_ones():
    """Clean copies are exact crops without colour; the others are mirrored and brighter; labeled images are neither."""
    brighter = Photometry(jitter=1.0, brightness=0.5)
    drawing = Drawing(torch.ones(7, dtype=torch.int64), True, Geometry(scale=(2.0, 2.0)), brighter)
    f, clean = feed(augment="none", drawing=drawing, unlabeled_batch=14), []
    batch = f.unlabeled(0, ("train", "strong"))
    chosen, plain = f._chosen(0, f.unlabeled_store)
    assert plain.sum() == 7
    for weak, view, strong, i, is_plain in zip(batch.weak, *batch.strong, chosen, plain, strict=True):
        whole = f.unlabeled_store.image(int(i)) / 255
        crops = whole.unfold(1, 12, 1).unfold(2, 12, 1).flatten(1, 2).transpose(0, 1)
        clean.append(any(torch.equal(weak, w) for w in crops))
        assert torch.equal(view, weak) == bool(is_plain) and not torch.equal(strong, weak)
    assert clean == plain.tolist()
    assert same(f.labeled(0), feed(augment="none").labeled(0))


def test_a_stream_read_in_smaller_steps_is_the_same_stream():
    whole, small = feed(), feed(batch=1, drawing=Drawing(stream=3))
    assert small.first_batch_hash() == whole.first_batch_hash() != feed(batch=1).first_batch_hash()
    names = [n for step in range(3) for n in small.names(step)[:1]]
    assert names == whole.names(0)[:3]


def test_unknown_augmentation():
    with pytest.raises(Refusal, match="none or default or strong"):
        feed(augment="very strong")


def test_strong_augmentation_is_the_same_place_in_stronger_colours():
    """Of labeled images, and of the view that shows unlabeled ones as these; where they are cut from stays."""
    images = [feed(augment=name).labeled(0) for name in ("default", "strong")]
    assert torch.equal(images[0].mask, images[1].mask) and not torch.equal(images[0].image, images[1].image)
    mild, strong = (feed(augment=name).unlabeled(0, ("train", "strong", "mild")) for name in ("default", "strong"))
    assert torch.equal(mild.weak, strong.weak) and not torch.equal(mild.strong[0], strong.strong[0])
    assert all(torch.equal(mild.strong[i], strong.strong[i]) for i in (1, 2))  # a method's own views are its own


@pytest.mark.parametrize("stacked", [False, True])
def test_batches_are_where_networks_are_wherever_the_pixels_lie(stacked):
    """A store that does not fit a GPU stays outside; whatever a step is given is on the device."""
    made = feed(stacked=stacked, augment="none")
    planes = tuple(torch.ones(len(made.unlabeled_store.pixels), 2 if stacked else 1, dtype=torch.uint8) for _ in "ab")
    away = replace(made, planes=planes, units=replace(made.units, device="meta"))
    labeled, unlabeled = away.labeled(0), away.unlabeled(0, ("weak",))
    tensors = [labeled.image, labeled.mask, unlabeled.weak, *unlabeled.strong, unlabeled.valid,
               unlabeled.planes.label, unlabeled.planes.agree]  # fmt: skip
    assert {t.device.type for t in tensors} == {"meta"}
    assert labeled.image.shape == made.labeled(0).image.shape
