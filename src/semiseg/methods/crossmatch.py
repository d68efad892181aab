"""CrossMatch: views differ in colour, three heads in how many skip channels they lose; the surer side teaches the other.

[0] Zhao et al. 2024, https://arxiv.org/abs/2405.00354   [1] AiEson/CrossMatch @59772e0, ACDC/train_cross_match.py
Differs from [1]: the CutMix partner is another image of the batch, so the heads that teach run once and not again for
what is pasted; padding and disputed pixels are left out of the Dice; networks of at most 32 channels lose at most half
of them; L_x has the task's Dice (present classes, no squares). Overlapping labels: Dice of on and of off for each
label, which for one label is the two-channel softmax (our reading). Batch normalisation: both passes update the running
statistics, and clean and dropped features share a pass of the decoder; targets come from train mode, as in [1], or
from eval mode with the same channels dropped, which costs another pass.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from semiseg import losses
from semiseg.batch import Clock, Labeled, Target, Unlabeled
from semiseg.data.mixing import cut_boxes, cutmix
from semiseg.methods._choices import check
from semiseg.methods.base import Make, Method
from semiseg.networks.base import Features, Network, evaluating
from semiseg.networks.perturb import channel_dropout
from semiseg.task import Task

NARROW, HALF = 32, 0.5  # a network whose widest level has so many channels loses at most this share of them


class CrossMatch(Method):
    """L = (L_x + weight · ramp(t) · (L_image / 2 + distill · ((1-eta) · L_tkd + eta · L_dkd))) / 2.

    These three are means of Dice losses against argmax labels, over pixels of confidence c ≥ threshold. image: the
    clean head teaches both strong views s1, s2. tkd: it teaches the weak and the strong head, on the weak view and on
    s2. dkd: either of these heads on the weak view teaches itself on s2. weak, strong: probabilities that such a head
    loses a channel, at every level; absent, background: whether classes without a kept pixel, and class 0 (of overlapping
    labels "off"), count in the Dice; distill: .5 for ACDC in [1], 1 for LA and in [0], which is not halved; relax: how much
    lower the threshold starts, rising over the training (.25 for LA, whose rise is not over when its training is: it ends at
    .964 of the threshold); believed: labels of which mode, train or eval. L_x is the mean of CE and Dice, or the task's
    other loss.
    """

    views = ("strong", "strong")

    def __init__(
        self,
        make: Make,
        task: Task,
        *,
        threshold: float = 0.95,
        weak: float = 0.25,
        strong: float = 0.75,
        eta: float = 0.3,
        distill: float = 0.5,
        absent: bool = True,
        background: bool = True,
        halved: bool = True,
        relax: float = 0.0,
        believed: str = "train",
        weight: float = 1.0,
        warmup: float = 0.0,
        ramp: float = 0.0,
    ) -> None:
        super().__init__(make, task)
        check(believed=believed)
        self.believed, self.background, self.relax = believed, background, relax
        self.total = 0.5 if halved else 1.0
        self.narrow = max(cast(Network, self.student).level_channels) <= NARROW and strong > HALF
        self.rates = (weak, HALF if self.narrow else strong)
        self.threshold, self.eta, self.distill, self.absent = threshold, eta, distill, absent
        self.weight, self.warmup, self.ramp = weight, warmup, ramp

    def step(self, labeled: Labeled, unlabeled: Unlabeled | None, clock: Clock) -> dict[str, Tensor]:
        """Beliefs of the weak view's three heads; where they teach a strong view they are pasted as it is."""
        assert unlabeled is not None
        drop = clock.generator("drop")
        known, *heads = self.heads(labeled.image, unlabeled.weak, drop)
        said = heads
        if self.believed == "eval":
            with torch.no_grad(), evaluating(self.student):
                _, *said = self.heads(labeled.image[:0], unlabeled.weak, clock.generator("drop"))
        threshold = self.threshold * (1 - self.relax * (1 - clock.ramp(1.0)))
        beliefs = [self.believe(unlabeled, x).keep(lambda t: t.confidence >= threshold) for x in said]
        refined = [self.refine(unlabeled, belief, clock) for belief in beliefs]
        unlabeled, (clean, *own) = refined[0][0], [target for _, target in refined]

        boxes = [
            cut_boxes(len(view), unlabeled.size, clock.generator(f"box{i}")) for i, view in enumerate(unlabeled.strong)
        ]
        (s1, clean1), (s2, clean2) = (cutmix(v, clean, box) for v, box in zip(unlabeled.strong, boxes, strict=True))
        own2 = [cutmix(s2, target, boxes[1])[1] for target in own]
        first, *second = self.heads(s1, s2, drop)

        dice, sup = self.dice, self.task.supervised(known, labeled)
        tkd = [dice(heads[1], clean), dice(heads[2], clean), dice(second[1], clean2), dice(second[2], clean2)]
        parts = {
            "sup": sup / 2 if self.task.loss == "ce+dice" else sup,
            "image": (dice(first, clean1) + dice(second[0], clean2)) / 2,
            "tkd": torch.stack(tkd).mean(),
            "dkd": (dice(second[1], own2[0]) + dice(second[2], own2[1])) / 2,
        }
        distilled = (1 - self.eta) * parts["tkd"] + self.eta * parts["dkd"]
        taught = parts["image"] / 2 + self.distill * distilled
        kept = (clean.weight * clean.valid).mean()
        return {"loss": (parts["sup"] + self.strength(clock) * taught) * self.total, **parts, "kept": kept}

    def heads(self, plain: Tensor, other: Tensor, drop: torch.Generator) -> tuple[Tensor, ...]:
        """Logits of `plain`, then of `other` by the clean, the weak and the strong head; one decoder pass for all."""
        net, b, u = cast(Network, self.student), len(plain), len(other)
        clean = net.encode(torch.cat([plain, other]))
        dropped = [channel_dropout(clean[b:], drop, p=p, levels="all") for p in self.rates]
        return net.logits(Features.cat([clean, *dropped])).split([b, u, u, u])

    def dice(self, logits: Tensor, target: Target) -> Tensor:
        """Dice loss against hard labels over the pixels that carry weight; on and off of overlapping labels apart."""
        pixels = (len(logits), -1, *logits.shape[-2:])
        prob, truth = (
            self.task.fold(p).reshape(pixels) for p in (self.task.prob(logits), self.task.truth(target.label))
        )
        weight = target.weight * target.valid
        if weight.shape[1] > 1:
            weight = weight.repeat_interleave(2, 1)
        step = 2 if self.task.multilabel else 1  # overlapping labels are folded to off, on, off, on, …
        on = slice(None) if self.background else slice(1, None, step)
        weight = weight[:, on] if weight.shape[1] > 1 else weight
        return losses.squared_dice_loss(prob[:, on], truth[:, on], weight, absent=self.absent)

    def images_per_step(self, labeled: int, unlabeled: int) -> int:
        """The weak and two strong views; the weak one again in eval mode."""
        return labeled + (4 if self.believed == "eval" else 3) * unlabeled

    def caveat(self) -> str:
        """Narrow networks."""
        if not self.narrow:
            return ""
        return (
            f"no level of the network has more than {NARROW} channels: the strong head of crossmatch loses half of them"
        )
