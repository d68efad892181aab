"""The data faults of the catalogue: a valid set, one fault each, and the code, path and fix that `check` must give."""

import io
import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

# fmt: off
from spoil import (  # isort: skip
    GREY16, NAN, NFD, alpha, animated, bomb, copy, cut, drop, every, folders, labels, lists, loop, numbered, oriented,
    picture, put, recolor, save, several, smooth, stack, tif, unnamed_palette, valid, write,
)
# fmt: on

from semiseg.data.check import CODES, check, render
from semiseg.errors import Refusal


@dataclass
class Fault:
    name: str
    code: str
    where: str
    spoil: Callable[[Path], Any]
    level: str = "error"
    says: str = ""
    base: Callable[[Path], Path] = valid
    options: dict[str, Any] = field(default_factory=dict)


# fmt: off
FAULTS = [
    Fault("1 image without mask", "D01", "my_data/images/img3.png", drop("masks/img3.png"), says="unlabeled"),
    Fault("1 listed image without mask", "D01", "my_data/images/img0.png", drop("masks/img0.png"), base=lists),
    Fault("2 mask without image", "D02", "my_data/masks/imgg.png", several(put("masks/imgg.png", labels(0)),
          drop("masks/img3.png")), says="Did you mean 'img3'?"),
    Fault("no such folder", "D03", "my_dat", lambda root: root.rename("my_dataset"),
          says="(did you mean my_dataset?)"),
    Fault("no images folder", "D03", "my_data", lambda r: (r / "images").rename(r / "imgs"), says="'imgs'"),
    Fault("no masks folder", "D03", "my_data", lambda r: (r / "masks").rename(r / "old"), says="my_data/masks/"),
    Fault("val without masks", "D03", "my_data/val", put("val/images/a.png", picture(50)), says="masks"),
    Fault("25 nothing labeled", "D04", "my_data/images", several(*(drop(f"images/img{k}.png") for k in range(6)))),
    Fault("5 colour masks", "D05", "my_data/masks/img0.png", recolor({0: (0, 0, 0), 1: (200, 10, 0)}),
          says="colors:\n  background: [0, 0, 0]\n  class 1: [200, 10, 0]"),
    Fault("5 one colour mask", "D05", "my_data/masks/img2.png", put("masks/img2.png", picture(2) // 128 * 90)),
    Fault("5 unknown colour", "D06", "my_data/masks/img0.png", several(recolor({0: (0, 0, 0), 1: (200, 10, 0)}),
          write("classes.yaml", "colors:\n  ground: [0, 0, 0]\n  cell: [200, 0, 0]\n")),
          says="[200, 10, 0] (50 pixels)"),
    Fault("3 size differs", "D07", "my_data/masks/img1.png", put("masks/img1.png", labels(1, size=(16, 19))),
          says="is 19x16 but my_data/images/img1.png is 20x16"),
    Fault("3 and 15 turned photo", "D07", "my_data/masks/img0.png", oriented, says="EXIF"),
    Fault("4 value out of range", "D08", "my_data/masks/img4.png", put("masks/img4.png", labels(4, (0, 1, 7))),
          says="7 (45 pixels)"),
    Fault("4 one value in between everywhere", "D08", "my_data/masks/img4.png", several(put("masks/img4.png", labels(4,
          (7, ))), write("classes.yaml", "names: [cell]")), base=lambda root: valid(root, (0, 255)),
          says="7 (320 pixels)"),
    Fault("4 value outside named classes", "D08", "my_data/masks/img0.png", several(put("masks/img0.png", labels(0,
          (0, 1, 2))), write("classes.yaml", "names: [no cell, cell]"))),
    Fault("8 spread grey values", "D08", "my_data/masks/img0.png", every("masks/img{}.png", labels(0, (0, 90,
          200))), says="values:\n  background: 0\n  class 1: 90\n  class 2: 200"),
    Fault("10 interpolated", "D09", "my_data/masks/img0.png", smooth("masks/img0.png"), says="interpolated",
          base=lambda root: valid(root, (0, 255))),
    Fault("8 fractions", "D10", "my_data/masks/img0.tif", several(drop("masks/img0.png"), tif("masks/img0.tif",
          NAN))),
    Fault("7 varying alpha", "D10", "my_data/masks/img0.png", put("masks/img0.png", alpha(9))),
    Fault("6 palettes differ", "D10", "my_data/masks/img1.png", unnamed_palette, says="(255, 0, 0)"),
    Fault("mixed codings", "D10", "my_data/masks/img0.png", put("masks/img5.png", labels(5, (0, 255))),
          says="0/255"),
    Fault("9 JPEG mask", "D11", "my_data/masks/img0.jpg", several(drop("masks/img0.png"), put("masks/img0.jpg",
          labels(0)))),
    Fault("9 and 17 JPEG mask called PNG", "D11", "my_data/masks/img0.png", put("masks/img0.png", labels(0),
          format="JPEG")),
    Fault("16 zero bytes", "D12", "my_data/images/img0.png", write("images/img0.png", b""), says="0 bytes"),
    Fault("16 truncated", "D12", "my_data/unlabeled/u1.png", cut("unlabeled/u1.png", 0.6), says="truncated"),
    Fault("16 truncated mask", "D12", "my_data/masks/img1.png", cut("masks/img1.png", 0.6)),
    Fault("18 no image", "D12", "my_data/images/img0.png", write("images/img0.png", "<svg></svg>"),
          says="not an image"),
    Fault("34 bomb", "D13", "my_data/images/img0.png", bomb, says="10000x6000"),
    Fault("14 grey among RGB", "D14", "my_data/images/img0.png", put("images/img0.png", picture(0, channels=1)),
          says="3 channels of uint8"),
    Fault("11 16-bit among 8-bit", "D14", "my_data/images/img1.png", put("images/img1.png", GREY16)),
    Fault("20 one stem twice", "D15", "my_data/images/img0.png", put("images/img0.jpg", picture(0)),
          says="img0.jpg"),
    Fault("20 one mask stem twice", "D15", "my_data/masks/img0.tif", tif("masks/img0.tif", labels(0))),
    Fault("21 case clash", "D16", "my_data/images/img0.png", put("images/IMG0.png", picture(7)), says="IMG0"),
    Fault("21 NFC clash", "D16", "my_data/unlabeled/", several(put("unlabeled/caf\u00e9.png", picture(8)),
          put(f"unlabeled/{NFD}.png", picture(9)))),
    Fault("22 loop of links", "D17", "my_data/images/deep/again", loop, says="circle"),
    Fault("22 dangling link", "D17", "my_data/images/gone.png",
          lambda r: (r / "images/gone.png").symlink_to("nowhere")),
    Fault("22 link to itself", "D17", "my_data/images/me.png", lambda r: (r / "images/me.png").symlink_to("me.png")),
    Fault("listed, not there", "D18", "my_data/splits/labeled.txt", write("splits/labeled.txt", "img0\nimg9\n"),
          says="'img9'", base=lists),
    Fault("no labeled.txt", "D19", "my_data/splits",
          lambda r: (r / "splits/labeled.txt").rename(r / "splits/label.txt"), says="Did you mean 'label.txt'?",
          base=lists),
    Fault("in two lists", "D19", "my_data/splits/val.txt", write("splits/val.txt", "img0"), says="labeled.txt",
          base=lists),
    Fault("leads out", "D19", "my_data/splits/val.txt", write("splits/val.txt", "../secret.png"), base=lists),
    Fault("47 class names", "D20", "my_data/classes.yaml", write("classes.yaml", "names: [a/b, c]"), says="'a/b'"),
    Fault("39 unknown key", "D20", "my_data/classes.yaml", write("classes.yaml", "name: [a, b]"), says="'names'"),
    Fault("46 tag", "D20", "my_data/classes.yaml", write("classes.yaml",
          "names: !!python/object/apply:os.abort []")),
    Fault("36 animation", "D21", "my_data/images/img0.png", animated, says="3 pages"),
    Fault("36 stack of pages", "D21", "my_data/images/s.tif", several(put("masks/s.png", labels(0)),
          tif("images/s.tif", np.stack([GREY16] * 20), metadata={"axes": "ZYX"})), says="pages"),
    Fault("33 NaN", "D22", "my_data/images/n.tif", several(tif("images/n.tif", NAN), put("masks/n.png", labels(0)))),
    Fault("31 labeled in test", "D23", "my_data/test/images/t.png", several(copy("images/img0.png",
          "test/images/t.png"), put("test/masks/t.png", labels(0))), says="img0.png"),
    Fault("31 labeled and unlabeled", "D24", "my_data/unlabeled/again.png", copy("images/img0.png",
          "unlabeled/again.png"), "warning"),
    Fault("32 twice, other mask", "D25", "my_data/images/z.png", several(copy("images/img0.png", "images/z.png"),
          put("masks/z.png", labels(0)[::-1])), "warning", says="another mask"),
    Fault("30 one mask ignored", "D26", "my_data/masks/img0.png", put("masks/img0.png", labels(0, (255, ))),
          "warning"),
    Fault("30 all masks ignored", "D26", "my_data", every("masks/img{}.png", labels(0, (255, )))),
    Fault("28 class absent", "D27", "my_data", every("masks/img{}.png", labels(0, (0, 1, 3))), "warning",
          "'class 2'"),
    Fault("29 class in val only", "D27", "my_data", several(put("val/images/v.png", picture(60)),
          put("val/masks/v.png", labels(0, (0, 1, 2)))), "warning", "but in val"),
    Fault("30 all background", "D27", "my_data", every("masks/img{}.png", labels(0, (0, ))), "warning",
          "'foreground'"),
    Fault("33 constant image", "D28", "my_data/unlabeled/u0.png", put("unlabeled/u0.png", picture(0) * 0),
          "warning"),
    Fault("43 crop too large", "D29", "my_data", lambda r: None, says="longest side is 20", options={"size": 64}),
    Fault("43 crop too large after resize", "D29", "my_data", lambda r: None, options={"size": 17, "resize": 12},
          says="(the longest side is 15 after --resize 12). Fix: use --size 15"),
    Fault("35 all padded after resize", "D29", "my_data", lambda r: None, "note", options={"size": 14, "resize": 12},
          says="8 of 8 images smaller after --resize 12 than the crop of 14"),
    Fault("35 some padded", "D29", "my_data", lambda r: None, "note", options={"size": 20}),
    Fault("val carved", "D30", "my_data", lambda r: None, "note", says="1 of 6"),
    Fault("26 one label", "D30", "my_data", several(*(drop(f"{d}/img{k}.png") for k in range(5) for d in ("images",
          "masks"))), "warning", says="1 labeled image "),
    Fault("in no list", "D31", "my_data", write("splits/unlabeled.txt", "img4"), "warning", base=lists,
          says="1 image that no list names and nothing uses: images/img5.png"),
    Fault("18 no images", "D31", "my_data", write("images/notes.txt", "x"), "warning", says="images/notes.txt"),
    Fault("24 pipe", "D31", "my_data", lambda r: os.mkfifo(r / "unlabeled/pipe.png"), "warning", says="pipe.png"),
    Fault("misspelt folder", "D31", "my_data/unlabelled", lambda r: (r / "unlabeled").rename(r / "unlabelled"),
          "warning", says="'unlabeled'"),
    Fault("25 nothing unlabeled", "D32", "my_data", several(drop("unlabeled/u0.png"), drop("unlabeled/u1.png")),
          "warning"),
    Fault("27 more folds than labels", "D33", "my_data", lambda r: None, says="at most 6", options={"members": 9}),
    Fault("12 CMYK", "D34", "my_data/images/c.jpg", several(put("masks/c.png", labels(0)),
          lambda r: Image.fromarray(picture(3)).convert("CMYK").save(r / "images/c.jpg")), "warning", says="CMYK"),
    Fault("13 alpha", "D34", "my_data/unlabeled/a.png", put("unlabeled/a.png", alpha(3)), "warning", says="alpha"),
    Fault("35 tiny", "D35", "my_data/unlabeled/u0.png", put("unlabeled/u0.png", picture(0, (1, 9)))),
    Fault("mask of an unlabeled image, asked for", "D07", "my_data/masks/img4.png", put("masks/img4.png", labels(4,
          size=(16, 19))), base=lists, options={"oracle": True}),
    Fault("mask of an unlabeled image, compared with", "D08", "my_data/masks/img4.png", put("masks/img4.png", labels(4,
          (0, 1, 7))), base=lists, options={"diagnose": True}),
    Fault("label folder incomplete", "D36", "my_data/masks/nucleus/img1.png", drop("masks/wall/img1.png"),
          base=folders),
    Fault("classes found", "D37", "my_data", lambda r: None, "note", says="binary: foreground (values 0, 1)"),
    Fault("numbered objects", "D38", "my_data", numbered, "warning", says="1 to 2 up to 1 to 7"),
    Fault("a stack", "D39", "my_data", stack, "note", says="10 channels"),
]
# fmt: on


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Path("my_data")


def listing(root: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for here, dirs, files in os.walk(root):
        for name in dirs + files:
            info = os.lstat(os.path.join(here, name))
            found[os.path.join(here, name)] = (info.st_size, info.st_mtime_ns)
    return found


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault_is_reported_with_code_path_and_fix(fault, home):
    fault.base(home)
    fault.spoil(home)
    before = listing(Path())
    checked = check("my_dat" if fault.where == "my_dat" else home, **fault.options)
    assert listing(Path()) == before
    hits = [p for p in checked.problems if p.code == fault.code and p.level == fault.level]
    where = [
        p for p in hits if p.where == fault.where or (fault.where.endswith("/") and p.where.startswith(fault.where))
    ]
    assert where, [str(p) for p in checked.problems]
    assert any(fault.says in str(p) for p in where), [str(p) for p in where]
    assert checked.ok == (not checked.errors)
    assert (fault.level == "error") <= (not checked.ok)
    for problem in checked.problems:
        line = str(problem).split("\n")[0]
        assert len(line) < 300 and "Traceback" not in line, line
        assert problem.level == "note" or "Fix: " in str(problem)


def test_every_code_is_triggered_by_a_fault():
    assert {fault.code for fault in FAULTS} == set(CODES)


@pytest.mark.parametrize(
    "base", [valid, lists, folders, lambda root: valid(root, (0, 255)), lambda r: valid(r, (0, 1, 2))]
)
def test_valid_sets_have_no_errors_or_warnings(base, home):
    checked = check(base(home))
    left = [p for p in checked.problems if p.level != "note" and p.code != "D30"]
    assert not left
    checked.refuse()


def test_refuse_carries_all_errors(home):
    valid(home)
    drop("masks/img0.png")(home)
    write("images/img1.png", b"")(home)
    with pytest.raises(Refusal) as caught:
        check(home).refuse()
    assert caught.value.exit == 3
    assert {p.code for p in caught.value.problems} == {"D01", "D12"}


PAIRS = [f for f in FAULTS if f.name in (
    "3 size differs", "4 value out of range", "5 one colour mask", "16 truncated", "22 dangling link", "24 pipe",
    "21 NFC clash", "36 stack of pages", "31 labeled and unlabeled", "36 animation", "18 no images")]  # fmt: skip


@pytest.mark.parametrize("first, second", list(itertools.combinations(PAIRS, 2)), ids=lambda fault: fault.name[:8])
def test_two_faults_are_both_reported_in_one_pass(first, second, home):
    valid(home)
    if {first.code, second.code} == {"D24", "D21"}:
        copy("images/img5.png", "images/img0.png")(home)
    first.spoil(home)
    second.spoil(home)
    found = {p.code for p in check(home).problems}
    assert {first.code, second.code} - ({"D24"} if first.code == "D21" else set()) <= found


def test_many_problems_of_one_code_make_one_line(home):
    valid(home)
    for k in range(5):
        save(home / f"masks/img{k}.png", labels(k, size=(16, 19)))
    checked = check(home)
    line = next(text for text in render(checked.problems) if text.startswith("D07"))
    assert line.startswith("D07: my_data/masks/img0.png is 19x16 but my_data/images/img0.png is 20x16; also my_data")
    assert line.count("my_data/masks/img") == 3 and " Fix: " in line
    assert line.endswith("(2 more; all in the output of --json)")
    assert sum(p["code"] == "D07" for p in checked.to_json()["problems"]) == 5


def test_names_of_every_kind_work(home):
    valid(home)
    for k, name in enumerate(("with space", "quote'\"", "line\nbreak", "-dash", NFD, "日本", "dot.dot", "sub/deep")):
        save(home / f"images/{name}.png", picture(200 + k))
        save(home / f"masks/{name}.png", labels(k))
    checked = check(home)
    assert checked.ok, [str(p) for p in checked.problems]
    names = {item.name for _, item in checked.index.items()}
    assert {"with space", "line\nbreak", "caf\u00e9", "日本", "dot.dot", "sub/deep"} <= names


def test_mutated_files_never_escape_as_another_error(home):
    """Ten seeds, five ways to damage them: every outcome is pixels or a Refusal that names the file."""
    from semiseg.data.decode import image_from_bytes, mask_from_bytes

    rng = np.random.default_rng(0)
    seeds = []
    for mode, kind in itertools.product(("L", "RGB", "P"), ("PNG", "GIF", "BMP", "TIFF")):
        buffer = io.BytesIO()
        Image.fromarray(picture(1)).convert(mode).save(buffer, kind)
        seeds.append(buffer.getvalue())
    for kind in ("JPEG", "WEBP", "PPM"):
        buffer = io.BytesIO()
        Image.fromarray(picture(1)).save(buffer, kind)
        seeds.append(buffer.getvalue())
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.stack([GREY16] * 5, -1), photometric="minisblack", planarconfig="contig")
    seeds.append(buffer.getvalue())
    path, refused = Path("my_data/images/x.png"), 0
    for turn in range(1600):
        data = bytearray(seeds[turn % len(seeds)])
        for _ in range(rng.integers(1, 8)):
            data[rng.integers(len(data))] = rng.integers(256)
        if turn % 3 == 0:
            data = data[: rng.integers(1, len(data))]
        for decode in (image_from_bytes, mask_from_bytes):
            try:
                decode(bytes(data), path)
            except Refusal as refusal:
                refused += 1
                assert refusal.problems[0].where == "my_data/images/x.png"
    assert refused > 100
