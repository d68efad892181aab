"""The report of a run: one self-contained HTML page that needs no server, no script and no network."""

from __future__ import annotations

from pathlib import Path


def write_report(run: Path) -> Path:
    """Read the finished run folder `run` and write `run/report.html`; returns its path.

    Whatever is missing (val, truth, pictures, later generations) is left out or said in words; only summary.json
    is demanded. Raises Refusal (exit 4) when summary.json is missing or damaged.
    """
    from semiseg.report.page import write

    return write(Path(run))
