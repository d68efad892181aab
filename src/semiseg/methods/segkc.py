"""SegKC: a senior and a junior network of unlike backbones consult each other; only the junior is kept.

[0] Than et al. 2025, https://arxiv.org/abs/2503.10693; no public code. The abstract gives the roles, consultation in both
directions and at the levels of features and predictions, and the junior at inference. All else is our reading of it: the
losses, the projectors, every number below, labels from both networks in eval mode, and (as in UniMatch V2) confident
labels on the weak view for a strong view with CutMix. The passes of labeled and mixed images update BN statistics.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semiseg.batch import Clock, Labeled, Target, Unlabeled
from semiseg.data.mixing import cut_boxes, cutmix
from semiseg.losses import masked_mean
from semiseg.methods.base import Make, Method
from semiseg.networks.base import Features, Network, evaluating, parameters_count
from semiseg.task import Task

LARGER = (
    ("vit_small", "vit_base"), ("vit_base", "vit_large"),
    ("resnet18", "resnet50"), ("resnet34", "resnet50"), ("resnet50", "resnet101"), ("resnet101", "resnet152"),
)  # fmt: skip
"""How the next larger encoder is called: a prefix of its name."""


class SegKC(Method):
    """L = (L_sup + w · L_cps) / 2 + w · (prediction · L_pred + feature · L_feat), w = weight · ramp(t).

    L_sup and L_cps (labels with confidence of at least `threshold` teach the other network) are sums over both networks.
    L_pred = KL(S || J) + back · KL(J || S) at `temperature`, L_feat = 1 - cos(J, S) + back · (1 - cos(S, J)) on the
    deepest level projected to `dim` channels; the network named first in KL and last in cos gets no gradient.
    senior: its name, as for --network; "" is twice as wide (unet1x1) or the next larger encoder. `student` is the junior.
    """

    views = ("strong",)

    def __init__(
        self,
        make: Make,
        task: Task,
        *,
        senior: str = "",
        threshold: float = 0.95,
        weight: float = 1.0,
        prediction: float = 0.1,
        feature: float = 0.1,
        back: float = 0.5,
        temperature: float = 1.0,
        dim: int = 128,
        warmup: float = 0.0,
        ramp: float = 0.0,
    ) -> None:
        super().__init__(make, task)
        name = senior or larger(self.student)
        self.senior = make("senior", name=name) if name else make("senior")
        nets = cast(list[Network], [self.senior, self.student])
        self.projectors = nn.ModuleList(nn.Conv2d(net.level_channels[-1], dim, 1) for net in nets)
        self.threshold, self.temperature = threshold, temperature
        self.prediction, self.feature, self.back = prediction, feature, back
        self.weight, self.warmup, self.ramp = weight, warmup, ramp

    def step(self, labeled: Labeled, unlabeled: Unlabeled | None, clock: Clock) -> dict[str, Tensor]:
        """Senior first: `believed[0]` teaches the junior, `believed[1]` the senior. Consultation selects no pixels."""
        assert unlabeled is not None
        nets, b = cast(list[Network], [self.senior, self.student]), len(labeled.image)
        box = cut_boxes(len(unlabeled.weak), unlabeled.size, clock.generator("box"))
        image, believed, sure = unlabeled.weak, [], []
        for net in nets:
            with torch.no_grad(), evaluating(net):
                belief = self.believe(unlabeled, net(unlabeled.weak))
            confident = belief.keep(lambda t: t.confidence >= self.threshold)
            refined, belief = self.refine(unlabeled, belief, clock)
            image, belief = cutmix(refined.strong[0], belief, box)
            _, confident = self.refine(unlabeled, confident, clock)
            believed.append(belief)
            sure.append(cutmix(refined.strong[0], confident, box)[1])

        features = [net.encode(torch.cat([labeled.image, image])) for net in nets]
        logits = [net.logits(f) for net, f in zip(nets, features, strict=True)]
        senior, junior = (x[b:] for x in logits)
        sup = self.task.supervised(logits[0][:b], labeled) + self.task.supervised(logits[1][:b], labeled)
        cps = self.task.consistency(junior, sure[0]) + self.task.consistency(senior, sure[1])
        pred = self.divergence(senior, junior, believed[0]) + self.back * self.divergence(junior, senior, believed[1])
        feat = self.distance([f[b:] for f in features], believed)
        consult = self.prediction * pred + self.feature * feat
        return {
            "loss": (sup + self.strength(clock) * cps) / 2 + self.strength(clock) * consult,
            "sup": sup,
            "cps": cps,
            "consult": consult,
            "feature": feat.detach(),
            "kept": (sure[0].weight * sure[0].valid).mean().detach(),
        }

    def divergence(self, teacher: Tensor, learner: Tensor, target: Target) -> Tensor:
        """Σ w·KL(teacher || learner) / #pixels inside the image; the teacher's logits (U,K,H,W) get no gradient."""
        p, q = (self.log_prob(z / self.temperature) for z in (teacher.detach(), learner))
        return self.task.reduce(self.task.unfold((p.exp() * (p - q)).sum(1, keepdim=True)), target)

    def log_prob(self, logits: Tensor) -> Tensor:
        """Log-probabilities (B,K,H,W); of labels that may overlap (B·K,2,H,W), off and on, as `task.fold` stacks them."""
        if self.task.multilabel:
            logits = logits.flatten(0, 1).unsqueeze(1)
            logits = torch.cat([torch.zeros_like(logits), logits], 1)
        return F.log_softmax(logits.float(), 1)

    def distance(self, features: list[Features], believed: list[Target]) -> Tensor:
        """L_feat between deepest levels on the junior's grid; a cell counts as much as the least trusted of its pixels."""
        grid = features[1].levels[-1].shape[-2:]
        s, j = (p(f.levels[-1]) for p, f in zip(self.projectors, features, strict=True))
        s = s if s.shape == j.shape else F.interpolate(s, size=grid, mode="bilinear", align_corners=False)
        s, j = F.normalize(s.float(), dim=1), F.normalize(j.float(), dim=1)
        total = s.new_zeros(())
        for factor, cosine, target in (
            (1.0, (j * s.detach()).sum(1, keepdim=True), believed[0]),
            (self.back, (s * j.detach()).sum(1, keepdim=True), believed[1]),
        ):
            inside = cells(target.valid.float(), features[1])
            weight = cells(target.weight.amin(1, keepdim=True) * target.valid, features[1])
            total = total + factor * masked_mean(1 - cosine, inside > 0, weight)
        return total

    def companions(self) -> dict[str, nn.Module]:
        """The senior, which is not kept."""
        return {"senior": self.senior}

    def caveat(self) -> str:
        """A senior should know more than a junior."""
        if parameters_count(self.senior) > parameters_count(self.student):
            return ""
        return "the senior is not larger than the junior: name a larger network with senior=ARCHITECTURE/ENCODER"

    def images_per_step(self, labeled: int, unlabeled: int) -> int:
        """Both networks see the labeled images, the clean ones and the mixed ones."""
        return 2 * (labeled + 2 * unlabeled)


HEADS = {"dpt:64": "dpt:128", "dpt:128": "dpt:256"}
"""Of the published models, by the size of their encoder (`networks.VARIANTS`)."""


def larger(network: nn.Module) -> str:
    """The name of a network with a larger encoder, "" where none is known."""
    alpha, name = getattr(network, "alpha", None), str(getattr(network, "name", ""))
    if alpha is not None:
        return f"unet1x1:{min(2 * alpha, 64)}"
    arch, _, encoder = name.partition("/")
    for small, large in LARGER:
        if encoder.removeprefix("tu-").startswith(small):
            return f"{HEADS.get(arch, arch)}/{encoder.replace(small, large, 1)}"
    return ""


def cells(weight: Tensor, features: Features) -> Tensor:
    """Per-pixel weights (U,1,H,W) on the grid of the deepest level: the least in each cell."""
    bottom, right = (p - s for p, s in zip(features.padded, features.size, strict=True))
    padded = F.pad(weight, (0, right, 0, bottom), mode="replicate")
    grid = features.levels[-1].shape[-2:]
    return -F.adaptive_max_pool2d(-padded, (grid[0], grid[1]))
