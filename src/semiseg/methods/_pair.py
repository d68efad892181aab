"""Two networks that label the same mixed image for each other: what CPS and FPL share.

[1] charlesCXK/TorchSemiSeg @5e0c29c, exp.voc/voc8.res50v3+.CPS+CutMix/train.py
"""

from __future__ import annotations

import torch
from torch import Tensor

from semiseg.batch import Clock, Labeled, Target, Unlabeled
from semiseg.data.mixing import cutmix
from semiseg.methods._boxes import box_masks
from semiseg.methods.base import Make, Method
from semiseg.task import Task


class CrossPseudo(Method):
    """L = L_sup(1) + L_sup(2) + weight · ramp(t) · (L(1 taught by 2) + L(2 taught by 1)); a subclass writes `taught`.

    Branches 1 (`student`, which predicts) and 2 (`second`) differ in nothing but their initialisation. Each labels the
    clean images without gradient, in train mode as in [1]: this pass and that of labeled and mixed images both update
    running statistics. One mask of three boxes and one partner serve both, so that both learn from the same image;
    paste: no = nothing is pasted.
    """

    views = ("weak",)

    def __init__(
        self, make: Make, task: Task, *, weight: float = 1.0, paste: bool = True, warmup: float = 0.0, ramp: float = 0.0
    ) -> None:
        super().__init__(make, task)
        self.second, self.paste = make("second"), paste
        self.weight, self.warmup, self.ramp = weight, warmup, ramp

    def taught(self, logits: Tensor, target: Target) -> Tensor:
        """The loss of one branch's logits (U,K,H,W) against what the other believes."""
        raise TypeError(f"{type(self).__name__} must write taught(logits, target)")

    def step(self, labeled: Labeled, unlabeled: Unlabeled | None, clock: Clock) -> dict[str, Tensor]:
        """Nothing is selected: every pixel inside the image trains both branches."""
        assert unlabeled is not None
        nets, b = (self.student, self.second), len(labeled.image)
        with torch.no_grad():
            alone = len(unlabeled.weak) == 1  # global pooling would leave batch normalisation one value per channel
            clean = torch.cat([labeled.image, unlabeled.weak]) if alone else unlabeled.weak
            beliefs = [self.believe(unlabeled, net(clean)[b if alone else 0 :]) for net in nets]
        (images, first), (_, second) = (self.refine(unlabeled, belief, clock) for belief in beliefs)
        box = box_masks(len(images.weak), images.size, clock.generator("box")) & self.paste
        image, first = cutmix(images.strong[0], first, box)
        _, second = cutmix(images.strong[0], second, box)
        ones, others = (net(torch.cat([labeled.image, image])) for net in nets)
        sup = self.task.supervised(ones[:b], labeled) + self.task.supervised(others[:b], labeled)
        cross = self.taught(ones[b:], second) + self.taught(others[b:], first)
        return {"loss": sup + self.strength(clock) * cross, "sup": sup, "cross": cross}

    def images_per_step(self, labeled: int, unlabeled: int) -> int:
        """Each branch sees the labeled images, the clean ones and the mixed ones; labeled ones beside a single clean one."""
        return 2 * (labeled + 2 * unlabeled + labeled * (unlabeled == 1))
