"""The pictures of a run as one gallery: every picture inside the page, within a budget of bytes."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

from semiseg.report import pictures
from semiseg.report.colors import hexa, is_background, palette
from semiseg.report.load import Facts, inside
from semiseg.report.markup import esc, name, note, percent, plural, section
from semiseg.report.shape import Json
from semiseg.report.verdict import Verdict

BUDGET = 4_000_000
"""Characters of pictures in the page; with text and charts it stays below 5 MB."""
SMALL = 40_000
"""A PNG up to this many bytes is embedded as it is; a larger one as JPEG with full colour resolution."""
MOST = 24
COMMON_LEGEND = 8


def class_colors(facts: Facts) -> dict[str, str]:
    """`#rrggbb` of every class, as the pictures were drawn."""
    usual = zip(facts.classes, palette(facts.classes), strict=True)
    return {n: hexa(c) for n, c in usual} | {n: c for n, c in facts.colors.items() if _is_color(c)}


def swatch(color: str | None) -> str:
    """A dot in the colour of a class."""
    return f'<i class="swatch" style="background:{color}"></i>' if color else ""


def embed(path: Path, side: int = 0) -> tuple[str, int, int] | None:
    """A picture file as data URI with width and height, longer side at most `side`; None if it cannot be read.

    side: 0 is the size that pictures are drawn at.
    """
    side = side or pictures.SIDE
    try:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    small = max(picture.size) <= side
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    if small and path.suffix == ".png" and path.stat().st_size <= SMALL:
        kind, data = "png", path.read_bytes()
    else:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=86, subsampling=0)
        kind, data = "jpeg", buffer.getvalue()
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}", *picture.size


def gallery(facts: Facts, verdict: Verdict) -> str:
    """The section of pictures; says so when the run kept none."""
    if not facts.samples:
        return section("pictures", "Pictures", note("This run kept no sample pictures."))
    parts = _parts(facts, verdict)
    cards: list[str] = []
    used = 0
    for entry in facts.samples[:MOST]:
        card = _card(facts, entry, parts)
        if cards and used + len(card) > BUDGET:
            break
        cards.append(card)
        used += len(card)
    rest = len(facts.samples) - len(cards)
    more = note(f"{plural(rest, 'more sample')} in the folder <code>samples/</code>.") if rest else ""
    return section("pictures", "Pictures", _intro(facts), *cards, more)


def thumbnail(facts: Facts, image: str) -> str:
    """A small picture of `image` when it is among the samples (inconsistency if known), else an empty string."""
    entry = next((s for s in facts.samples if s["name"] == image), None)
    if entry is None:
        return ""
    path = inside(facts.run, entry["inconsistency"]) or inside(facts.run, entry["image"])
    found = embed(path, 112) if path else None
    if found is None:
        return ""
    uri, width, height = found
    return f'<img class="thumb" src="{uri}" width="{width}" height="{height}" alt="Thumbnail of {esc(image)}">'


def _is_color(text: str) -> bool:
    return len(text) == 7 and text[0] == "#" and all(c in "0123456789abcdefABCDEF" for c in text[1:])


def _legend(facts: Facts, names: list[str]) -> str:
    colors = class_colors(facts)
    items = [f"<li>{swatch(colors.get(n))}{name(n)}</li>" for n in names]
    return f'<ul class="legend">{"".join(items)}</ul>' if items else ""


def _intro(facts: Facts) -> str:
    said = "Contours show what was labeled or predicted."
    if any(s["inconsistency"] for s in facts.samples):
        said += (
            ' <span class="glow">Pink</span> marks inconsistent pixels: there the members of the committee '
            "did not all agree, so neither the pixel nor its label was trusted."
        )
    names = [n for i, n in enumerate(facts.classes) if not is_background(facts.classes, i)]
    return note(said) + (_legend(facts, names) if len(names) <= COMMON_LEGEND else "")


def _parts(facts: Facts, verdict: Verdict) -> list[tuple[str, str, str]]:
    """(key, title, words for who cannot see it) of the pictures that at least one sample has, in the order shown."""
    first = "Labels only" if verdict.baseline else "Generation 0"
    last = "Model" if verdict.compared or not verdict.baseline else "Model (labels only)"
    parts = [
        ("image", "Image", "as it is"),
        ("truth", "Truth", "labeled by hand"),
        ("baseline", first, f"predicted by the {first.lower()} model"),
        ("model", last, "predicted by the model of this run"),
        ("inconsistency", "Inconsistency", "where the committee disagrees"),
    ]
    one = verdict.baseline is not None and not verdict.compared  # then both pictures come from the same model
    return [p for p in parts if any(s[p[0]] for s in facts.samples) and not (one and p[0] == "baseline")]


def _card(facts: Facts, entry: Json, parts: list[tuple[str, str, str]]) -> str:
    image, share, present = entry["name"] or "sample", entry["share"], entry["classes"]
    figures = [_figure(facts, entry[key], image, title, said) for key, title, said in parts]
    badges = f'<span class="badge">{esc(entry["split"] or "unknown split")}</span>'
    if share is not None:
        badges += f'<span class="badge doubt">{percent(share)} inconsistent</span>'
    legend = ""
    if len(facts.classes) > COMMON_LEGEND + 1 and present:
        more = f'<p class="note">and {plural(len(present) - 12, "more class", "more classes")}</p>'
        legend = _legend(facts, present[:12]) + (more if len(present) > 12 else "")
    shown = sum("<img" in f for f in figures)
    body = f'<div class="pictures{" odd" if shown % 2 else ""}">{"".join(figures)}</div>'
    body = body if shown else note("The pictures cannot be read.")
    return f'<article class="sample">\n<h3>{name(image)} {badges}</h3>\n{legend}{body}\n</article>'


def _figure(facts: Facts, file: str, image: str, title: str, said: str) -> str:
    """One picture with its title, or an empty frame that keeps the columns of all samples aligned."""
    path = inside(facts.run, file)
    found = embed(path) if path else None
    if found is None:
        caption = f"<figcaption>{esc(title)}: none</figcaption>"
        return f'<figure class="blank"><div class="frame"></div>{caption}</figure>'
    uri, width, height = found
    picture = f'<img src="{uri}" width="{width}" height="{height}" alt="{esc(f"{title} of {image}: {said}")}">'
    return f"<figure>{picture}<figcaption>{esc(title)}</figcaption></figure>"
