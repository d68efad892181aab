"""A committee that is given: runs, members of runs, exported models, folders of masks made by anything else.

The inconsistency mask asks for nothing but discrete labels, so whoever can label an image may be a member.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from semiseg.data import decode
from semiseg.data.classes import ClassMap
from semiseg.data.classfile import FILE, Spec, read_spec
from semiseg.data.decode import shown
from semiseg.data.folder import images_of
from semiseg.data.index import Item
from semiseg.data.look import Seen, mask_facts
from semiseg.data.propose import class_map
from semiseg.data.walk import scan
from semiseg.errors import CHECKPOINT, DATA, USAGE, Problem, Refusal
from semiseg.model import Model
from semiseg.programs.consensus import Rule, Said, Stored, consensus_by
from semiseg.programs.exported import Exported
from semiseg.programs.session import Session
from semiseg.programs.voices import Drawn, Predicts, Voice, class_files, home, inside, masks_of, same_labels


def open_all(paths: Sequence[str], known: ClassMap | None, beside: Path, members: bool = False) -> list[Voice]:
    """The committee behind what was typed: RUN, RUN/generation-G/member-I, MODEL.onnx or a folder of masks.

    known: the classes that all must speak of, of the data in `beside`; None takes those of the first model, or else finds
    out from the masks (and a class file by `beside`, in its data folder, or by the masks). members: every run speaks with
    its whole committee, as one that is given alone always does.
    Raises Refusal: C02 fewer than two members or one twice, P03 other classes, label folders or class files (exit 2), D03,
    D04, D10 (exit 3), S06 and S07 no finished run (exit 4).
    """
    voices = named(paths, members)
    first = next((v for v in voices if isinstance(v, Voice)), None)
    classes = known or (first.classes if first else _classes([v for v in voices if isinstance(v, Path)], beside))
    whose = str(beside) if known else first.title if first else "all masks together"
    opened = [v if isinstance(v, Voice) else Drawn(v, classes, whose) for v in voices]
    others = [v for v in opened if (v.classes.kind, v.classes.names) != (classes.kind, classes.names)]
    if others:
        want = _spoken(classes)
        fix = "give members that were trained on the same classes"
        raise Refusal([Problem("P03", v.title, f"speaks of {_spoken(v.classes)}", fix, want) for v in others], USAGE)
    if problems := [p for v in opened if isinstance(v, Drawn) for p in v.coded_otherwise(beside)]:
        raise Refusal(problems, USAGE if any(p.code == "P03" for p in problems) else DATA)
    return opened


def named(paths: Sequence[str], members: bool = False) -> list[Voice | Path]:
    """What was typed, as far as it can be told without the classes: voices, and folders of masks. Refuses as `open_all`."""
    voices: list[Voice | Path] = []
    wrong: list[Refusal] = []
    for text in paths:
        try:
            voices += list(_open(text, members or len(paths) == 1))
        except Refusal as refusal:
            wrong.append(refusal)
    if wrong:
        raise Refusal([p for refusal in wrong for p in refusal.problems], wrong[0].exit)
    if len(voices) < 2:
        found = f"has one member, {paths[0]}" if voices else "has no member"
        fix = "name two or more, or one run that has a committee"
        raise Refusal(Problem("C02", "the committee", found, fix, "at least 2: one model cannot disagree"), USAGE)
    if problems := _twice(voices):
        raise Refusal(problems, USAGE)
    return voices


def _twice(voices: Sequence[Voice | Path]) -> list[Problem]:
    """C02 for members that are one: the same weights, exported file, or folder."""
    first, problems = dict[str, str](), list[Problem]()
    for voice in voices:
        title = str(voice) if isinstance(voice, Path) else voice.title
        key = voice.identity if isinstance(voice, Predicts) else str(inside(Path(title)).resolve())
        if key in first:
            found = f"is {first[key]} once more" if title != first[key] else "is named twice"
            problems.append(Problem("C02", title, found, "name every member once", "models that can disagree"))
        first.setdefault(key, title)
    return problems


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


def _classes(folders: Sequence[Path], beside: Path) -> ClassMap:
    """What the masks of all folders together say about their coding, as `semiseg check` would find it."""
    file = next((f for f in class_files(beside, *sorted(folders)) if f.is_file()), home(beside) / FILE)
    spec, problems = read_spec(file)
    if spec and file not in class_files(beside):
        _one_meaning(file, spec, folders)
    seen: list[Seen] = []
    images = scan(images_of(beside))  # masks in subfolders as the images are in no label folders
    found = {folder: masks_of(folder, None, images) for folder in sorted(folders)}
    labels = next(iter(found.values())).labels
    same_labels({folder: masks.labels for folder, masks in found.items()}, labels)
    for masks in found.values():
        for name, files in masks.files.items():
            one = Seen(Item(name, files[0], files), "labeled")
            one.masks = [
                mask_facts(decode.mask_from_bytes(decode.load(p), p), p, bool(spec and spec.colors)) for p in files
            ]
            seen.append(one)
    classes, more = class_map(seen, spec, labels, file)
    if classes is None or problems:
        raise Refusal(problems + more, DATA)
    return classes


def _one_meaning(file: Path, spec: Spec, folders: Sequence[Path]) -> None:
    """Refuses (P03) folders of masks whose class files speak of more or fewer classes; a lone one has a background."""
    wrong = []
    for other in dict.fromkeys(f for folder in folders for f in (folder / FILE, inside(folder) / FILE)):
        theirs, _ = read_spec(other)
        if theirs and max(2, len(theirs.names)) != max(2, len(spec.names)):
            found = f"speaks of {', '.join(theirs.names)}, and {shown(file)} of {', '.join(spec.names)}"
            fix = "write the masks of all members in one coding, with the same names"
            wrong.append(Problem("P03", shown(other), found, fix))
    if wrong:
        raise Refusal(wrong, USAGE)


def ready(session: Session, rule: Rule) -> list[Voice]:
    """The committee of --committee, and that it can label every unlabeled image; refuses all that is wrong at once."""
    data = session.data
    voices = open_all(split(data.config.committee), data.classes, Path(data.config.data))
    suits(rule, len(voices))
    images = {name: (path, data.checked.images[name]) for name, path in _images(session).items()}
    problems = list(dict.fromkeys(p for v in voices for p in v.lacks(images)))
    if problems:
        raise Refusal(problems, DATA)
    return voices


def suits(rule: Rule, members: int) -> None:
    """Refuses (exit 2) a rule that a given committee of so many members cannot follow."""
    if rule.vote != "consensus":
        found = "gives labels, and this program averages probabilities or trusts every pixel"
        raise Refusal(Problem("C11", "--committee", found, "use --method im, which needs labels only"), USAGE)
    if rule.agreement and rule.agreement > members:
        found = f"is {rule.agreement}, and the given committee has {members} members"
        raise Refusal(Problem("C02", "agreement", found, expected=f"0, or 2 to {members}"), USAGE)


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

    def ask(chosen: list[int]) -> Said:
        if not voices:
            voices.extend(ready(session, rule))
        votes: list[list[Tensor]] = [[] for _ in voices]
        for i in chosen:
            name = store.names[i]
            image = decode.read_image(paths[name])
            for said, voice in zip(votes, voices, strict=True):
                said.append(fit(voice.label(name, paths[name], image), int(store.height[i]), int(store.width[i])))
        labels = torch.stack([torch.stack(said) for said in votes]).to(store.pixels.device)
        return Said(labels, drawn=sum(isinstance(v, Drawn) for v in voices))

    return consensus_by(session, ask, folder, rule)


def fit(label: np.ndarray, height: int, width: int) -> Tensor:
    """Labels (…,H,W) uint8 at another size, by the nearest pixel: that of the training, where images are shrunk."""
    x = torch.from_numpy(label)
    if x.shape[-2:] == (height, width):
        return x
    flat = x.reshape(1, -1, *x.shape[-2:]).float()
    return (
        F.interpolate(flat, (height, width), mode="nearest-exact").to(torch.uint8).reshape(*x.shape[:-2], height, width)
    )
