"""What a finished run leaves behind beside its models: the ranking of what to label next, pictures, the summary."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from semiseg import storage
from semiseg.data.classes import ClassMap
from semiseg.inconsistency import inconsistency_mask
from semiseg.programs._generations import FIRST
from semiseg.programs.base import Outcome
from semiseg.programs.consensus import load, opinions
from semiseg.programs.session import Member, Session
from semiseg.report.pictures import Sample, write_samples
from semiseg.training.evaluate import batches, images
from semiseg.training.inference import tiled
from semiseg.training.origin import distinct

PICTURES = 8


def label_next(session: Session, outcome: Outcome) -> list[dict[str, Any]]:
    """Rank the unlabeled images by how much the committee disagrees, most first; else by the doubt of the model.

    score: the inconsistent share of the pixels, from the consensus where it holds that; for a single model, and where that
    share is the same for all images, the model's mean of 1 - confidence. Writes label_next.csv as `write_ranking`.
    """
    data, names = session.data, session.data.unlabeled.names
    paths = {item.name: str(item.image) for item in data.checked.index.unlabeled}
    shared = bool(data.config.committee) or len(outcome.committee) > 1
    scores = _stored(session, outcome.committee) or _scored(session, outcome.committee)
    if shared and len(scores) > 1 and len(set(scores)) == 1:  # a constant ranks nothing
        scores, shared = _scored(session, [outcome.model]), False
    rows = [{"image": n, "path": paths.get(n, ""), "score": s} for n, s in zip(names, scores, strict=True)]
    return write_ranking(session.run / "label_next.csv", rows, shared)


def write_ranking(path: Path, rows: list[dict[str, Any]], committee: bool = True) -> list[dict[str, Any]]:
    """Sort rows with image, path and score by score, most first and equal ones by name, and write them with their rank.

    Columns: rank, image, path, score, inconsistent_share. committee: the score is where members differ.
    """
    rows = sorted(rows, key=lambda r: (-r["score"], r["image"]))
    for rank, row in enumerate(rows, 1):
        row.update(rank=rank, inconsistent_share=f"{row['score']:.6f}" if committee else "")
    fields = ["rank", "image", "path", "score", "inconsistent_share"]
    storage.write_csv(path, fields, ({**r, "score": f"{r['score']:.6f}"} for r in rows))
    return rows


def _stored(session: Session, members: Sequence[Member]) -> list[float]:
    """What a finished consensus of just these members holds of every unlabeled image, or that of a given committee."""
    given = bool(session.data.config.committee)
    path = session.run / (FIRST if given else f"generation-{members[0].generation + 1}/consensus")
    stored = load(path) if storage.is_sealed(path) else None
    if stored is None or not (given or stored.who == [m.folder for m in members]):
        return []
    shares = {r["image"]: r.get("disagreement", r["inconsistent_share"]) for r in stored.rows}  # before any morphology
    return [shares[name] for name in session.data.unlabeled.names]


def _scored(session: Session, members: Sequence[Member]) -> list[float]:
    """Of every unlabeled image: the members' inconsistent share, of one the mean of 1 - confidence."""
    data, networks = session.data, [session.load(m) for m in members]
    scores: list[float] = []
    with session.log.bar("what to label next", len(data.unlabeled)) as bar:
        for chosen in batches(data.unlabeled):
            scores += _scores(networks, data.task, images(data.unlabeled, chosen, data.units)).tolist()
            bar(len(scores))
    return scores


@torch.inference_mode()
def _scores(networks: list[nn.Module], task: Any, image: Tensor) -> Tensor:
    if len(networks) > 1:
        votes, _ = opinions(networks, task, image)
        return inconsistency_mask(votes, task).inconsistent.flatten(1).float().mean(1)
    prob = tiled(lambda x: task.prob(networks[0](x)), image)
    confidence = torch.maximum(prob, 1 - prob) if task.multilabel else prob.amax(1, keepdim=True)
    return 1 - confidence.flatten(1).mean(1)


def samples(session: Session, outcome: Outcome, ranking: list[dict[str, Any]]) -> None:
    """Pictures for the report: val images with their truth (worst, middle, best agreed) and the most doubtful others."""
    data, task = session.data, session.data.task
    model = session.load(outcome.model)
    base = session.load(outcome.baseline) if outcome.baseline and outcome.baseline is not outcome.model else None
    committee = [session.load(m) for m in outcome.committee]
    chosen: list[tuple[str, Any, int]] = [("val", data.val, i) for i in _spread(len(data.val), PICTURES // 2)]
    where = {name: i for i, name in enumerate(data.unlabeled.names)}
    chosen += [("unlabeled", data.unlabeled, where[r["image"]]) for r in ranking[: PICTURES - len(chosen)]]
    made = []
    for split, store, i in chosen:
        x = images(store, [i], data.units)
        label = _label(task, model, x)
        votes, _ = opinions(committee, task, x)
        doubt = inconsistency_mask(votes, task).inconsistent[0, 0].cpu().numpy() if len(votes) > 1 else None
        truth = store.label(i)
        made.append(Sample(
            name=store.names[i], split=split, image=_picture(store.image(i), store.dtype),
            truth=None if truth is None else _flat(truth.cpu().numpy(), data.classes.kind),
            baseline=None if base is None else _flat(_label(task, base, x), data.classes.kind),
            model=_flat(label, data.classes.kind), inconsistency=doubt,
            share=None if doubt is None else float(doubt.mean()),
        ))  # fmt: skip
    write_samples(session.run, made, data.classes.names, _colors(data.classes))


def _colors(classes: ClassMap) -> Sequence[Sequence[int]] | None:
    """The user's own colours of the classes, where their masks have them. The palette of a label's own file has none."""
    if classes.colors or not classes.palette or classes.kind == "multilabel":
        return classes.colors or None
    values = classes.values[-1:] if classes.kind == "binary" else classes.values
    return [classes.palette[v] for v in values] if max(values) < len(classes.palette) else None


def _spread(n: int, wanted: int) -> list[int]:
    return sorted({round(i * (n - 1) / max(1, wanted - 1)) for i in range(min(n, wanted))}) if n else []


@torch.inference_mode()
def _label(task: Any, network: nn.Module, x: Tensor) -> np.ndarray:
    return task.label(tiled(lambda part: task.prob(network(part)), x))[0].cpu().numpy().astype(np.uint8)


def _flat(label: np.ndarray, kind: str) -> np.ndarray:
    return label[0] if kind == "binary" and label.ndim == 3 else label


def _picture(image: Tensor, dtype: str) -> np.ndarray:
    array = image.permute(1, 2, 0).cpu().numpy()
    return array.astype(np.uint8) if dtype == "uint8" else array


def _peak() -> int | None:
    """The most memory that this process has held, in MB; None where nobody counts it (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, else kilobytes
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)


def summary(session: Session, outcome: Outcome, command: str, wall: float) -> dict[str, Any]:
    """summary.json: everything the report and `semiseg.load` read."""
    data, config = session.data, session.data.config
    model = outcome.model
    trained = [*(m.result for m in session.members), *session.beside.values()]
    asked = list(session.asked.values())
    spent = {"train": sum(c["seconds"] for c in trained), "consensus": sum(c["seconds"] for c in asked)}
    before = sum(max(0.0, all_tries - session.log.seconds.get(k, 0.0)) for k, all_tries in spent.items())
    return {
        "name": config.name, "method": config.method, "program": config.program or None,
        "kind": data.classes.kind, "classes": list(data.classes.names),
        "network": model.result.get("network", config.network),
        "parameters": model.result["parameters"], "counts": data.spec()["counts"],
        "val_source": data.spec()["val_source"],
        "scored": {"on": "held-out labels" if session.held else "val", "images": session.held or len(data.val)},
        "steps": config.steps, "size": config.size, "batch": config.batch,
        "seed": config.seed, "command": command,
        "commit": distinct(m.result.get("commit", "") for m in session.members),
        "arms": session.arms, "generations": session.generations,
        "model": {"folder": model.folder, "generation": model.generation, "why": outcome.why, "val": model.val},
        "committee": [m.folder for m in outcome.committee],
        "baseline": outcome.baseline.folder if outcome.baseline else None,
        "hash": model.result["hash"], "warnings": list(dict.fromkeys(session.warnings)),
        "seconds": {**{k: round(v, 2) for k, v in session.log.seconds.items()}, "total": round(wall + before, 2),
                    "training_all_tries": round(spent["train"], 2),
                    **({"consensus_all_tries": round(spent["consensus"], 2)} if asked else {})},
        "models_trained": len(trained), "images_forwarded": sum(c["images_forwarded"] for c in [*trained, *asked]),
        "peak_memory_mb": _peak(),
    }  # fmt: skip
