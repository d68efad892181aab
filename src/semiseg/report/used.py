"""What a run was made of, how long it took, what it warned of, and its test score."""

from __future__ import annotations

import json
import shlex
from datetime import datetime
from pathlib import Path
from typing import Any

from semiseg.report.load import Facts, Json, mapping
from semiseg.report.markup import (
    command,
    count,
    duration,
    esc,
    name,
    note,
    number,
    plural,
    score,
    section,
    table,
    terms,
)

STAGES = {
    "check": "check the data",
    "cache": "decode the images",
    "training_all_tries": "training, all tries",
    "consensus_all_tries": "consensus, all tries",
}
VAL = {"given": "given as a folder or list", "carved": "carved from the labeled images",
       "folds": "each member’s fold of the labeled images", "none": "none"}  # fmt: skip


def data_name(facts: Facts) -> str:
    """The data folder as the user typed it, or an empty string."""
    return str(mapping(facts.record.get("config")).get("data") or "")


def run_name(facts: Facts) -> str:
    """The run folder as the user typed it (it may have moved: then its present name)."""
    typed = mapping(facts.record.get("config")).get("out")
    return typed if isinstance(typed, str) and Path(typed).name == facts.run.name else facts.run.name


def used(facts: Facts) -> str:
    """Command, data, network and machine."""
    summary, record = facts.summary, facts.record
    counts = mapping(summary.get("counts"))
    data = ", ".join(f"{count(counts[k])} {k}" for k in ("labeled", "unlabeled", "val", "test") if k in counts)
    model, machine = mapping(summary.get("model")), mapping(record.get("machine"))
    typed = str(summary.get("command") or "")
    pairs = [
        ("Data", (f"{name(data_name(facts))}: " if data_name(facts) else "") + esc(data)),
        ("Val set", esc(VAL.get(str(summary.get("val_source")), summary.get("val_source") or ""))),
        ("Kind", esc(f"{summary.get('kind', '')}, {plural(len(facts.classes), 'class', 'classes')}")),
        ("Method", esc(summary.get("name") or "")),
        ("Network", esc(f"{summary.get('network', '')}, {count(summary.get('parameters'))} parameters")),
        ("Training", esc(_training(summary))),
        ("Seed", count(summary.get("seed"), "?")),
        ("Model", f"<code>{esc(model.get('folder', ''))}</code>" + _why(model) if model.get("folder") else ""),
        ("Created", esc(_time(record.get("created")))),
        ("semiseg", esc(record.get("version") or "")),
        ("Machine", esc(", ".join(f"{k} {v}" for k, v in machine.items() if v not in (None, "")))),
    ]
    config = record.get("config")
    text = json.dumps(config, indent=1, ensure_ascii=False, default=str) if config else ""
    more = f"<details><summary>Every setting</summary><pre><code>{_lines(text)}</code></pre></details>" if text else ""
    return section("used", "What was used", command(typed) if typed else "", terms(pairs), more)


def took(facts: Facts) -> str:
    """Seconds per stage, images forwarded and memory."""
    seconds = mapping(facts.summary.get("seconds"))
    pairs = [("In total", f"<b>{duration(seconds.get('total'))}</b>")] if "total" in seconds else []
    pairs += [
        (STAGES.get(k, k.replace("_", " ")).capitalize(), duration(v)) for k, v in seconds.items() if k != "total"
    ]
    pairs.append(("Images forwarded", count(facts.summary.get("images_forwarded"))))
    memory = number(facts.summary.get("peak_memory_mb"))
    pairs.append(("Peak memory", "" if memory is None else f"{count(memory)} MB"))
    pairs.append(("Models trained", count(facts.summary.get("models_trained"))))
    return section("time", "How long it took", terms(pairs))


def warnings(facts: Facts) -> str:
    """What the run warned of, and what this report could not read."""
    said = [str(w) for w in facts.summary.get("warnings") or []]
    said += [f"{file} could not be read, so what it holds is missing here." for file in facts.unread]
    if not said:
        return section("warnings", "Warnings", note("None."))
    return section("warnings", "Warnings", f'<ul class="warnings">{"".join(f"<li>{esc(w)}</li>" for w in said)}</ul>')


def test_scores(facts: Facts) -> list[tuple[str, Json]]:
    """(who predicted, metrics) of every evaluation on test, the model first."""
    found = {who: mapping(evaluation.get("metrics")) for who, evaluation in facts.tests.items()}
    return [(who, metrics) for who, metrics in found.items() if number(metrics.get("miou")) is not None]


def test(facts: Facts) -> str:
    """The scores on test, or the command that reads it."""
    scores = test_scores(facts)
    if not scores and not has_test(facts):
        hint = "There is no test set. Put labeled images that nothing is trained or chosen on into <code>test/</code>."
        return section("test", "Test", note(hint))
    if not scores:
        hint = "Test has not been read. It is the only number that nothing was chosen by; read it once, at the end:"
        return section("test", "Test", note(hint), command(evaluate(facts)))
    rows = [
        [name(who), f"<b>{score(m['miou'])}</b>", score(m.get("dice")), score(m.get("iou_per_image"))]
        for who, m in scores
    ]
    shown = [table(["Predicted by", "mIoU", "Dice", "IoU per image"], rows, "Scores on test")]
    classes = mapping(scores[0][1].get("per_class"))
    if len(classes) > 1:
        cells = [[name(n), *(score(mapping(v).get(k), "absent") for k in ("iou", "dice"))] for n, v in classes.items()]
        said = esc(f"Classes on test, {scores[0][0]}")
        shown += [f"<h3>{said}</h3>", table(["Class", "IoU", "Dice"], cells, said, tall=True)]
    images = number(next(iter(facts.tests.values())).get("images"))
    of = f" {plural(images, 'image')} of" if images is not None else ""
    return section("test", "Test", note(f"These are scores on{of} <b>test</b>: nothing was chosen by them."), *shown)


def has_test(facts: Facts) -> bool:
    """Whether there is a test set; an old summary that does not count it gets the benefit of the doubt."""
    return mapping(facts.summary.get("counts")).get("test") != 0


def evaluate(facts: Facts) -> str:
    """The command that reads test."""
    return f"semiseg evaluate {shlex.quote(run_name(facts))} {shlex.quote(data_name(facts) or 'my_data')} --split test"


def _training(summary: Json) -> str:
    parts = [
        plural(summary.get("steps"), "step") if number(summary.get("steps")) else "",
        f"{plural(summary.get('batch'), 'image')} a batch" if number(summary.get("batch")) else "",
        f"crops of {count(summary.get('size'))} pixels" if number(summary.get("size")) else "",
    ]
    return ", ".join(p for p in parts if p)


def _why(model: Json) -> str:
    return f" ({esc(model['why'])})" if model.get("why") else ""


def _time(value: Any) -> str:
    """An ISO time to the minute, in the zone it was written in; anything else as it stands."""
    try:
        return datetime.fromisoformat(str(value)).strftime("%Y-%m-%d %H:%M %Z").strip()
    except ValueError:
        return str(value or "")


def _lines(text: str) -> str:
    return "\n".join(esc(line) for line in text.split("\n"))
