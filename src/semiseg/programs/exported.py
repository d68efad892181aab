"""A run's model as one .onnx file that needs neither torch nor semiseg, compared with torch at once; and back.

In: "image" (batch, channels, height, width), float32 in unit range, any size. Out: "logits" of the same size: softmax and
argmax over classes, or a sigmoid above .5 per label. The metadata's "semiseg" entry (JSON) holds the class map with the
coding of the masks, the unit range of the images ((pixel - low) / (high - low) per channel), their type and channels.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from semiseg import storage
from semiseg.data import cache
from semiseg.data.cache import Units
from semiseg.data.classes import ClassMap
from semiseg.errors import BUG, CHECKPOINT, USAGE, Problem, Refusal
from semiseg.model import Model
from semiseg.task import make_task

TOLERANCE = 1e-3
"""Largest difference of a probability from torch's with which an export counts as the same model."""
COMPARED = 4
ABOUT = ("classes", "units", "channels", "dtype", "resize")
"""What an exported file has to say of itself."""


class Exported(Model):
    """A model that predicts from an .onnx file as `Model` does from a run; "" is its only network's name."""

    def __init__(self, path: Path) -> None:
        _needs("onnxruntime")
        self.run = path
        about, session = _read(path)
        self.classes = ClassMap.from_json(about["classes"])
        self.task = make_task(self.classes.kind, self.classes.names)
        self.units = Units.from_json(about["units"])
        self.channels, self.dtype, self.resize = about["channels"], about["dtype"], about["resize"]
        self.device, self.config, self.ensemble = torch.device("cpu"), {}, False
        self.folders = {"model": "", "committee": [""]}
        self._networks: dict[str, nn.Module] = {"": _Runtime(session)}
        self._hash = about.get("model")

    @property
    def hash(self) -> str:
        """`Model.hash` of the run that was exported, or SHA-256 of a file that does not say it."""
        return self._hash or hashlib.sha256(self.run.read_bytes()).hexdigest()


class _Runtime(nn.Module):
    """An onnxruntime session that looks like a network."""

    def __init__(self, session: Any) -> None:
        super().__init__()
        self.session = session

    def forward(self, image: Tensor) -> Tensor:
        """(B,C,H,W) to logits (B,K,H,W)."""
        return torch.from_numpy(self.session.run(["logits"], {"image": image.numpy()})[0])


def _read(path: Path) -> tuple[dict[str, Any], Any]:
    """Metadata and session of an exported file. Refuses (exit 4) what semiseg did not export."""
    import onnxruntime

    fix = "give a file that `semiseg export RUN MODEL.onnx` wrote"
    if not path.is_file():
        raise Refusal(Problem("S06", str(path), "does not exist", fix), CHECKPOINT)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common class of their own
        text = " ".join(str(error).split())[:200]
        raise Refusal(Problem("S06", str(path), f"is no ONNX model: {text}", fix), CHECKPOINT) from error
    said = session.get_modelmeta().custom_metadata_map.get("semiseg")
    if said is None:
        found = "does not say what its classes are: its metadata have no entry 'semiseg'"
        other = f"{fix}; or let its own tool write masks and give their folder"
        raise Refusal(Problem("S06", str(path), found, other), CHECKPOINT)
    try:
        about = json.loads(said)
        missing = [key for key in ABOUT if key not in about]
    except (ValueError, TypeError):
        missing = list(ABOUT)
    if missing:
        found = f"does not say what it is: its metadata entry 'semiseg' lacks {', '.join(missing)}"
        raise Refusal(Problem("S06", str(path), found, fix), CHECKPOINT)
    return about, session


def export(run: Path, out: Path) -> dict[str, Any]:
    """Write the run's model to `out` and compare it with torch on a few images of the run.

    {"model", "run", "images", "largest_difference" of a probability, "other_labels": share of the pixels, "size_mb"}.
    Raises Refusal: exit 2 without the extra `onnx` or with another suffix, 4 for no finished run, 1 when it differs.
    """
    _needs("onnx", "onnxscript", "onnxruntime")
    if out.suffix != ".onnx":
        raise Refusal(Problem("C10", str(out), "does not end in .onnx", f"type {out.with_suffix('.onnx')}"), USAGE)
    model = Model(run)
    about = {
        "classes": model.classes.to_json(), "units": {k: list(v) for k, v in vars(model.units).items()},
        "channels": model.channels, "dtype": model.dtype, "resize": model.resize, "model": model.hash,
        "output": "sigmoid above .5" if model.task.multilabel else "softmax, argmax",
    }  # fmt: skip
    storage.make_folder(out.parent)  # before the conversion, which takes its time
    data = _bytes(model.network(model.folders["model"]).cpu(), model.channels, about)
    model.device = torch.device("cpu")  # both on one device: a GPU rounds otherwise
    # what is there already stays until the new one is known to be right
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        tried = Path(folder) / out.name
        storage.write_bytes(tried, data)
        compared = _compare(model, Exported(tried))
    made = {"model": str(out), "run": str(run), **compared, "size_mb": round(len(data) / 1e6, 2)}
    if not made["largest_difference"] <= TOLERANCE:
        found = (
            f"gives probabilities that differ from torch's by {made['largest_difference']:.2g}, so it was not written"
        )
        raise Refusal(Problem("B02", str(out), found, "report it with the name of the network"), BUG)
    storage.write_bytes(out, data)
    return made


def _bytes(network: nn.Module, channels: int, about: dict[str, Any]) -> bytes:
    """The ONNX file of a network for any batch, height and width."""
    sizes = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
    image = torch.rand(2, channels, 70, 91)  # an example with no special size: such sizes would be taken for fixed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network, (image,), input_names=["image"], output_names=["logits"], dynamic_shapes=(sizes,), dynamo=True,
            external_data=False, verbose=False,
        )  # fmt: skip
    assert program is not None
    program.model.metadata_props["semiseg"] = json.dumps(about)
    raw: bytes = program.model_proto.SerializeToString()
    return raw


def _compare(model: Model, other: Model) -> dict[str, Any]:
    largest, wrong, pixels, count = 0.0, 0, 0, 0
    for image in _images(model):
        one, two = model.predict(image), other.predict(image)
        largest = float(np.maximum(largest, np.abs(one.prob - two.prob).max()))  # which, unlike max(), keeps a NaN
        wrong, pixels, count = wrong + int((one.label != two.label).sum()), pixels + one.label.size, count + 1
    return {"images": count, "largest_difference": largest, "other_labels": wrong / pixels}


def _images(model: Model) -> Iterator[np.ndarray]:
    """Images of the run's own cache while it is there, and noise of an odd size."""
    count = 0
    for split in ("val", "unlabeled", "labeled"):
        folder = model.run / "cache" / split
        store = cache.load(folder) if storage.is_sealed(folder) else None
        for i in range(min(len(store) if store else 0, COMPARED - 1 - count)):
            assert store is not None
            count += 1
            yield store.image(i).permute(1, 2, 0).numpy().astype(model.dtype)
    low, high = (np.array(v) for v in (model.units.low, model.units.high))
    yield (low + np.random.default_rng(0).random((37, 53, model.channels)) * (high - low)).astype(model.dtype)


def _needs(*modules: str) -> None:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        found = f"needs {', '.join(missing)}"
        raise Refusal(Problem("C12", "onnx", found, "pip install 'semiseg[onnx]'"), USAGE)
