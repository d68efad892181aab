"""SupMix: ground-truth class regions of labeled images are pasted onto unlabeled ones (ClassMix pastes pseudo-labels).

[0] Mano, Saito and Hotta 2026, https://arxiv.org/abs/2604.07122 (no public code). Our reading of its section on mixing:
half of the classes an image shows, background never, rounded up, so that a lone foreground is always pasted.
"""

from __future__ import annotations

import torch
from torch import Tensor

from semiseg.batch import Labeled, Target
from semiseg.data.mixing import class_regions, paste_both
from semiseg.task import Task


def sources(labeled: Labeled, number: int, task: Task, generator: torch.Generator) -> tuple[Tensor, Tensor, Target]:
    """What is pasted onto `number` unlabeled images: regions (number,1,H,W) bool, labeled images, masks as targets.

    The B labeled images are cycled, each use with a draw of its own. A pixel whose mask is 255, or counts nothing,
    never belongs to a region; of a pixel with several labels only the known ones get a weight.
    """
    order = torch.arange(number, device=labeled.image.device) % len(labeled.image)
    truth = task.belief(labeled)
    belief = truth.replace(**{name: part[order] for name, part in vars(truth).items()})
    region = class_regions(labeled.mask[order], task.channels, generator, background=False)
    return region & (belief.weight > 0).any(1, keepdim=True), labeled.image[order], belief


def supmix(
    labeled: Labeled, strong: Tensor, target: Target, task: Task, generator: torch.Generator
) -> tuple[Tensor, Target]:
    """Labeled pixels and their masks over (U,C,H,W) and its target: label exact, weight full, valid on a region.

    A pasted pixel covers what was there, so all its label channels are the labeled image's, none is merged.
    """
    region, image, belief = sources(labeled, len(strong), task, generator)
    return paste_both(region, strong, target, image, belief)
