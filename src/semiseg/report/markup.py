"""Small pieces of HTML: escaping, numbers in words, tables, figures. Everything a user named goes through `esc`."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufffe\uffff]")
DASH = "–"
LONG = 64


def esc(text: Any) -> str:
    """`text` as HTML text or attribute value: quotes too, control characters visible, lone surrogates replaced."""
    clean = str(text).encode("utf-8", "replace").decode("utf-8")
    return html.escape(CONTROL.sub("\N{REPLACEMENT CHARACTER}", clean), quote=True)


def name(text: Any) -> str:
    """A name the user chose (class, image), isolated from the text around; a very long one loses its middle."""
    full = str(text)
    if len(full) <= LONG:
        return f'<bdi class="name">{esc(full)}</bdi>'
    return f'<bdi class="name" title="{esc(full)}">{esc(full[: LONG - 21])}…{esc(full[-20:])}</bdi>'


def number(value: Any) -> float | None:
    """`value` as a finite float, else None: JSON null, absent class, empty CSV cell and nan are all "no number"."""
    if value is None or isinstance(value, bool):
        return None
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def score(value: Any, missing: str = DASH) -> str:
    """A score in [0, 1] with three decimals."""
    found = number(value)
    return missing if found is None else f"{found:.3f}"


def signed(value: float) -> str:
    """A difference of two scores, always with its sign; what rounds to zero is ±0.000."""
    if abs(value) < 0.0005:
        return "±0.000"
    return f"{'+' if value > 0 else '−'}{abs(value):.3f}"


def delta(after: Any, before: Any, sure: bool = True) -> str:
    """The cell of a difference: sign in the text, so that colour is never the only carrier. Without colour if not sure."""
    new, old = number(after), number(before)
    if new is None or old is None:
        return f'<span class="none">{DASH}</span>'
    change = new - old
    kind = "same" if abs(change) < 0.0005 or not sure else "up" if change > 0 else "down"
    return f'<span class="{kind}">{signed(change)}</span>'


def percent(value: Any, missing: str = DASH) -> str:
    """A share in [0, 1] as percent with one decimal."""
    found = number(value)
    return missing if found is None else f"{100 * found:.1f}\N{NO-BREAK SPACE}%"


def count(value: Any, missing: str = DASH) -> str:
    """A whole number with thin spaces between the thousands."""
    found = number(value)
    return missing if found is None else f"{round(found):,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def duration(value: Any, missing: str = DASH) -> str:
    """Seconds as `4.2 s`, `42 s`, `3 min 20 s`, `16 min` or `2 h 05 min`; it breaks nowhere."""
    found = number(value)
    if found is None:
        return missing
    if found < 9.95:
        said = f"{found:.1f} s"
    elif found < 59.5:
        said = f"{found:.0f} s"
    elif found < 599.5:
        said = f"{round(found) // 60} min {round(found) % 60:02d} s"
    elif found < 3570:
        said = f"{found / 60:.0f} min"
    else:
        minutes = round(found / 60)
        said = f"{minutes // 60} h {minutes % 60:02d} min"
    return said.replace(" ", "\N{NO-BREAK SPACE}")


def change(before: Any, after: Any) -> str:
    """`(0.742 → 0.773)`, never broken into two lines."""
    return f"({score(before)} → {score(after)})".replace(" ", "\N{NO-BREAK SPACE}")


def plural(value: Any, one: str, many: str = "") -> str:
    """`1 image`, `12 images`."""
    return f"{count(value)} {one if number(value) == 1 else many or one + 's'}"


def section(anchor: str, title: str, *parts: str) -> str:
    """A titled section, or nothing at all when there is nothing to say."""
    body = "\n".join(part for part in parts if part)
    return f'<section id="{anchor}">\n<h2>{esc(title)}</h2>\n{body}\n</section>' if body else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]], label: str, *, tall: bool = False) -> str:
    """A table in a box that scrolls by itself, so that the page never does. Cells are HTML; the first heads its row."""
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "\n".join(
        f'<tr><th scope="row">{row[0]}</th>' + "".join(f"<td>{cell}</td>" for cell in row[1:]) + "</tr>" for row in rows
    )
    kind = "scroll tall" if tall else "scroll"
    return (
        f'<div class="{kind}" tabindex="0" role="region" aria-label="{esc(label)}">\n'
        f"<table><thead><tr>{top}</tr></thead>\n<tbody>\n{body}\n</tbody></table>\n</div>"
    )


def terms(pairs: Iterable[tuple[str, str]]) -> str:
    """A list of terms and values; pairs without a value are left out. Values are HTML."""
    rows = [f"<div><dt>{esc(term)}</dt><dd>{value}</dd></div>" for term, value in pairs if value and value != DASH]
    return '<dl class="facts">\n' + "\n".join(rows) + "\n</dl>" if rows else ""


def note(text: str) -> str:
    """A quiet line of explanation (HTML)."""
    return f'<p class="note">{text}</p>'


def command(text: str) -> str:
    """A command to type."""
    return f'<pre class="command"><code>{esc(text)}</code></pre>'
