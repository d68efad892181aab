"""What the Python face does with arrays: taken, or refused in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import semiseg
from semiseg.errors import Refusal


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64, bool])
@pytest.mark.parametrize("pack", [np.asarray, list])
def test_members_may_be_arrays(dtype: type, pack: Callable[[np.ndarray], object]) -> None:
    labels = np.random.default_rng(0).integers(0, 2, (3, 2, 5, 4)).astype(dtype)
    made = semiseg.inconsistency_mask(pack(labels))
    same = (labels == labels[0]).all(0)
    assert np.array_equal(made.inconsistent[:, 0].numpy(), ~same)
    assert np.array_equal(made.label.numpy(), np.where(same, labels[0].astype(int), 255))
    expected = semiseg.inconsistency_mask(torch.from_numpy(labels.astype(np.int64)))
    assert torch.equal(made.label.long(), expected.label) and torch.equal(made.agree, expected.agree)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.zeros((2, 1, 4, 4), np.float32), "discretise first"), (np.zeros((2, 4)), "have shape (2, 4)"),
        ([np.zeros((1, 4, 4)), np.zeros((1, 5, 4))], "are no array"), (np.array(3), "are no array"),
        ("ab", "are no array"), ([], "are no array"), (None, "are no array"), (np.zeros((1, 1, 4, 4), int), "has 1 member"),
    ],
)  # fmt: skip
def test_what_is_no_committee(labels: object, said: str) -> None:
    with pytest.raises(Refusal, match=said.replace("(", r"\(").replace(")", r"\)")) as found:
        semiseg.inconsistency_mask(labels)
    assert found.value.exit == 2


def test_images_that_are_none(trained: Callable[..., Path]) -> None:
    model = semiseg.load(trained() / "run")
    good = np.zeros((9, 7, 3), np.uint8)
    assert model.predict(good).label.shape == (9, 7)
    for image, said in (
        (good[:0], "the shape (0, 7, 3)"), (good[:, :0], "the shape (9, 0, 3)"), (good[None], "the shape (1, 9, 7, 3)"),
        (good[0, 0], "the shape (3,)"), (good[..., 0], "1 channel,"), (good.astype(float), "float64"),
    ):  # fmt: skip
        with pytest.raises(Refusal) as found:
            model.predict(image)
        assert said in str(found.value) and found.value.exit == 3
    model.dtype = "float32"
    with pytest.raises(Refusal, match="NaN"):
        model.predict(np.full((9, 7, 3), np.nan, np.float32))
