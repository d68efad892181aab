"""Colours of classes: told apart by colour-blind eyes first, then by lightness, then by number."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

RGB = tuple[int, int, int]

# Okabe and Ito 2008 (https://jfly.uni-koeln.de/color/) without black, ordered so that neighbours also differ in
# lightness, then the muted scheme of Paul Tol (https://sronpersonalpages.nl/~pault/) where it adds something new.
SAFE: tuple[RGB, ...] = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (204, 121, 167), (240, 228, 66), (0, 114, 178), (213, 94, 0),
    (136, 34, 85), (153, 153, 51), (136, 204, 238), (51, 34, 136), (221, 204, 119), (17, 119, 51), (170, 68, 153),
)  # fmt: skip
GREY: RGB = (150, 150, 150)
GOLDEN = 0.61803398875
BACKGROUND = {"background", "bg", "void", "unlabeled", "unlabelled"}


def is_background(names: Sequence[str], index: int) -> bool:
    """Whether class `index` is the ground that is left uncoloured: the first of several, and called so."""
    return index == 0 and len(names) > 1 and names[0].strip().lower() in BACKGROUND


def palette(names: Sequence[str], given: Sequence[Sequence[int]] | None = None) -> list[RGB]:
    """One colour per name; the user's own (`given`, 0 to 255, e.g. of a palette PNG) when there is one for each.

    All differ unless the user's do not; a background comes grey and leaves the safe colours to the others.
    """
    if given is not None and len(names) == 1 and len(given) == 2:
        given = given[1:]  # a binary set: background, foreground
    if given is not None and len(given) >= len(names):
        return [(int(c[0]), int(c[1]), int(c[2])) for c in given[: len(names)]]
    ground = bool(names) and is_background(names, 0)
    colors: list[RGB] = [GREY] if ground else []
    index = 0
    while len(colors) < len(names):
        color = SAFE[index] if index < len(SAFE) else _spread(index - len(SAFE))
        index += 1
        if color not in colors:
            colors.append(color)
    return colors


def _spread(index: int) -> RGB:
    """Colour `index` of an endless row: hues by the golden angle, four lightnesses in turn."""
    red, green, blue = colorsys.hls_to_rgb(index * GOLDEN % 1, (0.45, 0.7, 0.55, 0.33)[index % 4], 0.75)
    return round(red * 255), round(green * 255), round(blue * 255)


def hexa(color: Sequence[int]) -> str:
    """`#rrggbb`."""
    return "#" + "".join(f"{max(0, min(255, int(c))):02x}" for c in color[:3])
