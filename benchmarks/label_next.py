"""Is the list of what to label next worth following? Its first 20 images against 20 random ones: results/label_next.csv.

python benchmarks/label_next.py DATA_ROOT [--seeds 3] [--draws 5] [--steps 500] [--split val] [--only isic2018]

From a start (a committee trained on 20 labels that the seed draws) the masks of 20 more images are revealed: those at the
top of a ranking (rankings.py; `plain` is the order of label_next.csv), or random ones. A fresh
supervised model is trained on both together, with equal steps and the same seed, and scored. The choice between rankings is
made with --split val; --split test is for the one that was chosen, --choices names it. label_next_summary.csv: each ranking
minus the mean of its seed's random draws, mean over seeds with its 95 % interval (Student's t).
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rankings import RANKINGS, Facts, drawn, measure
from semiseg.batch import generator_of
from semiseg.model import Model
from semiseg.predict import evaluate_split
from semiseg.programs.train import train
from semiseg.storage import read_json
from semiseg.training.config import Config
from semiseg.training.evaluate import batches, images
from semiseg.training.logs import Log
from semiseg.training.prepare import look, prepare
from shared import SIZES, folder, read, write

SETS = ("isic2018", "cells")
T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""97.5 % quantiles of Student's t with 1 to 9 degrees of freedom; with more, intervals are a little too long."""
SUMMARY = ("data", "split", "steps", "start", "labels")


def lists(data: Path) -> list[str]:
    """The images one may learn from: those of labeled.txt and unlabeled.txt, all of which have masks here."""
    return [n for split in ("labeled", "unlabeled") for n in (data / "splits" / f"{split}.txt").read_text().split()]


def reveal(data: Path, labeled: list[str], out: Path, unlabeled: Sequence[str] = ()) -> Path:
    """The same images and masks with other lists."""
    if not (out / "splits").is_dir():
        out.mkdir(parents=True, exist_ok=True)
        for part in ("images", "masks"):
            if not (out / part).exists():
                (out / part).symlink_to((data / part).resolve(), target_is_directory=True)
        splits = out / "splits.new"
        splits.mkdir(exist_ok=True)
        for split in ("val", "test"):
            (splits / f"{split}.txt").write_text((data / "splits" / f"{split}.txt").read_text())
        for split, names in (("labeled", labeled), ("unlabeled", unlabeled)):
            (splits / f"{split}.txt").write_text("".join(f"{n}\n" for n in names))
        splits.rename(out / "splits")
    return out


def begin(data: Path, count: int, seed: int, out: Path) -> Path:
    """`count` labels drawn by the seed, and all other images without theirs."""
    names = sorted(lists(data))
    order = [names[i] for i in torch.randperm(len(names), generator=generator_of(seed, "start")).tolist()]
    return reveal(data, sorted(order[:count]), out, sorted(order[count:]))


def facts(run: Path) -> tuple[list[Facts], list[Any]]:
    """What rankings go by, of every unlabeled image of a committee's run, and the features (F,) of the labeled ones."""
    config, log = Config(**read_json(run / "run.json")["config"]), Log(quiet=True)
    data = prepare(config, look(config, log), run / "cache", log)
    model = Model(run)
    network = model.network(model.folders["model"])
    scores = {row["image"]: float(row["score"]) for row in read(run / "label_next.csv")}
    found, labeled = [], []
    for chosen in batches(data.unlabeled):
        names = [data.unlabeled.names[i] for i in chosen]
        measured = measure(network, data.task, images(data.unlabeled, chosen, data.units).to(model.device))
        found += [Facts(name, scores[name], *own) for name, *own in zip(names, *measured, strict=True)]
    for chosen in batches(data.labeled):
        labeled += [*measure(network, data.task, images(data.labeled, chosen, data.units).to(model.device))[2]]
    return found, labeled


def choices(run: Path, seed: int, args: argparse.Namespace) -> dict[str, list[str]]:
    """Way of choosing -> the images that are revealed."""
    known, labeled = facts(run)
    orders = {name: RANKINGS[name](known, labeled) for name in args.choices}
    orders |= {f"random-{draw}": drawn(known, f"{seed}/{draw}") for draw in range(args.draws)}
    return {name: [known[i].image for i in order[: args.reveal]] for name, order in orders.items()}


def summarise(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of every ranking in every place: its mean difference to the mean of its seed's random draws, with an interval."""
    made = []
    for place in dict.fromkeys(tuple(str(r[k]) for k in SUMMARY) for r in rows):
        here = [r for r in rows if tuple(str(r[k]) for k in SUMMARY) == place]
        chance: dict[str, list[float]] = {}
        for r in here:
            if r["choice"].startswith("random-"):
                chance.setdefault(str(r["seed"]), []).append(float(r["miou"]))
        for choice in dict.fromkeys(r["choice"] for r in here if not r["choice"].startswith("random-")):
            own = {str(r["seed"]): float(r["miou"]) for r in here if r["choice"] == choice}
            each = [own[s] - statistics.mean(chance[s]) for s in sorted(own, key=int) if s in chance]
            if each:
                made.append(dict(zip(SUMMARY, place, strict=True)) | {"choice": choice} | interval(each))
    return made


def interval(each: Sequence[float]) -> dict[str, Any]:
    """seeds, delta, low, high and verdict of one difference per seed; of a single one no interval can be given."""
    delta, half = statistics.mean(each), math.nan
    if len(each) > 1:
        half = T[min(len(each) - 1, len(T)) - 1] * statistics.stdev(each) / math.sqrt(len(each))
    low, high = delta - half, delta + half
    verdict = "better than random" if low > 0 else "worse than random" if high < 0 else "no difference shown"
    shown = {k: "" if math.isnan(v) else round(v, 4) for k, v in (("delta", delta), ("low", low), ("high", high))}
    return {"seeds": len(each), **shown, "verdict": verdict, "per_seed": " ".join(f"{v:+.4f}" for v in each)}


def run(name: str, seed: int, args: argparse.Namespace) -> None:
    """One start and all its choices; a row for each that is not in the table yet."""
    table = args.results / "label_next.csv"
    numbers = {"start": args.start, "labels": args.start + args.reveal, "split": args.split, "steps": args.steps}
    key = {"data": name, "seed": seed, **numbers}
    done = {r["choice"] for r in read(table) if all(str(r[k]) == str(v) for k, v in key.items())}
    missing = {*args.choices, *(f"random-{draw}" for draw in range(args.draws))} - done
    if not missing:
        return
    data = folder(name, args.root, args.runs)
    options = {"batch": args.batch, **SIZES[name], "steps": args.steps, "seed": seed, "network": args.network}
    here = args.runs / f"{name}-{args.start}-{seed}"
    start = here / "start"
    train(begin(data, args.start, seed, here / "start-data"), start, resume="auto", method="committee", **options)
    first = read_json(start / "run.json")["data"]["splits"]["labeled"]
    for choice, names in choices(start, seed, args).items():
        if choice not in missing:
            continue
        place = here / f"{choice}-{len(names)}"
        shown, out = reveal(data, [*first, *names], place.with_name(f"{place.name}-data")), place
        train(shown, out, resume="auto", method="supervised", **options)
        summary = read_json(out / "summary.json")
        metrics = evaluate_split(Model(out), shown, args.split)["metrics"]
        row = {
            "data": name, "seed": seed, "choice": choice, **numbers,
            "miou": round(metrics["miou"], 6), "iou_per_image": round(metrics["iou_per_image"], 6),
            "images_forwarded": summary["images_forwarded"], "commit": summary["commit"],
            "command": f"python benchmarks/label_next.py --split {args.split} --choices {' '.join(args.choices)}",
        }  # fmt: skip
        write(table, [*read(table), row])  # read again: another call may work on another set
        print(name, seed, choice, row["miou"], flush=True)


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(description=__doc__.replace("%", "%%") if __doc__ else None,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("root", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs/label_next"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--start", type=int, default=20, help="labeled images of the start")
    parser.add_argument("--reveal", type=int, default=20, help="images whose masks are revealed")
    parser.add_argument("--network", default="unet1x1")
    parser.add_argument("--split", choices=["val", "test"], default="val")
    parser.add_argument("--choices", nargs="+", default=list(RANKINGS), choices=RANKINGS)
    parser.add_argument("--only", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--results", type=Path, default=Path("results"))
    return parser.parse_args(words)


def main() -> None:
    """Everything that is missing; the summary is of all rows there are."""
    args = arguments()
    for name in args.only:
        for seed in range(args.seeds):
            run(name, seed, args)
    if made := summarise(read(args.results / "label_next.csv")):
        write(args.results / "label_next_summary.csv", made)
    for r in made:
        shown = f"{r['delta']:+.4f} [{r['low']}, {r['high']}] {r['verdict']} ({r['seeds']} seeds)"
        print(f"{r['data']} {r['split']}, {r['labels']} labels  {r['choice']:16} {shown}")


if __name__ == "__main__":
    main()
