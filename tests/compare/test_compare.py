"""A whole comparison of a few steps: tables, page, test read once, and the same command again."""

import csv
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tiny
from semiseg import storage
from semiseg.compare import compare, reading, summary
from semiseg.compare.cells import commit, spent
from semiseg.compare.statistics import counts, miou
from semiseg.errors import Refusal
from semiseg.model import Model
from semiseg.predict import evaluate_split
from semiseg.programs.train import train

spec = importlib.util.spec_from_file_location("report_checks", Path(__file__).parents[1] / "report/checks.py")
checks = importlib.util.module_from_spec(spec)
spec.loader.exec_module(checks)


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def readings(out):
    """How often each run says that it was read."""
    lines = {p.parent.name: p.read_text().splitlines() for p in out.glob("cells/*/events.jsonl")}
    return {n: sum(json.loads(x)["event"] == "evaluated" for x in found) for n, found in lines.items()}


def test_from_a_request_to_a_page(ask, here):
    one = "generations=1@members_by=seed@start=fresh"
    request = ask("fixmatch", "im@members=2", f"im@members=2@{one}", seeds=2, labels=["4"])
    result = compare(request, "semiseg compare …", quiet=True, begin=here)
    out = request.out
    assert result["failed"] == [] and len(here.started) == 2 * 6
    assert set(readings(out).values()) == {1}
    assert {r["commit"] for r in rows_of(out / "cells.csv")} == {commit()}
    table = {r["arm"]: r for r in rows_of(out / "table.csv")}
    base = "labels only"
    title = f"im, members=2, {one.replace('@', ', ')}"
    assert list(table) == [base, f"{base}, best of 4 on val", f"{base}, average of 4 at prediction",
                           f"{base}, 4× steps", "fixmatch", "im, members=2", title, "full labels"]  # fmt: skip
    for arm, row in table.items():
        assert row["n_seeds"] == "2" and row["n_images"] == "6" and row["split"] == "test"
        assert len(row["miou_per_seed"].split(";")) == 2 and float(row["miou"]) >= 0
        if arm != base:
            assert float(row["low"]) <= float(row["delta"]) <= float(row["high"])
    run = out / "cells/binary-4-seed0-fixmatch"
    tensors = storage.read_tensors(run / "reading-test/counts.safetensors")
    found = float(miou(counts(tensors["0.confusion"].numpy(), True).sum(0)))
    said = evaluate_split(Model(run), request.data[0], "test")
    assert found == pytest.approx(said["metrics"]["miou"])
    assert not (run / "cache").exists()
    theirs, taken, ends = (
        storage.read_json(out / f"cells/binary-4-seed1-{cell}/summary.json")["generations"][0]["members"]
        for cell in ("committee-4", f"im-members=2-{one.replace('@', '-')}", "im-members=2")
    )
    assert [m["hash"] for m in taken] == [m["hash"] for m in theirs[:2]]
    assert ends[0]["hash"] == theirs[0]["hash"] and ends[1]["folder"].endswith("snapshot-0")  # the same training
    assert "labels only, average of 4 at prediction" in (out / "table.md").read_text()
    assert any("im, members=2" in line for line in summary(result))
    check_page((out / "compare.html").read_text(), 7)
    go_on(request, here, out)


def check_page(text, arms):
    tree = checks.Tree(text)
    assert tree.faults == [] and not tree.named("script") and len(tree.named("h1")) == 1
    loads = [v for _, attrs, _ in tree.tags for k, v in attrs.items() if k in ("src", "href", "srcset")]
    assert loads and all(v.startswith("data:") for v in loads)
    assert "http" not in text.replace("http-equiv", "")
    assert all(s.get("aria-label") for s in tree.named("svg")) and all(i["alt"] for i in tree.named("img"))
    assert len(tree.named("img")) == 6 * (2 + arms + 1)  # six test images: itself, truth, every arm
    assert "nan" not in tree.text.lower().split() and "None" not in tree.text.replace("None.", "")
    style = text[text.index("<style>") : text.index("</style>")]
    wide = [w for w in checks.too_wide(tree, style) if w != "a chart that does not shrink"]  # widths in per cent
    assert wide == []


def go_on(request, here, out):
    """The same command trains and reads nothing; another seed trains that seed; another budget is refused."""
    table = (out / "table.csv").read_text()
    here.started.clear()
    compare(request, "semiseg compare …", quiet=True, begin=here)
    assert here.started == [] and (out / "table.csv").read_text() == table
    assert set(readings(out).values()) == {1}
    request.steps = 5
    with pytest.raises(Refusal, match="another budget: steps: 4 → 5") as caught:
        compare(request, quiet=True, begin=here)
    assert caught.value.exit == 4


@pytest.fixture
def idle(here):
    """No cell comes to anything."""

    class Every(set):
        def __contains__(self, name):
            return True

    here.broken = Every()
    return here


def test_results_of_other_data_are_not_taken_for_these(ask, idle, tested, tmp_path):
    """A folder of the same name, or the same one changed: exit 4, and nothing is started."""
    request = ask("fixmatch", baselines="none")
    compare(request, quiet=True, begin=idle)
    mine = tmp_path / "other/binary"
    shutil.copytree(tested["binary"], mine)
    request.data = [mine]
    compare(request, quiet=True, begin=idle)  # the same files
    (mine / "images/00.png").unlink()
    (mine / "masks/00.png").unlink()
    idle.started.clear()
    with pytest.raises(Refusal, match="holds other images, masks or lists than 'binary'") as caught:
        compare(request, quiet=True, begin=idle)
    assert caught.value.exit == 4 and str(mine) in str(caught.value) and idle.started == []
    request.out = tmp_path / "another"
    compare(request, quiet=True, begin=idle)


def test_a_comparison_grows(ask, idle, tested):
    """More data sets, labels, seeds and methods; a folder that an older version wrote takes the hashes of now."""
    request = ask("fixmatch", baselines="none")
    compare(request, quiet=True, begin=idle)
    grid = request.out / "grid.json"
    storage.write_json(grid, {k: v for k, v in storage.read_json(grid).items() if k != "data"})
    compare(request, quiet=True, begin=idle)
    first = storage.read_json(grid)["data"]
    assert list(first) == ["binary"]
    request.data.append(tested["multiclass"])
    request.labels, request.seeds, request.methods = ["3", "all"], 2, ["fixmatch", "im@members=2"]
    idle.started.clear()
    compare(request, quiet=True, begin=idle)
    assert len(idle.started) == 2 * 2 * 2 * 3
    assert storage.read_json(grid)["data"].keys() == {"binary", "multiclass"}
    request.data = request.data[1:]
    compare(request, quiet=True, begin=idle)
    assert first.items() <= storage.read_json(grid)["data"].items()


def test_rows_that_nobody_asks_for_again_are_named(ask, here):
    """They stay in cells/, leave the tables, and are said to."""
    first = compare(ask("mean_teacher", baselines="none"), quiet=True, begin=here)
    assert not any("left out" in note for note in first["notes"])
    second = compare(ask("supervised", baselines="none"), quiet=True, begin=here)
    (note,) = [note for note in second["notes"] if "left out" in note]
    assert "1 finished before (binary-all-seed0-mean_teacher)" in note
    assert not any(row["arm"] == "mean_teacher" for row in second["table"])
    again = compare(ask("supervised", "mean_teacher", baselines="none"), quiet=True, begin=here)
    assert not any("left out" in note for note in again["notes"])
    assert any(row["arm"] == "mean_teacher" for row in again["table"])


def test_what_a_run_cost_and_which_source_trained_it(tested, tmp_path, monkeypatch):
    """EvalNet's training and the committee's answers count; a member taken over keeps the commit that trained it."""
    options = {"size": 16, "batch": 2, "network": "unet1x1:0.25", "steps": 3, "threads": 1, "workers": 1, "quiet": True}
    monkeypatch.setattr("semiseg.training.loop.commit", lambda: "older")
    first = train(tested["binary"], tmp_path / "a", method="committee", **options, **{"committee.members": 2})
    monkeypatch.setattr("semiseg.training.loop.commit", lambda: "newer")
    more = {"evalnet.members": 2, "evalnet.generations": 1}
    made = train(tested["binary"], tmp_path / "b", method="evalnet", reuse=str(tmp_path / "a"), **options, **more)
    assert (first["commit"], made["commit"]) == ("older", "older; newer")
    members = [m for g in made["generations"] for m in g["members"]]
    assert len(members) == 3 and [m["hash"] for m in members[:2]] == [
        m["hash"] for m in first["generations"][0]["members"]
    ]
    assert made["images_forwarded"] == sum(m["images_forwarded"] for m in members) + 3 * 2 + 2 * 5
    judge = storage.read_json(tmp_path / "b/generation-0/evalnet/result.json")
    assert judge["seconds"] > 0
    seconds = sum(m["seconds"] for m in members) + judge["seconds"]
    assert made["seconds"]["training_all_tries"] == pytest.approx(seconds, abs=0.01)
    assert spent(made)[1] == made["images_forwarded"] and spent(made)[0] >= round(seconds, 1)
    tries = {"training_all_tries": 2.0, "consensus": 0.5}
    assert spent({"seconds": tries, "images_forwarded": 8}) == (2.5, 8)  # as an older version noted it
    assert spent({"seconds": {**tries, "consensus_all_tries": 1.5}, "images_forwarded": 8}) == (3.5, 8)


def test_failures_are_rows(ask, here):
    request = ask("fixmatch", "mean_teacher", kind="multilabel", baselines="none", seeds=2)
    here.broken = {
        "multilabel-all-seed1-fixmatch",
        "multilabel-all-seed0-mean_teacher",
        "multilabel-all-seed1-mean_teacher",
    }
    result = compare(request, quiet=True, begin=here)
    assert {f["cell"] for f in result["failed"]} == here.broken
    table = {r["arm"]: r for r in rows_of(request.out / "table.csv")}
    assert table["fixmatch"]["n_seeds"] == "1" and "seed 1: R05" in table["fixmatch"]["failed"]
    assert table["mean_teacher"]["miou"] == "" and table["mean_teacher"]["n_seeds"] == "0"
    text = (request.out / "compare.html").read_text()
    assert checks.Tree(text).faults == [] and "has diverged" in text
    assert any("has diverged" in line for line in summary(result))
    here.broken, here.started[:] = set(), []
    assert compare(request, quiet=True, begin=here)["failed"] == []
    assert len(here.started) == 3


def test_committees_of_methods_and_changed_defaults(ask, here):
    """Rows of their own beside the method's; val and score of a cell are of one model; other settings are refused."""
    request = ask("fixmatch", "fixmatch+committee@members=2@threshold=0.0", "committee@members_by=bootstrap@members=2",
                  baselines="none")  # fmt: skip
    result = compare(request, quiet=True, begin=here)
    assert result["failed"] == []
    table = {r["arm"]: r for r in result["table"]}
    base, own, drawn = (
        "labels only",
        "fixmatch+committee, members=2, threshold=0.0",
        "committee, members_by=bootstrap, members=2",
    )
    more = ("", ", best of 2 on val", ", average of 2 at prediction")
    assert list(table) == [*(base + m for m in more), "fixmatch", *(own + m for m in more), *(drawn + m for m in more)]
    assert [table[own + m]["images_forwarded"] for m in more] == [
        table["fixmatch"]["images_forwarded"] * n for n in (1, 2, 2)
    ]
    cells = {r["arm"]: r for r in result["cells"]}
    for front in (base, own, drawn):
        best = table[f"{front}, best of 2 on val"]
        assert (cells[front]["val"], cells[front]["score"]) == pytest.approx((best["val_miou"], best["miou"]))
    assert any(table[f]["val_miou"] != cells[f]["val"] for f in (base, own, drawn)), (
        "the second model is best somewhere"
    )
    path = request.out / "cells/binary-all-seed0-fixmatch/run.json"
    record = storage.read_json(path)
    record["config"]["method_args"]["threshold"] = 0.9
    storage.write_json(path, record)
    (failed,) = compare(request, quiet=True, begin=here)["failed"]
    assert (
        failed["message"].startswith("S08: cells/binary-all-seed0-fixmatch")
        and "threshold: 0.9 → 0.95" in failed["message"]
    )


def test_a_carved_val_set_is_read_in_the_order_of_its_names(tested, tmp_path):
    data = tmp_path / "lists"
    tiny.write_folder(data, "binary", labeled=10, val=0)
    (data / "splits").mkdir()
    (data / "splits/labeled.txt").write_text("\n".join(f"{i:02d}" for i in reversed(range(10))))
    options = {"size": 16, "batch": 2, "network": "unet1x1:0.25", "steps": 2, "threads": 1, "workers": 1, "quiet": True}
    train(data, tmp_path / "run", method="supervised", **options)
    (found,) = reading.read(tmp_path / "run", data, "val", "x")
    assert len(found.names) == 2 and found.names == sorted(found.names)


def test_val_where_there_is_no_test(ask, here, folders):
    request = ask("fixmatch", kind="multiclass")
    request.data = [folders["multiclass"]]
    result = compare(request, quiet=True, begin=here)
    assert {r["split"] for r in result["table"]} == {"val"}
    assert "val is reported" in (request.out / "compare.html").read_text()


def test_a_folder_that_is_something_else(ask, here):
    request = ask("fixmatch")
    tiny.save(request.out / "mine.png", __import__("numpy").zeros((4, 4), "uint8"))
    with pytest.raises(Refusal, match="holds no comparison"):
        compare(request, quiet=True, begin=here)
    assert here.started == []


@pytest.mark.slow
def test_as_processes_of_their_own(tested, tmp_path):
    """What a person types; one of the methods is broken and is a row."""
    bad = tmp_path / "bad.py"
    bad.write_text(
        "from semiseg.methods.base import Method\n\n\nclass Bad(Method):\n"
        "    def step(self, labeled, unlabeled, clock):\n        raise ValueError('no')\n"
    )
    words = ["compare", str(tested["binary"]), "--methods", f"fixmatch,{bad}:Bad", "--seeds", "1", "--steps", "4",
             "--size", "16", "--batch", "2", "--network", "unet1x1:0.25", "--baselines", "none", "--jobs", "2",
             "--out", "out", "--json"]  # fmt: skip
    done = subprocess.run([sys.executable, "-m", "semiseg.cli", *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 8, done.stderr
    result = json.loads(done.stdout)
    assert [f["cell"] for f in result["failed"]] == ["binary-all-seed0-bad.py-Bad"] or len(result["failed"]) == 1
    assert "bad.py:6" in result["failed"][0]["message"]
    assert (tmp_path / "out/compare.html").exists()
