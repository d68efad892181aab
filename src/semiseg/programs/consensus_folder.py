"""`semiseg consensus`: a given committee labels a folder of images; no training, no data set."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from semiseg.batch import IGNORE
from semiseg.data import decode
from semiseg.data.classes import ClassMap
from semiseg.errors import DATA, Problem, Refusal
from semiseg.inconsistency import Consensus
from semiseg.predict import Progress, scan_images, write_failed
from semiseg.predict_out import Output, filling, mask_places, png, seen_from
from semiseg.programs.consensus import Rule, agreed, claims
from semiseg.programs.given import open_all
from semiseg.programs.outputs import write_ranking
from semiseg.programs.voices import Drawn, Predicts, Voice
from semiseg.task import Task, make_task


def consensus_folder(
    committee: Sequence[str],
    images: Path,
    out: Path,
    *,
    members: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Consensus labels, maps of inconsistency, consensus.csv and label_next.csv into `out`; broken images are listed.

    masks/ are in the coding of the committee's classes. An inconsistent pixel holds the coding's ignore value, or where it
    has none background (class 0, no label); inconsistency/ says which those are. The same call writes the same files,
    and what is there of other images stays; what another committee made is refused. Raises Refusal as `given.open_all`,
    `predict_out.filling` and `scan_images`.
    """
    found, notes = scan_images(images)
    voices = open_all(committee, None, images if images.is_dir() else images.parent, members)
    classes = voices[0].classes
    task = make_task(classes.kind, classes.names)
    masks = mask_places(classes)
    rows: list[dict[str, Any]] = []
    failed, lost = list(found.problems), set[str]()
    sizes: list[int] = []
    claimed = np.zeros(task.channels, np.int64)  # pixels that some member gave to the class
    if progress:
        progress(0, len(found.files))

    def places(name: str) -> list[str]:
        return [*masks(name), f"inconsistency/{name}.png"]

    read, key = [Path(v.title) for v in voices if isinstance(v, Drawn)], _key(voices, out)
    with filling(out, "consensus.csv", images, found.files, classes, places, read, key) as output:
        for number, (name, path) in enumerate(found.files.items(), 1):
            try:
                digest = hashlib.sha256(decode.load(path)).hexdigest()
                votes = _votes(voices, name, path)
                made = agreed(votes, task, Rule())
                claimed += claims(votes, made.agree, task)[0].numpy()
                contents, row, share = _files(made, classes, task)
                output.put(name, path, digest, key, dict(zip(places(name), contents, strict=True)), row)
                rows.append({"image": name, "path": str(path), "score": share})
                sizes.append(row["height"] * row["width"])
            except Refusal as refusal:
                if refusal.exit != DATA:  # a full disk, a damaged run: the next image would meet the same
                    raise
                failed += refusal.problems
                lost.add(name)
            if progress:
                progress(number, f"{len(failed)} failed" if failed else "")
        write_failed(out, failed)
        if rows:
            write_ranking(out / "label_next.csv", _all(output, rows, lost))
    disputed = sum(r["score"] * size for r, size in zip(rows, sizes, strict=True))
    return {
        "out": str(out), "committee": [v.title for v in voices], "kind": classes.kind, "classes": list(classes.names),
        "images": len(rows), "inconsistent_share": disputed / sum(sizes) if rows else None,
        "never_predicted": [n for n, c in zip(classes.names, claimed, strict=True) if not c] if rows else [],
        "inconsistent_everywhere": [r["image"] for r in rows if r["score"] == 1],
        "failed": [p.to_json() for p in failed], "notes": [p.to_json() for p in notes],
    }  # fmt: skip


def _key(voices: Sequence[Voice], out: Path) -> str:
    """One for the same members in any order: models by their weights, masks by where they are, seen from `out`."""
    own = [v.identity for v in voices if isinstance(v, Predicts)]
    own += [seen_from(out, v.masks.root) for v in voices if isinstance(v, Drawn)]
    return hashlib.sha256("\n".join(sorted(own)).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _all(output: Output, rows: list[dict[str, Any]], lost: set[str]) -> list[dict[str, Any]]:
    """`rows` and what the table knows of other images, from earlier calls; not of those that failed in this one."""
    rows = list(rows)
    known = {row["image"] for row in rows} | lost
    for name, row in output.rows.items():
        if name not in known and row.get("inconsistent_share"):
            path = os.path.normpath(output.out / row["source"])
            rows.append({"image": name, "path": path, "score": float(row["inconsistent_share"])})
    return rows


def _votes(voices: Sequence[Voice], name: str, path: Path) -> torch.Tensor:
    """(M,1,H,W) or (M,1,L,H,W) uint8. Refuses what any of them refuses, all of it."""
    image = decode.read_image(path)
    labels, problems = [], list[Problem]()
    for voice in voices:
        try:
            labels.append(torch.from_numpy(voice.label(name, path, image)))
        except Refusal as refusal:
            if refusal.exit != DATA:
                raise
            problems += refusal.problems
    if problems:
        raise Refusal(problems, DATA)
    return torch.stack(labels).unsqueeze(1)


def _files(made: Consensus, classes: ClassMap, task: Task) -> tuple[list[bytes], dict[str, Any], float]:
    """One image's masks and map as files; its row of consensus.csv; its inconsistent share."""
    label, doubt = made.label[0].numpy(), made.inconsistent[0, 0].numpy()
    contents = [*encode(label[0] if classes.kind == "binary" else label, classes), png(doubt.astype(np.uint8) * 255)]
    planes = label if task.multilabel else np.stack([label == k for k in range(task.channels)])
    shares = {f"share of {n}": f"{float((p == 1).mean()):.6f}" for n, p in zip(classes.names, planes, strict=True)}
    share = float(doubt.mean())
    row = {"height": doubt.shape[0], "width": doubt.shape[1], "inconsistent_share": f"{share:.6f}", **shares}
    return contents, row, share


def encode(label: np.ndarray, classes: ClassMap) -> list[bytes]:
    """Labels with 255 at inconsistent pixels in the coding of `classes`: one file, or one per label folder."""
    hidden = label == IGNORE
    files = []
    for k, coded in enumerate(classes.encode(np.where(hidden, 0, label)).values()):
        if classes.ignore:
            where = hidden[k] if classes.coding == "folders" and hidden.ndim == 3 else hidden
            where = np.moveaxis(where, 0, -1) if where.ndim == 3 else where
            where = where[..., None] if where.ndim == 2 and classes.coding == "channels" else where
            coded.array[where] = classes.ignore[0]
        files.append(coded.to_bytes())
    return files
