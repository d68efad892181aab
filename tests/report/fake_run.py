"""A finished run folder made of numpy: cell-like pictures, plausible curves, every file that the report reads."""

import csv
import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from semiseg.report.pictures import Sample, write_samples

NAMES = {
    "binary": ["cell"],
    "multiclass": ["background", "cytoplasm", "nucleus", "debris"],
    "multilabel": ["alive", "dead", "position"],
}


@dataclass(frozen=True)
class Fake:
    """What kind of run to make."""

    kind: str = "binary"
    names: list[str] = field(default_factory=list)
    program: str | None = "im"
    val: bool = True
    truth: bool = True
    samples: int = 4
    side: int = 128
    unlabeled: int = 60
    gain: float = 0.031
    promoted: bool = True
    image_name: str = "plate_03/well_B{:02d}"
    warnings: tuple[str, ...] = ("Val has 24 images, and 3 of them show no dead cell.",)

    @property
    def classes(self) -> list[str]:
        return self.names or NAMES[self.kind]


def fake_run(folder: Path, **choices) -> Path:
    """Write a run folder at `folder` and return it."""
    fake = replace(Fake(), **choices)
    folder.mkdir(parents=True)
    rng = np.random.default_rng(7)
    put(folder / "summary.json", summary(fake))
    config = {"data": "my_data", "method": "supervised", "program": fake.program or "", "steps": 2000,
              "optimizer": "adamw", "lr": 0.003}  # fmt: skip
    put(folder / "run.json", {
        "format": 1, "version": "0.1.0", "created": "2026-05-04T10:21:00+00:00", "command": summary(fake)["command"],
        "config": config, "data": {"path": "/somewhere/my_data", "channels": 1, "dtype": "uint8"},
        "machine": {"python": "3.11.9", "torch": "2.10.0", "processor": "x86_64", "threads": 8, "gpu": None},
    })  # fmt: skip
    for generation in summary(fake)["generations"]:
        for index, member in enumerate(generation["members"]):
            metrics(folder / member["folder"], fake, generation["generation"], index)
    names = [fake.image_name.format(i) for i in range(fake.samples)]
    if fake.program:
        queue(folder, fake, names)
    write_samples(folder, [sample(fake, i, n, rng) for i, n in enumerate(names)], fake.classes)
    return folder


def put(path: Path, value) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def scores(fake: Fake, miou: float) -> dict | None:
    if not fake.val:
        return None
    spread = np.linspace(0.06, -0.09, len(fake.classes)) if len(fake.classes) > 1 else [0.0]
    per = {
        n: {"iou": round(miou + s, 4), "dice": round(2 * (miou + s) / (1 + miou + s), 4)}
        for n, s in zip(fake.classes, spread, strict=True)
    }
    if len(fake.classes) > 3:
        per[fake.classes[-1]] = {"iou": None, "dice": None}
    return {"miou": miou, "dice": 2 * miou / (1 + miou), "iou_per_image": miou - 0.012, "per_class": per}


def member(fake: Fake, generation: int, index: int, miou: float) -> dict:
    return {"name": f"member-{index}", "folder": f"generation-{generation}/member-{index}", "val": scores(fake, miou),
            "seconds": 152.4, "steps": 2000, "images_forwarded": 64000}  # fmt: skip


def summary(fake: Fake) -> dict:
    base, last = 0.742, round(0.742 + fake.gain, 4)
    per = dict(zip(fake.classes, np.linspace(0.09, 0.01, len(fake.classes)).round(4).tolist(), strict=True))
    members = [member(fake, 0, 0, base), member(fake, 0, 1, 0.733)][: 2 if fake.program else 1]
    first = {"generation": 0, "members": members, "inconsistent_share": 0.074 if fake.program else None,
             "inconsistent_per_class": per if fake.program else None, "promoted": True,
             "why": "generation 0 is where everything starts"}  # fmt: skip
    if fake.program:
        rates = {"inconsistent_share": 0.081, "precision": 0.42, "recall": 0.37, "agreed_wrong": None}
        first |= {"quality": {"val": rates}, "kept_per_class": per, "labeled_per_class": {fake.classes[0]: 0.8}}
    arms = [{"name": "labels only", "folder": "generation-0/member-0", "val": scores(fake, base)}]
    generations = [first]
    if fake.program:
        arms.append({"name": "average of 2 at prediction", "folder": "", "val": scores(fake, 0.759)})
        for g, miou in ((1, round((base + last) / 2 + 0.004, 4)), (2, last)):
            arms.append(
                {"name": f"im, generation {g}", "folder": f"generation-{g}/member-0", "val": scores(fake, miou)}
            )
            members = [member(fake, g, 0, miou), member(fake, g, 1, miou - 0.006)]
            why = "better on val than generation 0" if fake.promoted else "worse on val than generation 0"
            asked = g == 1  # nobody learns from the last ones
            generations.append({"generation": g, "members": members, "inconsistent_share": 0.056 if asked else None,
                                "inconsistent_per_class": per if asked else None, "promoted": fake.promoted,
                                "why": why})  # fmt: skip
    model = arms[-1]["folder"] if fake.promoted else arms[0]["folder"]
    return {
        "name": "supervised+im" if fake.program else "supervised", "method": "supervised", "program": fake.program,
        "kind": fake.kind, "classes": fake.classes, "network": "unet1x1", "parameters": 171561,
        "counts": {"labeled": 40, "unlabeled": 1160, "val": 24 if fake.val else 0, "test": 120},
        "scored": {"on": "val", "images": 24 if fake.val else 0},
        "val_source": "given" if fake.val else "none", "steps": 2000, "size": 128, "batch": 16, "seed": 0,
        "command": "semiseg train my_data --method im --steps 2000", "arms": arms, "generations": generations,
        "model": {"folder": model, "generation": 2 if fake.program else 0, "why": "best on val"},
        "committee": ["generation-0/member-0", "generation-0/member-1"], "warnings": list(fake.warnings),
        "seconds": {"cache": 3.1, "train": 912.0, "consensus": 41.5, "total": 957.8},
        "images_forwarded": 387200, "models_trained": 17, "peak_memory_mb": 812,
    }  # fmt: skip


def metrics(folder: Path, fake: Fake, generation: int, index: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([generation, index])
    with (folder / "metrics.csv").open("w", newline="") as handle:
        table = csv.DictWriter(handle, ["step", "split", "loss", "lr", "miou", "dice"])
        table.writeheader()
        for step in range(10, 2001, 10):
            loss = 0.12 + 0.6 * np.exp(-step / (350 - 60 * generation)) + rng.normal(0, 0.02)
            table.writerow({"step": step, "split": "train", "loss": round(float(loss), 5), "lr": 0.003})
            if fake.val and step % 200 == 0:
                top = 0.735 + 0.5 * fake.gain * generation - 0.008 * index
                miou = top * (1 - np.exp(-step / 260)) + rng.normal(0, 0.004)
                table.writerow({"step": step, "split": "val", "miou": round(float(miou), 5), "dice": 0.8})


def queue(folder: Path, fake: Fake, names: list[str]) -> None:
    rng = np.random.default_rng(3)
    shares = np.sort(rng.beta(1.6, 18, fake.unlabeled))[::-1]
    listed = names[1:3] + [f"plate_07/well_C{i:03d}" for i in range(fake.unlabeled)]
    with (folder / "label_next.csv").open("w", newline="", encoding="utf-8") as handle:
        table = csv.writer(handle)
        table.writerow(["rank", "image", "path", "score", "inconsistent_share"])
        for rank, (image, share) in enumerate(zip(listed, shares, strict=False), start=1):
            table.writerow([rank, image, f"unlabeled/{image}.png", round(float(share), 5), round(float(share), 5)])


def cells(rng: np.random.Generator, side: int, number: int = 9) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A grey image in [0,1] (H,W), the id of the cell at every pixel (H,W) and the nuclei (H,W) bool."""
    rows, columns = np.mgrid[:side, :side] / side
    image = 0.16 + 0.08 * columns + 0.05 * np.sin(5 * rows)
    owner, nuclei = np.zeros((side, side), int), np.zeros((side, side), bool)
    for index in range(1, number + 1):
        y, x = rng.uniform(0.08, 0.92, 2)
        a, b, turn = rng.uniform(0.06, 0.12), rng.uniform(0.05, 0.09), rng.uniform(0, np.pi)
        u = (columns - x) * np.cos(turn) + (rows - y) * np.sin(turn)
        v = (rows - y) * np.cos(turn) - (columns - x) * np.sin(turn)
        wobble = 1 + 0.18 * np.sin(3 * np.arctan2(v, u) + index)
        distance = np.hypot(u / a, v / b) / wobble
        inside = distance < 1
        image = np.where(inside, 0.42 + 0.3 * (1 - distance) + 0.06 * np.sin(60 * u), image)
        nucleus = np.hypot(u / a, v / b) < 0.4
        image = np.where(nucleus, image + 0.18, image)
        owner[inside] = index
        nuclei |= nucleus
    return (image + rng.normal(0, 0.025, image.shape)).clip(0, 1), owner, nuclei


def sample(fake: Fake, index: int, name: str, rng: np.random.Generator) -> Sample:
    image, owner, nuclei = cells(rng, fake.side)
    truth = label_of(fake, owner, nuclei)
    model, baseline = shift(truth, 1, 0), shift(truth, -2, 3)
    doubt = (model != baseline).any(axis=0) if model.ndim == 3 else model != baseline
    has_truth = fake.truth and index % 2 == 0
    picture = (image * 255).astype(np.uint8)[..., None]
    if fake.kind == "multiclass":
        picture = np.concatenate([picture, (picture * 0.72).astype(np.uint8), (255 - picture) // 2 + 60], axis=2)
    return Sample(name, "val" if has_truth else "unlabeled", picture, truth if has_truth else None, baseline, model,
                  doubt if fake.program else None, float(doubt.mean()) if fake.program else None)  # fmt: skip


def shift(label: np.ndarray, down: int, right: int) -> np.ndarray:
    return np.roll(label, (down, right), axis=(-2, -1))


def label_of(fake: Fake, owner: np.ndarray, nuclei: np.ndarray) -> np.ndarray:
    if fake.kind == "binary":
        return (owner > 0).astype(np.uint8)
    if fake.kind == "multilabel":
        planes = [(owner % 3 > 0), (owner > 0) & (owner % 3 == 0), nuclei, owner == 1]
        return np.stack(planes[: len(fake.classes)]).astype(np.uint8)
    if len(fake.classes) < 4:
        return (owner > 0).astype(np.uint8)
    ids = 1 + owner % (len(fake.classes) - 1) if len(fake.classes) > 4 else np.where(owner == 4, 3, 1)
    label = np.where(owner > 0, ids, 0)
    label[nuclei & (owner != 4)] = 2
    return label.astype(np.uint8)
