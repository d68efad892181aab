"""Where the committee disagrees, and which images are worth labeling next."""

from __future__ import annotations

from semiseg.report import charts
from semiseg.report.gallery import class_colors, swatch, thumbnail
from semiseg.report.load import Facts
from semiseg.report.markup import count, esc, name, note, number, percent, plural, score, section, table
from semiseg.report.used import run_name

TOP = 12


def label_next(facts: Facts) -> str:
    """The images that the run is least sure of, by the rank that it gave them."""
    if not facts.queue:
        return ""
    items = []
    for index, row in enumerate(facts.queue[:TOP], start=1):
        image = row.get("image") or row.get("path") or "?"
        share, value = number(row.get("inconsistent_share")), number(row.get("score"))
        said = f"{percent(share)} inconsistent" if share is not None else f"doubt {score(value)}"
        picture = thumbnail(facts, image)
        items.append(
            f'<li><span class="rank">{count(row.get("rank"), str(index))}</span>{picture}'
            f'<span class="what">{name(image)}<span class="quiet">{said}</span></span></li>'
        )
    path = esc(run_name(facts) + "/label_next.csv")
    total = plural(len(facts.queue), "image")
    one = not any(row.get("inconsistent_share") for row in facts.queue)
    who, how = ("model", " Doubt is the mean of 1 − confidence.") if one else ("committee", "")
    intro = note(
        f"The {who} is least sure about these unlabeled images: look at them first, they show what it does not know.{how} "
        "Labels there taught as much as labels of random images in our tests, not more."
    )
    full = note(f'All {total} in order: <a href="label_next.csv"><code>{path}</code></a>')
    return section("label-next", "Label these next", intro, f'<ol class="queue">{"".join(items)}</ol>', full)


def inconsistency(facts: Facts) -> str:
    """The inconsistent share per image as a histogram, and per class as bars."""
    shares = [v for row in facts.queue if (v := number(row.get("inconsistent_share"))) is not None]
    drawn = [charts.histogram([min(1.0, max(0.0, s)) for s in shares], "Inconsistent share per image"), _classes(facts)]
    if not any(drawn):
        return ""
    found = [(g["generation"], g["inconsistent_share"]) for g in facts.generations]
    told = ", ".join(f"generation {count(g, '?')}: {percent(s)}" for g, s in found if s is not None)
    said = note(f"Inconsistent pixels of all unlabeled images: {told}.") if told else ""
    charted = f'<div class="charts">{"".join(drawn)}</div>'
    return section("inconsistency", "Where the committee disagrees", said, charted, _quality(facts), _kept(facts))


def _quality(facts: Facts) -> str:
    """Does disagreement find errors? Per generation and split with a known truth."""
    rows = []
    for generation in facts.generations:
        for split, rates in generation["quality"].items():
            values = [percent(rates[key]) for key in ("inconsistent_share", "recall", "precision", "agreed_wrong")]
            rows.append([count(generation["generation"], "?"), esc(split), *values])
    if not rows:
        return ""
    head = ["Generation", "Split", "Inconsistent", "Errors found", "Found rightly", "Wrong where agreed"]
    said = note(
        "Where the truth is known. Errors found: of the pixels that the committee's mean gets wrong, the inconsistent "
        "ones. Found rightly: of the inconsistent pixels, the wrong ones."
    )
    return "<h3>Does disagreement find the errors?</h3>\n" + table(head, rows, "Quality of the mask") + said


def _kept(facts: Facts) -> str:
    """What is left to learn from, per class, beside what the labels say."""
    latest = next((g for g in reversed(facts.generations) if g["kept_per_class"]), None)
    if latest is None:
        return ""
    kept, labeled = latest["kept_per_class"], latest["labeled_per_class"]
    colors = class_colors(facts)
    rows = [
        [f'<span class="class">{swatch(colors.get(n))}{name(n)}</span>', percent(labeled.get(n)), percent(share)]
        for n, share in kept.items()
    ]
    head = ["Class", "Of the labeled pixels", "Of the agreed pixels"]
    said = note("A class with far less here than among the labels is one that students will forget.")
    return "<h3>What is left to learn from</h3>\n" + table(head, rows, "Classes kept", tall=True) + said


def _classes(facts: Facts) -> str:
    known = [g["inconsistent_per_class"] for g in facts.generations]
    latest: dict[str, float | None] = next((k for k in reversed(known) if k), {})
    pairs = [(n, s) for n, s in latest.items() if s is not None]
    if len(pairs) < 2:  # one class: the share of the whole image already says it
        return ""
    pairs.sort(key=lambda pair: -pair[1])
    largest = pairs[0][1] or 1.0
    colors = class_colors(facts)
    rows = [
        f'<li><span class="class">{swatch(colors.get(n))}{name(n)}</span>{charts.bar(v / largest, "glowing")}'
        f'<span class="value">{percent(v)}</span></li>'
        for n, v in pairs[:TOP]
    ]
    more = note(f"and {plural(len(pairs) - TOP, 'class', 'classes')} with less") if len(pairs) > TOP else ""
    title = '<figcaption class="axis">inconsistent share per class</figcaption>'
    return f'<figure class="chart">{title}<ul class="bars">{"".join(rows)}</ul>{more}</figure>'
