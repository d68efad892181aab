"""Supervised, ensemble and im on four real data sets, small: the rows of results/first_path.csv.

python benchmarks/first_path.py DATA_ROOT [--runs runs/first_path] [--only isic2018] [--seed 0] [--steps 600]

Each cell is one `semiseg train` and one `semiseg evaluate --split test` after it; nothing is chosen on test. Cells that
have a row already are left alone, an interrupted cell is resumed.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from shared import commit, read, write

SETS = {
    "isic2018": ["--labels", "40", "--resize", "96", "--size", "96"],
    "camvid": ["--resize", "120", "--size", "96"],
    "vnc_em": ["--size", "96"],
    "covid_ct": ["--resize", "128", "--size", "96"],
}
METHODS = ("ensemble", "im", "supervised")  # the later ones take over the first one's members of generation 0
TABLE = Path("results/first_path.csv")
PAGE = Path("docs/explanation/first-results.md")


def semiseg(*words: str) -> dict[str, Any]:
    """Run a command with --json; its object, or an exit that says why."""
    done = subprocess.run(
        [sys.executable, "-m", "semiseg.cli", *words, "--json"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{shlex.join(words)} failed with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return json.loads(done.stdout)


def cell(root: Path, runs: Path, name: str, method: str, seed: int, steps: int) -> dict[str, Any]:
    """Train, evaluate, describe."""
    out = runs / f"{name}-{method}-{seed}"
    words = ["train", str(root / name), "--out", str(out), "--method", method, *SETS[name], "--steps", str(steps),
             "--batch", "16", "--seed", str(seed)]  # fmt: skip
    if method != "supervised":
        words += ["--set", "baseline=no"]  # the row is of the method's own model, whatever labels only would be
    if method != METHODS[0]:
        words += ["--set", f"reuse={runs / f'{name}-{METHODS[0]}-{seed}'}"]
    start = time.monotonic()
    run = semiseg(*words, "--resume", "auto")
    wall = time.monotonic() - start
    test = semiseg("evaluate", str(out), str(root / name), "--split", "test")
    ensemble = None
    if method != "supervised":
        ensemble = semiseg("evaluate", str(out), str(root / name), "--split", "test", "--ensemble")["metrics"]
    shown = ["train", f"DATA/{name}", "--out", f"RUNS/{out.name}", *(w.replace(str(runs), "RUNS") for w in words[4:])]
    val, m = run["model"]["val"], test["metrics"]
    shares = [g["inconsistent_share"] for g in run["generations"] if g["inconsistent_share"] is not None]
    return {
        "data": name, "method": method, "seed": seed, "labels": run["counts"]["labeled"],
        "unlabeled": run["counts"]["unlabeled"], "val_images": run["counts"]["val"], "test_images": test["images"],
        "val_miou": _round(val["miou"]), "test_miou": _round(m["miou"]), "test_dice": _round(m["dice"]),
        "test_iou_per_image": _round(m["iou_per_image"]),
        "test_miou_committee": _round(ensemble["miou"]) if ensemble else "",
        "model": run["model"]["folder"], "why": run["model"]["why"],
        "inconsistent_share": _round(shares[-1]) if shares else "", "steps": steps,
        "images_forwarded": run["images_forwarded"], "train_seconds": run["seconds"]["training_all_tries"],
        "wall_seconds": round(wall), "peak_memory_mb": run["peak_memory_mb"], "commit": commit(),
        "command": "semiseg " + shlex.join(shown),
    }  # fmt: skip


def _round(value: float | None) -> float | str:
    return "" if value is None else round(value, 4)


def write_table() -> None:
    """Put the rows of the CSV between the markers of docs/explanation/first-results.md."""
    rows = read(TABLE)
    lines = ["| data | labels / unlabeled | supervised | average of 3 | ensemble | im | inconsistent |"]
    lines.append("|---" * 7 + "|")
    for name in dict.fromkeys(r["data"] for r in rows):
        by = {r["method"]: r for r in rows if r["data"] == name}
        if len(by) == len(METHODS):
            cells = [by["supervised"]["test_miou"], by["ensemble"]["test_miou_committee"], by["ensemble"]["test_miou"],
                     by["im"]["test_miou"]]  # fmt: skip
            scores = " | ".join(f"{float(c):.3f}" for c in cells)
            share = f"{float(by['im']['inconsistent_share']):.1%}"
            lines.append(f"| {name} | {by['im']['labels']} / {by['im']['unlabeled']} | {scores} | {share} |")
    head, _, rest = PAGE.read_text().partition("<!-- table: results/first_path.csv -->")
    tail = rest.partition("<!-- end -->")[2]
    body = "\n".join(["<!-- table: results/first_path.csv -->", "", *lines, "", "<!-- end -->"])
    PAGE.write_text(head + body + tail)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs/first_path"))
    parser.add_argument("--only", nargs="*", default=list(SETS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=600)
    args = parser.parse_args()
    done = {(r["data"], r["method"], int(r["seed"]), int(r["steps"])) for r in read(TABLE)}
    for name in args.only:
        for method in METHODS:
            if (name, method, args.seed, args.steps) in done:
                continue
            row = cell(args.root, args.runs, name, method, args.seed, args.steps)
            write(TABLE, [*read(TABLE), row])
            write_table()
            print(f"{name} {method}: test mIoU {row['test_miou']} in {row['wall_seconds']} s", flush=True)


if __name__ == "__main__":
    main()
