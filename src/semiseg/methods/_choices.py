"""What several methods let be exchanged: which pixels are trusted, what is pasted, what the last view hides."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from semiseg.batch import IGNORE, Clock, Labeled, Target, Unlabeled
from semiseg.data.mixing import class_regions, cut_boxes, cutmix
from semiseg.errors import nearest, usage
from semiseg.methods._patches import hide, patches
from semiseg.methods._separation import VERSIONS, separation
from semiseg.methods._supmix import supmix
from semiseg.networks.base import batch_stats
from semiseg.networks.perturb import LEVELS
from semiseg.task import Task

if TYPE_CHECKING:
    from semiseg.methods.base import Method

CHOICES = {
    "refine": ("confidence", "csl"),
    "view": ("strong", "masked"),
    "mix": ("none", "cutmix", "classmix", "supmix"),
    "levels": LEVELS,
    "believed": ("train", "eval"),
    "version": VERSIONS,
}


def check(**chosen: str) -> None:
    """Refuse names that CHOICES does not have, with the nearest one that it has."""
    for option, name in chosen.items():
        known = CHOICES[option]
        if name not in known:
            raise usage(option, f"is '{name}'. {nearest(name, known)}".strip(), expected=" or ".join(known))


def select(name: str, target: Target, task: Task, threshold: float) -> Target:
    """The belief as its rule weighs it: weight 1 from a confidence of `threshold` on, or CSL's weights (no threshold)."""
    if name == "csl":
        return target.replace(weight=target.weight * separation(target, task))
    return target.keep(lambda t: t.confidence >= threshold)


def only(mix: str, classes: tuple[int, ...]) -> tuple[int, ...]:
    """The classes that are pasted; refuses (exit 2) some where nothing is pasted by class."""
    if classes and mix != "supmix":
        raise usage("classes", f"names classes, which mix={mix} does not paste", "add mix=supmix, or leave it out")
    return classes


def mixed(
    name: str,
    strong: Tensor,
    target: Target,
    labeled: Labeled,
    task: Task,
    clock: Clock,
    stream: str,
    classes: tuple[int, ...] = (),
) -> tuple[Tensor, Target]:
    """A strong view (U,C,H,W) with something pasted into it, and the belief with the same pasted; drawn from `stream`.

    cutmix: a box of the next image. classmix: of each image half of its predicted classes, on the next one. supmix:
    classes of labeled images with their masks, which count in full; which ones says `classes` (see `sources`).
    """
    if name == "none":
        return strong, target
    generator = clock.generator(stream)
    if name == "supmix":
        return supmix(labeled, strong, target, task, generator, classes)
    if name == "cutmix":
        return cutmix(strong, target, cut_boxes(len(strong), (strong.shape[-2], strong.shape[-1]), generator))
    unknown = ~target.valid
    if not target.prob.shape[1]:  # a committee's labels alone: where it says nothing there is no class
        unknown = unknown | (target.weight == 0)
    unknown = unknown if target.multilabel else unknown.squeeze(1)
    regions = class_regions(target.label.masked_fill(unknown, IGNORE), task.channels, generator)
    return cutmix(strong, target, ~regions)  # the next image wherever the chosen classes are not


def strong_loss(
    method: Method,
    view: str,
    mix: str,
    labeled: Labeled,
    unlabeled: Unlabeled,
    target: Target,
    clock: Clock,
    classes: tuple[int, ...] = (),
) -> Tensor:
    """Mean over the strong views of Σ weight · CE / #pixels inside the image; one pass for all, each with its own boxes.

    view = masked: most patches of the last view are hidden, and nothing is pasted into it, as MaskMatch has it: what they
    show is to be inferred from the rest. Its pass is its own and leaves BN running statistics alone.
    """
    task, network = method.task, method.student
    whole = unlabeled.strong[: len(unlabeled.strong) - (view == "masked")]
    pasted = [mixed(mix, v, target, labeled, task, clock, f"box{i}", classes) for i, v in enumerate(whole)]
    logits = network(torch.cat([image for image, _ in pasted])).chunk(len(pasted))
    terms = [task.consistency(x, belief) for x, (_, belief) in zip(logits, pasted, strict=True)]
    if view == "masked":
        with batch_stats(network, track=False):
            terms.append(task.consistency(network(mask_view(unlabeled.strong[-1], network, clock)), target))
    return torch.stack(terms).mean()


def mask_view(image: Tensor, network: nn.Module, clock: Clock) -> Tensor:
    """(U,C,H,W) without most of its patches."""
    return hide(image, patches(len(image), (image.shape[-2], image.shape[-1]), clock.generator("patches")), network)


def caveat(refine: str, task: Task) -> str:
    """What a choice cannot do on this task."""
    if refine == "csl" and (task.multilabel or task.channels == 2):
        return "refine=csl sees nothing but the confidence in a problem of two classes: it weighs pixels by it alone"
    return ""
