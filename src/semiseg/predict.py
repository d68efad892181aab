"""A trained run on images it has never seen: masks in the user's coding, probabilities, maps of inconsistency."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from semiseg import storage
from semiseg.data import decode, walk
from semiseg.data.classfile import FILE
from semiseg.data.decode import shown
from semiseg.data.folder import holds_images, images_of, read_label
from semiseg.data.foreign import holds_images_of, scorable
from semiseg.data.splits import leftovers
from semiseg.errors import DATA, USAGE, Problem, Refusal
from semiseg.model import Model, Prediction
from semiseg.predict_out import Places, filling, mask_places, png, write_rows

Progress = Callable[[int, str | int], None]
"""progress(done, what failed), and once progress(done, total)."""


@dataclass
class Folder:
    """The outcome of `predict_folder`: predicted and skipped image names, what failed, and what was not read (D31)."""

    done: list[str]
    skipped: list[str]
    failed: list[Problem]
    notes: list[Problem] = field(default_factory=list)


def scan_images(images: Path) -> tuple[walk.Scan, list[Problem]]:
    """Images by name: a single file, all below a folder, or below its images/ when it is a data folder; what was left.

    Raises Refusal D03, D04, D15, D16 (exit 3).
    """
    if images.is_file():
        return walk.Scan({walk.nfc(images.stem): images}), []
    if not images.is_dir():
        raise Refusal(Problem("D03", shown(images), "does not exist", "give an image or a folder of images"), DATA)
    inner = images_of(images)
    found = walk.scan(inner)
    if not found.files:
        fix = "give a folder with PNG, JPEG, TIFF, BMP, GIF or WebP files"
        raise Refusal(Problem("D04", shown(images), "holds no images", fix), DATA)
    clashes = [p for p in found.problems if p.code in ("D15", "D16")]
    if clashes:
        raise Refusal(clashes, DATA)
    found.other = [path for path in found.other if path != inner / FILE]  # which may say what masks for them mean
    notes = [p for p in leftovers(inner, [found]) if p.level == "warning"]
    if others := _unread(images) if inner != images else []:
        text = f"is a data folder, of which only images/ was read, not {', '.join(f'{n}/' for n in others)}"
        fix = f"give {shown(images / others[0])} to read that"
        notes.append(Problem("D31", shown(images), text, fix, level="warning"))
    return found, notes


def _unread(data: Path) -> list[str]:
    """Other splits of a data folder, and folders of images beside its images/."""
    splits = [name for name in ("unlabeled", "val", "test") if (data / name).is_dir()]
    known = ("images", "masks", "splits", *splits)
    more = sorted(p for p in data.iterdir() if p.is_dir() and p.name not in known and p.name[:1] != ".")
    return splits + [p.name for p in more if holds_images(p)]


def predict_folder(
    model: Model,
    images: Path,
    out: Path,
    *,
    probabilities: bool = False,
    inconsistency: bool = False,
    progress: Progress | None = None,
) -> Folder:
    """One mask per image into out/masks, predictions.csv, classes.yaml, and what was asked for.

    Broken images do not stop the others; inconsistency of a run with one model is refused (C09, exit 2). Images whose
    bytes, model and outputs are unchanged are skipped, so an interrupted call completes what is missing.
    What lies in `out` already stays: predictions of other images are kept, files that are none are refused (`filling`).
    """
    if inconsistency and len(model.folders["committee"]) < 2:
        fix = "train one with --method im or ensemble, or predict without --inconsistency"
        raise Refusal(Problem("C09", "--inconsistency", f"needs a committee, {model.run} has one model", fix), USAGE)
    found, notes = scan_images(images)
    result = Folder([], [], list(found.problems), notes)  # links that lead nowhere, folders that cannot be read
    key = f"{model.hash[:16]}-{int(probabilities)}{int(inconsistency)}"
    places, every = _places(model, probabilities, inconsistency), _places(model, True, True)
    if progress:
        progress(0, len(found.files))
    with filling(out, "predictions.csv", images, found.files, model.classes, places) as output:
        for number, (name, path) in enumerate(found.files.items(), 1):
            try:
                digest = hashlib.sha256(decode.load(path)).hexdigest()
                if output.has(name, path, digest, key):
                    result.skipped.append(name)
                else:
                    prediction = model.predict(path, inconsistency=inconsistency)
                    files = dict(zip(places(name), _contents(model, prediction, probabilities), strict=True))
                    output.put(name, path, digest, key, files, _row(model, prediction), every(name))
                    result.done.append(name)
            except Refusal as refusal:
                if refusal.exit != DATA:  # a full disk, a damaged run: the next image would meet the same
                    raise
                result.failed += refusal.problems
            if number % 100 == 0:
                output.save()
            if progress:
                progress(number, f"{len(result.failed)} failed" if result.failed else "")
        write_failed(out, result.failed)
    return result


def write_failed(out: Path, failed: list[Problem]) -> None:
    """out/failed.csv of the latest call; none when nothing failed."""
    write_rows(out / "failed.csv", [{"file": p.where, "code": p.code, "reason": p.found} for p in failed])


def _places(model: Model, probabilities: bool, inconsistency: bool) -> Places:
    """The files of an image, in the order of `_contents`."""
    masks = mask_places(model.classes)
    folders = [label.replace(os.sep, "_").replace("/", "_") for label in model.classes.names]
    more = ["inconsistency"] if inconsistency else []
    more += [f"probabilities/{folder}" for folder in folders] if probabilities else []
    return lambda name: [*masks(name), *(f"{folder}/{name}.png" for folder in more)]


def _contents(model: Model, prediction: Prediction, probabilities: bool) -> list[bytes]:
    contents = [coded.to_bytes() for coded in model.classes.encode(prediction.label).values()]
    if prediction.inconsistency is not None:
        contents.append(png(prediction.inconsistency.astype(np.uint8) * 255))
    if probabilities:
        contents += [png(np.rint(plane * 65535).astype(np.uint16)) for plane in prediction.prob]
    return contents


def _row(model: Model, prediction: Prediction) -> dict[str, Any]:
    label = prediction.label
    if model.task.multilabel:
        planes = label[None] if label.ndim == 2 else label
        shares = [float((p == 1).mean()) for p in planes]
    else:
        shares = [float((label == k).mean()) for k in range(model.task.channels)]
    height, width = label.shape[-2:]
    share = prediction.share
    return {
        "height": height, "width": width, "inconsistent_share": "" if share is None else f"{share:.6f}",
        **{f"share of {n}": f"{s:.6f}" for n, s in zip(model.classes.names, shares, strict=True)},
    }  # fmt: skip


def evaluate_split(model: Model, data: Path, split: str, progress: Progress | None = None) -> dict[str, Any]:
    """METRICS on a split of a data folder, at full resolution.

    labeled and val are those of the training in the folder it was given, or one of the same images, else the folder's
    own. Raises Refusal (exit 3) with everything in the folder that cannot be scored, or whose masks mean something else.
    """
    splits = storage.read_json(model.run / "run.json")["data"]["splits"] if holds_images_of(model.run, data) else {}
    items = scorable(data, model.classes, split, splits, model.unfit)
    metrics = model.task.metrics()
    for number, item in enumerate(items, 1):
        label = torch.from_numpy(model.predict(item.image).label)
        truth = torch.from_numpy(read_label(item, model.classes))
        if model.classes.kind == "binary":
            label, truth = label[None], truth[None]
        metrics.update(label, truth)
        if progress:
            progress(number, len(items))
    return {"split": split, "images": len(items), "metrics": metrics.compute()}
