"""Metrics of a network on the images of a store, at the working resolution."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from semiseg.data.cache import Store, Units
from semiseg.task import Metrics, Task
from semiseg.training.inference import probability

BATCH_PIXELS = 512 * 512


def batches(store: Store, limit: int = BATCH_PIXELS) -> Iterator[list[int]]:
    """Runs of images that have the same size, at most `limit` pixels together."""
    run: list[int] = []
    for i in range(len(store)):
        size = (int(store.height[i]), int(store.width[i]))
        if run and (
            size != (int(store.height[run[0]]), int(store.width[run[0]])) or (len(run) + 1) * size[0] * size[1] > limit
        ):
            yield run
            run = []
        run.append(i)
    if run:
        yield run


def images(store: Store, chosen: Sequence[int], units: Units) -> Tensor:
    """(B,C,h,w) in unit range, images of one size, where networks are."""
    return units.apply(torch.stack([store.image(i) for i in chosen]))


@torch.inference_mode()
def evaluate(
    networks: Sequence[nn.Module], task: Task, store: Store, units: Units, metrics: Metrics | None = None
) -> dict[str, Any]:
    """METRICS of the average of one or more networks' probabilities, added to `metrics`; see `task.Metrics`."""
    training = [net.training for net in networks]
    for net in networks:
        net.eval()
    metrics = metrics or task.metrics()
    for chosen in batches(store):
        label = task.label(probability(networks, task, images(store, chosen, units)))
        for row, i in enumerate(chosen):
            mask = store.label(i)
            assert mask is not None
            metrics.update(label[row], mask.to(label.device))
    for net, mode in zip(networks, training, strict=True):
        net.train(mode)
    return metrics.compute()
