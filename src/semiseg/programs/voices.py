"""Who may label an image in a given committee: a network of a run, an exported one, a folder of masks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from semiseg import storage
from semiseg.data import decode
from semiseg.data.classes import IGNORE, ClassMap
from semiseg.data.classfile import FILE, read_spec, say_ignored
from semiseg.data.decode import shown
from semiseg.data.folder import is_data, read_label
from semiseg.data.index import Item
from semiseg.data.meaning import contradicted
from semiseg.data.splits import incomplete
from semiseg.data.walk import Masks, Scan, nfc, scan_masks
from semiseg.errors import DATA, USAGE, Problem, Refusal
from semiseg.model import Model
from semiseg.programs.exported import Exported

Images = Mapping[str, tuple[Path, tuple[int, int, int, str]]]
"""Name -> file, and its (height, width, channels, type)."""


class Voice:
    """A member of a given committee. title: as it was typed. classes: whose labels it gives."""

    title: str
    classes: ClassMap

    def label(self, name: str, path: Path, image: np.ndarray) -> np.ndarray:
        """uint8 labels (H,W) of classes, or (L,H,W) of labels that may overlap, 255 = no opinion. image (H,W,C)."""
        raise TypeError(f"{type(self).__name__} must write label(name, path, image)")

    def lacks(self, images: Images) -> list[Problem]:
        """What keeps it from labeling these images, as far as it can be told beforehand."""
        return []


class Predicts(Voice):
    """A network of a run, or an exported one."""

    def __init__(self, title: str, model: Model, folder: str) -> None:
        self.title, self.classes, self.model, self.folder = title, model.classes, model, folder

    @property
    def identity(self) -> str:
        """`Model.hash` of its weights alone, whether they lie in a run or in an exported file."""
        if isinstance(self.model, Exported):
            return self.model.hash
        own = str(storage.read_json(self.model.run / self.folder / "final" / "result.json")["hash"])
        return hashlib.sha256(own.encode()).hexdigest()

    def label(self, name: str, path: Path, image: np.ndarray) -> np.ndarray:
        """Predicts; refuses (exit 3) other channels and types than it was trained on."""
        if problem := self._unfit(path, image.shape[2], str(image.dtype)):
            raise Refusal(problem, DATA)
        (_, prob), *_ = self.model.opinions(image, [self.folder], shown(path))
        return self.model.task.label(prob)[0].to(torch.uint8).cpu().numpy()

    def lacks(self, images: Images) -> list[Problem]:
        """Every image that `label` would refuse."""
        found = (self._unfit(path, channels, dtype) for path, (_, _, channels, dtype) in images.values())
        return [problem for problem in found if problem]

    def _unfit(self, path: Path, channels: int, dtype: str) -> Problem | None:
        problem = self.model.unfit(channels, dtype, shown(path))
        found = f"cannot label {shown(path)}, which {problem.found}" if problem else ""
        return problem and replace(problem, where=self.title, found=found)


class Drawn(Voice):
    """A folder of masks, one per image of the same name; its own coding is that of `classes`.

    whose: where the coding comes from, for messages.
    """

    def __init__(self, folder: Path, classes: ClassMap, whose: str) -> None:
        self.title, self.classes, self.whose = str(folder), classes, whose
        self.masks = masks_of(folder, classes.names if classes.coding == "folders" else ())
        self.doubts = _doubts(self.masks)
        self.want = some(classes.colors or classes.values)
        self.fix = f"save its masks with {self.want}, the coding of {whose}"

    def label(self, name: str, path: Path, image: np.ndarray) -> np.ndarray:
        """Reads; refuses (exit 3) a missing file, two of one name, another size, and values that are no class."""
        return self._read(name, path, (image.shape[0], image.shape[1]))

    def lacks(self, images: Images) -> list[Problem]:
        """Everything that `label` would refuse, at once."""
        problems, used = list[Problem](), dict[Path, Path]()
        for name, (path, seen) in images.items():
            try:
                self._read(name, path, seen[:2])
            except Refusal as refusal:
                problems += refusal.problems
                continue
            mask = self._files(name)[0]
            if (other := used.setdefault(mask, path)) != path:
                found = f"would be the mask of two images, {shown(other)} and {shown(path)}"
                problems.append(Problem("P04", shown(mask), found, "give the two images different names"))
        return problems

    def coded_otherwise(self, beside: Path) -> list[Problem]:
        """Where its class file or a palette says that its masks mean something else than `classes` does, or `_strange`."""
        folder = Path(self.title)
        for file in dict.fromkeys((folder / FILE, inside(folder) / FILE)):
            spec, problems = read_spec(file)
            if spec and not problems and (problems := [*contradicted(spec, self.classes, file, self.whose)]):
                return problems  # a file that nobody can read is another tool's, and says nothing here
        return self._painted() or self._strange(beside)

    def _painted(self) -> list[Problem]:
        """D10 where an index has another colour than in the palette of `classes`; a ramp of greys says nothing."""
        ours = self.classes.palette
        if not ours or self.classes.coding != "values" or decode.says_nothing(ours):
            return []
        for path in (p for paths in self.masks.files.values() for p in paths):
            try:
                mask = decode.mask_from_bytes(decode.load(path), path)
            except Refusal:  # said when this mask is asked for
                continue
            theirs = mask.palette
            if theirs and not decode.says_nothing(theirs):
                for k in np.unique(mask.array).tolist():
                    if k in self.classes.values and k < min(len(ours), len(theirs)) and ours[k] != theirs[k]:
                        found = f"paints index {k} as {theirs[k]}, and in {self.whose} it is {ours[k]}"
                        return [Problem("D10", shown(path), found, "save its masks with the palette of the others")]
        return []

    def _strange(self, beside: Path) -> list[Problem]:
        """D10 where its foreground is another value than that of `classes`, in all of its masks.

        255 is such a value where it means no opinion only because no class file says anything; one beside the images, or
        beside the masks, may say that it is ignored.
        """
        classes, held = self.classes, set[int]()
        if not classes.values:
            return []
        told = [s.ignore for s in (read_spec(f)[0] for f in class_files(beside, Path(self.title))) if s and s.ignore]
        for path in (p for paths in self.masks.files.values() for p in paths):
            try:
                array = decode.read_mask(path)
            except Refusal:  # said when this mask is asked for
                continue
            if array.ndim == 3 and classes.coding != "channels" and (array != array[..., :1]).any():
                return []  # colours: said there, too
            held.update(np.unique(array).tolist())
            if held.intersection(classes.values) - {min(classes.values)}:
                return []
        values = f"holds the values {some(sorted(held))}"
        if IGNORE in classes.ignore and IGNORE in held and not any(IGNORE in ignore for ignore in told):
            text = f"{values}, and where 255 is ignored that says nothing"
            fix = f"save its masks with {self.want}; or, in {self.title}, {say_ignored(classes.names)}"
            return [Problem("D10", self.title, text, fix, f"{self.want}, and 255 = ignored")]
        strange = held.difference(classes.values, classes.ignore)
        return (
            [Problem("D10", self.title, f"{values}, which are not those of {self.whose}", self.fix)] if strange else []
        )

    def _read(self, name: str, path: Path, size: tuple[int, int]) -> np.ndarray:
        files = self._files(name)
        if not files:
            raise Refusal(self._missing(name, path), DATA)
        label = read_label(Item(name, path, files), self.classes, self.fix)
        if label.shape[-2:] != size:
            raise Refusal(_size(files[0], label.shape[-2:], path, size), DATA)
        return label[None] if self.classes.kind == "binary" else label

    def _files(self, name: str) -> tuple[Path, ...]:
        """By the image's name; in a run the images of unlabeled/ are called unlabeled/NAME."""
        for own in (name, name.removeprefix("unlabeled/")):
            if doubt := self.doubts.get(own.casefold()):
                raise Refusal(doubt, DATA)
            if own in self.masks.files:
                return self.masks.files[own]
        return ()

    def _missing(self, name: str, path: Path) -> Problem:
        fix = "add it, or take the image out: an image needs the opinion of every member"
        wanted = name.removeprefix("unlabeled/")
        near = next((n for n in self.masks.files if n.rpartition("/")[2] == wanted.rpartition("/")[2]), "")
        text = f"holds no mask {wanted} for {shown(path)}" + (f", but {near}" if near else "")
        return Problem("P04", self.title, text, fix)


def _size(mask: Path, got: Sequence[int], image: Path, want: Sequence[int]) -> Problem:
    found = f"is {got[1]}x{got[0]} but {shown(image)} is {want[1]}x{want[0]}"
    return Problem("P05", shown(mask), found, f"export the mask again at {want[1]}x{want[0]}")


def some(values: Sequence[object]) -> str:
    """The first of them, for messages."""
    return ", ".join(map(str, values[:8])) + (", ..." if len(values) > 8 else "")


def _doubts(masks: Masks) -> dict[str, Problem]:
    """Names, casefolded, of which it is not clear what their masks are: two files, one that a label lacks, a dead link."""
    found = {name.casefold(): problem for name, problem in incomplete(masks).items()}
    for label, walked in zip(masks.labels or ("",), masks.scans, strict=True):
        for problem in walked.problems:
            file = PurePosixPath(problem.where.removeprefix(f"{shown(masks.root / label)}/"))
            found[nfc((file.parent / file.stem).as_posix()).casefold()] = problem
    return found


def home(images: Path) -> Path:
    """The data folder that holds the images, or their own."""
    return next((p for p in (images, *images.parents) if is_data(p)), images)


def class_files(images: Path, *folders: Path) -> list[Path]:
    """Where it may be said what masks mean, the first that is there decides: by the images, then in folders of masks."""
    return [p / FILE for p in (images, home(images), *(p for f in folders for p in (f, inside(f))))]


def inside(folder: Path) -> Path:
    """The folder, or masks/ in it, where `semiseg predict` writes them."""
    return folder / "masks" if (folder / "masks").is_dir() else folder


def masks_of(folder: Path, labels: tuple[str, ...] | None, images: Scan | None = None) -> Masks:
    """Masks below a folder. labels: its folders, one per label, () for none, None to find out beside `images`."""
    found = scan_masks(inside(folder), images or Scan(), None if labels else labels)
    if labels and found.files:
        same_labels({folder: found.labels}, labels)
    found = scan_masks(inside(folder), Scan(), labels) if labels else found
    if not found.files:
        fix = "give a folder with one mask per image, of the image's name"
        wrong = [*found.problems, *(p for walked in found.scans for p in walked.problems)]
        raise Refusal(list(dict.fromkeys(wrong)) or Problem("D04", str(folder), "holds no masks", fix), DATA)
    return found


def same_labels(found: Mapping[Path, tuple[str, ...]], wanted: tuple[str, ...]) -> None:
    """Refuses (P03, exit 2) mask folders with other label folders than are wanted."""

    def said(labels: tuple[str, ...]) -> str:
        return f"the label folders {', '.join(labels)}" if labels else "one mask per image"

    fix = "give members that speak of the same labels"
    others = [(folder, labels) for folder, labels in found.items() if set(labels) != set(wanted)]
    if others:
        raise Refusal([Problem("P03", str(f), f"holds {said(has)}", fix, said(wanted)) for f, has in others], USAGE)
