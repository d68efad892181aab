"""CutMix boxes as UniMatch's transform.py draws them, and what is pasted with them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny
from semiseg.batch import generator_of
from semiseg.data.mixing import cut_boxes, cutmix, partners, paste


def sides(box):
    """Height and width of each box (B,1,H,W); 0 where there is none."""
    return box.any(3).sum(2).flatten(), box.any(2).sum(2).flatten()


@given(st.integers(0, 10**6), st.integers(8, 40), st.integers(8, 40))
def test_boxes_are_rectangles_within_their_ranges(seed, height, width):
    box = cut_boxes(16, (height, width), generator_of(seed))
    assert box.shape == (16, 1, height, width) and box.dtype == torch.bool
    h, w = sides(box)
    assert torch.equal(h * w, box.flatten(1).sum(1))  # filled rectangles
    share = h * w / (height * width)
    assert (share <= 0.4).all()
    for i in range(16):
        if share[i] > 0:
            assert (h[i] + 1) * (w[i] + 1) >= 0.02 * height * width  # up to truncation
    assert torch.equal(box, cut_boxes(16, (height, width), generator_of(seed)))


def test_half_of_the_images_have_no_box():
    box = cut_boxes(4000, (16, 16), generator_of(0))
    assert box.flatten(1).any(1).float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert cut_boxes(200, (32, 32), generator_of(0), p=1.0).flatten(1).any(1).all()
    assert not cut_boxes(200, (32, 32), generator_of(0), p=0.0).any()


def test_statistics_at_321():
    """Mean area .209 S² and mean h/w 1.62, as 20 000 draws of the authors' code; redrawing the area would give .142."""
    areas, ratios = [], []
    for seed in range(40):
        h, w = sides(cut_boxes(50, (321, 321), generator_of(seed), p=1.0))
        areas.append(h * w / 321**2)
        ratios.append(h / w)
    areas, ratios = torch.cat(areas), torch.cat(ratios)
    assert areas.mean().item() == pytest.approx(0.209, abs=0.01)
    assert ratios.mean().item() == pytest.approx(1.62, abs=0.07)
    assert areas.max() <= 0.4 and areas.min() > 0.015 and ratios.max() < 3.45 and ratios.min() > 0.28


def test_boxes_go_everywhere():
    often = cut_boxes(3000, (16, 16), generator_of(1)).float().mean((0, 1))
    assert often.min() > 0
    for mirrored in (often.flip(0), often.flip(1)):
        assert (often - mirrored).abs().max() < 0.03


def test_partners():
    assert partners(4).tolist() == [1, 2, 3, 0] and partners(1).tolist() == [0] and partners(0).tolist() == []


def test_paste_with_and_without_a_label_axis():
    box = torch.zeros(1, 1, 2, 2).bool()
    box[..., 0, 1] = True
    a, b = torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2)
    assert torch.equal(paste(box, a, b), box.float().expand(1, 3, 2, 2))
    assert torch.equal(paste(box, a[:, 0], b[:, 0]), box[:, 0].float())


@pytest.mark.parametrize("partner", [None, torch.tensor([2, 0, 1])])
def test_everything_is_pasted_with_one_box_and_one_partner(kind, partner):
    g = generator_of(5)
    task, b = tiny.task_of(kind), 3
    image = torch.rand(b, 2, 12, 12, generator=g)
    valid = torch.rand(b, 1, 12, 12, generator=g) < 0.6
    target = task.target(torch.randn(b, task.channels, 12, 12, generator=g), valid)
    target = target.replace(weight=torch.rand(b, task.channels if task.multilabel else 1, 12, 12, generator=g))
    box = cut_boxes(b, (12, 12), g, p=1.0)
    mixed, pasted = cutmix(image, target, box, partner)
    order = [1, 2, 0] if partner is None else partner.tolist()
    assert box.any() and not box.all()
    for i in range(b):
        for y in range(12):
            for x in range(12):
                source = order[i] if box[i, 0, y, x] else i
                assert torch.equal(mixed[i, :, y, x], image[source, :, y, x])
                for name, part in vars(target).items():
                    assert torch.equal(getattr(pasted, name)[i, ..., y, x], part[source, ..., y, x]), name


def test_no_box_changes_nothing():
    unlabeled = tiny.unlabeled("multiclass")
    target = tiny.task_of("multiclass").target(torch.randn(3, 3, 16, 16), unlabeled.valid)
    image, same = cutmix(unlabeled.weak, target, torch.zeros(3, 1, 16, 16).bool())
    assert torch.equal(image, unlabeled.weak) and all(torch.equal(a, vars(target)[k]) for k, a in vars(same).items())
