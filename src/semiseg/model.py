"""A finished run as something that predicts: its model, and its committee for ensembles and inconsistency."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semiseg import storage
from semiseg.data import decode
from semiseg.data.cache import Units, as_float
from semiseg.data.classes import ClassMap
from semiseg.data.setwide import working
from semiseg.errors import CHECKPOINT, DATA, USAGE, Problem, Refusal
from semiseg.inconsistency import inconsistency_mask
from semiseg.networks import build
from semiseg.task import Task, make_task
from semiseg.training.inference import tiled


@dataclass
class Prediction:
    """One image. label: uint8 (H,W) ids (binary 0/1) or (L,H,W) 0/1; prob (K,H,W) float32.

    inconsistency: (H,W) bool, None for a single model or when it was not asked for.
    """

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
        self.units = Units.from_json(data["units"])
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
            storage.verify(self.run / folder / "final")
            result = storage.read_json(self.run / folder / "final" / "result.json")
            net = build(result.get("network", c["network"]), self.channels, self.task.channels, mean=u.mean, std=u.std)
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
        another number of channels or another type than the model was trained on, another shape, no pixel, and NaN.
        """
        where = str(image) if isinstance(image, str | Path) else "image"
        array = decode.read_image(Path(image)) if isinstance(image, str | Path) else np.asarray(image)
        wanted = self.folders["committee"] if self.ensemble else [self.folders["model"]]
        asked = [*wanted, *self.folders["committee"]] if inconsistency else wanted
        total, votes = None, {}
        for folder, prob in self.opinions(array, dict.fromkeys(asked), where):
            if folder in wanted:
                total = prob if total is None else total + prob
            if folder in self.folders["committee"]:
                votes[folder] = self.task.label(prob).to(torch.uint8)
        assert total is not None
        mean = total / len(wanted)
        label = self.task.label(mean)[0].to(torch.uint8).cpu().numpy()
        label = label[0] if self.classes.kind == "binary" else label
        return Prediction(label, mean[0].cpu().numpy(), self._inconsistent(votes) if inconsistency else None)

    @torch.inference_mode()
    def opinions(self, image: np.ndarray, folders: Iterable[str], where: str = "image") -> Iterator[tuple[str, Tensor]]:
        """(folder, probabilities (1,K,H,W)) of one member after the other, at the size of the image (H,W) or (H,W,C)."""
        array = image[..., None] if image.ndim == 2 else image
        self._check(array, where)
        x = self._unit(array)
        for folder in folders:
            prob = self._prob(self.network(folder), x, (array.shape[0], array.shape[1]))
            if not bool(prob.isfinite().all()):  # else it would say the first class, or none, everywhere
                found = "predicts NaN: its weights are no finite numbers, or too large for what it is given"
                raise Refusal(Problem("S01", str(self.run / folder), found, "train it again"), CHECKPOINT)
            yield folder, prob

    def _inconsistent(self, votes: dict[str, Tensor]) -> np.ndarray | None:
        if len(votes) < 2:
            return None
        made = inconsistency_mask(torch.stack(list(votes.values())), self.task)
        return made.inconsistent[0, 0].cpu().numpy()

    def _check(self, array: np.ndarray, where: str) -> None:
        if array.ndim != 3 or not array.size:
            want = "(height, width) or (height, width, channels), none of them 0"
            raise Refusal(Problem("P01", where, f"has the shape {array.shape}", expected=want), DATA)
        if problem := self.unfit(array.shape[2], str(array.dtype), where):
            raise Refusal(problem, DATA)
        if array.dtype == np.float32 and not np.isfinite(array).all():
            raise Refusal(Problem("D22", where, "holds pixels that are NaN or infinite", "replace those pixels"), DATA)

    def unfit(self, channels: int, dtype: str, where: str) -> Problem | None:
        """P01 or P02 for images that are not like those of the training, else None."""
        fix = "give it images like those that it learned from"
        if channels != self.channels:
            fix += {1: ", saved as grey", 3: ", saved as RGB"}.get(self.channels, "")
            found = f"has {channels} channel{'s' * (channels > 1)}, the model was trained on {self.channels}"
            return Problem("P01", where, found, fix)
        if dtype != self.dtype:
            return Problem("P02", where, f"holds {dtype} numbers, the model was trained on {self.dtype}", fix)
        return None

    def _unit(self, array: np.ndarray) -> Tensor:
        """(1,C,h,w) in unit range, at the working resolution."""
        flat = torch.from_numpy(
            np.ascontiguousarray(array).view(np.int16) if array.dtype == np.uint16 else array.copy()
        )
        x = as_float(flat, self.dtype).permute(2, 0, 1).unsqueeze(0)
        size = working(x.shape[-2], x.shape[-1], self.resize)
        if size != tuple(x.shape[-2:]):
            x = F.interpolate(x, size, mode="bilinear", antialias=True)
            x = x.round() if self.dtype != "float32" else x  # the cache of the training stores whole numbers
        return self.units.apply(x.to(self.device))

    def _prob(self, network: nn.Module, x: Tensor, size: tuple[int, int]) -> Tensor:
        prob = tiled(lambda part: self.task.prob(network(part)), x)
        return prob if prob.shape[-2:] == size else F.interpolate(prob, size, mode="bilinear")


def _records(run: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    record = storage.finished(run)
    return storage.read_json(run / "summary.json"), record
