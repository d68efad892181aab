"""`semiseg consensus`: a given committee labels a folder of images; no training, no data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from semiseg import storage
from semiseg.batch import IGNORE
from semiseg.data import decode
from semiseg.data.classes import ClassMap
from semiseg.errors import Problem, Refusal
from semiseg.predict import apart, png, scan_images, write_rows
from semiseg.programs.consensus import Rule, agreed
from semiseg.programs.given import Voice, open_all
from semiseg.programs.outputs import write_ranking
from semiseg.task import Task, make_task


def consensus_folder(
    committee: Sequence[str],
    images: Path,
    out: Path,
    *,
    members: bool = False,
    progress: Callable[[int, str], None] | None = None,
) -> dict[str, Any]:
    """Consensus labels, maps of inconsistency, consensus.csv and label_next.csv into `out`; broken images are listed.

    masks/ are in the coding of the committee's classes. An inconsistent pixel holds the coding's ignore value, or where it
    has none background (class 0, no label); inconsistency/ says which those are. The same call writes the same files.
    Raises Refusal as `given.open_all`, C10 for an `out` among the images, D03 and D04 for a folder without images.
    """
    found = scan_images(images)
    apart(images, out)
    voices = open_all(committee, None, images, members)
    classes = voices[0].classes
    task = make_task(classes.kind, classes.names)
    rows: list[dict[str, Any]] = []
    failed = list(found.problems)
    claimed = np.zeros(task.channels, np.int64)  # pixels that some member gave to the class
    for number, (name, path) in enumerate(found.files.items(), 1):
        try:
            votes = _votes(voices, name, path)
            claimed += _claims(votes, task)
            rows.append(_write(out, name, path, votes, classes, task))
        except Refusal as refusal:
            failed += refusal.problems
        if progress:
            progress(number, f"{len(failed)} failed" if failed else "")
    write_rows(out / "consensus.csv", [{k: v for k, v in r.items() if k not in ("path", "score")} for r in rows])
    write_rows(out / "failed.csv", [{"file": p.where, "code": p.code, "reason": p.found} for p in failed])
    if rows:
        write_ranking(out / "label_next.csv", rows)
    return {
        "out": str(out), "committee": [v.title for v in voices], "kind": classes.kind, "classes": list(classes.names),
        "images": len(rows), "inconsistent_share": sum(r["score"] for r in rows) / len(rows) if rows else None,
        "never_predicted": [n for n, c in zip(classes.names, claimed, strict=True) if not c] if rows else [],
        "inconsistent_everywhere": [r["image"] for r in rows if r["score"] == 1],
        "failed": [p.to_json() for p in failed],
    }  # fmt: skip


def _votes(voices: Sequence[Voice], name: str, path: Path) -> torch.Tensor:
    """(M,1,H,W) or (M,1,L,H,W) uint8. Refuses what any of them refuses, all of it."""
    image = decode.read_image(path)
    labels, problems = [], list[Problem]()
    for voice in voices:
        try:
            labels.append(torch.from_numpy(voice.label(name, path, image)))
        except Refusal as refusal:
            problems += refusal.problems
    if problems:
        raise Refusal(problems)
    return torch.stack(labels).unsqueeze(1)


def _claims(votes: torch.Tensor, task: Task) -> np.ndarray:
    if task.multilabel:
        return (votes == 1).any(0).sum((0, 2, 3)).numpy()
    some = [(votes == k).any(0).sum() for k in range(task.channels)]
    return torch.stack(some).numpy()


def _write(out: Path, name: str, path: Path, votes: torch.Tensor, classes: ClassMap, task: Task) -> dict[str, Any]:
    """One image's mask and map; its row of consensus.csv."""
    made = agreed(votes, task, Rule())
    label, doubt = made.label[0].numpy(), made.inconsistent[0, 0].numpy()
    files = encode(label[0] if classes.kind == "binary" else label, classes)
    for file, data in files.items():
        target = out / "masks" / file.format(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        storage.write_bytes(target, data)
    png(out / "inconsistency" / f"{name}.png", doubt.astype(np.uint8) * 255)
    planes = label if task.multilabel else np.stack([label == k for k in range(task.channels)])
    shares = {f"share of {n}": f"{float((p == 1).mean()):.6f}" for n, p in zip(classes.names, planes, strict=True)}
    share = float(doubt.mean())
    return {
        "image": name, "mask": f"masks/{next(iter(files)).format(name)}", "height": doubt.shape[0],
        "width": doubt.shape[1], "inconsistent_share": f"{share:.6f}", **shares, "path": str(path), "score": share,
    }  # fmt: skip


def encode(label: np.ndarray, classes: ClassMap) -> dict[str, bytes]:
    """Labels with 255 at inconsistent pixels in the coding of `classes`: {"FOLDER/{}.png": file}."""
    hidden = label == IGNORE
    files = {}
    for k, (folder, coded) in enumerate(classes.encode(np.where(hidden, 0, label)).items()):
        if classes.ignore:
            where = hidden[k] if classes.coding == "folders" and hidden.ndim == 3 else hidden
            where = np.moveaxis(where, 0, -1) if where.ndim == 3 else where
            where = where[..., None] if where.ndim == 2 and classes.coding == "channels" else where
            coded.array[where] = classes.ignore[0]
            if coded.palette is not None:  # a file with fewer colours has too few bits for the value
                coded = replace(coded, palette=(*coded.palette, *[(255, 255, 255)] * (256 - len(coded.palette))))
        prefix = f"{folder.replace('{', '{{').replace('}', '}}')}/" if folder else ""
        files[f"{prefix}{{}}{coded.suffix}"] = coded.to_bytes()
    return files
