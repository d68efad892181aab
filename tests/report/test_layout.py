"""400 pixels are enough, and a desk is not wasted: measured in Chromium where there is one, by static checks everywhere."""

import html
import os
import re
import shutil
import signal
import subprocess
import warnings

import pytest
from checks import Tree, check, too_wide
from fake_run import fake_run

import semiseg
import tiny
from semiseg.report import write_report

BROWSERS = [path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))]
SECONDS = 240  # for one start of the browser on a machine that is busy
WIDTHS = (400, 1280)  # a telephone, a desk
EXTREME = {
    "kind": "multiclass",
    "names": ["background", *(f"{i}" + "W" * 90 for i in range(1, 40))],
    "image_name": "W" * 180 + "{}",
    "warnings": ("W" * 500,),
}
# Every page in a frame of each width; what sticks out of a box that scrolls by itself is no overflow of the page.
PROBE = """<!DOCTYPE html><meta charset="utf-8"><script>
const found = {{}};
function measure(frame) {{
  const page = frame.contentDocument, wide = frame.clientWidth, out = [], pictures = [...page.images];
  for (const e of page.querySelectorAll("body *")) {{
    const contained = e.parentElement.closest(".scroll, pre, svg");
    if (e.getBoundingClientRect().right > wide + 0.5 && !contained) out.push(e.tagName + "." + e.className);
  }}
  const main = page.querySelector("main") || page.body;
  found[frame.id] = "width " + page.documentElement.scrollWidth + " out " + out.slice(0, 5).join(" ")
    + "; main " + Math.round(main.getBoundingClientRect().width)
    + "; pictures " + pictures.length + " blank " + pictures.filter(p => !p.naturalWidth).length;
  document.body.dataset.found = Object.entries(found).map(e => e.join(": ")).join("\\n");
}}
</script><body>{frames}</body>"""
FRAME = (
    '<iframe id="{name}" width="{width}" height="900" style="border:0" onload="measure(this)" srcdoc="{page}"></iframe>'
)


@pytest.fixture(scope="module")
def pages(folders, tmp_path_factory):
    """Reports of a real run of every kind, one with names as long as can be, and a page that does not fit."""
    folder = tmp_path_factory.mktemp("pages")
    made = {"extreme": write_report(fake_run(folder / "extreme", samples=1, side=32, **EXTREME))}
    for kind in tiny.KINDS:
        options = {"steps": 4, "size": 16, "batch": 2, "network": "unet1x1:0.25", "sets": ["im.members=2"]}
        semiseg.train(folders[kind], folder / kind, method="im", quiet=True, **options)
        made[kind] = folder / kind / "report.html"
    texts = {name: path.read_text(encoding="utf-8") for name, path in made.items()}
    return {
        **texts,
        "broken": '<!DOCTYPE html><body style="margin:0"><p style="width:1900px"><img src="data:,">x</p></body>',
    }


@pytest.fixture(scope="module")
def measured(pages, tmp_path_factory):
    """(page, width) -> what Chromium measures, in one start of it; empty, with a warning, only where there is none."""
    if not BROWSERS:
        warnings.warn("no Chromium on this machine: the width of pages is checked by their source alone", stacklevel=1)
        return {}
    folder = tmp_path_factory.mktemp("browser")
    frames = [
        FRAME.format(name=f"{name}-{width}", width=width, page=html.escape(text, quote=True))
        for name, text in pages.items()
        for width in WIDTHS
    ]
    probe = folder / "probe.html"
    probe.write_text(PROBE.format(frames="".join(frames)), encoding="utf-8")
    flags = ["headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
             "disable-component-update", "disable-sync", "hide-scrollbars", "window-size=1400,1000",
             "dump-dom"]  # fmt: skip
    command = [BROWSERS[0], *(f"--{f}" for f in flags), f"--user-data-dir={folder / 'profile'}", probe.as_uri()]
    started = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    )
    try:
        out, _ = started.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(started.pid, signal.SIGKILL)
        started.communicate()
        pytest.fail(f"{BROWSERS[0]} is there, but printed no page in {SECONDS} s")
    said = re.search('data-found="(.*?)"', out, re.S)
    assert said, f"{BROWSERS[0]} measured nothing: {out[:500]}"
    found = dict(line.split(": ", 1) for line in html.unescape(said[1]).splitlines())
    assert len(found) == len(frames), "a frame was not measured"
    return found


@pytest.mark.parametrize("name", ["extreme", *tiny.KINDS])
def test_the_page_fits_a_telephone_and_uses_a_desk(pages, measured, name):
    check(pages[name])  # holds the static checks, which stand alone where there is no browser
    pictures = pages[name].count("<img ")
    assert pictures, "nothing to see"
    for width in WIDTHS if measured else ():
        expected = f"width {width} out ; main {min(width, 1120)}; pictures {pictures} blank 0"
        assert measured[f"{name}-{width}"] == expected


def test_the_browser_probe_can_fail(measured):
    for width in WIDTHS if measured else ():
        assert measured[f"broken-{width}"] == f"width 1900 out P.; main {width}; pictures 1 blank 1"


def test_the_static_checks_can_fail():
    style = "overflow-wrap: anywhere .scroll { overflow: auto"
    assert too_wide(Tree("<div><table></table></div>"), style) == []
    assert too_wide(Tree("<main><table></table></main>"), style) == ["a table outside a box that scrolls"]
    assert too_wide(Tree('<svg viewBox="0 0 1 1" width="900"></svg>'), style) == ["a chart that does not shrink"]
    assert too_wide(Tree('<p><img src="x"></p>'), style) == ["a picture outside a figure"]
    assert too_wide(Tree(""), style + " .x { width: 900px }") == ["width: 900px in the style sheet"]
    assert too_wide(Tree(""), "") == ["long words and tables are not contained"]
