"""Charts stay inside their box, whatever the numbers."""

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semiseg.report import charts
from semiseg.report.charts import Series, bar, histogram, line_chart, ticks
from semiseg.report.markup import count, delta, duration, esc, name, percent, score

FLOATS = st.floats(-1e6, 1e6, allow_nan=False)


@given(FLOATS, FLOATS)
@settings(deadline=None, max_examples=40)
def test_ticks_enclose_and_are_few(a, b):
    low, high = min(a, b), max(a, b)
    found = ticks(low, high)
    room = 1e-6 * max(1e-9, high - low)
    assert found[0] <= low + room and found[-1] >= high - room
    assert 2 <= len(found) <= 8 and found == sorted(set(found))


@given(st.lists(st.tuples(st.integers(0, 10_000), st.floats(-5, 5)), min_size=1, max_size=40))
@settings(deadline=None, max_examples=40)
def test_no_point_leaves_the_chart(points):
    svg = line_chart([Series("a", 0, sorted(points))], "loss", "loss", line=("labels only", 0.7))
    drawn = re.search(r'class="line" d="M([^"]+)"', svg).group(1)
    for pair in drawn.split("L"):
        x, y = map(float, pair.split())
        assert charts.LEFT - 0.1 <= x <= charts.WIDTH and charts.TOP - 0.1 <= y <= charts.HEIGHT - charts.BOTTOM + 0.1


def test_long_logs_are_thinned_but_end_at_the_last_step():
    svg = line_chart([Series("a", 0, [(float(i), 1 / (i + 1)) for i in range(50_000)])], "loss", "loss")
    assert len(svg) < 20_000 and "at step 49999" in svg


def test_nothing_to_draw_is_nothing():
    assert line_chart([Series("a", 0, [])], "loss", "loss", line=("x", 0.5)) == ""
    assert histogram([], "shares") == ""


@given(st.lists(st.floats(0, 1), min_size=1, max_size=80))
@settings(deadline=None, max_examples=40)
def test_histogram_counts_every_image(shares):
    svg = histogram(shares, "shares")
    assert sum(int(n) for n in re.findall(r": (\d+) images</title>", svg)) == len(shares)
    assert all(float(h) <= charts.HEIGHT for h in re.findall(r'<rect[^>]* height="([\d.]+)"', svg))


@pytest.mark.parametrize(("value", "width"), [(None, "0.00"), (0.5, "50.00"), (7, "100.00"), (-1, "0.00")])
def test_bar_stays_in_its_track(value, width):
    assert f"width:{width}%" in bar(value)


def test_names_of_series_are_escaped():
    assert "<b>" not in line_chart([Series("<b>", 0, [(0, 1), (1, 2)])], "<b>", "<b>", line=("<b>", 1.0))


def test_numbers_as_words():
    assert (score(0.7424), score(None), score("x"), score(math.nan), score(True)) == ("0.742", "–", "–", "–", "–")
    assert (percent(0.0714), percent("")) == ("7.1\N{NO-BREAK SPACE}%", "–")
    assert count(1234567) == "1\N{NARROW NO-BREAK SPACE}234\N{NARROW NO-BREAK SPACE}567"
    said = [duration(s).replace("\N{NO-BREAK SPACE}", " ") for s in (0.04, 9.96, 59.7, 61, 599.6, 3599, 7500, None)]
    assert said == ["0.0 s", "10 s", "1 min 00 s", "1 min 01 s", "10 min", "1 h 00 min", "2 h 05 min", "–"]
    assert "−0.020" in delta(0.7, 0.72) and "+0.020" in delta(0.72, 0.7) and "±0.000" in delta(0.7, 0.7002)
    assert "–" in delta(None, 0.7)


def test_escaping_is_complete():
    assert esc("<a href=\"x\" b='y'>&\x00\u2028") == "&lt;a href=&quot;x&quot; b=&#x27;y&#x27;&gt;&amp;\ufffd\ufffd"
    assert esc("\ud800") == "?"
    assert "…" in name("n" * 300) and f'title="{"n" * 300}"' in name("n" * 300)
