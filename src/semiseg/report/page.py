"""The page: verdict first, then pictures, numbers, doubt, and how it was made."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

from semiseg.report import advice, doubt, gallery, scores, used
from semiseg.report.load import Facts, load
from semiseg.report.markup import count, delta, duration, esc, name, percent, score
from semiseg.report.verdict import Verdict, judge, on

# Nothing may be loaded from anywhere: even a name that slipped through unescaped could not call home.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
ALONE = "This page is one file and loads nothing from anywhere."


def write(run: Path) -> Path:
    """Write `run/report.html` atomically and return its path. Raises Refusal (exit 4) without a readable summary."""
    from semiseg.storage import write_text

    path = run / "report.html"
    write_text(path, page(load(run)))
    return path


def page(facts: Facts) -> str:
    """The whole page as text."""
    verdict = judge(facts.summary)
    sections = [
        gallery.gallery(facts, verdict),
        scores.arms(facts, verdict),
        scores.curves(facts, verdict),
        scores.per_class(facts, verdict),
        doubt.label_next(facts),
        doubt.inconsistency(facts),
        used.used(facts),
        used.took(facts),
        used.warnings(facts),
        used.test(facts),
        advice.advice(facts, verdict),
    ]
    footer = f"Written by semiseg from the run folder {name(facts.run.name)}. {ALONE}"
    return document(f"{_title(facts)} – semiseg report", _head(facts, verdict), sections, footer)


def document(title: str, header: str, sections: Iterable[str], footer: str, style: str = "") -> str:
    """A whole self-contained page: HTML `header`, non-empty `sections` and `footer`; `title` is text, `style` more CSS."""
    css = files("semiseg.report").joinpath("style.css").read_text(encoding="utf-8") + style
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{esc(POLICY)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{esc(title)}</title>
<style>
{css}</style>
</head>
<body>
<header>
{header}
</header>
<main>
{chr(10).join(part for part in sections if part)}
</main>
<footer><p>{footer}</p></footer>
</body>
</html>
"""


def _title(facts: Facts) -> str:
    data = used.data_name(facts).replace("\\", "/").rstrip("/").rpartition("/")[2]
    said = facts.summary["name"] or "run"
    return f"{said} on {data}" if data else said


def _head(facts: Facts, verdict: Verdict) -> str:
    caveats = "".join(f"<li>{esc(c)}</li>" for c in verdict.caveats)
    listed = f'<ul class="caveats">{caveats}</ul>' if caveats else ""
    return (
        f'<p class="eyebrow">semiseg training report</p>\n<h1>{name(_title(facts))}</h1>\n'
        f'<div class="verdict {verdict.tone}"><p>{esc(verdict.sentence)}</p>{listed}</div>\n{_tiles(facts, verdict)}'
    )


def _tiles(facts: Facts, verdict: Verdict) -> str:
    """The key figures."""
    summary = facts.summary
    counts, seconds = summary["counts"], summary["seconds"].get("total")
    tiles: list[tuple[str, str, str]] = []
    model, base = verdict.model, verdict.baseline
    if model and model.miou is not None:
        under = f"Dice {score(model.val['dice'])}" if model.val["dice"] is not None else "the model"
        tiles.append((f"mIoU on {on(summary)}", score(model.miou), under))
        if verdict.compared and base and base.miou is not None:
            gain = delta(model.miou, base.miou, sure=verdict.tone != "flat")
            tiles.append(("Δ to labels only", gain, f"labels only {score(base.miou)}"))
    for title, evaluation in list(facts.tests.items())[:1]:
        tiles.append(("mIoU on test", score(evaluation["metrics"]["miou"]), title))
    known = [g for g in facts.generations if g["inconsistent_share"] is not None]
    if known:  # of the committee that is kept, and maps disagreement from now on
        own = (g for g in known if {m["folder"] for m in g["members"]} & set(summary["committee"]))
        asked = next(own, known[-1])
        change = (
            f"committee of generation {count(asked['generation'], '?')}"
            if len(known) > 1
            else "of all unlabeled pixels"
        )
        tiles.append(("Inconsistent", percent(asked["inconsistent_share"]), change))
    if "labeled" in counts:
        unlabeled = f"and {count(counts.get('unlabeled'))} unlabeled"
        tiles.append(("Labeled images", count(counts["labeled"]), unlabeled))
    if seconds is not None:
        tiles.append(("Time", duration(seconds), f"{count(summary['images_forwarded'])} images forwarded"))
    items = "".join(
        f'<div class="tile"><dt>{esc(title)}</dt><dd>{value}<small>{esc(under)}</small></dd></div>'
        for title, value, under in tiles
    )
    return f'<dl class="tiles">{items}</dl>' if items else ""
