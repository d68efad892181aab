"""An EvalNet of a run: trained on val images, which no teacher learned from, and asked about masks without truth.

[0] Vorndran and Roeck, arXiv 2401.14387   [1] MichaelVorndran/InconsistencyMasks, functions.py:3572, 4342, 6018
Differs from [1]: trained on val images alone, because teachers label the images they learned from too well; one network;
its thresholds come from val and from its own opinions, not from a model that had all labels.
"""

from __future__ import annotations

import copy
import json
import time
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from semiseg import storage
from semiseg.batch import IGNORE, generator_of, seed_of
from semiseg.data.sampler import indices
from semiseg.data.views import VIEWS, photometric
from semiseg.errors import USAGE, Problem, Refusal
from semiseg.inconsistency import inconsistency_mask
from semiseg.losses import one_hot
from semiseg.networks.evalnet import EvalNet
from semiseg.programs.consensus import opinions
from semiseg.programs.session import Member, Session
from semiseg.task import Task
from semiseg.training.config import SELECTABLE, Config
from semiseg.training.evaluate import images
from semiseg.training.signals import STOP, Stopped

MOST = 400  # val images it learns from
FOLDER = "generation-0/evalnet"
RATE, DECAY = 3e-3, 1e-4 / 3e-3  # the paper's, per step as Keras counts


def require_val(session: Session) -> None:
    """Raises Refusal (exit 2) when there is no val image to learn from; few of them are a warning."""
    if not (count := len(session.data.val)):
        found = f"learns to judge masks from val images, and {session.data.config.data} has none"
        fix = "put some images and masks into val/images and val/masks, or train with --method im"
        raise Refusal(Problem("C08", f"--method {session.data.config.name}", found, fix), USAGE)
    if count < SELECTABLE:
        session.warnings.append(f"EvalNet learns to judge masks from {count} val images only.")


def quality(label: Tensor, truth: Tensor, task: Task) -> tuple[Tensor, Tensor]:
    """(K,) IoU of a mask with the truth and (K,) bool: the class is in the truth. (h,w) or (K,h,w); 255 is left out."""
    known = truth != IGNORE
    p, t = _planes(label, task) * known, _planes(truth, task)
    union = ((p + t) > 0).flatten(1).sum(1)
    return (p * t).flatten(1).sum(1) / union.clamp(min=1), t.flatten(1).sum(1) > 0


def _planes(label: Tensor, task: Task) -> Tensor:
    """(h,w) or (K,h,w) to 0/1 floats (K,h,w); 255 is 0 everywhere."""
    return (label == 1).float() if task.multilabel else one_hot(label.unsqueeze(0), task.channels)[0]


@dataclass
class Judge:
    """A trained EvalNet. size: side of what it sees, px. typical: mean true quality of the members' masks on val."""

    network: EvalNet
    task: Task
    size: int
    typical: float

    @torch.inference_mode()
    def __call__(self, image: Tensor, label: Tensor) -> Tensor:
        """(B,) predicted quality in [0,1] of labels (B,h,w) or (B,K,h,w) of images (B,C,h,w) in unit range."""
        masks = torch.stack([_planes(m, self.task) for m in label])
        return overall(*self.network(_small(image, self.size), _small(masks, self.size)))


def overall(iou: Tensor, seen: Tensor | None) -> Tensor:
    """(B,) from logits (B,K): the mean IoU over the classes that are rather there than not; 0 when none is."""
    if seen is None:
        return iou.sigmoid()[:, 0]
    there = (seen >= 0).float()
    return (iou.sigmoid() * there).sum(1) / there.sum(1).clamp(min=1)


def _small(x: Tensor, size: int) -> Tensor:
    return F.interpolate(x.float(), (size, size), mode="bilinear", antialias=True)


@dataclass
class _Pairs:
    """What EvalNet learns from. image (N,C,S,S); per pair: row of its image, mask (P,K,S,S) bytes, IoU, presence (P,K)."""

    image: Tensor
    row: Tensor
    mask: Tensor
    iou: Tensor
    seen: Tensor


def judge_of(session: Session) -> Judge:
    """Train the run's EvalNet on what generation 0 makes of the val images, or find it trained. Widths as in [0]."""
    data, path = session.data, session.run / FOLDER
    device = data.device
    torch.manual_seed(seed_of(data.config.seed, "evalnet"))
    network = EvalNet(data.checked.channels, data.task.channels, 1.0 if data.task.channels == 1 else 2.0).to(device)
    if not storage.is_sealed(path):
        start = time.monotonic()
        with session.log.timed("evalnet"), session.log.bar("evalnet", data.config.steps) as bar:
            pairs, typical = _pairs(session, session.first)
            error = _train(network, pairs, session, bar)
        about = {"typical": typical, "error": error, "val_images": len(pairs.image), "pairs": len(pairs.row),
                 "seconds": round(time.monotonic() - start, 3),
                 "images_forwarded": data.config.steps * _batch(data.config)}  # fmt: skip
        storage.save_folder(
            path, {"weights.safetensors": network.state_dict(), "result.json": json.dumps(about)}, about
        )
        session.log.event("evalnet", **about)
    storage.verify(path)
    network.load_state_dict(storage.read_tensors(path / "weights.safetensors"))
    about = storage.read_json(path / "result.json")
    session.beside[FOLDER] = {k: about.get(k, 0) for k in ("seconds", "images_forwarded")}
    return Judge(network.to(device).eval(), data.task, data.config.size, about["typical"])


@torch.inference_mode()
def _pairs(session: Session, members: list[Member]) -> tuple[_Pairs, float]:
    """Of each val image: every member's mask, a consensus of some of them with random morphology, and the truth."""
    data, task, size = session.data, session.data.task, session.data.config.size
    networks = [session.load(m) for m in members]
    small, row, mask, iou, seen, typical = [], [], [], [], [], []
    for i in range(min(len(data.val), MOST)):
        image, truth = images(data.val, [i], data.units), data.val.label(i)
        assert truth is not None
        votes, _ = opinions(networks, task, image)
        truth = truth.to(votes.device)
        masks = [*votes[:, 0], truth]
        if len(members) > 1:
            masks.append(_some(votes, task, generator_of(data.config.seed, "evalnet", "consensus", i)))
        small.append(_small(image, size))
        for j, label in enumerate(masks):
            value, there = quality(label, truth, task)
            row.append(i)
            mask.append(_small(_planes(label, task).unsqueeze(0), size)[0].mul(255).round().to(torch.uint8))
            iou.append(value)
            seen.append(there)
            if j < len(members):
                typical.append(float(value[there].mean()) if there.any() else 0.0)
    pairs = _Pairs(torch.cat(small), torch.tensor(row), torch.stack(mask), torch.stack(iou), torch.stack(seen))
    return pairs, sum(typical) / len(typical)


def _some(votes: Tensor, task: Task, generator: torch.Generator) -> Tensor:
    """The consensus of 2 or more members, opened at random; what is inconsistent belongs to no class."""
    count = 2 + int(torch.randint(len(votes) - 1, (), generator=generator))
    chosen = torch.randperm(len(votes), generator=generator)[:count]
    erode, dilate = ((0, 3, 5)[int(k)] for k in torch.randint(3, (2,), generator=generator))
    return inconsistency_mask(votes[chosen.to(votes.device)], task, erode=erode, dilate=dilate).label[0]


def _batch(config: Config) -> int:
    """Pairs in a step."""
    return max(2, config.batch)


def _train(network: EvalNet, pairs: _Pairs, session: Session, bar: Any) -> float | None:
    """As many steps as a member; the weights with the smallest error on every fourth image, where there are 8 or more."""
    config, turn = session.data.config, session.data.turn
    held = pairs.row % 4 == 3 if len(pairs.image) >= 8 else torch.zeros_like(pairs.row, dtype=torch.bool)
    learn, check = (~held).nonzero().flatten(), held.nonzero().flatten()
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    best: tuple[float, dict[str, Tensor]] | None = None
    for step in range(config.steps):
        chosen = learn[indices(step, _batch(config), len(learn), config.seed, "evalnet")]
        image, mask = _augmented(pairs, chosen, turn, generator_of(config.seed, "evalnet", "views", step))
        iou, seen = network.train()(image, mask)
        loss = F.mse_loss(iou.sigmoid(), pairs.iou[chosen])
        if seen is not None:
            loss = loss + F.binary_cross_entropy_with_logits(seen, pairs.seen[chosen].float())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if len(check) and ((step + 1) % max(1, config.steps // 10) == 0 or step + 1 == config.steps):
            error = _error(network, pairs, check)
            if best is None or error < best[0]:
                best = (error, copy.deepcopy(network.state_dict()))
        bar(step + 1)
        if STOP.requested:
            raise Stopped(STOP.requested)
    if best is None:
        return None
    network.load_state_dict(best[1])
    return best[0]


def _augmented(pairs: _Pairs, chosen: Tensor, turn: bool, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images and masks of some pairs, recoloured a little and mirrored (turned) together."""
    device = pairs.image.device
    image = photometric(pairs.image[pairs.row[chosen].to(device)], VIEWS["mild"], generator)
    mask = pairs.mask[chosen.to(device)].float() / 255
    flip = (torch.rand(len(chosen), 1, 1, 1, generator=generator) < 0.5).to(device)
    image, mask = torch.where(flip, image.flip(3), image), torch.where(flip, mask.flip(3), mask)
    quarter = int(torch.randint(4, (), generator=generator)) if turn else 0
    return image.rot90(quarter, (2, 3)), mask.rot90(quarter, (2, 3))


@torch.inference_mode()
def _error(network: EvalNet, pairs: _Pairs, rows: Tensor) -> float:
    """Mean absolute error of the IoUs, over the classes that are there."""
    network.eval()
    total = count = 0.0
    for part in rows.split(64):
        iou, _ = network(pairs.image[pairs.row[part].to(pairs.image.device)], pairs.mask[part].float() / 255)
        there = pairs.seen[part]
        total += float(((iou.sigmoid() - pairs.iou[part]).abs() * there).sum())
        count += float(there.sum())
    return total / max(count, 1.0)
