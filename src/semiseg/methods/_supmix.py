"""SupMix: ground-truth class regions of labeled images are pasted onto unlabeled ones (ClassMix pastes pseudo-labels).

[0] Mano, Saito and Hotta 2026, https://arxiv.org/abs/2604.07122 (no public code). Our reading of its section on mixing:
half of the classes an image shows, rounded down as in ClassMix; of two classes the foreground, and of labels that overlap
half, rounded up, so that a lone one is always pasted. The authors choose their classes by hand: `classes` names them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from semiseg.batch import Labeled, Target, send
from semiseg.data.mixing import class_regions, paste_both
from semiseg.errors import nearest, usage
from semiseg.task import Task


def chosen(names: str, task: Task) -> tuple[int, ...]:
    """Ids of the classes in a list with commas; refuses what the task does not have."""
    found = [name.strip() for name in names.split(",") if name.strip()]
    for name in found:
        if name not in task.names:
            text = f"names '{name}'. {nearest(name, task.names)}".strip()
            raise usage("classes", text, expected=", ".join(task.names))
    return tuple(task.names.index(name) for name in found)


def sources(
    labeled: Labeled, number: int, task: Task, generator: torch.Generator, classes: tuple[int, ...] = ()
) -> tuple[Tensor, Tensor, Target]:
    """What is pasted onto `number` unlabeled images: regions (number,1,H,W) bool, labeled images, masks as targets.

    classes: ids that are pasted wherever they occur; () = half of those an image shows, drawn. The B labeled images are
    cycled, each use with a draw of its own. A pixel whose mask is 255, or counts nothing, never belongs to a region; of
    a pixel with several labels only the known ones get a weight.
    """
    order = torch.arange(number, device=labeled.image.device) % len(labeled.image)
    truth = task.belief(labeled)
    belief = truth.replace(**{name: part[order] for name, part in vars(truth).items()})
    mask = labeled.mask[order]
    if classes and task.multilabel:
        region = (mask[:, list(classes)] == 1).any(1, keepdim=True)
    elif classes:
        region = torch.isin(mask, send(torch.tensor(classes), mask.device)).unsqueeze(1)
    else:
        region = class_regions(mask, task.channels, generator, background=task.channels > 2)
    return region & (belief.weight > 0).any(1, keepdim=True), labeled.image[order], belief


def supmix(
    labeled: Labeled,
    strong: Tensor,
    target: Target,
    task: Task,
    generator: torch.Generator,
    classes: tuple[int, ...] = (),
) -> tuple[Tensor, Target]:
    """Labeled pixels and their masks over (U,C,H,W) and its target: label exact, weight full, valid on a region.

    A pasted pixel covers what was there, so all its label channels are the labeled image's, none is merged.
    """
    region, image, belief = sources(labeled, len(strong), task, generator, classes)
    return paste_both(region, strong, target, image, belief)
