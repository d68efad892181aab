"""What holds for every page: balanced tags, one h1, alt texts, nothing loaded, nothing too wide."""

import re
from html.parser import HTMLParser

VOID = {"meta", "link", "img", "br", "hr", "input", "wbr"}


class Tree(HTMLParser):
    """Collects tags, attributes and text; `faults` names what is not balanced."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.faults: list[str] = []
        self.tags: list[tuple[str, dict[str, str], list[str]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        self.faults += [f"<{tag}> is never closed" for tag in self.open]

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {k: v or "" for k, v in attrs}, list(self.open)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, {k: v or "" for k, v in attrs}, list(self.open)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split()).replace("\N{NO-BREAK SPACE}", " ")

    def named(self, tag: str) -> list[dict[str, str]]:
        return [attrs for found, attrs, _ in self.tags if found == tag]


def check(text: str) -> Tree:
    """Assert everything that holds for every page, and return it parsed."""
    tree = Tree(text)
    assert tree.faults == []
    assert text.startswith("<!DOCTYPE html>")
    assert len(tree.named("h1")) == 1
    assert len(text.encode()) < 5_000_000
    assert all(image["alt"] for image in tree.named("img"))
    assert all(chart.get("aria-label") for chart in tree.named("svg"))
    assert not tree.named("script")
    loads = [
        v for _, attrs, _ in tree.tags for k, v in attrs.items() if k in ("src", "href", "data", "srcset", "poster")
    ]
    assert all(v.startswith("data:") or v == "label_next.csv" for v in loads)
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style and "@import" not in style
    assert "None" not in tree.text.replace("None.", "") and "nan" not in tree.text.lower().split()
    assert too_wide(tree, style) == []
    return tree


def too_wide(tree: Tree, style: str) -> list[str]:
    """Reasons why the page could be wider than a telephone, found without a browser."""
    found = []
    widths = re.findall(r"(?<![-\w])(min-width|width|flex-basis):\s*(\d+)px", style.replace("(max-width", "("))
    found += [f"{key}: {value}px in the style sheet" for key, value in widths if int(value) > 360]
    found += [m for m in re.findall(r"minmax\((\d+)px", style) if int(m) > 360]
    if "overflow-wrap: anywhere" not in style or ".scroll { overflow: auto" not in style:
        found.append("long words and tables are not contained")
    for tag, attrs, parents in tree.tags:
        if tag == "table" and "div" not in parents:
            found.append("a table outside a box that scrolls")
        if tag == "svg" and ("viewbox" not in attrs or "width" in attrs):
            found.append("a chart that does not shrink")
        if tag == "img" and "thumb" not in attrs.get("class", "") and "figure" not in parents:
            found.append("a picture outside a figure")
    return found
