"""400 pixels are enough: measured in Chromium where there is one, and by static checks everywhere."""

import html
import os
import shutil
import signal
import subprocess

import pytest
from checks import Tree, check, too_wide
from fake_run import fake_run

from semiseg.report import write_report

CHOICES = {
    "usual": {},
    "extreme": {
        "kind": "multiclass",
        "names": ["background", *(f"{i}" + "W" * 90 for i in range(1, 40))],
        "image_name": "W" * 180 + "{}",
        "warnings": ("W" * 500,),
    },
}
# The frame is 400 px wide; what sticks out of a box that scrolls by itself is no overflow of the page.
PROBE = """<!DOCTYPE html><body style="margin:0">
<iframe id="f" width="400" height="900" style="border:0" srcdoc="{page}"></iframe><script>
document.getElementById("f").onload = (event) => {{
  const page = event.target.contentDocument, out = [];
  for (const e of page.querySelectorAll("body *")) {{
    const contained = e.parentElement.closest(".scroll, pre, svg");
    if (e.getBoundingClientRect().right > 400.5 && !contained) out.push(e.tagName + "." + e.className);
  }}
  const width = page.documentElement.scrollWidth;
  document.body.dataset.found = "width " + width + " out " + out.slice(0, 5).join(" ") + ".";
}};
</script></body>"""


def browser_finds(tmp_path, text: str) -> str | None:
    """`width N out ….` as Chromium measures it; None where there is no Chromium, or it cannot start."""
    program = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)
    if program is None:
        return None
    probe = tmp_path / "probe.html"
    probe.write_text(PROBE.format(page=html.escape(text, quote=True)), encoding="utf-8")
    flags = ["headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
             "disable-component-update", "disable-sync", "hide-scrollbars", "window-size=1000,1000",
             "dump-dom"]  # fmt: skip
    command = [program, *(f"--{f}" for f in flags), f"--user-data-dir={tmp_path / 'profile'}", probe.as_uri()]
    started = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    )
    try:
        out, _ = started.communicate(timeout=40)
    except subprocess.TimeoutExpired:
        os.killpg(started.pid, signal.SIGKILL)
        started.communicate()
        return None
    mark = 'data-found="'
    return out[out.index(mark) + len(mark) :].partition('"')[0] if mark in out else None


@pytest.mark.parametrize("choice", CHOICES)
def test_the_page_fits_400_pixels(tmp_path, choice):
    run = fake_run(tmp_path / "run", samples=1, side=32, **CHOICES[choice])
    text = write_report(run).read_text(encoding="utf-8")
    check(text)  # holds the static checks, which stand alone where there is no browser
    assert browser_finds(tmp_path, text) in (None, "width 400 out .")


def test_the_static_checks_can_fail():
    style = "overflow-wrap: anywhere .scroll { overflow: auto"
    assert too_wide(Tree("<div><table></table></div>"), style) == []
    assert too_wide(Tree("<main><table></table></main>"), style) == ["a table outside a box that scrolls"]
    assert too_wide(Tree('<svg viewBox="0 0 1 1" width="900"></svg>'), style) == ["a chart that does not shrink"]
    assert too_wide(Tree('<p><img src="x"></p>'), style) == ["a picture outside a figure"]
    assert too_wide(Tree(""), style + " .x { width: 900px }") == ["width: 900px in the style sheet"]
    assert too_wide(Tree(""), "") == ["long words and tables are not contained"]


def test_the_browser_probe_can_fail(tmp_path):
    found = browser_finds(tmp_path, '<!DOCTYPE html><body style="margin:0"><p style="width:900px">x</p></body>')
    assert found in (None, "width 900 out P..")
