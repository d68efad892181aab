"""The page on recipes names files that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_named_files_exist():
    text = (ROOT / "docs/how-to/recipes.md").read_text() + (ROOT / "README.md").read_text()
    named = set(re.findall(r"recipes/(?:classes/)?[\w.-]+\.yaml", text))
    assert named and not [name for name in named if not (ROOT / name).is_file()]
    assert not [
        n
        for n in re.findall(r"`((?:\w+)\.yaml)`", text)
        if not list((ROOT / "recipes").rglob(n)) and n != "classes.yaml"
    ]
