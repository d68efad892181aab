"""The numbers of a run: its arms side by side, its curves, its classes."""

from __future__ import annotations

from semiseg.report import charts
from semiseg.report.gallery import class_colors, swatch
from semiseg.report.load import Facts
from semiseg.report.markup import DASH, count, delta, esc, name, note, percent, plural, score, section, table
from semiseg.report.shape import Json
from semiseg.report.verdict import Arm, Verdict, on, supervised

NONE: Json = {"iou": None, "dice": None}
MEANING = (
    "mIoU and Dice are computed from all pixels of the set together and averaged over the classes; classes that do not "
    "occur are left out. For binary and multi-label sets the background is no class."
)


def arms(facts: Facts, verdict: Verdict) -> str:
    """The table of arms with their difference to labels only, and the one of generations."""
    if not verdict.arms:
        return ""
    scored = any(a.miou is not None for a in verdict.arms)
    if not scored:
        listed = ", ".join(esc(a.name) for a in verdict.arms)
        said = note(f"Trained: {listed}. No score on val was stored.")
        return section("scores", "Scores", said, _generations(facts))
    base = verdict.baseline.miou if verdict.baseline else None
    head = ["Arm", '<span class="wide">mIoU, 0 to 1</span>', "mIoU", "Δ to labels only", "Dice", "IoU per image"]
    rows = [_arm(arm, base, verdict) for arm in verdict.arms]
    dashed = " The dashed mark is labels only." if base is not None else ""
    return section(
        "scores",
        f"Scores on {on(facts.summary)}",
        table(head, rows, f"Scores of the arms on {on(facts.summary)}"),
        note(MEANING + dashed),
        _generations(facts),
    )


def _arm(arm: Arm, base: float | None, verdict: Verdict) -> list[str]:
    chosen = verdict.model is not None and arm.folder == verdict.model.folder
    title = name(arm.name) + (' <span class="badge chosen">the model</span>' if chosen else "")
    kind = "base" if arm is verdict.baseline else "best" if chosen else ""
    change = "baseline" if arm is verdict.baseline else delta(arm.miou, base)
    bar = f'<span class="wide">{charts.bar(arm.miou, kind, base)}</span>'
    rest = [score(arm.val[key]) for key in ("dice", "iou_per_image")]
    return [title, bar, f"<b>{score(arm.miou)}</b>", change, *rest]


def _generations(facts: Facts) -> str:
    if len(facts.generations) < 2:
        return ""
    where = on(facts.summary)
    rows = [_generation(g) for g in facts.generations]
    head = [
        "Generation",
        "Members",
        f"Best mIoU on {where}",
        "Inconsistent pixels",
        "Kept",
        '<span class="why">Why</span>',
    ]
    text = note(
        "A generation that is worse there than the best before it is not kept; whether labels only is better than all is "
        "asked at the end. Inconsistent: where its committee does not all agree."
    )
    return "<h3>Generations</h3>\n" + table(head, rows, "Generations") + text


def _generation(generation: Json) -> list[str]:
    members, promoted = generation["members"], generation["promoted"]
    found = [v for m in members if (v := m["val"]["miou"]) is not None]
    kept = "yes" if promoted is True else "no" if promoted is False else DASH
    why = f'<span class="why">{esc(generation["why"])}</span>'
    best = score(max(found)) if found else DASH
    share = percent(generation["inconsistent_share"])
    return [count(generation["generation"], "?"), str(len(members)), best, share, kept, why]


def curves(facts: Facts, verdict: Verdict) -> str:
    """Training loss and val mIoU of every member, generation 0 beside the last, labels only as reference."""
    if not facts.curves:
        return ""
    base = verdict.baseline.miou if verdict.baseline else None
    titles = [(f"generation {c.generation}, {c.member}", c) for c in facts.curves]
    miou = [charts.Series(title, c.generation, c.miou) for title, c in titles]
    loss = [charts.Series(title, c.generation, c.loss) for title, c in titles]
    line = ("labels only", base) if base is not None else None
    drawn = [
        charts.line_chart(miou, "mIoU on val over training", "mIoU on val", line=line),
        charts.line_chart(loss, "Training loss over training", "training loss"),
    ]
    legend = _curve_legend(facts, line is not None and bool(drawn[0]))
    return section("curves", "Training", legend, f'<div class="charts">{"".join(drawn)}</div>' if any(drawn) else "")


def _curve_legend(facts: Facts, line: bool) -> str:
    found = sorted({c.generation for c in facts.curves})
    items = []
    for generation in found:
        members = sum(c.generation == generation for c in facts.curves)
        only = " (labels only)" if generation == 0 and facts.summary["method"] == "supervised" else ""
        said = f"generation {generation}{only}, {plural(members, 'member')}"
        items.append(f'<li><i class="swatch s{generation % 8}"></i>{esc(said)}</li>')
    if line:
        items.append('<li><i class="dashes"></i>labels only, final</li>')
    return f'<ul class="legend">{"".join(items)}</ul>'


def per_class(facts: Facts, verdict: Verdict) -> str:
    """IoU and Dice of every class, of labels only and of the model."""
    model = verdict.model.val["per_class"] if verdict.model else {}
    base = verdict.baseline.val["per_class"] if verdict.baseline and verdict.compared else {}
    if not model:
        return ""
    colors = class_colors(facts)
    names = facts.classes if set(facts.classes) & set(model) else list(model)
    head = ["Class"]
    for title in ("IoU", "Dice"):
        head += [f"{title}, labels only", f"{title}, model", f"Δ {title}"] if base else [title]
    rows = []
    absent = 0
    for label in names:
        new, old = model.get(label, NONE), base.get(label, NONE)
        row = [f'<span class="class">{swatch(colors.get(label))}{name(label)}</span>']
        missing = not any(v is not None for v in (*new.values(), *old.values()))
        absent += missing
        for key in ("iou", "dice"):
            cells = [score(old[key]), score(new[key]), delta(new[key], old[key])]
            cells = cells if base else cells[1:2]
            row += ['<span class="none">absent</span>'] * len(cells) if missing else cells
        rows.append(row)
    said = f"{plural(absent, 'class', 'classes')} absent from val and left out of the means." if absent else ""
    title = "Classes" if supervised(facts.summary) or not base else "Classes: labels only beside the model"
    scored = table(head, rows, "Scores per class on val", tall=True)
    return section("classes", title, scored, note(said) if said else "")
