"""Tiny data sets in the folders and list files of the field's benchmarks."""

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = Path(__file__).parents[2] / "recipes" / "classes"
COUNT = {"labeled": 4, "unlabeled": 5, "val": 2}
SIDE = (40, 48)


def picture(path, seed, channels=3):
    shape = (*SIDE, 3) if channels == 3 else SIDE
    _save(path, np.random.default_rng(seed).integers(0, 256, shape))


def mask(path, seed, classes, ignore=True, scale=1):
    """Blocks of a few classes; one row of 255."""
    ids = np.random.default_rng(seed).integers(0, classes, (5, 6)).repeat(8, 0).repeat(8, 1) * scale
    if ignore:
        ids[:2] = 255
    _save(path, ids)


def _save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array.astype(np.uint8)).save(path)


def _lists(root, name, classes, paths, line, unlabeled_line=None):
    """Images, masks (none for unlabeled ones) and splits/*.txt without a newline at the end."""
    (root / "splits").mkdir(parents=True)
    shutil.copy(CLASSES / f"{name}.yaml", root / "classes.yaml")
    seed = 0
    for split, count in COUNT.items():
        lines = []
        for _ in range(count):
            image, target = paths(split, seed)
            picture(root / image, seed)
            if split != "unlabeled":
                mask(root / target, seed, classes)
            say = unlabeled_line if split == "unlabeled" and unlabeled_line else line
            lines.append(say.format(image=image, mask=target, id=Path(image).stem))
            seed += 1
        (root / f"splits/{split}.txt").write_text("\n".join(lines))
    return root


def _pascal(split, i):
    return f"JPEGImages/2007_{i:06}.jpg", f"SegmentationClass/2007_{i:06}.png"


def _city(split, i):
    part, name = ("val", f"lindau_{i:06}_000019") if split == "val" else ("train", f"aachen_{i:06}_000019")
    place = f"{part}/{name.split('_')[0]}/{name}"
    return f"leftImg8bit/{place}_leftImg8bit.png", f"gtFine/{place}_gtFine_labelTrainIds.png"


def _city_cps(split, i):
    return f"images/{split}/{i}.png", f"segmentation/{split}/{i}.png"


def _coco(split, i):
    return f"{'val' if split == 'val' else 'train'}2017/{i:012}.jpg", f"masks/{i:012}.png"


def _ade(split, i):
    part, name = ("validation", f"ADE_val_{i:08}") if split == "val" else ("training", f"ADE_train_{i:08}")
    return f"images/{part}/{name}.jpg", f"annotations/{part}/{name}.png"


def _own(root, classes, *, channels=3, labels=(), scale=1, name=""):
    """images/ and masks/ with lists; the unlabeled images have masks, too, which only an oracle opens."""
    (root / "splits").mkdir(parents=True)
    if name:
        shutil.copy(CLASSES / f"{name}.yaml", root / "classes.yaml")
    first = 0
    for split, count in COUNT.items():
        seeds = range(first, first := first + count)
        for seed in seeds:
            picture(root / f"images/{seed}.png", seed, channels)
            for k, label in enumerate(labels or ("",)):
                mask(root / "masks" / label / f"{seed}.png", (seed, k), classes, ignore=False, scale=scale)
        (root / f"splits/{split}.txt").write_text("\n".join(map(str, seeds)))
    return root


PAIR = "{image} {mask}"
LAYOUTS = {
    "pascal": lambda root: _lists(root, "pascal", 5, _pascal, PAIR),
    "pascal u2pl": lambda root: _lists(root, "pascal", 5, _pascal, "{id}"),
    "pascal cps": lambda root: _lists(root, "pascal", 5, _pascal, "{image}\t{mask}"),
    "cityscapes": lambda root: _lists(root, "cityscapes", 5, _city, PAIR, "{image} None"),
    "cityscapes u2pl": lambda root: _lists(root, "cityscapes", 5, _city, "{image}"),
    "cityscapes cps": lambda root: _lists(root, "cityscapes", 5, _city_cps, "/{image}\t/{mask}"),
    "coco": lambda root: _lists(root, "coco", 6, _coco, PAIR),
    "ade20k": lambda root: _lists(root, "ade20k", 6, _ade, PAIR),
    "isic": lambda root: _own(root, 2, scale=255),
    "hela": lambda root: _own(root, 2, channels=1, labels=("alive", "dead", "pos"), scale=255),
    "suim": lambda root: _own(root, 5, name="suim"),
    "cityscapes208": lambda root: _own(root, 5, name="cityscapes208"),
}
"""Data set of a recipe, and the style of its lists where several are around."""
