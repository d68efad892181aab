"""The tables of methods are what the methods' own files say, and every entry has its page."""

import importlib.util
from pathlib import Path

import pytest

from semiseg.methods import METHODS
from semiseg.programs import PROGRAMS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def index():
    spec = importlib.util.spec_from_file_location("docs_index", ROOT / "docs/index.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_current(index):
    stale = [path.name for path, text in index.pages().items() if path.read_text() != text]
    assert not stale, "run: python docs/index.py"


def test_no_two_entries_are_told_alike(index):
    """Where a file holds two, each has the first line of its own class."""
    lines = [index.about(entry)[0] for entry in (METHODS | PROGRAMS).values()]
    assert sorted(set(lines)) == sorted(lines)
    assert index.about(METHODS["supmix"])[0].startswith("SupMix") and index.about(METHODS["sufd"])[0].startswith("SUFD")


def test_every_entry_has_a_page_and_a_paper(index):
    for name, entry in (METHODS | PROGRAMS).items():
        line, paper, path = index.about(entry)
        page = ROOT / f"docs/methods/{name}.md"
        assert page.is_file() and page.read_text().startswith(f"# {name}"), name
        assert line and paper and (ROOT / path).is_file(), name
        assert index.table("", "").count(f"| [`{name}`]({name}.md) |") == 1


@pytest.mark.parametrize(
    ("text", "paper"),
    [
        ("One.\n\n[0] Yang et al. 2023, https://arxiv.org/abs/2208.09910   [1] code", "[Yang et al. 2023](https://arxiv.org/abs/2208.09910)"),
        ("One.\n\n[0] Pan et al. 2023, https://arxiv.org/abs/2312.08631. There is", "[Pan et al. 2023](https://arxiv.org/abs/2312.08631)"),
        ("One.\n\n[0] Vorndran and\nRoeck, arXiv 2401.14387\n[1] code", "[Vorndran and Roeck](https://arxiv.org/abs/2401.14387)"),
        ("One.\n\n[0] Zhao et al., CVPR 2023   [1] code", "Zhao et al., CVPR 2023"),
        ("One.", ""),
    ],
)  # fmt: skip
def test_papers_become_links(index, text, paper):
    assert index.paper(text) == paper
