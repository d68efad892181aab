"""A trained run on images it has never seen: masks in the user's coding, probabilities, maps of inconsistency."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from semiseg import storage
from semiseg.data import walk
from semiseg.data.folder import find, read_label
from semiseg.errors import DATA, USAGE, Problem, Refusal
from semiseg.model import Model, Prediction


@dataclass
class Folder:
    """The outcome of `predict_folder`: predicted and skipped image names, and what failed."""

    done: list[str]
    skipped: list[str]
    failed: list[Problem]


def find_images(images: Path) -> dict[str, Path]:
    """Image files by name: a single file, all below a folder, or below its images/ when it is a data folder."""
    return scan_images(images).files


def _below(images: Path) -> Path:
    return images / "images" if (images / "images").is_dir() else images


def scan_images(images: Path) -> walk.Scan:
    """`find_images` with the problems of the walk. Raises Refusal D03, D04, D15, D16 (exit 3)."""
    if images.is_file():
        return walk.Scan({images.stem: images})
    if not images.is_dir():
        raise Refusal(Problem("D03", str(images), "does not exist", "give an image or a folder of images"), DATA)
    found = walk.scan(_below(images))
    if not found.files:
        fix = "give a folder with PNG, JPEG, TIFF, BMP, GIF or WebP files"
        raise Refusal(Problem("D04", str(images), "holds no images", fix), DATA)
    clashes = [p for p in found.problems if p.code in ("D15", "D16")]
    if clashes:
        raise Refusal(clashes, DATA)
    return found


def apart(images: Path, out: Path) -> None:
    """Refuses (exit 2) to write among the images."""
    target, source = out.resolve(), images.resolve()
    if images.is_dir() and (target == source or target.is_relative_to(_below(source))):
        text = "is the folder of the images, or lies in it"
        raise Refusal(Problem("C10", f"--out {out}", text, "choose another folder"), USAGE)


def predict_folder(
    model: Model,
    images: Path,
    out: Path,
    *,
    probabilities: bool = False,
    inconsistency: bool = False,
    progress: Callable[[int, str], None] | None = None,
) -> Folder:
    """One mask per image into out/masks, predictions.csv, and what was asked for; broken images do not stop the others.

    Images whose bytes, model and outputs are unchanged are skipped, so an interrupted call completes what is missing.
    """
    found = scan_images(images)
    apart(images, out)
    done, skipped, failed = [], [], list(found.problems)  # links that lead nowhere, folders that cannot be read
    key = f"{model.hash[:16]}-{int(probabilities)}{int(inconsistency)}"
    known = {r["image"]: r for r in _read_rows(out / "predictions.csv")}
    rows: list[dict[str, Any]] = []
    for number, (name, path) in enumerate(found.files.items(), 1):
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            old = known.get(name)
            if old and old["sha256"] == digest and old["model"] == key and _whole(model, out, old):
                rows.append(old)
                skipped.append(name)
            else:
                prediction = model.predict(path, inconsistency=inconsistency)
                mask = _write(model, out, name, prediction, probabilities)
                rows.append(_row(model, name, mask, digest, key, prediction))
                done.append(name)
        except Refusal as refusal:
            failed += refusal.problems
        except OSError as error:
            failed.append(Problem("D17", str(path), f"cannot be read: {error.strerror}"))
        if number % 100 == 0:
            write_rows(out / "predictions.csv", rows)
        if progress:
            progress(number, f"{len(failed)} failed" if failed else "")
    write_rows(out / "predictions.csv", rows)
    write_rows(out / "failed.csv", [{"file": p.where, "code": p.code, "reason": p.found} for p in failed])
    return Folder(done, skipped, failed)


def _whole(model: Model, out: Path, row: dict[str, Any]) -> bool:
    """Are all masks of a row (one per label where there are folders) still there?"""
    masks = [str(row["mask"])]
    if model.classes.coding == "folders":
        masks = [f"masks/{label}/{row['image']}{Path(masks[0]).suffix}" for label in model.classes.names]
    return all((out / mask).exists() for mask in masks)


def _write(model: Model, out: Path, name: str, prediction: Prediction, probabilities: bool) -> str:
    first = ""
    for folder, coded in model.classes.encode(prediction.label).items():
        target = out / "masks" / folder / f"{name}{coded.suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        storage.write_bytes(target, coded.to_bytes())
        first = first or target.relative_to(out).as_posix()
    if prediction.inconsistency is not None:
        png(out / "inconsistency" / f"{name}.png", prediction.inconsistency.astype(np.uint8) * 255)
    if probabilities:
        for label, plane in zip(model.classes.names, prediction.prob, strict=True):
            folder = label.replace(os.sep, "_").replace("/", "_")
            png(out / "probabilities" / folder / f"{name}.png", np.rint(plane * 65535).astype(np.uint16))
    return first


def png(path: Path, array: np.ndarray) -> None:
    """Write an array as PNG, with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    storage.write_bytes(path, buffer.getvalue())


def _row(model: Model, name: str, mask: str, digest: str, key: str, prediction: Prediction) -> dict[str, Any]:
    label = prediction.label
    if model.task.multilabel:
        planes = label[None] if label.ndim == 2 else label
        shares = [float((p == 1).mean()) for p in planes]
    else:
        shares = [float((label == k).mean()) for k in range(model.task.channels)]
    height, width = label.shape[-2:]
    share = prediction.share
    return {
        "image": name, "mask": mask, "height": height, "width": width,
        "inconsistent_share": "" if share is None else f"{share:.6f}",
        **{f"share of {n}": f"{s:.6f}" for n, s in zip(model.classes.names, shares, strict=True)},
        "sha256": digest, "model": key,
    }  # fmt: skip


def _read_rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [r for r in rows if r.get("image") and r.get("sha256") and r.get("model") and r.get("mask")]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """A CSV file of rows; no file where there are none."""
    if not rows:
        if path.exists():
            path.unlink()
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    storage.write_text(path, text.getvalue())


def evaluate_items(model: Model, items: list[Any], progress: Callable[[int, str], None] | None = None) -> Iterator[Any]:
    """(item, prediction, mask) for items with masks, at the size of the masks."""
    for number, item in enumerate(items, 1):
        mask = read_label(item, model.classes)
        prediction = model.predict(item.image)
        if progress:
            progress(number, "")
        yield item, prediction, mask


def evaluate_split(
    model: Model, data: Path, split: str, progress: Callable[[int, str], None] | None = None
) -> dict[str, Any]:
    """METRICS on a split of a data folder, at full resolution. Raises Refusal when the split has no masks."""
    index = find(data, model.classes.names if model.classes.coding == "folders" else None)
    carved = storage.read_json(model.run / "run.json")["data"]["splits"]
    items = [i for i in index.split(split) if i.masks]
    if split in carved and not (split == "val" and items):  # a val set that was carved from the labels
        items = [i for _, i in index.items() if i.name in set(carved[split]) and i.masks]
    if not items:
        if index.problems:
            raise Refusal([p for p in index.problems if p.level == "error"] or index.problems, DATA)
        fix = f"add {split}/images and {split}/masks, or splits/{split}.txt"
        raise Refusal(Problem("D19", str(data), f"has no {split} set with masks", fix), DATA)
    metrics = model.task.metrics()
    for _, prediction, mask in evaluate_items(model, items, progress):
        label, truth = torch.from_numpy(prediction.label), torch.from_numpy(mask)
        if model.classes.kind == "binary":
            label, truth = label[None], truth[None]
        metrics.update(label, truth)
    return {"split": split, "images": len(items), "metrics": metrics.compute()}
