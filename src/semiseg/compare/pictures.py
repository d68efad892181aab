"""The same few images, predicted by every arm, side by side."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from semiseg import storage
from semiseg.compare.gather import Group
from semiseg.compare.reading import SIDE, spread
from semiseg.compare.request import BASE
from semiseg.data.classes import ClassMap
from semiseg.data.decode import read_image
from semiseg.data.folder import find, read_label
from semiseg.errors import Refusal
from semiseg.report.colors import RGB, hexa, is_background, palette
from semiseg.report.gallery import swatch
from semiseg.report.markup import esc, name, note
from semiseg.report.pictures import overlay, render_image

Array = np.ndarray[Any, Any]


def side_by_side(group: Group, data: Path, budget: int) -> str:
    """A card per image: as it is, its truth, every arm of one seed; at most `budget` characters. Empty without readings."""
    arms = [a for a in group.arms if a.readings]
    first = group.arm(BASE) or (arms[0] if arms else None)
    if first is None:
        return ""
    seed = first.seeds[0]
    run = first.cells[0]
    folder = run_of(first.folders[seed][0])
    classes = ClassMap.from_json(storage.read_json(folder / "run.json")["data"]["classes"])
    colors = _colors(folder, classes.names)
    names = first.readings[seed].names
    index = find(data, classes.names if classes.coding == "folders" else None)
    items = {item.name: item for _, item in index.items()}
    cards: list[str] = []
    used = 0
    for place, i in enumerate(spread(len(names))):
        try:
            item = items[names[i]]
            picture, truth = _display(read_image(item.image)), read_label(item, classes)
        except (Refusal, KeyError):  # the data was moved since: the numbers stand without it
            continue
        figures = [
            _figure(picture, f"Image {names[i]}", "Image"),
            _figure(_tint(picture, truth, colors), names[i], "Truth"),
        ]
        for arm in arms:
            found = arm.readings.get(seed)  # no other seed's in its place: beside these it would be another model
            if found is not None and place < len(found.pictures):
                label = _planes(np.asarray(Image.open(found.pictures[place])), classes)
                said = f"{names[i]} predicted by {arm.name}"
                figures.append(_figure(_tint(picture, label, colors), said, arm.name))
        row = f'<div class="pictures many">{"".join(figures)}</div>'
        card = f'<article class="sample">\n<h3>{name(names[i])}</h3>\n{row}</article>'
        if cards and used + len(card) > budget:
            break
        cards.append(card)
        used += len(card)
    if not cards:
        return ""
    listed = [f"<li>{swatch(hexa(c))}{name(n)}</li>" for n, c in zip(classes.names, colors, strict=True) if c]
    shown = f'<ul class="legend">{"".join(listed)}</ul>' if len(listed) <= 12 else ""
    text = f"Images of {esc(run.split)} at even distances in the order of their names, "
    text += f"chosen before anything was predicted; seed {seed}. "
    return note(text + "Contours show what was labeled or predicted.") + shown + "\n".join(cards)


def run_of(member: Path) -> Path:
    """The run that a member, or a snapshot of one, is of."""
    return next((p for p in member.parents if (p / "run.json").is_file()), member)


def _colors(folder: Path, names: tuple[str, ...]) -> list[RGB | None]:
    """As in the run's own report; a background is not drawn."""
    try:
        stored = [c["color"] for c in storage.read_json(folder / "samples" / "palette.json")]
        colors: list[RGB] = [(int(c[1:3], 16), int(c[3:5], 16), int(c[5:7], 16)) for c in stored]
    except (Refusal, KeyError, ValueError, TypeError):
        colors = palette(names)
    colors = colors if len(colors) == len(names) else palette(names)
    return [None if is_background(names, i) else c for i, c in enumerate(colors)]


def _display(array: Array) -> Array:
    """RGB with a longer side of SIDE pixels."""
    step = max(1, max(array.shape[:2]) // (4 * SIDE))
    picture = Image.fromarray(render_image(array[::step, ::step]))
    factor = SIDE / max(picture.size)
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    return np.asarray(picture.resize(size, Image.Resampling.LANCZOS if factor < 1 else Image.Resampling.BICUBIC))


def _planes(stored: Array, classes: ClassMap) -> Array:
    """(H,W) ids, or (L,H,W) from planes below each other."""
    if classes.kind == "multiclass":
        return stored
    planes = stored.reshape(len(classes.names), -1, stored.shape[1])
    return planes[0] if classes.kind == "binary" else planes


def _tint(picture: Array, label: Array, colors: list[RGB | None]) -> Array:
    height, width = picture.shape[:2]
    rows = np.arange(height) * label.shape[-2] // height
    columns = np.arange(width) * label.shape[-1] // width
    return overlay(picture, label[..., rows[:, None], columns], colors)


def _figure(picture: Array, said: str, title: str) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=84, subsampling=0)
    uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    height, width = picture.shape[:2]
    image = f'<img src="{uri}" width="{width}" height="{height}" alt="{esc(said)}" loading="lazy">'
    return f"<figure>{image}<figcaption>{name(title)}</figcaption></figure>"
