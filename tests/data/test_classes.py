import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from semiseg.data.classes import ClassMap, UnknownValues, pack, unpack
from semiseg.data.decode import read_mask

PALETTE = ((0, 0, 0), (9, 8, 7), (250, 0, 0))
MAPS = {
    "binary 0/1": ClassMap("multilabel", ("cell",), values=(0, 1), ignore=(255,)),
    "binary 0/255": ClassMap("multilabel", ("cell",), values=(0, 255)),
    "binary as grey RGB": ClassMap("multilabel", ("cell",), values=(0, 255), replicate=True),
    "binary colours": ClassMap("multilabel", ("cell",), "colors", colors=((0, 0, 0), (9, 9, 200)), ignore=((1, 1, 1),)),
    "ids": ClassMap("multiclass", ("a", "b", "c"), values=(0, 1, 2), ignore=(255,)),
    "values": ClassMap("multiclass", ("a", "b", "c"), values=(7, 300, 60000)),
    "palette": ClassMap("multiclass", ("a", "b", "c"), values=(0, 1, 2), palette=PALETTE),
    "colours": ClassMap("multiclass", ("a", "b", "c"), "colors", colors=((5, 5, 5), (0, 0, 255), (255, 0, 1))),
    "folders": ClassMap("multilabel", ("a", "b"), "folders", values=(0, 255)),
    "one folder": ClassMap("multilabel", ("a",), "folders", values=(0, 255)),
    "channels": ClassMap("multilabel", ("a", "b", "c"), "channels", values=(0, 1), ignore=(255,)),
    "two channels": ClassMap("multilabel", ("a", "b"), "channels", values=(0, 255)),
}


def some_label(classes: ClassMap, seed: int, size: tuple[int, int] = (7, 9)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if classes.task == "multiclass":
        return rng.integers(0, classes.channels, size).astype(np.uint8)
    shape = size if classes.kind == "binary" else (classes.channels, *size)
    return rng.integers(0, 2, shape).astype(np.uint8)


@pytest.mark.parametrize("name", MAPS)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), height=st.integers(8, 20), width=st.integers(8, 20))
def test_what_is_encoded_and_written_is_decoded_again(tmp_path_factory, name, seed, height, width):
    classes, folder = MAPS[name], tmp_path_factory.mktemp("masks")
    label = some_label(classes, seed, (height, width))
    arrays = []
    for key, encoded in classes.encode(label).items():
        path = folder / (key or "all")
        path.with_suffix(encoded.suffix).write_bytes(encoded.to_bytes())
        arrays.append(read_mask(path.with_suffix(encoded.suffix), rgb=classes.coding == "colors"))
    again = classes.decode(arrays if classes.coding == "folders" else arrays[0])
    assert again.dtype == np.uint8 and np.array_equal(again, label)


@pytest.mark.parametrize("name", MAPS)
def test_json_round_trip(name):
    assert ClassMap.from_json(json.loads(json.dumps(MAPS[name].to_json()))) == MAPS[name]


def test_kind_and_channels():
    kinds = {name: (c.kind, c.channels) for name, c in MAPS.items()}
    assert kinds["binary 0/255"] == kinds["one folder"] == ("binary", 1)
    assert kinds["ids"] == ("multiclass", 3) and kinds["folders"] == ("multilabel", 2)


def test_ignore_becomes_255():
    raw = np.array([[0, 1, 2, 255]], np.uint8)
    assert MAPS["ids"].decode(raw).tolist() == [[0, 1, 2, 255]]
    assert MAPS["binary 0/1"].decode(raw[:, [0, 1, 3]]).tolist() == [[0, 1, 255]]
    colors = np.array([[[0, 0, 0], [9, 9, 200], [1, 1, 1]]], np.uint8)
    assert MAPS["binary colours"].decode(colors).tolist() == [[0, 1, 255]]
    assert MAPS["channels"].decode(np.array([[[0, 1, 255]]], np.uint8)).ravel().tolist() == [0, 1, 255]


def test_unknown_values_are_counted():
    with pytest.raises(UnknownValues) as caught:
        MAPS["ids"].decode(np.array([[0, 7, 7, 254]], np.uint8))
    assert caught.value.counts == {7: 2, 254: 1}
    with pytest.raises(UnknownValues) as caught:
        MAPS["colours"].decode(np.zeros((2, 2, 3), np.uint8))
    assert caught.value.counts == {(0, 0, 0): 4}


def test_grey_files_among_coded_masks():
    assert MAPS["binary 0/1"].decode(np.ones((2, 2, 3), np.uint8)).tolist() == [[1, 1], [1, 1]]
    assert MAPS["colours"].decode(np.full((1, 2), 5, np.uint8)).tolist() == [[0, 0]]
    with pytest.raises(ValueError, match="3 channels"):
        MAPS["ids"].decode(np.arange(12, dtype=np.uint8).reshape(2, 2, 3))
    with pytest.raises(ValueError, match="1 masks for 2 labels"):
        MAPS["folders"].decode(np.zeros((2, 2), np.uint8))
    with pytest.raises(ValueError, match="2 channels for 3"):
        MAPS["channels"].decode(np.zeros((2, 2, 2), np.uint8))


def test_palette_users_get_an_indexed_png():
    encoded = MAPS["palette"].encode(np.array([[0, 1, 2]], np.uint8))[""]
    image = Image.open(io.BytesIO(encoded.to_bytes()))
    assert image.mode == "P" and image.convert("RGB").getpixel((2, 0)) == (250, 0, 0)


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_colours_pack_and_unpack(color):
    assert unpack(int(pack(np.array([[color]], np.uint8))[0, 0])) == color
