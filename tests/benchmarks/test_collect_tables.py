"""Tables of several comparisons in one CSV, which outlives their folders."""

import collect
from shared import read, write


def table(run, data, arm, miou, labels="all"):
    row = {"data": data, "labels": labels, "arm": arm}
    command = f"semiseg compare /here/{data} --methods im --out /there/{run.name}"
    write(run / "table.csv", [{**row, "miou": miou, "command": command}])
    write(run / "pairs.csv", [{**row, "rival": "ensemble", "delta": miou}])


def test_a_set_that_is_collected_again_is_replaced_and_the_others_stay(tmp_path, monkeypatch):
    out = tmp_path / "results" / "it.csv"
    for run, data, arm, miou in (("a", "cells", "im", 0.1), ("b", "isic", "im", 0.2), ("c", "cells", "ensemble", 0.3)):
        table(tmp_path / run, data, arm, miou)
    for runs in (["a", "b"], ["c"]):
        monkeypatch.setattr("sys.argv", ["collect.py", str(out), *(str(tmp_path / r) for r in runs)])
        collect.main()
    assert [(r["data"], r["arm"], r["miou"]) for r in read(out)] == [
        ("cells", "ensemble", "0.3"),  # in its place
        ("isic", "im", "0.2"),
    ]
    assert [(r["data"], r["delta"]) for r in read(out.with_name("it_pairs.csv"))] == [("cells", "0.3"), ("isic", "0.2")]
    assert read(out)[1]["command"] == "semiseg compare DATA/isic --methods im --out RUNS/b"
