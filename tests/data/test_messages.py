"""What `semiseg check` says, as a person reads it: every finding at once, by its weight, and lines that can be pasted."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semiseg.cli import main
from semiseg.data.check import check
from semiseg.data.codes import render
from semiseg.errors import Problem


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array.astype(np.uint8)).save(path)


def make(root: Path, values: tuple[int, ...] = (0, 1), count: int = 6) -> Path:
    for k in range(count):
        save(root / f"images/{k}.png", np.random.default_rng(k).integers(0, 256, (16, 20)))
        save(root / f"masks/{k}.png", np.array(values)[np.arange(16) * len(values) // 16][:, None].repeat(20, 1))
    save(root / "unlabeled/u.png", np.random.default_rng(99).integers(0, 256, (16, 20)))
    return root


@pytest.fixture
def said(tmp_path, monkeypatch, capsys):
    """Run `semiseg WORDS` in a folder of its own: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["semiseg", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


@pytest.mark.parametrize("values", [(0, 100, 200), (0, 90, 255)])
def test_the_printed_lines_can_be_pasted(said, values):
    make(Path("my"), values)
    code, _, err = said("check", "my")
    assert code == 3 and "write my/classes.yaml with these lines" in err
    Path("my/classes.yaml").write_text(err.partition("class ...':\n")[2])
    code, out, err = said("check", "my")
    assert code == 0 and "multiclass: background, class 1, class 2" in out, err


def test_warnings_are_said_beside_errors(said):
    make(Path("my"))
    save(Path("my/masks/2.png"), np.full((16, 20), 255))
    save(Path("my/unlabelled/w.png"), np.zeros((16, 20)))
    Path("my/unlabeled/u.png").unlink()
    Path("my/unlabeled").rmdir()
    Path("my/images/notes.txt").write_text("x")
    assert (code := said("check", "my"))[0] == 0, code
    Path("my/masks/1.png").unlink()
    code, out, err = said("check", "my")
    lines = err.splitlines()
    assert code == 3 and not out
    assert [line for line in lines if line.startswith("semiseg: error D01: my/images/1.png has no mask")]
    for text in ("D26: my/masks/2.png", "D31: my/unlabelled", "D31: my "):
        assert [line for line in lines if line.startswith(f"semiseg: warning {text}")], (text, err)
    assert [line for line in lines if line.startswith("semiseg: note D37: my is read as binary")]


def test_a_good_folder_says_what_is_a_warning_and_what_a_note(said):
    make(Path("my"))
    Path("my/images/notes.txt").write_text("x")
    code, out, _ = said("check", "my")
    lines = out.splitlines()
    assert code == 0 and [line for line in lines if line.startswith("warning D31: my ")], out
    assert [line for line in lines if line.startswith("note D37: my is read as binary")]


def test_the_full_list_is_where_the_message_says_and_no_file_is_written(said):
    make(Path("my"), count=9)
    for k in range(5):
        Path(f"my/masks/{k}.png").unlink()
    for k in range(5, 9):
        save(Path(f"my/images/{k}.png"), np.full((16, 20), 7))
    before = sorted(Path().rglob("*"))
    code, _, err = said("check", "my")
    assert code == 3 and "(2 more; all in the output of --json)" in err and "check.json" not in err
    assert "(1 more; all in the output of --json)" in err
    code, out, err = said("check", "my", "--json")
    found = json.loads(out)
    assert code == 3 and not err
    codes = [p["code"] for p in found["problems"]]
    assert codes.count("D01") == 5 and codes.count("D28") == 4
    assert found["error"]["exit"] == 3 and {p["level"] for p in found["error"]["problems"]} == {"error"}
    assert sorted(Path().rglob("*")) == before


def test_an_empty_folder_lacks_both_folders(said):
    Path("my").mkdir()
    assert {p.where + p.found for p in check("my").errors} == {"myhas no folder images/", "myhas no folder masks/"}
    make(Path("two"))
    Path("two/val").mkdir()
    code, _, err = said("check", "two")
    assert code == 3 and "two/val has no folder images/" in err and "two/val has no folder masks/" in err


@pytest.mark.parametrize(
    "problem, text",
    [
        (Problem("D01", "a.png", "has no mask", "add it"), "D01: a.png has no mask. Fix: add it."),
        (Problem("D01", "a.png", "has no mask.", "add it.", "one."), "D01: a.png has no mask. Expected: one. Fix: add it."),
        (Problem("D08", "a", "has 7", expected="0, 1, 2, ..."), "D08: a has 7. Expected: 0, 1, 2, ..."),
        (Problem("D08", "a", "has 0, 1, ...", "no"), "D08: a has 0, 1, ... Fix: no."),
        (Problem("C01", "--x", "is not known. Did you mean 'y'?"), "C01: --x is not known. Did you mean 'y'?"),
        (Problem("C01", "--x", "is 3", "Did you mean 'y'?"), "C01: --x is 3. Fix: Did you mean 'y'?"),
        (Problem("D05", "a", "is RGB", "write:\nnames: [a]\nvalue: 2"), "D05: a is RGB. Fix: write:\nnames: [a]\nvalue: 2"),
    ],
)  # fmt: skip
def test_sentences_end_once_and_lines_to_paste_do_not(problem, text):
    assert str(problem) == text


def test_many_problems_of_one_file_say_what_differs():
    """The path once, and then the classes or images that it is about."""
    absent = [
        Problem("D27", "my", f"has no pixel of class 'class {k}' in its labeled masks", "label one") for k in range(5)
    ]
    (line,) = render(absent)
    assert line == (
        "D27: my has no pixel of class 'class 0' in its labeled masks; also 'class 1', 'class 2'. Fix: label one."
        " (2 more; all in the output of --json)"
    )
    lacking = [Problem("P04", where, f"holds no mask {n} for new/{n}.png") for n in "xyz" for where in ("a", "b")]
    (line,) = render(lacking)
    assert "a holds no mask x for new/x.png; also b, y for new/y.png. (3 more" in line
    fixes = [Problem("D20", "my", "is wrong", f"fix {k}") for k in range(4)]
    assert render(fixes)[0].startswith("D20: my is wrong; also my. Fix: fix 0.")
