"""What the commands do: each returns an object for machines, lines for people, and the command to type next."""

from __future__ import annotations

import hashlib
import inspect
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from semiseg.errors import USAGE, Problem, Refusal
from semiseg.report.markup import plural

Result = tuple[dict[str, Any], list[str], str]


def check_folder(data: Path, size: int | None, labels: str, out: Path | None, as_json: bool) -> Result:
    """Exit 3 through a refusal when something is wrong, after warnings and notes; with --json the refusal is the object.

    Nothing is written but `out`, which is what training keeps as RUN/check.json; never into the folder, which is the
    user's.
    """
    from semiseg.data.check import check
    from semiseg.data.codes import render
    from semiseg.training.logs import Log
    from semiseg.training.ranges import amount

    if out is not None:
        _free(out, data)
    with Log(quiet=as_json).bar("reading the folder", 1) as bar:
        checked = check(data, size=size, labels=amount(labels), progress=lambda done, total: bar(done, total))
    full = str(out or "the output of --json")
    said = [f"{level} {line}" for level in ("warning", "note") for line in render(checked.level(level), full)]
    if out is not None:
        from semiseg import storage

        storage.write_json(out, {**checked.to_json(), "digests": checked.digests})
    if not checked.ok:
        for line in said if not as_json else ():
            print(f"semiseg: {line}", file=sys.stderr)
        raise CheckFailed(checked.to_json(), checked.errors, full)
    counts = checked.index.counts()
    assert checked.classes is not None
    lines = [
        f"{data}: {counts['labeled']} labeled, {counts['unlabeled']} unlabeled, {counts['val']} val, {counts['test']} test",
        f"images: {checked.channels} channel{'s' * (checked.channels != 1)}, {checked.dtype}, {_sizes(checked.sizes)}",
        f"{checked.classes.kind}: {', '.join(checked.classes.names)}",
        *said,
    ]
    asked = ["--labels", labels] if labels != "all" else []
    following = shlex.join(["semiseg", "train", str(data), "--out", f"runs/{data.resolve().name}", *asked])
    return {**checked.to_json(), "next": following}, lines, following


class CheckFailed(Refusal):
    """A failed check or prediction whose whole result goes to --json."""

    def __init__(self, result: dict[str, Any], problems: list[Any], full: str = "the output of --json") -> None:
        super().__init__(problems)
        self.result, self.full = result, full


def _free(out: Path, data: Path) -> None:
    """Refuses (exit 2) to write into the data, or over a file that is no list of findings."""
    if out.resolve().is_relative_to(data.resolve()):
        raise Refusal(Problem("C10", f"--out {out}", f"lies in {data}", "choose a file outside of the data"), USAGE)
    if out.exists() and not (out.is_file() and b'"problems"' in out.read_bytes()):
        raise Refusal(Problem("C10", f"--out {out}", "is something else already", "choose another file"), USAGE)


def _sizes(sizes: Sequence[tuple[int, int]]) -> str:
    """Of (height, width), as all messages say them: width and height."""
    return " … ".join(dict.fromkeys(f"{width}x{height}" for height, width in sizes)) + " pixels"


def train_folder(
    data: Path, out: Path, options: dict[str, Any], sets: list[str], recipe: Path | None, resume: str,
    as_json: bool, command: str,
) -> Result:  # fmt: skip
    """Train and say what came of it."""
    from semiseg.programs.train import train

    chosen = {k: v for k, v in options.items() if v is not None}
    summary = train(data, out, resume=resume, sets=sets, recipe=recipe, quiet=as_json, command=command, **chosen)
    lines = [
        *table(summary["arms"], summary["scored"]["on"]),
        "",
        f"the model: {summary['model']['folder']} ({summary['model']['why']})",
    ]
    lines += [f"Warning: {w}" for w in summary["warnings"]]
    lines += [f"report: {out}/report.html", f"what to label next: {out}/label_next.csv"]
    doubt = ["--inconsistency"] if len(summary["committee"]) > 1 else []
    following = shlex.join(["semiseg", "predict", str(out), "NEW_IMAGES", "--out", "predictions", *doubt])
    return {**summary, "run": str(out)}, lines, following


def table(arms: list[dict[str, Any]], on: str = "val") -> list[str]:
    """The arms with mIoU on val (or `on`), Dice, the mean IoU of single images, and the difference to labels only."""
    if not any(a["val"] for a in arms):
        return ["no val set, so nothing could be scored"]
    base = next((a["val"]["miou"] for a in arms if a["name"] == "labels only" and a["val"]), None)
    width = max(len(f"on {on}"), *(len(a["name"]) for a in arms))
    lines = [f"{'on ' + on:{width}}   mIoU    Dice  an image  Δ mIoU"]
    for arm in arms:
        val = arm["val"] or {}
        miou, dice, image = (val.get(key) for key in ("miou", "dice", "iou_per_image"))
        gain = ""
        if miou is not None and base is not None and arm["name"] != "labels only":
            gain = f"{miou - base:+.4f}"
        lines.append(f"{arm['name']:{width}}  {_score(miou)}  {_score(dice)}   {_score(image)}   {gain}".rstrip())
    return lines


def _score(value: float | None) -> str:
    return "  –   " if value is None else f"{value:.4f}"


def predict_images(
    run: Path, images: Path, out: Path, ensemble: bool, probabilities: bool, inconsistency: bool, as_json: bool
) -> Result:
    """Predict a folder; what failed is listed and the rest is there."""
    from semiseg.data.codes import render
    from semiseg.model import Model
    from semiseg.predict import predict_folder
    from semiseg.training.logs import Log

    model = Model(run, ensemble)
    with Log(quiet=as_json).bar("predicting", 0) as bar:
        done = predict_folder(
            model, images, out, probabilities=probabilities, inconsistency=inconsistency, progress=bar
        )
    result = {
        "out": str(out), "run": str(run), "predicted": len(done.done), "skipped": len(done.skipped),
        "failed": [p.to_json() for p in done.failed], "notes": [p.to_json() for p in done.notes],
    }  # fmt: skip
    if not (done.done or done.skipped):
        raise CheckFailed(result, done.failed)
    lines = [f"{plural(len(done.done), 'mask')} written to {out}/masks"]
    if done.skipped:
        lines.append(f"{len(done.skipped)} were there already")
    if done.failed:
        lines.append(f"{len(done.failed)} failed, listed in {out}/failed.csv:")
        lines += [f"  {line}" for line in render(done.failed, f"{out}/failed.csv")]
    lines += [f"Note: {line}" for line in render(done.notes)]
    return result, lines, f"look at {out}/masks and {out}/predictions.csv"


def find_consensus(committee: list[str], images: Path, out: Path, members: bool, as_json: bool) -> Result:
    """Label a folder by a given committee; what failed is listed and the rest is there."""
    from semiseg.data.codes import render
    from semiseg.programs.consensus_folder import consensus_folder
    from semiseg.training.logs import Log

    with Log(quiet=as_json).bar("consensus", 0) as bar:
        result = consensus_folder(committee, images, out, members=members, progress=bar)
    failed = [Problem(**p) for p in result["failed"]]
    if not result["images"]:
        raise CheckFailed(result, failed)
    lines = [f"{len(result['committee'])} members: {', '.join(result['committee'])}"]
    lines.append(f"{plural(result['images'], 'mask')} written to {out}/masks")
    lines.append(f"inconsistent: {result['inconsistent_share']:.1%} of the pixels, mapped in {out}/inconsistency")
    if everywhere := result["inconsistent_everywhere"]:
        some = ", ".join(everywhere[:3]) + (", …" if len(everywhere) > 3 else "")
        lines.append(f"Note: images that are inconsistent everywhere and teach nothing ({len(everywhere)}): {some}")
    if not result["inconsistent_share"]:
        lines.append("Note: the members never disagree, so no image comes before another: are they the same?")
    if result["never_predicted"]:
        lines.append(f"Note: no member predicts {', '.join(result['never_predicted'])} in any image")
    if failed:
        lines.append(f"{plural(len(failed), 'problem')}, listed in {out}/failed.csv:")
        lines += [f"  {line}" for line in render(failed, f"{out}/failed.csv")]
    lines += [f"Note: {line}" for line in render(Problem(**p) for p in result["notes"])]
    return result, lines, f"look at {out}/inconsistency, and label the first images of {out}/label_next.csv"


def export_run(run: Path, model: Path, as_json: bool) -> tuple[Any, bool, list[str], str]:
    """Export, and say how far the file is from torch."""
    from semiseg.programs.exported import export

    made = export(run, model)
    lines = [f"{model}: {made['size_mb']} MB, any batch, height and width",
             f"compared with torch on {plural(made['images'], 'image')}: probabilities differ by at most "
             f"{made['largest_difference']:.1g}, labels at {made['other_labels']:.2%} of the pixels"]  # fmt: skip
    following = shlex.join(
        ["semiseg", "consensus", str(model), "OTHER_RUN", "--images", "IMAGES", "--out", "consensus"]
    )
    return made, as_json, lines, following


def evaluate_run(run: Path, data: Path, split: str, ensemble: bool, as_json: bool) -> tuple[Any, bool, list[str], str]:
    """Metrics on a split; the result and the fact that test was read are written into the run."""
    from semiseg import storage
    from semiseg.data.index import SPLITS
    from semiseg.errors import nearest, usage
    from semiseg.model import Model
    from semiseg.predict import evaluate_split
    from semiseg.report import write_report
    from semiseg.training.logs import Log

    if split not in SPLITS:
        raise usage("--split", f"is '{split}'", nearest(split, SPLITS) or "use one of these", ", ".join(SPLITS))
    model = Model(run, ensemble)
    log = Log(run, as_json)
    with log.bar(f"evaluating {split}", 0) as bar:
        result = evaluate_split(model, data, split, bar)
    result |= {"run": str(run), "data": str(data), "ensemble": ensemble, "model": model.hash}
    log.event("evaluated", split=split, ensemble=ensemble)
    elsewhere = _elsewhere(run, data)
    name = f"evaluation-{split}{'-ensemble' if ensemble else ''}{elsewhere}.json"
    storage.write_json(run / name, {**result, "when": time.strftime("%Y-%m-%dT%H:%M:%S%z")})
    write_report(run)
    m = result["metrics"]
    lines = [f"{split}: {result['images']} images, mIoU {_score(m['miou'])}, Dice {_score(m['dice'])}, "
             f"IoU per image {_score(m['iou_per_image'])}"]  # fmt: skip
    lines += [f"  {n}: IoU {_score(v['iou'])}, Dice {_score(v['dice'])}" for n, v in m["per_class"].items()]
    return result, as_json, lines, f"open {run}/{name if elsewhere else 'report.html'}"


def _elsewhere(run: Path, data: Path) -> str:
    """What the name of an evaluation adds where the data are not those of the run: the report shows scores on its own."""
    from semiseg.data.foreign import holds_images_of

    if holds_images_of(run, data):
        return ""
    return f"-on-{data.resolve().name}-{hashlib.sha256(str(data.resolve()).encode()).hexdigest()[:6]}"


def describe(name: str | None, as_json: bool) -> tuple[Any, bool, list[str], str]:
    """All methods and programs with a line each, or one of them with its arguments."""
    from semiseg.errors import nearest
    from semiseg.methods import METHODS, arguments, method_class
    from semiseg.methods.own import parted
    from semiseg.programs import PROGRAMS, program_class
    from semiseg.programs._generations import Generations
    from semiseg.training.config import settings

    known = [*METHODS, *PROGRAMS]
    if name is None:
        classes = {n: method_class(n) for n in METHODS} | {n: program_class(n) for n in PROGRAMS}
        said = {n: _first(cls, [*classes.values()]) for n, cls in classes.items()}
        lines = ["methods"] + [f"  {n:14} {said[n]}" for n in METHODS]
        lines += ["programs (METHOD+PROGRAM; alone on supervised, but im_moving: fixmatch+im_moving)"]
        lines += [f"  {n:14} {said[n]}" for n in PROGRAMS]
        return said, as_json, lines, "semiseg methods fixmatch"
    if name not in known and not parted(name)[0]:
        fix = nearest(name, known) or "semiseg methods lists them"
        raise Refusal(Problem("C03", name, "is no method or program", fix), USAGE)
    cls: Any = program_class(name) if name in PROGRAMS else method_class(name)
    found = arguments(cls)
    if settled := [k for k in getattr(cls, "settled", ()) if k in found]:  # left empty they become what the preset says
        made = cls()
        found |= {k: getattr(made, k) for k in settled}
    about = inspect.getdoc(inspect.getmodule(cls)) or ""
    prefix = f"{name}." if name in PROGRAMS else ""
    told = [cls, *([Generations] if issubclass(cls, Generations) else [])]  # which says what their arguments mean
    doc = "\n\n".join(inspect.cleandoc(c.__doc__ or "") for c in told)
    lines = [about, "", doc, "", "arguments (--set NAME=VALUE):"]
    lines += [f"  {prefix}{k} = {v!r}" for k, v in found.items()] or ["  none"]
    lines += ["", "settings of every training (--set NAME=VALUE):"]
    lines += [f"  {k} = {v!r}" for k, v in settings().items()]
    result = {"name": name, "about": about, "doc": doc, "arguments": found, "settings": settings()}
    return result, as_json, lines, f"semiseg train DATA --out RUN --method {name}"


def _first(cls: type, others: list[type]) -> str:
    """The file's first line about a method, or the class's own where a file holds several."""
    shared = sum(other.__module__ == cls.__module__ for other in others) > 1
    return (inspect.getdoc(cls if shared else inspect.getmodule(cls)) or "").partition("\n")[0]


def run_demo(out: Path, quick: bool, as_json: bool) -> tuple[Any, bool, list[str], str]:
    """The built-in demonstration."""
    from semiseg.demo import demo

    result = demo(out, quick=quick, quiet=as_json)
    lines = [*table(result["arms"]), "", f"report: {result['report']}"]
    following = f"open {result['report']} in a browser, then: semiseg train YOUR_FOLDER --method im"
    return result, as_json, lines, following
