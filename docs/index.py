"""Writes the tables of methods into README.md and docs/methods/README.md, from the files that hold the methods.

python docs/index.py            write them
python docs/index.py --check    exit 1 when one of them is not what it would write
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

from semiseg.methods import METHODS
from semiseg.programs import PROGRAMS

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- methods: python docs/index.py -->", "<!-- /methods -->"
HEAD = {
    "Methods": "A method has a step. Every one takes inconsistency masks: `METHOD+im`.",
    "Programs": "A program trains models around a method: `METHOD+PROGRAM`. Alone it stands on `supervised`;\n"
    "`im_moving` needs another method, `fixmatch+im_moving`.",
}


def about(entry: str) -> tuple[str, str, str]:
    """First line about a method, its paper as a link where there is an address, and its file.

    The line is that of the file's docstring; where a file holds several methods or programs, of the class's own.
    """
    module, _, name = entry.partition(":")
    path = Path("src", *module.split(".")).with_suffix(".py")
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    text = said = ast.get_docstring(tree) or ""
    if sum(e.startswith(f"{module}:") for e in (*METHODS.values(), *PROGRAMS.values())) > 1:
        said = next(ast.get_docstring(c) or "" for c in tree.body if isinstance(c, ast.ClassDef) and c.name == name)
    return said.partition("\n")[0], paper(text), path.as_posix()


def paper(text: str) -> str:
    """The source [0] of a docstring: "Yang et al. 2023" linked to its address, or as it is written."""
    found = re.search(r"\[0\] (.+?)(?=  |\n\[|\n(?:Differs|Our)|\n\n|$)", text, re.S)
    if found is None:
        return ""
    words = " ".join(found[1].split())
    address = re.search(r"https?://\S+?(?=[.,;]?(?:\s|$))", words)
    number = re.search(r"arXiv (\d{4}\.\d{4,5})", words)
    if address is None and number is None:
        return words
    link = address[0] if address else f"https://arxiv.org/abs/{number[1] if number else ''}"
    start = address.start() if address else number.start() if number else 0
    return f"[{words[:start].rstrip(' ,;:(')}]({link})"


def table(docs: str, source: str) -> str:
    """Both tables; `docs` and `source` lead from where they stand to docs/methods/ and to the root."""
    parts = []
    for (title, said), entries in zip(HEAD.items(), (METHODS, PROGRAMS), strict=True):
        rows = [f"{said}\n", f"| {title[:-1].lower()} | | paper | file |", "|---|---|---|---|"]
        for name, entry in entries.items():
            line, paper_, path = about(entry)
            file = f"[{Path(path).name}]({source}{path})"
            rows.append(f"| [`{name}`]({docs}{name}.md) | {line.rstrip('.')} | {paper_} | {file} |")
        parts.append("\n".join(rows))
    return "\n\n".join(parts)


def pages() -> dict[Path, str]:
    """What both files should hold."""
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise SystemExit(f"{readme.name} has no lines {BEGIN} and {END}: add them where the tables belong")
    index = (
        f"# Methods and programs\n\n{table('', '../../')}\n\nSettings as published: [recipes](../how-to/recipes.md). "
        "What a step costs beside `supervised`, and beyond\nthe images it sends through networks: "
        "[methods_cost.csv](../../results/methods_cost.csv).\n"
    )
    return {
        readme: f"{before}{BEGIN}\n\n{table('docs/methods/', '')}\n\n{END}{after}",
        ROOT / "docs/methods/README.md": index,
    }


def main() -> None:
    """Write, or check."""
    stale = [p for p, text in pages().items() if not p.is_file() or p.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv[1:]:
        sys.exit(f"not current: {', '.join(p.name for p in stale)}; run python docs/index.py" if stale else 0)
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
