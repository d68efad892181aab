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
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from semiseg import storage
from semiseg.data import decode, walk
from semiseg.data.cache import Units, as_float
from semiseg.data.classes import ClassMap
from semiseg.errors import CHECKPOINT, DATA, PARTLY, USAGE, Problem, Refusal
from semiseg.inconsistency import inconsistency_mask
from semiseg.networks import build
from semiseg.task import Task, make_task
from semiseg.training.inference import tiled

DEPTHS = {"uint8": torch.uint8, "float32": torch.float32}


@dataclass
class Prediction:
    """One image. label (H,W) ids (binary 0/1) or (L,H,W) 0/1, uint8; prob (K,H,W) float32; inconsistency (H,W) bool or None."""

    label: np.ndarray
    prob: np.ndarray
    inconsistency: np.ndarray | None

    @property
    def share(self) -> float | None:
        """Inconsistent share of the image in [0, 1]; None for a single model."""
        return None if self.inconsistency is None else float(self.inconsistency.mean())


class Model:
    """What `semiseg.load(run)` gives: the run's model, and its committee for `ensemble` and inconsistency."""

    def __init__(self, run: Path, ensemble: bool = False) -> None:
        self.run = Path(run)
        summary, record = _records(self.run)
        data, config = record["data"], record["config"]
        self.classes = ClassMap.from_json(data["classes"])
        self.task: Task = make_task(self.classes.kind, self.classes.names)
        self.units = Units(**{k: tuple(v) for k, v in data["units"].items()})
        self.channels, self.dtype, self.resize = data["channels"], data["dtype"], config["resize"]
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.folders = {"model": summary["model"]["folder"], "committee": summary["committee"]}
        self.config, self.ensemble = config, ensemble
        if ensemble and len(self.folders["committee"]) < 2:
            fix = "train one with --method im or ensemble, or predict without --ensemble"
            raise Refusal(Problem("C09", "--ensemble", f"needs a committee, and {run} has one model", fix), USAGE)
        self._networks: dict[str, nn.Module] = {}

    def network(self, folder: str) -> nn.Module:
        """A member's network by its folder, loaded once."""
        if folder not in self._networks:
            c, u = self.config, self.units
            net = build(c["network"], self.channels, self.task.channels, mean=u.mean, std=u.std)
            storage.verify(self.run / folder / "final")
            net.load_state_dict(storage.read_tensors(self.run / folder / "final" / "weights.safetensors"))
            self._networks[folder] = net.to(self.device).eval()
        return self._networks[folder]

    @property
    def hash(self) -> str:
        """SHA-256 of the predicting weights."""
        folders = self.folders["committee"] if self.ensemble else [self.folders["model"]]
        return hashlib.sha256(
            "".join(storage.hash_tensors(self.network(f).state_dict()) for f in folders).encode()
        ).hexdigest()

    @torch.inference_mode()
    def predict(self, image: np.ndarray | str | Path, *, inconsistency: bool = False) -> Prediction:
        """Segment one image: a path, or an array (H,W) or (H,W,C) of the training images' type and channels.

        inconsistency=True asks the committee as well. Output has the size of the input. Raises Refusal (exit 3) for
        another number of channels or another type than the model was trained on.
        """
        where = str(image) if isinstance(image, str | Path) else "image"
        array = decode.read_image(Path(image)) if isinstance(image, str | Path) else np.asarray(image)
        array = array[..., None] if array.ndim == 2 else array
        self._fits(array, where)
        height, width = array.shape[:2]
        x = self._unit(array)
        wanted = self.folders["committee"] if self.ensemble else [self.folders["model"]]
        asked = [*wanted, *self.folders["committee"]] if inconsistency else wanted
        total, votes = None, {}
        for folder in dict.fromkeys(asked):
            prob = self._prob(self.network(folder), x, (height, width))
            if folder in wanted:
                total = prob if total is None else total + prob
            if folder in self.folders["committee"]:
                votes[folder] = self.task.label(prob).to(torch.uint8)
        assert total is not None
        mean = total / len(wanted)
        label = self.task.label(mean)[0].to(torch.uint8).cpu().numpy()
        label = label[0] if self.classes.kind == "binary" else label
        return Prediction(label, mean[0].cpu().numpy(), self._inconsistent(votes) if inconsistency else None)

    def _inconsistent(self, votes: dict[str, Tensor]) -> np.ndarray | None:
        if len(votes) < 2:
            return None
        made = inconsistency_mask(torch.stack(list(votes.values())), self.task)
        return made.inconsistent[0, 0].cpu().numpy()

    def _fits(self, array: np.ndarray, where: str) -> None:
        c, dtype = array.shape[2], str(array.dtype)
        if c != self.channels:
            found = f"has {c} channels, the model was trained on {self.channels}"
            raise Refusal(Problem("P01", where, found, "give it images like those it learned from"), DATA)
        if dtype != self.dtype:
            found = f"holds {dtype} numbers, the model was trained on {self.dtype}"
            raise Refusal(Problem("P02", where, found, "give it images like those it learned from"), DATA)

    def _unit(self, array: np.ndarray) -> Tensor:
        """(1,C,h,w) in unit range, at the working resolution."""
        flat = torch.from_numpy(np.ascontiguousarray(array).view(np.int16) if array.dtype == np.uint16 else array.copy())
        x = as_float(flat, self.dtype).permute(2, 0, 1).unsqueeze(0)
        side = min(x.shape[-2:])
        if self.resize and side > self.resize:
            size = [max(1, round(s * self.resize / side)) for s in x.shape[-2:]]
            x = F.interpolate(x, size, mode="bilinear", antialias=True)
            x = x.round() if self.dtype != "float32" else x  # the cache of the training stores whole numbers
        return self.units.apply(x.to(self.device))

    def _prob(self, network: nn.Module, x: Tensor, size: tuple[int, int]) -> Tensor:
        prob = tiled(lambda part: self.task.prob(network(part)), x)
        return prob if prob.shape[-2:] == size else F.interpolate(prob, size, mode="bilinear")


def _records(run: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    if not (run / "run.json").exists():
        fix = "give the folder that `semiseg train … --out` wrote"
        raise Refusal(Problem("S06", str(run), "is no run: it has no run.json", fix), CHECKPOINT)
    record = storage.read_json(run / "run.json")
    if not (run / "summary.json").exists():
        fix = f"finish it: semiseg train {record['config']['data']} --out {run} --resume"
        raise Refusal(Problem("S07", str(run), "is not finished: it has no summary.json", fix), CHECKPOINT)
    return storage.read_json(run / "summary.json"), record


@dataclass
class Folder:
    """The outcome of `predict_folder`: predicted and skipped image names, and what failed."""

    done: list[str]
    skipped: list[str]
    failed: list[Problem]


def find_images(images: Path) -> dict[str, Path]:
    """Image files by name: a single file, all below a folder, or below its images/ when it is a data folder."""
    if images.is_file():
        return {images.stem: images}
    if not images.is_dir():
        raise Refusal(Problem("D03", str(images), "does not exist", "give an image or a folder of images"), DATA)
    inner = images / "images"
    found = walk.scan(inner if inner.is_dir() else images)
    if not found.files:
        fix = "give a folder with PNG, JPEG, TIFF, BMP, GIF or WebP files"
        raise Refusal(Problem("D04", str(images), "holds no images", fix), DATA)
    clashes = [p for p in found.problems if p.code in ("D15", "D16")]
    if clashes:
        raise Refusal(clashes, DATA)
    return found.files


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
    files = find_images(images)
    if out.resolve() in (images.resolve(), (images / "images").resolve()):
        raise Refusal(Problem("C10", "--out", "is the folder of the images", "choose another folder"), USAGE)
    done, skipped, failed = [], [], []
    key = f"{model.hash[:16]}-{int(probabilities)}{int(inconsistency)}"
    known = {r["image"]: r for r in _read_rows(out / "predictions.csv")}
    rows: list[dict[str, Any]] = []
    for number, (name, path) in enumerate(files.items(), 1):
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            old = known.get(name)
            if old and old["sha256"] == digest and old["model"] == key and (out / old["mask"]).exists():
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
            _write_rows(out / "predictions.csv", rows)
        if progress:
            progress(number, f"{len(failed)} failed" if failed else "")
    _write_rows(out / "predictions.csv", rows)
    _write_rows(out / "failed.csv", [{"file": p.where, "code": p.code, "reason": p.found} for p in failed])
    return Folder(done, skipped, failed)


def _write(model: Model, out: Path, name: str, prediction: Prediction, probabilities: bool) -> str:
    first = ""
    for folder, coded in model.classes.encode(prediction.label).items():
        target = out / "masks" / folder / f"{name}{coded.suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        storage.write_bytes(target, coded.to_bytes())
        first = first or target.relative_to(out).as_posix()
    if prediction.inconsistency is not None:
        _png(out / "inconsistency" / f"{name}.png", prediction.inconsistency.astype(np.uint8) * 255)
    if probabilities:
        for label, plane in zip(model.classes.names, prediction.prob, strict=True):
            folder = label.replace(os.sep, "_").replace("/", "_")
            _png(out / "probabilities" / folder / f"{name}.png", np.rint(plane * 65535).astype(np.uint16))
    return first


def _png(path: Path, array: np.ndarray) -> None:
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


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
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
    from semiseg.data.folder import read_label

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
    from semiseg.data.folder import find

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


__all__ = ["PARTLY", "Folder", "Model", "Prediction", "evaluate_split", "find_images", "predict_folder"]
