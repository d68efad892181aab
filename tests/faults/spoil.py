"""Small valid data folders, and ways to spoil them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

NFD = "cafe\u0301"


def picture(seed: int, size: tuple[int, int] = (16, 20), channels: int = 3) -> np.ndarray:
    array = np.random.default_rng(seed).integers(0, 256, (*size, channels), dtype=np.uint8)
    return array[..., 0] if channels == 1 else array


def labels(seed: int, values: tuple[int, ...] = (0, 1), size: tuple[int, int] = (16, 20)) -> np.ndarray:
    mask = np.full(size, values[0], np.uint8)
    for k, value in enumerate(values[1:]):
        mask[2 + seed % 3 : 12, 3 + 5 * k : 8 + 5 * k] = value
    return mask


def save(path: Path, array: np.ndarray, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def valid(root: Path, values: tuple[int, ...] = (0, 1)) -> Path:
    for k in range(6):
        save(root / f"images/img{k}.png", picture(k))
        save(root / f"masks/img{k}.png", labels(k, values))
    for k in range(2):
        save(root / f"unlabeled/u{k}.png", picture(100 + k))
    return root


def lists(root: Path) -> Path:
    valid(root)
    (root / "splits").mkdir()
    (root / "splits/labeled.txt").write_text("img2\nimg0\nimg1\nimg3\n")
    (root / "splits/unlabeled.txt").write_text("img4\nimg5")
    return root


def folders(root: Path) -> Path:
    for name in ("nucleus", "wall"):
        for k in range(6):
            save(root / f"images/img{k}.png", picture(k))
            save(root / f"masks/{name}/img{k}.png", labels(k, (0, 255)))
    save(root / "unlabeled/u.png", picture(100))
    return root


def several(*actions: Callable[[Path], Any]) -> Callable[[Path], None]:
    def run(root: Path) -> None:
        for action in actions:
            action(root)

    return run


def put(name: str, array: np.ndarray, **options: Any) -> Callable[[Path], None]:
    return lambda root: save(root / name, array, **options)


def write(name: str, data: bytes | str) -> Callable[[Path], None]:
    def run(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data if isinstance(data, bytes) else data.encode())

    return run


def tif(name: str, array: np.ndarray, **options: Any) -> Callable[[Path], None]:
    return lambda root: tifffile.imwrite(root / name, array, **options)


def copy(source: str, target: str) -> Callable[[Path], None]:
    def run(root: Path) -> None:
        (root / target).parent.mkdir(parents=True, exist_ok=True)
        (root / target).write_bytes((root / source).read_bytes())

    return run


def drop(name: str) -> Callable[[Path], None]:
    return lambda root: (root / name).unlink()


def cut(name: str, keep: float) -> Callable[[Path], None]:
    def run(root: Path) -> None:
        data = (root / name).read_bytes()
        (root / name).write_bytes(data[: int(len(data) * keep)])

    return run


def recolor(table: dict[int, tuple[int, int, int]]) -> Callable[[Path], None]:
    def run(root: Path) -> None:
        for k in range(6):
            colors = np.zeros((16, 20, 3), np.uint8)
            for value, color in table.items():
                colors[labels(k) == value] = color
            save(root / f"masks/img{k}.png", colors)

    return run


def smooth(name: str) -> Callable[[Path], None]:
    def run(root: Path) -> None:
        image = Image.fromarray(labels(0, (0, 255))).resize((10, 8), Image.Resampling.BILINEAR)
        image.resize((20, 16), Image.Resampling.BILINEAR).save(root / name)

    return run


def every(name: str, array: np.ndarray) -> Callable[[Path], None]:
    return several(*(put(name.format(k), array) for k in range(6)))


def numbered(root: Path) -> None:
    """Masks as tools for instances write them: k + 2 objects in image k."""
    for k in range(6):
        save(root / f"images/img{k}.png", picture(k, (16, 64)))
        save(root / f"masks/img{k}.png", labels(k, tuple(range(k + 3)), (16, 64)))


def stack(root: Path) -> None:
    """Ten slices in one file."""
    for k in range(6):
        (root / f"images/img{k}.png").unlink()
        tifffile.imwrite(root / f"images/img{k}.tif", np.stack([picture(10 * k + z)[..., 0] for z in range(10)]))


def oriented(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(0)).save(root / "images/img0.png", exif=exif)


def loop(root: Path) -> None:
    (root / "images/deep").mkdir()
    (root / "images/deep/again").symlink_to(root.resolve() / "images", target_is_directory=True)


def animated(root: Path) -> None:
    frames = [Image.fromarray(picture(k)) for k in range(3)]
    frames[0].save(root / "images/img0.png", save_all=True, append_images=frames[1:])


def bomb(root: Path) -> None:
    Image.new("1", (10_000, 6_000)).save(root / "images/img0.png")


def unnamed_palette(root: Path) -> None:
    for k, color in enumerate(((255, 0, 0), (0, 0, 255))):
        image = Image.fromarray(labels(k), "P")
        image.putpalette([0, 0, 0, *color])
        image.save(root / f"masks/img{k}.png")


def alpha(low: int) -> np.ndarray:
    array = np.full((16, 20, 4), 255, np.uint8)
    array[:4, :4, 3] = low
    return array


GREY16 = np.arange(320, dtype=np.uint16).reshape(16, 20) * 200
NAN = np.where(GREY16 == 0, np.nan, GREY16).astype(np.float32)
