"""U2PL: pixels too uncertain for a pseudo-label still tell what they are not, and serve as negative keys.

[0] Wang et al., CVPR 2022, https://arxiv.org/abs/2203.03884   [1] Haochen-Wang409/U2PL @ab3d2be, train_semi.py
Our reading of [0] for the rule of negatives and the numbers of anchors, negatives and λ_c; the rest from [1].
Differs from [1]: its contrast mixes up class ids with positions and asks that negatives of a class be labelled as that
class, which leaves it next to nothing; here the rule of [0]. One pass of the teacher on clean images gives labels,
entropies and keys, pasted like the images (two_pass=True: as [1]). The teacher averages BN statistics, too, and stays in
eval mode. Pixels outside the image count nowhere. Anchors and keys come from a 1x1 head without BN (there 3x3, with BN):
a pixel that is not trusted reaches none of them. Banks are of fixed size, on the device, and add at most `negatives` keys
a step. λ_c is not divided by the number of processes. All images of a step share one pass of the student, with BN.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semiseg import losses
from semiseg.batch import Clock, Labeled, Target, Unlabeled, send
from semiseg.data.mixing import cutmix, partners, paste, rectangles
from semiseg.ema import Average
from semiseg.methods._bank import Bank, draw, info_nce
from semiseg.methods.base import Make, Method
from semiseg.networks.base import Network, batch_stats
from semiseg.task import Task


class Teacher(Average):
    """The average of the network, and under it that of its representation head."""

    def __init__(self, network: nn.Module, represent: nn.Module, decay: float) -> None:
        super().__init__(network, decay)
        self.represent = Average(represent, decay)


class Taught(NamedTuple):
    """What the teacher says of the labeled images, followed by the mixed ones."""

    image: Tensor  # (U,C,H,W) mixed
    target: Target  # of the mixed images
    prob: Tensor  # (B+U,K,H,W)
    keys: Tensor  # (B+U,D,h,w)
    bounds: Tensor  # (2,1|K,1,1) entropies: at most the first is certain, above the second is unreliable
    kept: Tensor  # share of the pixels inside the image that are not unreliable


class U2PL(Method):
    """L = L_sup + weight · ramp(t) · (L_u + contrast · L_c), on unlabeled images that are not recoloured.

    α = unreliable · (1 - t): L_u = the mean CE over the pixels below the (1-α) quantile of entropy / their share. L_c:
    InfoNCE of anchors against the mean key of their class and remembered keys of what the teacher ruled out. Anchors of
    c: labeled or certain (below the α quantile) pixels of class c with p_c > `sure`. Negative keys of c: unreliable
    pixels with c at ranks low_rank..high_rank-1 of the teacher's classes; labeled ones of another class, c ranked above
    low_rank. mix: probability of CutMix; stride: of the grid that L_c works on; bank: keys per class; alone: share of the
    training in which the teacher is the student ([1]: the first epoch with unlabeled terms, too). The teacher predicts.
    A refiner decides what is taught, who is an anchor and what a class's mean is; keys need no trust.
    """

    views = ("weak",)

    def __init__(
        self,
        make: Make,
        task: Task,
        *,
        unreliable: float = 0.2,
        weight: float = 1.0,
        contrast: float = 0.1,
        anchors: int = 50,
        negatives: int = 256,
        temperature: float = 0.5,
        sure: float = 0.3,
        low_rank: int = 3,
        high_rank: int = 20,
        mix: float = 0.5,
        dims: int = 256,
        stride: int = 4,
        bank: int = 2048,
        two_pass: bool = False,
        ema: float = 0.99,
        alone: float = 0.0,
        warmup: float = 0.0,
        ramp: float = 0.0,
    ) -> None:
        super().__init__(make, task)
        width = cast(Network, self.student).decoded_channels
        self.represent = nn.Sequential(nn.Conv2d(width, dims, 1), nn.ReLU(), nn.Conv2d(dims, dims, 1))
        self.teacher = Teacher(self.student, self.represent, ema)
        self.problem = 2 if task.multilabel else task.channels  # classes that exclude each other
        self.bank = Bank(2 * task.channels if task.multilabel else task.channels, bank, dims)
        self.low_rank, self.high_rank = min(low_rank, self.problem - 1), high_rank
        self.unreliable, self.mix, self.two_pass, self.alone = unreliable, mix, two_pass, alone
        self.contrast_weight, self.anchors, self.negatives = contrast, anchors, negatives
        self.temperature, self.sure, self.stride = temperature, sure, stride
        self.weight, self.warmup, self.ramp = weight, warmup, ramp

    def step(self, labeled: Labeled, unlabeled: Unlabeled | None, clock: Clock) -> dict[str, Tensor]:
        """The term "unsup" is that of unlabeled pixels, with those anchors that are; "contrast" is all of L_c."""
        assert unlabeled is not None
        b = len(labeled.image)
        taught = self.teach(labeled, unlabeled, clock)
        logits, rep = self.look(self.student, self.represent, torch.cat([labeled.image, taught.image]))
        sup = self.task.supervised(logits[:b], labeled)
        consistency = self.task.consistency(logits[b:], taught.target, per="kept") / taught.kept
        known = self.candidates(self.task.belief(labeled), taught.prob[:b])
        guessed = self.candidates(taught.target, taught.prob[b:], taught.bounds)
        nce, foreign = self.contrast(
            rep, taught.keys, [torch.cat(pair) for pair in zip(known, guessed, strict=True)], b, clock
        )
        ours, theirs = (nce * ~foreign).sum(), (nce * foreign).sum()
        unsup = consistency + self.contrast_weight * theirs
        return {
            "loss": sup + self.strength(clock) * (unsup + self.contrast_weight * ours),
            "sup": sup,
            "unsup": unsup,
            "contrast": (ours + theirs).detach(),
            "kept": (taught.target.weight * taught.target.valid).mean(),
        }

    def teach(self, labeled: Labeled, unlabeled: Unlabeled, clock: Clock) -> Taught:
        """Select, refine and mix; two_pass: refine, mix, look again (BN by the batch, without memory of it) and select."""
        b, share = len(labeled.image), self.unreliable * (1 - clock.progress)
        teacher = self.teacher
        box = send(
            half_boxes(len(unlabeled.weak), unlabeled.size, clock.generator("box"), self.mix), labeled.image.device
        )
        if self.two_pass:
            with torch.no_grad():
                target = self.believe(unlabeled, teacher(unlabeled.weak))
            unlabeled, target = self.refine(unlabeled, target, clock)
            image, target = cutmix(unlabeled.strong[0], target, box)
            with torch.no_grad(), batch_stats(teacher, use_batch=True):
                logits, keys = self.look(teacher.network, teacher.represent, torch.cat([labeled.image, image]))
            prob = self.task.prob(logits)
            target, bounds, kept = self.select(target, prob[b:], share)
            return Taught(image, target, prob, keys, bounds, kept)
        with torch.no_grad():
            logits, keys = self.look(teacher.network, teacher.represent, torch.cat([labeled.image, unlabeled.weak]))
        seen = self.believe(unlabeled, logits[b:])
        target, bounds, kept = self.select(seen, seen.prob, share)
        unlabeled, target = self.refine(unlabeled, target, clock)
        image, target = cutmix(unlabeled.strong[0], target, box)
        order = send(partners(len(image)), box.device)
        prob = torch.cat([self.task.prob(logits[:b]), paste(box, seen.prob, seen.prob[order])])
        small = box[..., :: self.stride, :: self.stride]
        keys = torch.cat([keys[:b], paste(small, keys[b:], keys[b:][order])])
        return Taught(image, target, prob, keys, bounds, kept)

    def look(self, network: nn.Module, represent: nn.Module, image: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N,K,H,W) and representations (N,D,h,w), those of every `stride`-th pixel of every `stride`-th row."""
        net = cast(Network, network)
        features = net.encode(image)
        decoded = net.decode(features)
        grid = decoded
        for dim, size, padded in zip((2, 3), features.size, features.padded, strict=True):
            pixels = torch.arange(0, size, self.stride, device=decoded.device)
            grid = grid.index_select(dim, pixels * decoded.shape[dim] // padded)
        return net.resize(net.head(decoded), features), represent(grid)

    def select(self, target: Target, prob: Tensor, share: float) -> tuple[Target, Tensor, Tensor]:
        """The target without unreliable pixels, by the entropy of `prob`; its quantiles at share and 1 - share; the rest."""
        entropy = self.entropy(prob)
        inside = target.valid.expand_as(entropy)
        rows, counted = (x.transpose(0, 1).flatten(1) for x in (entropy, inside))
        bounds = quantiles(rows, counted, (share, 1 - share))[:, :, None, None]
        reliable = entropy <= bounds[1]
        kept = losses.count(reliable & inside) / losses.count(inside)
        return target.keep(lambda _: reliable), bounds, kept

    def candidates(self, target: Target, prob: Tensor, bounds: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Which pixels can be anchors, a part of the mean, negative keys of each class: three (N,Q,h,w) bool.

        bounds None: masks, of which all pixels are certain.
        """
        thin = slice(None, None, self.stride)
        prob, weight, valid = (x[..., thin, thin] for x in (prob, target.weight, target.valid))
        own = self.per_class(self.task.truth(target.label[..., thin, thin])) > 0.5
        folded = self.task.fold(prob)
        rank = self.flat(folded.argsort(dim=1, descending=True, stable=True).argsort(1), len(prob))
        trusted = self.each((weight > 0) & valid)
        if bounds is None:
            member = own & trusted
            ruled_out = trusted & (rank < self.low_rank)
        else:
            entropy = self.entropy(prob)
            member = own & trusted & self.each(entropy <= bounds[0])
            ruled_out = self.each((entropy > bounds[1]) & valid) & (rank >= self.low_rank) & (rank < self.high_rank)
        return member & (self.per_class(prob) > self.sure), member, ruled_out & ~own

    def contrast(self, rep: Tensor, keys: Tensor, masks: list[Tensor], b: int, clock: Clock) -> tuple[Tensor, Tensor]:
        """The part (Q,M) of each anchor in L_c, and which of them are unlabeled pixels; the bank has taken up the keys.

        rep, keys (B+U,D,h,w) of the student and the teacher; masks: three (B+U,Q,h,w), see `candidates`. In float32.
        """
        edge = b * rep[0, 0].numel()
        rep, keys = rep.flatten(2), keys.flatten(2).float()
        anchors, others = (masks[i].transpose(0, 1).flatten(1) for i in (0, 2))
        members = masks[1].flatten(2)
        fresh = draw(others, self.negatives, clock.generator("keys"))
        real = torch.arange(self.negatives, device=keys.device) < others.sum(1, keepdim=True)
        self.bank.add(F.normalize(at(keys, fresh), dim=2), real)
        chosen = draw(anchors, self.anchors, clock.generator("anchors"))
        with torch.autocast(rep.device.type, enabled=False):
            query = F.normalize(at(rep, chosen).float(), dim=2)
            mean = F.normalize((members.float() @ keys.mT).sum(0), dim=1)  # of unit length: only its direction matters
            negative = self.bank.negatives(query, self.negatives, clock.generator("negatives"))
            nce = info_nce((query * mean.unsqueeze(1)).sum(2), negative, self.temperature)
        ready = anchors.any(1) & (self.bank.written > 0)
        return nce * ready.unsqueeze(1) / (losses.count(ready) * self.anchors), chosen >= edge

    def entropy(self, prob: Tensor) -> Tensor:
        """-Σ p log p of each pixel (N,1,H,W), or of each label (N,K,H,W)."""
        folded = self.task.fold(prob)
        return self.task.unfold(torch.special.entr(folded).sum(1, keepdim=True))

    def per_class(self, x: Tensor) -> Tensor:
        """(N,K,h,w) to (N,Q,h,w): itself, or off and on of every label that may overlap."""
        return self.flat(self.task.fold(x), len(x))

    def flat(self, folded: Tensor, n: int) -> Tensor:
        """Folded problems of n images side by side, (n,Q,h,w)."""
        return folded.unflatten(0, (n, -1)).flatten(1, 2)

    def each(self, x: Tensor) -> Tensor:
        """One value per pixel or label (N,1|K,h,w), for each class (N,1|Q,h,w)."""
        return x if x.shape[1] == 1 else x.repeat_interleave(self.problem, 1)

    def after_step(self, clock: Clock) -> None:
        """Move the teacher and its representation head."""
        follow = clock.progress < self.alone
        self.teacher.update(self.student, clock.total, follow=follow)
        self.teacher.represent.update(self.represent, clock.total, follow=follow)

    def predictor(self) -> nn.Module:
        """The teacher's network, without the representation head."""
        return self.teacher.network

    def caveat(self) -> str:
        """With two classes the ranks say nothing that the label does not."""
        if self.problem > 2:
            return ""
        return (
            "u2pl ranks classes, and there are two of them: its negatives are the pixels called the other class, so that "
            "what remains is entropy selection with a plain contrast between them"
        )

    def images_per_step(self, labeled: int, unlabeled: int) -> int:
        """Teacher and student on labeled and unlabeled images; two_pass: the teacher on the unlabeled ones once more."""
        return 2 * (labeled + unlabeled) + self.two_pass * unlabeled


def at(maps: Tensor, index: Tensor) -> Tensor:
    """Of maps (N,D,P) the pixels at an index (Q,M) into all N·P: (Q,M,D)."""
    return maps[index // maps.shape[2], :, index % maps.shape[2]]


def quantiles(values: Tensor, inside: Tensor, shares: tuple[float, ...], longest: int = 2**24) -> Tensor:
    """Quantiles at S shares of each row (Q,P) over the columns `inside`, linear in between: (S,Q); NaN without any.

    By torch.nanquantile, which in older versions refuses rows of more than `longest` (27 crops of 801 x 801); those are
    sorted, and a rank may be off by one in 10^7. Nothing waits for the device.
    """
    known = values.masked_fill(~inside, float("nan"))
    if known.shape[1] <= longest:
        return torch.nanquantile(known, torch.stack([known.new_full((), share) for share in shares]), dim=1)
    ordered = known.sort(1).values  # NaN comes last
    last = (inside.sum(1, keepdim=True) - 1).clamp(min=0)
    found = []
    for share in shares:
        rank = last * share
        low = torch.minimum(rank.long(), last)
        start, end = ordered.gather(1, low), ordered.gather(1, torch.minimum(low + 1, last))
        found.append(torch.lerp(start, end, (rank - low).to(ordered)))
    return torch.cat(found, 1).mT


def half_boxes(batch: int, size: tuple[int, int], generator: torch.Generator, p: float) -> Tensor:
    """CutMix boxes (B,1,H,W) bool of half the area, inside the image; none at all with probability 1 - p.

    Their width is drawn from the integers in (W/2, W), [1] `augmentation.py`.
    """
    height, width = size
    drawn = torch.rand(batch, 3, generator=generator)
    w = (width // 2 + 1 + (drawn[:, 0] * (width - 1 - width // 2)).floor()).clamp(max=width)
    h = (height * width / 2 / w).round()
    y, x = (drawn[:, 1] * (height - h + 1)).floor(), (drawn[:, 2] * (width - w + 1)).floor()
    use = torch.rand((), generator=generator) < p
    return rectangles(torch.stack([y, x, y + h, x + w], 1), size) & use
