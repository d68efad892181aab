"""The class map: how classes are written in the user's mask files, and how predictions are written the same way."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import yaml
from PIL import Image

from semiseg.data import tiff

IGNORE = 255
MAX_CLASSES = 254
"""Class ids are uint8 with 255 = ignore; 254 is kept free."""
_UNKNOWN = 254
Color = tuple[int, int, int]


class UnknownValues(ValueError):
    """A mask holds values or colours that the class map does not know: `counts` value -> pixels."""

    def __init__(self, counts: dict[Any, int]) -> None:
        self.counts = counts
        super().__init__(", ".join(f"{v} ({n} pixels)" for v, n in list(counts.items())[:5]))


@dataclass(frozen=True)
class Encoded:
    """One mask file of a prediction: `array` (H,W), (H,W,3) or (H,W,L); `palette` for indexed PNG."""

    array: np.ndarray
    palette: tuple[Color, ...] | None = None
    suffix: str = ".png"

    def to_bytes(self) -> bytes:
        """The file's content: PNG, or TIFF when the channels are labels."""
        if self.suffix == ".tif":
            return tiff.write_channels(self.array)
        image = Image.fromarray(self.array)
        if self.palette is not None:
            spare = [(255, 255, 255)] * (256 - len(self.palette))  # of fewer colours Pillow makes too few bits
            image.putpalette([c for color in (*self.palette, *spare) for c in color])
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return buffer.getvalue()


@dataclass(frozen=True)
class ClassMap:
    """What the values, colours, folders or channels of mask files mean.

    names: all K classes of a multiclass task (background included), the one foreground name of a binary task, or the L
        label names of a multilabel task. `task` is "multiclass" or "multilabel"; binary is multilabel with one name.
    coding: "values" (ids in a grey or palette file), "colors", "folders" (one file per label), "channels" (one file).
    values: file value of class k; for binary, folders and channels (background value, foreground value).
    colors: colour of class k with coding "colors" (binary: background, foreground).
    ignore: values (or colours) that mean "not labelled".  palette: kept from indexed PNGs.
    replicate: the users' grey masks were saved as RGB with three equal channels.
    """

    task: str
    names: tuple[str, ...]
    coding: str = "values"
    values: tuple[int, ...] = ()
    colors: tuple[Color, ...] = ()
    ignore: tuple[int | Color, ...] = ()
    palette: tuple[Color, ...] | None = field(default=None, repr=False)
    replicate: bool = False

    @property
    def kind(self) -> str:
        """Which of "binary", "multiclass" and "multilabel" this is."""
        return "binary" if self.task == "multilabel" and len(self.names) == 1 else self.task

    @property
    def channels(self) -> int:
        """Logit channels of a network for this task: K, 1 or L."""
        return len(self.names)

    def decode(self, masks: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        """Raw mask array(s) -> uint8 labels: (H,W) ids or 0/1 (binary), (L,H,W) 0/1 (multilabel); 255 = ignore.

        `masks` is what `read_mask` gives: one array, or one per label with coding "folders". Raises UnknownValues for
        values the map does not know, ValueError when the shapes do not fit.
        """
        arrays = [masks] if isinstance(masks, np.ndarray) else list(masks)
        if self.coding == "folders":
            if len(arrays) != len(self.names):
                raise ValueError(f"{len(arrays)} masks for {len(self.names)} labels")
            planes = np.stack([self._values(_grey(a)) for a in arrays])
            return planes[0] if self.kind == "binary" else planes
        if self.coding == "channels":
            array = arrays[0] if arrays[0].ndim == 3 else arrays[0][..., None]
            if array.shape[2] != len(self.names):
                raise ValueError(f"{array.shape[2]} channels for {len(self.names)} labels")
            planes = np.ascontiguousarray(self._values(array).transpose(2, 0, 1))
            return planes[0] if self.kind == "binary" else planes
        return self._values(_grey(arrays[0])) if self.coding == "values" else self._colors(arrays[0])

    def encode(self, label: np.ndarray) -> dict[str, Encoded]:
        """Labels without ignore -> the user's coding, {label folder or "": Encoded}: masks/<folder>/NAME<suffix>."""
        binary = self.kind == "binary"
        if self.coding == "colors":
            return {"": Encoded(np.array(self.colors, np.uint8)[label])}
        most = max((*self.values, *(v for v in self.ignore if isinstance(v, int))))  # an ignore value may be put in
        table = np.array(self.values, np.uint16 if most > 255 else np.uint8)
        coded = table[label]
        if self.coding == "folders":
            planes = coded[None] if binary else coded
            return {name: Encoded(plane, self.palette) for name, plane in zip(self.names, planes, strict=True)}
        if self.coding == "channels":
            return {"": Encoded(np.moveaxis(coded[None] if binary else coded, 0, -1), suffix=".tif")}
        same = self.replicate and most < 256  # there is no PNG of three channels with more
        return {"": Encoded(np.stack([coded] * 3, -1)) if same else Encoded(coded, self.palette)}

    def to_json(self) -> dict[str, Any]:
        """Plain lists and strings; `from_json` gives the same map back."""
        return {k: _plain(v) for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> ClassMap:
        """The inverse of `to_json`. Raises KeyError or TypeError for anything else."""
        return cls(**{k: _frozen(v) for k, v in raw.items()})

    def to_yaml(self) -> str:
        """A class file (`classfile`) by which masks in this coding are read as this map, whatever classes they hold."""
        names, entries = self.names, self.colors or self.values
        if self.coding in ("values", "colors") and len(entries) > len(names):  # binary
            names = ("background" if names[0].casefold() != "background" else "rest", *names)
        raw: dict[str, Any] = {"task": self.kind, "names": list(names)}
        if self.coding in ("values", "colors") or not set(entries) <= {0, 1, IGNORE}:
            table = (e if isinstance(e, int) else list(e) for e in entries)
            raw = {"task": self.kind, "colors" if self.colors else "values": dict(zip(names, table, strict=True))}
        raw["ignore"] = [e if isinstance(e, int) else list(e) for e in self.ignore]
        return yaml.safe_dump(raw, sort_keys=False, allow_unicode=True, default_flow_style=None)

    @cached_property
    def _lut(self) -> np.ndarray:
        table = np.full(65536, _UNKNOWN, np.uint8)
        table[list(self.values)] = range(len(self.values))
        table[[v for v in self.ignore if isinstance(v, int)]] = IGNORE
        return table

    def _values(self, array: np.ndarray) -> np.ndarray:
        label: np.ndarray = self._lut[array]
        if (label == _UNKNOWN).any():
            values, counts = np.unique(array[label == _UNKNOWN], return_counts=True)
            raise UnknownValues(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        return label

    def _colors(self, array: np.ndarray) -> np.ndarray:
        keys = pack(array)
        known = [(pack_color(c), k) for k, c in enumerate(self.colors)]
        known = sorted(known + [(pack_color(c), IGNORE) for c in self.ignore if not isinstance(c, int)])
        table = np.array([k for k, _ in known], np.int32)
        index = np.minimum(np.searchsorted(table, keys), len(table) - 1)
        wrong = table[index] != keys
        if wrong.any():
            values, counts = np.unique(keys[wrong], return_counts=True)
            raise UnknownValues({unpack(int(v)): int(n) for v, n in zip(values, counts, strict=True)})
        label: np.ndarray = np.array([k for _, k in known], np.uint8)[index]
        return label


def pack(array: np.ndarray) -> np.ndarray:
    """(H,W,3) colours, or (H,W) grey values, as (H,W) int32 0xRRGGBB."""
    wide = array.astype(np.int32)
    if wide.ndim == 2:
        return wide * 0x010101
    packed: np.ndarray = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
    return packed


def pack_color(color: Sequence[int]) -> int:
    """One colour as 0xRRGGBB."""
    return color[0] << 16 | color[1] << 8 | color[2]


def unpack(key: int) -> Color:
    """The inverse of `pack_color`."""
    return key >> 16, key >> 8 & 255, key & 255


def _grey(array: np.ndarray) -> np.ndarray:
    """A grey mask saved with three equal channels counts as its one channel."""
    if array.ndim == 2:
        return array
    if array.shape[2] == 3 and (array == array[..., :1]).all():
        return array[..., 0]
    raise ValueError(f"{array.shape[2]} channels where one value per pixel is expected")


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def _frozen(value: Any) -> Any:
    return tuple(_frozen(v) for v in value) if isinstance(value, list) else value
