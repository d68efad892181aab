"""SupMix and the sup-unsup feature discriminator (SUFD), separately and together.

SupMix pastes ground-truth classes of labeled images, with their masks, onto unlabeled ones; SUFD makes the features of
unlabeled images look like those of labeled ones to a discriminator.

[0] Mano, Saito and Hotta 2026, https://arxiv.org/abs/2604.07122. There is no public code: what follows is our reading
of [0] on the mean teacher of ClassMix (WilhelmT/ClassMix @aa85291), and network, layer and weights of the discriminator
are ours. Differs from that reading: recoloured before the mixing, not after; of overlapping labels all channels of
a pasted pixel are replaced, because it covers what was there; both sides of the discriminator have the colours of
labeled images; it is trained by the one optimiser of the method, at a tenth of the learning rate.
Ours, too: before the discriminator sees a feature map, cells with a pixel outside the image or of weight 0 (disputed,
rejected) are set to 0 in it, and in the labeled map it is compared to, so that the holes tell nothing. Such pixels
get exactly no gradient, neither directly nor through the receptive field of the discriminator.
Batch normalisation: every pass of the student updates its running statistics, as in ClassMix; the teacher's none.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from semiseg import losses
from semiseg.batch import Clock, Labeled, Target, Unlabeled
from semiseg.data.mixing import paste_both
from semiseg.ema import Average
from semiseg.errors import usage
from semiseg.methods._certainty import weigh
from semiseg.methods._supmix import chosen, sources
from semiseg.methods.base import Make, Method
from semiseg.networks.base import Features, Network
from semiseg.task import Task


class Discriminator(nn.Module):
    """Labeled (1) or unlabeled (0)? Feature maps (B,c,h,w) to patch logits: four convolutions k4 s2, spectral norm."""

    least = 16  # cells a side that four halvings need; smaller maps are padded with 0

    def __init__(self, channels: int, width: int = 64) -> None:
        super().__init__()
        sizes = (channels, width, 2 * width, 4 * width, 1)
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [spectral_norm(nn.Conv2d(before, after, 4, 2, 1)), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """(B,1,h',w'), h' = h/16 or 1."""
        height, width = x.shape[-2:]
        return self.layers(F.pad(x, (0, max(self.least - width, 0), 0, max(self.least - height, 0))))

    def frozen(self, x: Tensor) -> Tensor:
        """The same logits as a judge: gradients reach x, not the parameters, and nothing of the state moves."""
        state = {name: p.detach() for name, p in self.named_parameters()}
        state |= {name: b.clone() for name, b in self.named_buffers()}
        return cast(Tensor, torch.func.functional_call(self, state, (x,)))


class SupMix(Method):
    """SupMix: classes of labeled images are pasted, with their masks, into unlabeled ones.

    L = L_sup + weight · ramp(t) · (L_mix + discriminator · L_adv) + L_D.
    L_mix = Σ q CE / #pixels inside the image, q = 1 on pasted pixels, elsewhere the share of unlabeled pixels with
    confidence ≥ threshold (one number for the batch). L_adv = BCE(D(F_u), labeled), D frozen; L_D = BCE(D(F_l), labeled)
    + BCE(D(F_u), unlabeled), features detached; F: decoder maps. discriminator: 0 is SupMix alone. classes: names of what
    is pasted, with commas ("" = half of the classes of an image, drawn). ema: the teacher's decay (see ema.py). The
    student predicts.
    """

    views: tuple[str, ...] = ("strong",)
    pastes = True

    def __init__(
        self,
        make: Make,
        task: Task,
        *,
        threshold: float = 0.968,
        weight: float = 1.0,
        discriminator: float = 0.0,
        classes: str = "",
        ema: float = 0.99,
        warmup: float = 0.0,
        ramp: float = 0.0,
    ) -> None:
        super().__init__(make, task)
        if discriminator < 0:
            raise usage("discriminator", f"is {discriminator}", expected="a weight of 0 or more")
        self.teacher = Average(self.student, ema)
        self.threshold, self.adversarial = threshold, discriminator
        self.classes = chosen(classes, task)
        self.weight, self.warmup, self.ramp = weight, warmup, ramp
        if discriminator > 0:
            self.views = ("strong", "train")
            self.discriminator = Discriminator(cast(Network, self.student).decoded_channels)

    def step(self, labeled: Labeled, unlabeled: Unlabeled | None, clock: Clock) -> dict[str, Tensor]:
        """The teacher labels the clean images; the student learns from labeled pixels pasted onto the strong ones."""
        assert unlabeled is not None
        with torch.no_grad():
            target = weigh(self.believe(unlabeled, self.teacher(unlabeled.weak)), self.threshold)
        unlabeled, target = self.refine(unlabeled, target, clock)
        found: dict[str, Tensor] = {}
        if self.adversarial > 0:
            known, found["adversarial"], found["discriminator"] = self._judged(labeled, unlabeled.strong[1], target)
        else:
            known = self.student(labeled.image)
        found["sup"] = self.task.supervised(known, labeled)
        found |= self._taught(labeled, unlabeled.strong[0], target, clock)
        unsup = found["mixed"] + (found["pasted"] if self.pastes else 0.0)
        if self.adversarial > 0:
            unsup = unsup + self.adversarial * found["adversarial"]
        loss = found["sup"] + self.strength(clock) * unsup + found.get("discriminator", 0.0)
        logged = {k: v.detach() if k in ("discriminator", "pasted") else v for k, v in found.items()}
        return {"loss": loss, **logged, "kept": (target.weight * target.valid).mean().detach()}

    def _taught(self, labeled: Labeled, strong: Tensor, target: Target, clock: Clock) -> dict[str, Tensor]:
        """L_mix in two parts that share a denominator: what unlabeled pixels teach, and what pasted masks do."""
        if not self.pastes:
            return {"mixed": self.task.consistency(self.student(strong), target)}
        region, image, truth = sources(labeled, len(strong), self.task, clock.generator("classes"), self.classes)
        mixed, belief = paste_both(region, strong, target, image, truth)
        loss = self.task.loss_map(self.student(mixed), belief.label)
        own, pasted = (belief.replace(weight=belief.weight * where) for where in (~region, region))
        covered = (region & belief.valid).float().mean()
        return {"mixed": self.task.reduce(loss, own), "pasted": self.task.reduce(loss, pasted), "covered": covered}

    def _judged(self, labeled: Labeled, view: Tensor, target: Target) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the labeled images, L_adv and L_D; `view`: the unlabeled images coloured as labeled ones are."""
        net, b = cast(Network, self.student), len(labeled.image)
        features = net.encode(torch.cat([labeled.image, view]))
        decoded = net.decode(features)
        logits = net.resize(net.head(decoded[:b]), features[:b])
        seen, inside = (visible(x, features, decoded) for x in (target.weight * target.valid, target.valid))
        partner = torch.arange(b, device=view.device) % len(view)
        ours, theirs = decoded[:b] * seen[partner], decoded[b:] * seen
        fooled = patch_loss(self.discriminator.frozen(theirs), 1.0, seen, inside)
        verdict = self.discriminator(torch.cat([ours, theirs]).detach())
        right = patch_loss(verdict[:b], 1.0, seen[partner], inside[partner])
        return logits, fooled, right + patch_loss(verdict[b:], 0.0, seen, inside)

    def after_step(self, clock: Clock) -> None:
        """Move the teacher."""
        self.teacher.update(self.student, clock.total)

    def groups(self) -> list[dict[str, Any]]:
        """As everywhere, and the discriminator at a tenth of the learning rate."""
        if self.adversarial == 0:
            return super().groups()
        judge = list(self.discriminator.parameters())
        known = {id(p) for p in judge}
        others = [{**g, "params": [p for p in g["params"] if id(p) not in known]} for g in super().groups()]
        return [*others, {"params": judge, "lr_scale": 0.1, "name": "discriminator"}]


class SUFD(SupMix):
    """SUFD: a discriminator makes the features of unlabeled images look like those of labeled ones; nothing is mixed.

    L = L_sup + weight · ramp(t) · (L_strong + discriminator · L_adv) + L_D.
    L_strong: the teacher's labels for unmixed strong views, weighted by the share of sure pixels. Arguments of SupMix.
    """

    views = ("strong", "train")
    pastes = False

    def __init__(
        self,
        make: Make,
        task: Task,
        *,
        threshold: float = 0.968,
        weight: float = 1.0,
        discriminator: float = 0.001,
        ema: float = 0.99,
        warmup: float = 0.0,
        ramp: float = 0.0,
    ) -> None:
        if discriminator <= 0:
            raise usage("discriminator", f"is {discriminator}", expected="a weight above 0: sufd is nothing without it")
        super().__init__(
            make,
            task,
            threshold=threshold,
            weight=weight,
            discriminator=discriminator,
            ema=ema,
            warmup=warmup,
            ramp=ramp,
        )


def visible(weight: Tensor, features: Features, decoded: Tensor) -> Tensor:
    """Cells of a decoder map (U,c,h,w) without a pixel of weight 0: (U,1,h,w) 0 or 1, from weight (U,1|K,H,W)."""
    hidden = (weight <= 0).any(1, keepdim=True).to(decoded.dtype)
    bottom, right = (padded - length for padded, length in zip(features.padded, features.size, strict=True))
    return 1 - F.adaptive_max_pool2d(F.pad(hidden, (0, right, 0, bottom), mode="replicate"), decoded.shape[-2:])


def patch_loss(logits: Tensor, real: float, seen: Tensor, inside: Tensor) -> Tensor:
    """BCE of patch logits (U,1,h',w'), each weighted by the share of it that is seen, over the number inside; or 0."""
    loss = F.binary_cross_entropy_with_logits(logits.float(), torch.full_like(logits, real).float(), reduction="none")
    height, width = logits.shape[-2:]
    shares = [F.adaptive_avg_pool2d(x.float(), (height, width)) for x in (seen, inside)]
    return (loss * shares[0]).sum() / losses.count(shares[1], 1e-6)
