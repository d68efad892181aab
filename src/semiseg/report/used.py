"""What a run was made of, how long it took, what it warned of, and its test score."""

from __future__ import annotations

import json
import shlex
from datetime import datetime
from pathlib import Path

from semiseg.report.load import Facts
from semiseg.report.markup import (
    command,
    count,
    duration,
    esc,
    name,
    note,
    plural,
    score,
    section,
    table,
    terms,
)
from semiseg.report.shape import Json

STAGES = {
    "check": "check the data",
    "cache": "decode the images",
    "training_all_tries": "steps of training, all tries",
    "consensus_all_tries": "consensus, all tries",
}
VAL = {"given": "given as a folder or list", "carved": "carved from the labeled images",
       "folds": "each member’s fold of the labeled images", "none": "none"}  # fmt: skip


def data_name(facts: Facts) -> str:
    """The data folder as the user typed it, or an empty string."""
    return str(facts.record["config"].get("data") or "")


def run_name(facts: Facts) -> str:
    """The run folder as the user typed it (it may have moved: then its present name)."""
    typed = facts.record["config"].get("out")
    return typed if isinstance(typed, str) and Path(typed).name == facts.run.name else facts.run.name


def used(facts: Facts) -> str:
    """Command, data, network and machine."""
    summary, record = facts.summary, facts.record
    counts, model = summary["counts"], summary["model"]
    data = ", ".join(f"{count(counts[k])} {k}" for k in ("labeled", "unlabeled", "val", "test") if k in counts)
    pairs = [
        ("Data", (f"{name(data_name(facts))}: " if data_name(facts) else "") + esc(data)),
        ("Val set", esc(VAL.get(summary["val_source"], summary["val_source"]))),
        ("Kind", esc(f"{summary['kind']}, {plural(len(facts.classes), 'class', 'classes')}")),
        ("Method", esc(summary["name"])),
        ("Network", esc(f"{summary['network']}, {count(summary['parameters'])} parameters")),
        ("Training", esc(_training(summary))),
        ("Seed", count(summary["seed"], "?")),
        ("Model", f"<code>{esc(model['folder'])}</code>" + _why(model) if model["folder"] else ""),
        ("Created", esc(_time(record["created"]))),
        ("semiseg", esc(record["version"])),
        ("Machine", esc(", ".join(f"{k} {v}" for k, v in record["machine"].items() if v not in (None, "")))),
    ]
    config, typed = record["config"], summary["command"]
    text = json.dumps(config, indent=1, ensure_ascii=False, default=str) if config else ""
    more = f"<details><summary>Every setting</summary><pre><code>{_lines(text)}</code></pre></details>" if text else ""
    return section("used", "What was used", command(typed) if typed else "", terms(pairs), more)


def took(facts: Facts) -> str:
    """Seconds per stage, images forwarded and memory."""
    summary = facts.summary
    seconds, memory = summary["seconds"], summary["peak_memory_mb"]
    pairs = [("In total", f"<b>{duration(seconds['total'])}</b>")] if "total" in seconds else []
    pairs += [
        (STAGES.get(k, k.replace("_", " ")).capitalize(), duration(v)) for k, v in seconds.items() if k != "total"
    ]
    pairs.append(("Images forwarded", count(summary["images_forwarded"])))
    pairs.append(("Peak memory", "" if memory is None else f"{count(memory)} MB"))
    pairs.append(("Models trained", count(summary["models_trained"])))
    return section("time", "How long it took", terms(pairs))


def warnings(facts: Facts) -> str:
    """What the run warned of, and what this report could not read."""
    said = list(facts.summary["warnings"])
    said += [f"{file} could not be read, so what it holds is missing here." for file in facts.unread]
    if not said:
        return section("warnings", "Warnings", note("None."))
    return section("warnings", "Warnings", f'<ul class="warnings">{"".join(f"<li>{esc(w)}</li>" for w in said)}</ul>')


def test(facts: Facts) -> str:
    """The scores on test, or the command that reads it."""
    tests = facts.tests
    if not tests and not has_test(facts):
        hint = "There is no test set. Put labeled images that nothing is trained or chosen on into <code>test/</code>."
        return section("test", "Test", note(hint))
    if not tests:
        hint = "Test has not been read. It is the only number that nothing was chosen by; read it once, at the end:"
        return section("test", "Test", note(hint), command(evaluate(facts)))
    scores = {who: evaluation["metrics"] for who, evaluation in tests.items()}
    rows = [
        [name(who), f"<b>{score(m['miou'])}</b>", score(m["dice"]), score(m["iou_per_image"])]
        for who, m in scores.items()
    ]
    shown = [table(["Predicted by", "mIoU", "Dice", "IoU per image"], rows, "Scores on test")]
    first = next(iter(tests))
    classes = scores[first]["per_class"]
    if len(classes) > 1:
        cells = [[name(n), *(score(v[k], "absent") for k in ("iou", "dice"))] for n, v in classes.items()]
        said = esc(f"Classes on test, {first}")
        shown += [f"<h3>{said}</h3>", table(["Class", "IoU", "Dice"], cells, said, tall=True)]
    images = tests[first]["images"]
    of = f" {plural(images, 'image')} of" if images is not None else ""
    return section("test", "Test", note(f"These are scores on{of} <b>test</b>: nothing was chosen by them."), *shown)


def has_test(facts: Facts) -> bool:
    """Whether there is a test set; a summary that does not count it gets the benefit of the doubt."""
    return bool(facts.summary["counts"].get("test") != 0)


def evaluate(facts: Facts) -> str:
    """The command that reads test."""
    return f"semiseg evaluate {shlex.quote(run_name(facts))} {shlex.quote(data_name(facts) or 'my_data')} --split test"


def _training(summary: Json) -> str:
    parts = [
        plural(summary["steps"], "step") if summary["steps"] else "",
        f"{plural(summary['batch'], 'image')} a batch" if summary["batch"] else "",
        f"crops of {count(summary['size'])} pixels" if summary["size"] else "",
    ]
    return ", ".join(p for p in parts if p)


def _why(model: Json) -> str:
    return f" ({esc(model['why'])})" if model["why"] else ""


def _time(value: str) -> str:
    """An ISO time to the minute, in the zone it was written in; anything else as it stands."""
    try:
        return datetime.fromisoformat(value).strftime("%Y-%m-%d %H:%M %Z").strip()
    except ValueError:
        return value


def _lines(text: str) -> str:
    return "\n".join(esc(line) for line in text.split("\n"))
