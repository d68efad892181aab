"""Boundary IoU by brute force, calibration as torchmetrics has it, and the rest by its definition."""

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

import tiny
from semiseg.compare import scores
from semiseg.compare.statistics import counts, dice, miou
from semiseg.task import confusion


def slow_boundary(plane, d):
    """A pixel is inner when no pixel within chessboard distance d is off; outside of the image all are off."""
    out = np.zeros_like(plane)
    h, w = plane.shape
    for y in range(h):
        for x in range(w):
            near = [
                0 <= j < h and 0 <= i < w and plane[j, i]
                for j in range(y - d, y + d + 1)
                for i in range(x - d, x + d + 1)
            ]
            out[y, x] = plane[y, x] and not all(near)
    return out


@pytest.mark.parametrize("d", [1, 2, 4])
def test_boundary_by_brute_force(d):
    rng = np.random.default_rng(d)
    plane = rng.random((13, 9)) < 0.9
    plane[2:9, 1:8] = True
    assert (scores.boundary(plane, d) == slow_boundary(plane, d)).all()


def test_boundary_width():
    assert [scores.boundary_width(*size) for size in ((4, 4), (100, 100), (1024, 2048))] == [1, 3, 46]


def test_boundary_counts(kind):
    task = tiny.task_of(kind)
    one, two = (tiny.truth(kind, 1, 20, seed)[0].numpy().astype(np.uint8) for seed in (1, 2))
    two[..., :3, :] = 255
    found = scores.boundary_counts(one, two, task)
    for k in range(task.channels):
        known = (two[k] if task.multilabel else two) != 255
        a, b = (((x[k] == 1) if task.multilabel else x == k) & known for x in (one, two))
        a, b = slow_boundary(a, 1), slow_boundary(b, 1)
        assert found[k].tolist() == [(a & b).sum(), (a & ~b).sum(), (b & ~a).sum()]
    same = scores.boundary_counts(one, one, task)
    assert same[:, 1:].sum() == 0 and miou(same) == 1


def test_confusion_is_that_of_evaluate(kind):
    """Summed over images it gives what `semiseg evaluate` says."""
    task = tiny.task_of(kind)
    masks, labels = (tiny.truth(kind, 3, 16, seed) for seed in (1, 2))
    masks[0, ..., :4] = 255
    metrics = task.metrics()
    found = []
    for label, mask in zip(labels, masks, strict=True):
        metrics.update(label, mask)
        found.append(confusion(label, mask, task))
    made = counts(np.stack(found), task.multilabel)
    said = metrics.compute()
    assert float(miou(made.sum(0))) == pytest.approx(said["miou"])
    assert float(dice(made.sum(0))) == pytest.approx(said["dice"])
    assert scores.iou_per_image(made, task.multilabel) == pytest.approx(said["iou_per_image"])


def test_iou_per_image_by_loops(kind):
    """Classes of an image: those of its truth (the IM paper); labels: those of its truth or prediction."""
    task = tiny.task_of(kind)
    masks, labels = tiny.truth(kind, 6, 12, 1), tiny.truth(kind, 6, 12, 2)
    for i in range(5):  # one class, or nothing, is left in some truths and some predictions
        (masks if i % 2 else labels)[i] = 0 if i < 3 else 1
    each = []
    for label, mask in zip(labels, masks, strict=True):
        ious = []
        for k in range(task.channels):
            p, t = ((x[k] == 1) if task.multilabel else x == k for x in (label, mask))
            if t.any() or (task.multilabel and p.any()):
                ious.append(int((p & t).sum()) / int((p | t).sum()))
        if ious:
            each.append(sum(ious) / len(ious))
    found = np.stack([confusion(label, mask, task) for label, mask in zip(labels, masks, strict=True)])
    got = scores.iou_per_image(counts(found, task.multilabel), task.multilabel)
    assert got == pytest.approx(sum(each) / len(each))


def test_calibration_is_torchmetrics(kind):
    """Collected over images it is the error of all pixels at once; overlapping labels are two-class problems."""
    task = tiny.task_of(kind)
    masks = tiny.truth(kind, 3, 16, 5)
    logits = 2 * torch.randn((3, task.channels, 16, 16), generator=torch.Generator().manual_seed(0))
    logits[0, :, 0, 0] = 100  # a confidence of 1 (or 1 / K)
    masks[1, ..., :5] = 255
    prob = task.prob(logits)
    bins = sum(scores.calibration_bins(p, m, task) for p, m in zip(prob, masks, strict=True))
    if task.multilabel:
        both, target = torch.stack([1 - prob, prob], 1).flatten(2), masks.flatten(1).long()
    else:
        both, target = prob.flatten(2), masks.flatten(1)
    both = both.transpose(1, 2).reshape(-1, both.shape[1])
    target = target.reshape(-1)
    known = target != 255
    theirs = multiclass_calibration_error(both[known], target[known], both.shape[1], n_bins=scores.BINS)
    assert scores.calibration_error(bins) == pytest.approx(float(theirs), abs=1e-5)


def test_risk_and_coverage():
    """Ten images whose errors grow with their inconsistent share: the fewer are kept, the smaller the risk."""
    hits = np.arange(100, 0, -10)
    found = np.stack([hits, 0 * hits, 100 - hits], -1)[:, None]
    order = np.random.default_rng(0).permutation(10)
    risk = scores.risk_coverage(found[order], np.linspace(0, 1, 10)[order])
    each = [1 - hits[: n + 1].mean() / 100 for n in range(10)]
    assert risk == pytest.approx(each)
    assert scores.mean_risk(found[order], np.linspace(0, 1, 10)[order]) == pytest.approx(sum(each) / 10)
    assert scores.mean_risk(found, np.linspace(1, 0, 10)) > sum(each) / 10
