"""The command line: parse, call, print what to type next. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import io
import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from semiseg.errors import PARTLY
from semiseg.exits import guarded

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    help="Semi-supervised image segmentation on your own folder: many images, few labels.\n\n"
    "Start with: semiseg check my_images, then: semiseg train my_images",
)
Json = Annotated[bool, typer.Option("--json", help="Print one machine-readable object and nothing else.")]


def emit(result: dict[str, Any], as_json: bool, lines: list[str], following: str = "") -> None:
    """The result for a machine, or for a person with the next command to type."""
    if as_json:
        print(json.dumps(result))
        return
    for line in lines:
        print(line)
    if following:
        print(f"\nNext: {following}")


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"semiseg {version('semiseg')}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="After any error, print the whole way there.")] = False,
) -> None:
    """What stands before a command; `main` takes --debug out wherever it stands."""


@app.command()
def check(
    data: Annotated[Path, typer.Argument(help="A folder with images/, masks/ and unlabeled/ (or splits/*.txt).")],
    size: Annotated[int | None, typer.Option(help="Crop size of the training to come.")] = None,
    labels: Annotated[str, typer.Option(help="How many labeled images to use: a number, a share or all.")] = "all",
    out: Annotated[Path | None, typer.Option(help="A file for all that was found, such as check.json.")] = None,
    json_: Json = False,
) -> None:
    """Read every file once and report all problems, each with its fix."""
    from semiseg.commands import check_folder

    result, lines, following = check_folder(data, size, labels, out, json_)
    emit(result, json_, lines, following)


@app.command()
def train(
    data: Annotated[Path, typer.Argument(help="The data folder.")],
    out: Annotated[Path | None, typer.Option(help="The run folder to write; runs/NAME of the data otherwise.")] = None,
    method: Annotated[
        str | None, typer.Option(help="NAME[+PROGRAM] or ./file.py:Class; see `semiseg methods`.")
    ] = None,
    network: Annotated[str | None, typer.Option(help="unet1x1, unet/resnet18, deeplabv3plus/resnet50, …")] = None,
    weights: Annotated[str | None, typer.Option(help="Pretrained encoder: imagenet or a local path.")] = None,
    size: Annotated[int | None, typer.Option(help="Side of the training crop in pixels.")] = None,
    resize: Annotated[int | None, typer.Option(help="Shrink larger images to this shorter side.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps of each model.")] = None,
    batch: Annotated[int | None, typer.Option(help="Labeled images a step.")] = None,
    labels: Annotated[str | None, typer.Option(help="Labels to use: a number, a share or all.")] = None,
    augment: Annotated[str | None, typer.Option(help="none, default or strong.")] = None,
    oracle: Annotated[bool | None, typer.Option("--oracle", help="Use the masks of unlabeled images too.")] = None,
    seed: Annotated[int | None, typer.Option(help="Everything random follows from it.")] = None,
    config: Annotated[Path | None, typer.Option(help="A recipe (YAML).")] = None,
    committee: Annotated[
        str | None, typer.Option(help="A given committee, with commas: runs, .onnx files, folders of masks.")
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value, as often as needed.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue; `--resume auto` continues or starts.")] = False,
    json_: Json = False,
) -> None:
    """Train with few labels and many unlabeled images, beside a labels-only baseline; the better one on val is shipped."""
    from semiseg.commands import train_folder

    options = {"method": method, "network": network, "weights": weights, "size": size, "resize": resize,
               "steps": steps, "batch": batch, "labels": labels, "augment": augment, "oracle": oracle,
               "seed": seed, "committee": committee}  # fmt: skip
    mode = AUTO.pop() if AUTO else "force" if resume else ""
    command = "semiseg " + " ".join(shlex.quote(a) for a in sys.argv[1:])
    run = out or Path("runs") / data.resolve().name
    result, lines, following = train_folder(data, run, options, set_ or [], config, mode, json_, command)
    emit(result, json_, lines, following)


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="A finished run folder.")],
    images: Annotated[Path, typer.Argument(help="An image or a folder of images.")],
    out: Annotated[Path, typer.Option(help="Where masks/, classes.yaml and predictions.csv go.")],
    ensemble: Annotated[bool, typer.Option("--ensemble", help="The whole committee predicts together.")] = False,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="16-bit probability maps too.")] = False,
    inconsistency: Annotated[bool, typer.Option("--inconsistency", help="Maps of where the models disagree.")] = False,
    json_: Json = False,
) -> None:
    """Masks for images the run has never seen, in the coding of your own masks.

    OUT/masks/NAME.png, one folder per label where yours are; NAME.tif where your labels are channels of one file.
    """
    from semiseg.commands import predict_images

    result, lines, following = predict_images(run, images, out, ensemble, probabilities, inconsistency, json_)
    emit(result, json_, lines, following)
    if result["failed"]:
        raise typer.Exit(PARTLY)


@app.command()
def consensus(
    committee: Annotated[list[str], typer.Argument(help="Two or more runs, .onnx files or folders of masks.")],
    images: Annotated[Path, typer.Option(help="A folder of images, or one.")],
    out: Annotated[Path, typer.Option(help="Where masks/, inconsistency/ and label_next.csv go.")],
    members: Annotated[bool, typer.Option("--members", help="Runs speak with their whole committee.")] = False,
    json_: Json = False,
) -> None:
    """Where do these models or masks agree, and on what? Labels, maps, and what to label next; nothing is trained."""
    from semiseg.commands import find_consensus

    result, lines, following = find_consensus(committee, images, out, members, json_)
    emit(result, json_, lines, following)
    if result["failed"]:
        raise typer.Exit(PARTLY)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A finished run folder.")],
    model: Annotated[Path, typer.Argument(help="The .onnx file to write.")],
    json_: Json = False,
) -> None:
    """Write the run's model as an ONNX file and compare it with torch at once."""
    from semiseg.commands import export_run

    emit(*export_run(run, model, json_))


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A finished run folder.")],
    data: Annotated[Path, typer.Argument(help="A data folder with masks.")],
    split: Annotated[str, typer.Option(help="val, test, labeled or unlabeled.")],
    ensemble: Annotated[bool, typer.Option("--ensemble", help="The whole committee predicts together.")] = False,
    json_: Json = False,
) -> None:
    """IoU and Dice on a split, at full resolution. Read test once, at the end: every reading is logged."""
    from semiseg.commands import evaluate_run

    emit(*evaluate_run(run, data, split, ensemble, json_))


@app.command()
def report(run: Annotated[Path, typer.Argument(help="A finished run folder.")], json_: Json = False) -> None:
    """Write report.html again."""
    from semiseg.report import write_report

    path = write_report(run)
    emit({"report": str(path)}, json_, [f"wrote {path}"], f"open {path} in a browser")


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(help="A method or program.")] = None, json_: Json = False
) -> None:
    """List methods and programs; with a NAME its arguments, defaults and source."""
    from semiseg.commands import describe

    emit(*describe(name, json_))


@app.command()
def compare(
    data: Annotated[list[Path], typer.Argument(help="One or more data folders.")],
    methods: Annotated[str, typer.Option(help="NAME[+PROGRAM][@key=value], with commas: fixmatch,im,im@members=2")],
    out: Annotated[Path, typer.Option(help="The folder of the comparison.")] = Path("runs/compare"),
    seeds: Annotated[int, typer.Option(help="Seeds 0 to N-1, the same for every method.")] = 3,
    steps: Annotated[int, typer.Option(help="Optimiser steps of every model.")] = 2000,
    labels: Annotated[str, typer.Option(help="Labels to use, with commas: 20,40,160 or all.")] = "all",
    baselines: Annotated[str, typer.Option(help="all, or none: no full labels, no K× steps, smaller K.")] = "all",
    split: Annotated[str, typer.Option(help="What is reported: test, or val while test must stay closed.")] = "test",
    blocks: Annotated[int, typer.Option(help="Neighbouring images drawn together: video, serial sections.")] = 1,
    jobs: Annotated[int, typer.Option(help="Cells at a time; 0 = one per GPU, or one.")] = 0,
    network: Annotated[str | None, typer.Option(help="As in train.")] = None,
    weights: Annotated[str | None, typer.Option(help="As in train.")] = None,
    size: Annotated[int | None, typer.Option(help="As in train.")] = None,
    resize: Annotated[int | None, typer.Option(help="As in train.")] = None,
    batch: Annotated[int | None, typer.Option(help="As in train.")] = None,
    augment: Annotated[str | None, typer.Option(help="As in train.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value, as often as needed.")] = None,
    json_: Json = False,
) -> None:
    """Compare methods with labels only under one budget. The same command goes on with what is missing."""
    from semiseg.compare import compare, summary
    from semiseg.compare.request import Request, separated

    given = {"network": network, "weights": weights, "size": size, "resize": resize, "batch": batch, "augment": augment}
    options = {k: v for k, v in given.items() if v is not None}
    numbers = [w.strip() for w in labels.split(",") if w.strip()]
    asked = Request(
        data, separated(methods), out, seeds, steps, numbers, baselines, split, blocks, jobs, options, set_ or []
    )
    result = compare(asked, shlex.join(["semiseg", *sys.argv[1:]]), json_)
    emit(result, json_, summary(result), f"open {result['report']} in a browser")
    if result["failed"]:
        raise typer.Exit(PARTLY)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the demo goes.")] = Path("runs/demo"),
    quick: Annotated[bool, typer.Option("--quick", help="A few steps only: does it run?")] = False,
    json_: Json = False,
) -> None:
    """Make a data set of cells, train supervised, ensemble and im on it, print the table, write the report."""
    from semiseg.commands import run_demo

    emit(*run_demo(out, quick, json_))


AUTO: list[str] = []


def _arguments(argv: list[str]) -> list[str]:
    """`--resume auto` is an option with an optional word, which the parser has no notion of."""
    if "--resume=auto" in argv:
        argv[argv.index("--resume=auto") : argv.index("--resume=auto") + 1] = ["--resume", "auto"]
    for i, word in enumerate(argv[:-1]):
        if word == "--resume" and argv[i + 1] == "auto":
            AUTO.append("auto")
            return [*argv[: i + 1], *argv[i + 2 :]]
    return argv


def main() -> None:
    """Run a command; every refusal becomes its lines and its exit code, everything else a bug report (exit 1)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # redirected on Windows neither knows Δ or −
            stream.reconfigure(errors="replace")
    debug = "--debug" in sys.argv
    argv = [a for a in sys.argv[1:] if a != "--debug"] or ["--help"]
    sys.exit(
        guarded(lambda: app(_arguments(argv), prog_name="semiseg", standalone_mode=False), debug, "--json" in argv)
    )


if __name__ == "__main__":
    main()
