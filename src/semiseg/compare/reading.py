"""Test is read once: every arm of a finished run on every test image, stored as counts beside the run.

A stored reading is never made again; statistics, tables and pages are computed from it without a prediction.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from semiseg import storage
from semiseg.compare import counting, scores
from semiseg.compare.statistics import counts
from semiseg.data import decode
from semiseg.data.folder import find, read_label
from semiseg.data.index import Item, order
from semiseg.errors import DATA, Problem, Refusal
from semiseg.inconsistency import inconsistency_mask
from semiseg.model import Model
from semiseg.task import confusion
from semiseg.training.logs import Log

Array = np.ndarray[Any, Any]
PICTURES, SIDE = 6, 240
"""Test images that every arm shows, and their longer side in pixels."""


@dataclass(frozen=True)
class Part:
    """An arm of a finished run: its row, the members that predict together, and their METRICS on val.

    first: it is the first model of a committee, whose training alone it cost. shipped: it is the model of the run.
    """

    name: str
    folders: list[str]
    val: dict[str, Any] | None
    first: bool
    shipped: bool


@dataclass(frozen=True)
class Reading:
    """One arm on one split. found (N,C,3) hits, false alarms, misses; edges the same on boundaries; bins (16,3).

    cells: errors of the cell count (N,) or None. share: inconsistent share per image (N,), None without a committee of
    the arm's own.
    pictures: PNG files of the predicted ids at display size, labels below each other where they overlap.
    """

    part: Part
    names: list[str]
    multilabel: bool
    found: Array
    edges: Array
    bins: Array
    cells: Array | None
    share: Array | None
    pictures: list[Path]


def items_of(model: Model, data: Path, split: str) -> list[Item]:
    """The items of a split that have masks, as the run notes them: a carved val set is of the labeled images, and an image
    whose mask is ignored everywhere is of no split. Runs of older versions note no test set.
    """
    known = storage.read_json(model.run / "run.json")["data"]["splits"].get(split)
    index = find(data, model.classes.names if model.classes.coding == "folders" else None)
    items = [i for i in index.split(split) if i.masks]
    if known is not None:
        noted = set(known)
        items = [i for _, i in index.items() if i.name in noted and i.masks]
        items.sort(key=lambda i: order(i.name))  # as in every split; labels keep the order of their list
    if not items:
        raise Refusal(Problem("D19", str(data), f"has no {split} set with masks"), DATA)
    return items


def spread(n: int, wanted: int = PICTURES) -> list[int]:
    """Evenly spaced places among n: the images shown are chosen before anything is known about them."""
    return sorted({round(i * (n - 1) / max(1, min(n, wanted) - 1)) for i in range(min(n, wanted))}) if n else []


def arms_of(run: Path, title: str) -> list[Part]:
    """The arms of a run. A committee has several: its first model, which bears the cell's title, the best, the average."""
    summary = storage.read_json(run / "summary.json")
    model = summary["model"]
    if summary["program"] != "committee":
        return [Part(title, [model["folder"]], model.get("val"), False, True)]
    front = summary["arms"][0]["name"]
    return [
        Part(title + a["name"].removeprefix(front), [a["folder"]] if a["folder"] else summary["committee"], a["val"],
             n == 0, a["folder"] == model["folder"])
        for n, a in enumerate(summary["arms"])
    ]  # fmt: skip


def read(
    run: Path, data: Path, split: str, title: str, progress: Callable[[int], object] | None = None
) -> list[Reading]:
    """Read the split with every arm of a finished run, or find the reading stored. Logged in the run's events."""
    folder = run / f"reading-{split}"
    if not storage.is_sealed(folder):
        Log(run, quiet=True).event("evaluated", split=split, ensemble=False, by="compare")
        _write(run, data, split, title, folder, progress)
    return load(folder, arms_of(run, title))


def _write(
    run: Path, data: Path, split: str, title: str, folder: Path, progress: Callable[[int], object] | None
) -> None:
    model = Model(run)
    items = items_of(model, data, split)
    arms = {part.name: part.folders for part in arms_of(run, title)}
    committee = model.folders["committee"] if len(model.folders["committee"]) > 1 else []
    shown = {i: n for n, i in enumerate(spread(len(items)))}
    rows: dict[str, list[dict[str, Array]]] = {arm: [] for arm in arms}
    shares: list[float] = []
    files: dict[str, Any] = {}
    for i, item in enumerate(items):
        mask = read_label(item, model.classes)
        made, share = _predict(model, item, arms, committee)
        shares.append(share)
        for n, (arm, prob) in enumerate(made.items()):
            row, label = _measure(model, prob, mask)
            rows[arm].append(row)
            if i in shown:
                files[f"{n}-{shown[i]}.png"] = _png(label)
        if progress:
            progress(i + 1)
    tensors = {f"{n}.{key}": torch.from_numpy(np.stack([r[key] for r in rows[arm]]))
               for n, arm in enumerate(arms) for key in rows[arm][0]}  # fmt: skip
    if committee:
        tensors["share"] = torch.tensor(shares, dtype=torch.float64)
    about = {
        "split": split, "data": str(data), "images": [i.name for i in items], "multilabel": model.task.multilabel,
        "classes": list(model.classes.names), "arms": [{"name": a, "members": f} for a, f in arms.items()],
        "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }  # fmt: skip
    storage.save_folder(
        folder, {**files, "counts.safetensors": tensors, "reading.json": json.dumps(about)}, {"split": split}
    )


@torch.inference_mode()
def _predict(
    model: Model, item: Item, arms: dict[str, list[str]], committee: Sequence[str]
) -> tuple[dict[str, torch.Tensor], float]:
    """Mean probabilities (K,H,W) of every arm, and the inconsistent share of the committee; each member is asked once."""
    total: dict[str, torch.Tensor] = {}
    votes = []
    wanted = dict.fromkeys([*(f for folders in arms.values() for f in folders), *committee])
    for folder, prob in model.opinions(decode.read_image(item.image), wanted, str(item.image)):
        for arm, folders in arms.items():
            if folder in folders:
                total[arm] = total[arm] + prob if arm in total else prob
        if folder in committee:
            votes.append(model.task.label(prob).to(torch.uint8))
    share = float(inconsistency_mask(torch.stack(votes), model.task).inconsistent.float().mean()) if votes else 0.0
    return {arm: (total[arm] / len(folders))[0] for arm, folders in arms.items()}, share


def _measure(model: Model, prob: torch.Tensor, mask: Array) -> tuple[dict[str, Array], Array]:
    """All counts of one prediction, and its label (H,W) or (L,H,W)."""
    task = model.task
    truth = torch.from_numpy(mask).to(prob.device)
    truth = truth[None] if model.classes.kind == "binary" else truth
    label = task.label(prob[None])[0]
    flat = label.to(torch.uint8).cpu().numpy()
    stacked = mask[None] if model.classes.kind == "binary" else mask
    row = {
        "confusion": confusion(label, truth, task).to(torch.int32).numpy(),
        "boundary": scores.boundary_counts(flat, stacked, task),
        "bins": scores.calibration_bins(prob, truth, task),
    }
    order = counting.order_of(task.names) if task.multilabel else None
    if order:
        row["cells"] = np.asarray(counting.cell_error(flat, stacked, order))
    return row, flat


def _png(label: Array) -> bytes:
    """Ids at display size; planes of overlapping labels stand below each other."""
    height, width = label.shape[-2:]
    step = max(1.0, max(height, width) / SIDE)
    rows = (np.arange(int(height / step)) * step).astype(int)
    columns = (np.arange(int(width / step)) * step).astype(int)
    small = label[..., rows[:, None], columns]
    buffer = io.BytesIO()
    Image.fromarray(small.reshape(-1, small.shape[-1])).save(buffer, "PNG")
    return buffer.getvalue()


def load(folder: Path, parts: Sequence[Part]) -> list[Reading]:
    """The arms of a stored reading, in the order they were read. Raises Refusal (exit 4) when it is damaged."""
    storage.verify(folder)
    about = storage.read_json(folder / "reading.json")
    tensors = {k: t.numpy() for k, t in storage.read_tensors(folder / "counts.safetensors").items()}
    overlap, alone = about["multilabel"], len(parts) == 1  # then the committee is that of the arm's method
    return [
        Reading(
            part, about["images"], overlap, counts(tensors[f"{n}.confusion"], overlap), tensors[f"{n}.boundary"],
            tensors[f"{n}.bins"].sum(0), tensors.get(f"{n}.cells"),
            tensors.get("share") if alone or len(part.folders) > 1 else None, sorted(folder.glob(f"{n}-*.png")),
        )
        for n, part in enumerate(parts)
    ]  # fmt: skip
