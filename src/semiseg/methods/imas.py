"""iMAS: how easy an unlabeled image is decides how strongly it is augmented, with what it is mixed and how much it counts.

[0] Zhao et al., CVPR 2023, pp. 23705-23714   [1] ZhenZHAO/iMAS @96e57e0, train_semi.py, imas/utils/loss_helper.py
Our reading of [0], from [1]: what is computed is easiness, γ, not hardness; mixing starts from the weak views.
Differs from [1]: pixels outside the image count neither in γ nor in the loss; γ is counted in one pass on the device; a
step whose mixing is not drawn forwards the weak views in its place, so that no value has to be waited for; the teacher's
decay warms up from the first step unless `alone` is set (there it equals the student for an epoch).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from semiseg.batch import Clock, Labeled, Unlabeled, send
from semiseg.data.mixing import cutmix, rectangles
from semiseg.ema import Average
from semiseg.methods.base import Make, Method
from semiseg.networks.base import evaluating
from semiseg.task import Task


class IMAS(Method):
    """L = L_sup + weight · ramp(t) · L_u, L_u = (L_strong + L_mixed) / 2, or L_strong alone when nothing is mixed.

    Each of the two is Σ γ_i [c ≥ threshold] CE / #pixels. γ_i in [0,1] (see `easiness`) also says how much of the strong
    view image i gets; its mean is the probability that the batch is mixed. ignore_background: class 0 (of labels that
    overlap: off) counts nothing in γ. ema: the teacher's decay; alone: share of the training in which the teacher is the
    student ([1]: 1 / epochs). The teacher predicts.
    """

    views = ("strong", "weak")

    def __init__(
        self,
        make: Make,
        task: Task,
        *,
        threshold: float = 0.7,
        weight: float = 3.0,
        ignore_background: bool = False,
        ema: float = 0.996,
        alone: float = 0.0,
        warmup: float = 0.0,
        ramp: float = 0.0,
    ) -> None:
        super().__init__(make, task)
        self.teacher = Average(self.student, ema)
        self.threshold, self.ignore_background, self.alone = threshold, ignore_background, alone
        self.weight, self.warmup, self.ramp = weight, warmup, ramp

    def step(self, labeled: Labeled, unlabeled: Unlabeled | None, clock: Clock) -> dict[str, Tensor]:
        """One pass of the student over labeled, weak (for BN statistics alone, as in [1]), mixed and strong images."""
        assert unlabeled is not None
        u = len(unlabeled.weak)
        with torch.no_grad(), evaluating(self.student):
            target = self.believe(unlabeled, self.teacher(unlabeled.weak))
            own = self.task.prob(self.student(unlabeled.weak))
        gamma = self.easiness(own, target.prob, target.valid)
        target = target.keep(lambda t: t.confidence >= self.threshold)
        unlabeled, target = self.refine(unlabeled, target, clock)
        strong, weak = unlabeled.strong
        ease = gamma.mean(1)
        strong = torch.lerp(weak, strong, ease.view(-1, 1, 1, 1))
        generator = clock.generator("box")
        drawn = send(torch.rand((), generator=generator), ease.device) < ease.mean()
        box = send(centred_boxes(u, unlabeled.size, generator), ease.device) & drawn
        mixed, pasted = cutmix(weak, target, box, opposites(ease))
        logits = self.student(torch.cat([labeled.image, unlabeled.weak, mixed, strong]))
        known, _, second, first = logits.split([len(labeled.image), u, u, u])
        sup = self.task.supervised(known, labeled)
        on_strong, on_mixed = (
            self.task.consistency(view, t.replace(weight=t.weight * gamma[:, :, None, None]), per="all")
            for view, t in ((first, target), (second, pasted))
        )
        unsup = torch.where(drawn, (on_strong + on_mixed) / 2, on_strong)
        return {
            "loss": sup + self.strength(clock) * unsup,
            "sup": sup,
            "unsup": unsup,
            "easiness": ease.mean(),
            "kept": (target.weight * target.valid).mean(),
        }

    def easiness(self, student: Tensor, teacher: Tensor, valid: Tensor) -> Tensor:
        """γ = (wIoU_t · r_t + wIoU_s · r_s) / 2 of each image (U,1), or of each label when they overlap (U,K), in [0,1].

        student, teacher: probabilities (U,K,H,W); valid (U,1,H,W). IoU_c compares their maps; wIoU_t weighs the classes
        by their share of the teacher's map and r_t is the share of pixels of which the teacher is sure; s likewise.
        """
        s, t = self.task.fold(student), self.task.fold(teacher)
        classes = s.shape[1]
        inside = valid.repeat_interleave(len(s) // len(student), 0).flatten(1)
        (sure_s, label_s), (sure_t, label_t) = (p.flatten(2).max(1) for p in (s, t))
        matrix = torch.zeros(len(s), classes**2, device=s.device)
        matrix = matrix.scatter_add_(1, label_t * classes + label_s, inside.float()).view(-1, classes, classes)
        hit, in_t, in_s = matrix.diagonal(dim1=1, dim2=2), matrix.sum(2), matrix.sum(1)
        iou = hit / (in_t + in_s - hit).clamp(min=1)
        counted = torch.arange(classes, device=s.device) >= int(self.ignore_background)

        def side(count: Tensor, confidence: Tensor) -> Tensor:
            count = count * counted
            sure = ((confidence >= self.threshold) & inside).sum(1) / inside.sum(1).clamp(min=1)
            return (iou * count).sum(1) / count.sum(1).clamp(min=1) * sure

        return ((side(in_t, sure_t) + side(in_s, sure_s)) / 2).view(len(student), -1)

    def after_step(self, clock: Clock) -> None:
        """Move the teacher."""
        self.teacher.update(self.student, clock.total, follow=clock.progress < self.alone)

    def predictor(self) -> nn.Module:
        """The teacher."""
        return self.teacher.network

    def images_per_step(self, labeled: int, unlabeled: int) -> int:
        """Student and teacher on the weak view without gradient, then three views."""
        return labeled + 5 * unlabeled


def opposites(ease: Tensor) -> Tensor:
    """(U,) partners by reversed rank: the easiest image and the hardest, the second easiest and the second hardest, …"""
    order = ease.argsort(stable=True)
    return torch.empty_like(order).scatter_(0, order, order.flip(0))


def centred_boxes(batch: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Boxes (B,1,H,W) bool of the image's shape: v·H x v·W, one v ~ U(.1,.9) for all, clipped at the border.

    Each has a centre of its own: row ~ U(H/16, H), column ~ U(W/16, W), as in `rand_bbox_by_v` of [1].
    """
    whole = torch.tensor(size)
    half = ((0.1 + 0.8 * torch.rand((), generator=generator)) * whole).floor() // 2
    least = whole // 16
    centre = least + (torch.rand(batch, 2, generator=generator) * (whole - least)).floor()
    corners = torch.cat([centre - half, centre + half], 1).clamp(min=0)
    return rectangles(corners, size)
