"""A committee that is given: runs, members of runs, exported models, folders of masks made by anything else.

The inconsistency mask asks for nothing but discrete labels, so whoever can label an image may be a member.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from semiseg.data import decode
from semiseg.data.classes import ClassMap
from semiseg.data.classfile import FILE, read_spec
from semiseg.data.decode import shown
from semiseg.data.folder import read_label
from semiseg.data.index import Item
from semiseg.data.look import Seen, mask_facts
from semiseg.data.propose import class_map
from semiseg.data.walk import Masks, Scan, scan_masks
from semiseg.errors import CHECKPOINT, DATA, USAGE, Problem, Refusal
from semiseg.model import Model
from semiseg.programs.consensus import Rule, Stored, consensus_by
from semiseg.programs.exported import Exported
from semiseg.programs.session import Session


class Voice:
    """A member of a given committee. title: as it was typed. classes: whose labels it gives."""

    title: str
    classes: ClassMap

    def label(self, name: str, path: Path, image: np.ndarray) -> np.ndarray:
        """uint8 labels (H,W) of classes, or (L,H,W) of labels that may overlap, 255 = no opinion. image (H,W,C)."""
        raise TypeError(f"{type(self).__name__} must write label(name, path, image)")

    def lacks(self, images: Mapping[str, Path]) -> list[Problem]:
        """What keeps it from labeling these images, as far as it can be told beforehand."""
        return []


class Predicts(Voice):
    """A network of a run, or an exported one."""

    def __init__(self, title: str, model: Model, folder: str) -> None:
        self.title, self.classes, self.model, self.folder = title, model.classes, model, folder

    def label(self, name: str, path: Path, image: np.ndarray) -> np.ndarray:
        """Predicts; refuses (exit 3) other channels and types than it was trained on."""
        (_, prob), *_ = self.model.opinions(image, [self.folder], shown(path))
        return self.model.task.label(prob)[0].to(torch.uint8).cpu().numpy()


class Drawn(Voice):
    """A folder of masks, one per image of the same name; its own coding is that of `classes`."""

    def __init__(self, folder: Path, classes: ClassMap) -> None:
        self.title, self.classes = str(folder), classes
        self.masks = _masks(folder, classes.names if classes.coding == "folders" else None)

    def label(self, name: str, path: Path, image: np.ndarray) -> np.ndarray:
        """Reads; refuses (exit 3) a missing file, another size, and values that are no class."""
        return self._read(name, path, (image.shape[0], image.shape[1]))

    def lacks(self, images: Mapping[str, Path]) -> list[Problem]:
        """Everything that `label` would refuse, at once."""
        problems = list(self.masks.problems)
        for name, path in images.items():
            try:
                self._read(name, path, decode.probe(path)[:2])
            except Refusal as refusal:
                problems += refusal.problems
        return problems

    def _read(self, name: str, path: Path, size: tuple[int, int]) -> np.ndarray:
        files = self._files(name)
        if not files:
            raise Refusal(self._missing(name, path), DATA)
        label = read_label(Item(name, path, files), self.classes)
        if label.shape[-2:] != size:
            raise Refusal(_size(files[0], label.shape[-2:], path, size), DATA)
        return label[None] if self.classes.kind == "binary" else label

    def _files(self, name: str) -> tuple[Path, ...]:
        """By the image's name; in a run the images of unlabeled/ are called unlabeled/NAME."""
        return self.masks.files.get(name) or self.masks.files.get(name.removeprefix("unlabeled/"), ())

    def _missing(self, name: str, path: Path) -> Problem:
        fix = "add it, or take the image out: an image needs the opinion of every member"
        return Problem("P04", self.title, f"holds no mask {name.removeprefix('unlabeled/')} for {shown(path)}", fix)


def _size(mask: Path, got: Sequence[int], image: Path, want: Sequence[int]) -> Problem:
    found = f"is {got[1]}x{got[0]} but {shown(image)} is {want[1]}x{want[0]}"
    return Problem("P05", shown(mask), found, f"export the mask again at {want[1]}x{want[0]}")


def open_all(paths: Sequence[str], known: ClassMap | None, beside: Path, members: bool = False) -> list[Voice]:
    """The committee behind what was typed: RUN, RUN/generation-G/member-I, MODEL.onnx or a folder of masks.

    known: the classes that all must speak of; None takes those of the first model, or else finds out from the masks (and
    `beside`/classes.yaml). members: every run speaks with its whole committee, as one that is given alone always does.
    Raises Refusal: C02 fewer than two members, P03 other classes (exit 2), S06 and S07 no finished run (exit 4), D03.
    """
    voices = named(paths, members)
    classes = known or next((v.classes for v in voices if isinstance(v, Voice)), None)
    classes = classes or _classes([v for v in voices if isinstance(v, Path)], beside)
    opened = [v if isinstance(v, Voice) else Drawn(v, classes) for v in voices]
    others = [v for v in opened if (v.classes.kind, v.classes.names) != (classes.kind, classes.names)]
    if others:
        want = _spoken(classes)
        fix = "give members that were trained on the same classes"
        raise Refusal([Problem("P03", v.title, f"speaks of {_spoken(v.classes)}", fix, want) for v in others], USAGE)
    return opened


def named(paths: Sequence[str], members: bool = False) -> list[Voice | Path]:
    """What was typed, as far as it can be told without the classes: voices, and folders of masks. Refuses as `open_all`."""
    voices: list[Voice | Path] = []
    for text in paths:
        voices += list(_open(text, members or len(paths) == 1))
    if len(voices) < 2:
        found = f"has one member, {paths[0]}" if voices else "has no member"
        fix = "name two or more, or one run that has a committee"
        raise Refusal(Problem("C02", "the committee", found, fix, "at least 2: one model cannot disagree"), USAGE)
    return voices


def _spoken(classes: ClassMap) -> str:
    return f"{classes.kind}: {', '.join(classes.names)}"


def _open(text: str, members: bool) -> Iterator[Voice | Path]:
    """Voices, or the folder of masks, whose classes are known later."""
    path = Path(text)
    if path.suffix == ".onnx":
        yield Predicts(text, Exported(path), "")
    elif (path / "run.json").exists():
        model = Model(path)
        for folder in model.folders["committee"] if members else [model.folders["model"]]:
            yield Predicts(f"{text}/{folder}" if members else text, model, folder)
    elif (path / "final" / "result.json").exists():  # a member, or a snapshot of one
        run = next((p for p in path.parents if (p / "run.json").exists()), None)
        if run is None:
            raise Refusal(Problem("S06", text, "lies in no run: there is no run.json above it"), CHECKPOINT)
        yield Predicts(text, Model(run), path.relative_to(run).as_posix())
    elif path.is_dir():
        yield path
    else:
        fix = "give a run, a member's folder in a run, an .onnx file or a folder of masks"
        raise Refusal(
            Problem("D03", text, "is a file of another kind" if path.exists() else "does not exist", fix), DATA
        )


def _masks(folder: Path, labels: tuple[str, ...] | None) -> Masks:
    """Masks below a folder, or below its masks/, where `semiseg predict` writes them."""
    inside = folder / "masks" if (folder / "masks").is_dir() else folder
    found = scan_masks(inside, Scan(), labels)
    if not found.files:
        fix = "give a folder with one mask per image, of the image's name"
        raise Refusal(found.problems or Problem("D04", str(folder), "holds no masks", fix), DATA)
    return found


def _classes(folders: Sequence[Path], beside: Path) -> ClassMap:
    """What the masks of all folders together say about their coding, as `semiseg check` would find it."""
    spec, problems = read_spec(beside / FILE)
    seen: list[Seen] = []
    labels: tuple[str, ...] = ()
    for folder in folders:
        found = _masks(folder, None)
        labels = found.labels or labels
        for name, files in found.files.items():
            one = Seen(Item(name, files[0], files), "labeled")
            one.masks = [
                mask_facts(decode.mask_from_bytes(decode.load(p), p), p, bool(spec and spec.colors)) for p in files
            ]
            seen.append(one)
    classes, more = class_map(seen, spec, labels, beside / FILE)
    if classes is None or problems:
        raise Refusal(problems + more, DATA)
    return classes


def ready(session: Session, rule: Rule) -> list[Voice]:
    """The committee of --committee, and that it can label every unlabeled image; refuses all that is wrong at once."""
    data = session.data
    if rule.vote == "mean":
        found = "gives labels, and this program averages probabilities"
        raise Refusal(Problem("C11", "--committee", found, "use --method im, which needs labels only"), USAGE)
    voices = open_all(split(data.config.committee), data.classes, Path(data.config.data))
    if rule.agreement and rule.agreement > len(voices):
        found = f"is {rule.agreement}, and the given committee has {len(voices)} members"
        raise Refusal(Problem("C02", "agreement", found, expected=f"0, or 2 to {len(voices)}"), USAGE)
    problems = [p for v in voices for p in v.lacks(_images(session))]
    if problems:
        raise Refusal(problems, DATA)
    return voices


def split(text: str) -> list[str]:
    """`--committee A,B,C` as its members; one path may hold a comma itself."""
    return [text] if Path(text).exists() else [part.strip() for part in text.split(",") if part.strip()]


def _images(session: Session) -> dict[str, Path]:
    paths = {item.name: item.image for item in session.data.checked.index.unlabeled}
    return {name: paths[name] for name in session.data.unlabeled.names}


def given_consensus(session: Session, folder: str, rule: Rule) -> Stored:
    """The given committee about every unlabeled image (or the answer that is stored in `folder` of the run)."""
    store, paths = session.data.unlabeled, _images(session)
    voices: list[Voice] = []

    def ask(chosen: list[int]) -> tuple[Tensor, None]:
        if not voices:
            voices.extend(ready(session, rule))
        votes: list[list[Tensor]] = [[] for _ in voices]
        for i in chosen:
            name = store.names[i]
            image = decode.read_image(paths[name])
            for said, voice in zip(votes, voices, strict=True):
                said.append(fit(voice.label(name, paths[name], image), int(store.height[i]), int(store.width[i])))
        return torch.stack([torch.stack(said) for said in votes]).to(store.pixels.device), None

    count = len(split(session.data.config.committee))
    return consensus_by(session, ask, count, folder, rule)


def fit(label: np.ndarray, height: int, width: int) -> Tensor:
    """Labels (…,H,W) uint8 at another size, by the nearest pixel: that of the training, where images are shrunk."""
    x = torch.from_numpy(label)
    if x.shape[-2:] == (height, width):
        return x
    flat = x.reshape(1, -1, *x.shape[-2:]).float()
    return (
        F.interpolate(flat, (height, width), mode="nearest-exact").to(torch.uint8).reshape(*x.shape[:-2], height, width)
    )
