"""What the experiments make of finished runs, on runs that are written by hand."""

import csv
import json
import xml.etree.ElementTree as ET

import pytest

import im_ablation
import label_next
import measured
import stability
from semiseg.training.config import Config
from shared import write

ONE, OFFLINE = (arm.replace("@", ", ") for arm in (im_ablation.CENTRE, im_ablation.OFFLINE))
FIELDS = ("cell", "status", "data", "labels", "seed", "arm", "seconds", "images_forwarded", "commit")


def val(score):
    return {"per_class": {"a": {"iou": score / 2}, "b": {"iou": score}}, "miou": score, "dice": score}


def cell(folder, arm, seed=0, scores=((0.5,),), last=None, status="finished", commit="abc", labels="40", **options):
    """A cell whose generations had these scores on val (a tuple for each); `last`: the first student's at its last step."""
    name = f"seed{seed}-{arm.replace(', ', '-')}"
    run = folder / "cells" / name
    generations = []
    for g, row in enumerate(scores):
        members = [{"folder": f"generation-{g}/member-{i}", "val": val(s)} for i, s in enumerate(row)]
        generations.append({
            "generation": g, "members": members, "promoted": g == 0 or max(row) > max(max(s) for s in scores[:g]),
            "inconsistent_share": 0.1 if g + 1 < len(scores) else None, **options.get("more", {}),
        })  # fmt: skip
        for i, score in enumerate(row):
            final = run / f"generation-{g}" / f"member-{i}" / "final"
            final.mkdir(parents=True)
            (final / "result.json").write_text(json.dumps({"val": val(score), "val_last": val(last or score)}))
    best = max(range(len(scores)), key=lambda g: max(scores[g]))
    arms = [{"name": f"average of {len(scores[0])} at prediction", "folder": "", "val": val(0.6)}]
    summary = {"generations": generations, "arms": arms if len(scores[0]) > 1 else [],
               "model": {"folder": "", "generation": best, "val": val(max(scores[best]))}}  # fmt: skip
    (run / "summary.json").write_text(json.dumps(summary))
    program, args = options.get("program", ("im", {"fill": "zero"}))
    config = Config(steps=500, program=program, program_args=args).to_json()
    (run / "run.json").write_text(json.dumps({"config": config}))
    row = {"cell": name, "status": status, "data": folder.name.split("-")[1], "labels": labels, "seed": seed,
           "arm": arm, "seconds": 1.5, "images_forwarded": 99, "commit": commit}  # fmt: skip
    (folder / "grid.json").write_text(json.dumps({"steps": options.get("steps", 500)}))
    table = folder / "cells.csv"
    rows = [*csv.DictReader(table.open(newline=""))] if table.exists() else []
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows([*rows, row])


@pytest.fixture
def runs(tmp_path):
    return tmp_path / "runs"


def collected(runs):
    return {(r["arm"], int(r["seed"])): r for r in im_ablation.collect(runs)}


def test_the_figure_is_a_fixed_model(runs):
    """The last generation's first student, though another one, or generation 0, is better and is shipped."""
    cell(runs / "screen-isic2018", "im", scores=((0.5, 0.7), (0.6, 0.65)), last=0.55)
    row = collected(runs)["im", 0]
    assert (row["val_miou"], row["val_last"], row["shipped_val"]) == (0.6, 0.55, 0.7)
    assert (row["generation"], row["promoted"], row["shipped_generation"], row["members"]) == (1, "no", 0, 2)
    assert row["average_val"] == 0.6 and row["inconsistent_share"] == 0.1
    assert (row["stage"], row["data"], row["factor"]) == ("screen", "isic2018", "centre")
    assert (row["images_forwarded"], row["commit"]) == ("99", "abc")


def test_one_generation_is_not_promoted(runs):
    cell(runs / "screen-cells", "labels only", program=("committee", {"members": 3}), scores=((0.4, 0.5, 0.3),))
    row = collected(runs)["labels only", 0]
    assert (row["val_miou"], row["promoted"], row["average_val"], row["factor"]) == (0.4, "", 0.6, "")


def test_differences_are_paired(runs):
    """By stage, set, labels and seed: to the centre, and to the arm that differs in one factor."""
    place, cold = runs / "screen-isic2018", "fixmatch+im, warmup=0, ramp=0"
    for seed, (mine, warm, other) in enumerate([(0.50, 0.53, 0.57), (0.60, 0.58, 0.60)]):
        cell(place, ONE, seed, ((0.1,), (mine,)))
        cell(place, OFFLINE, seed, ((0.1,), (0.2,), (warm,)))
        cell(place, cold, seed, ((0.1,), (other,)))
    cell(place, "ensemble", 2, ((0.1,), (0.9,)))  # without a centre of this seed
    cell(runs / "confirm-isic2018", ONE, 2, ((0.1,), (0.2,)))  # another stage's
    found = collected(runs)
    assert [found[cold, s]["delta_centre"] for s in (0, 1)] == pytest.approx([0.07, 0.0])
    assert [found[cold, s]["delta_reference"] for s in (0, 1)] == pytest.approx([0.04, 0.02])
    assert found[ONE, 0]["delta_centre"] == 0 and found[ONE, 0]["delta_reference"] is None
    assert found["ensemble", 2]["delta_centre"] is None
    shown = [(m["arm"], m["delta_centre"]) for m in measured.means(found.values()) if m["stage"] == "screen"]
    assert shown[0] == (cold, pytest.approx(0.035)) and shown[-1] == ("ensemble", None)


def test_other_steps_are_another_place(runs):
    """Also for a row of K× steps, whose own models have more."""
    cell(runs / "confirm-cells-500", "labels only", scores=((0.5,), (0.5,)))
    cell(runs / "confirm-cells-2000", "labels only", scores=((0.5,), (0.6,)), steps=2000)
    cell(runs / "confirm-cells-2000", "labels only, 4× steps", scores=((0.7,),), steps=2000)
    rows = im_ablation.collect(runs)
    assert [(r["steps"], r["delta_centre"]) for r in rows] == [(2000, 0.0), (2000, 0.1), (500, 0.0)]
    assert [(r["steps"], r["arm"], r["seeds"]) for r in measured.means(rows)] == [
        (500, "labels only", 1), (2000, "labels only, 4× steps", 1), (2000, "labels only", 1),
    ]  # fmt: skip


def test_what_is_not_on_val_is_no_figure(runs):
    """Where val is too small, fold members are scored on their folds."""
    cell(runs / "confirm-vnc_em", "im", scores=((0.5, 0.7), (0.6,)))
    cell(runs / "confirm-vnc_em", "im, members_by=folds", scores=((0.5, 0.7), (0.6,)), more={"out_of_fold": val(0.5)})
    row = collected(runs)["im, members_by=folds", 0]
    assert [row[k] for k in ("val_miou", "val_last", "shipped_val", "delta_centre")] == [None] * 4


def test_rows_outlive_their_folders(runs, tmp_path):
    """What was measured stays in the table; what is measured again is replaced, and what is named anew has its factor."""
    table = tmp_path / "table.csv"
    cell(runs / "confirm-cells", "labels only", scores=((0.5,),))
    cell(runs / "confirm-cells", "ensemble", scores=((0.1,), (0.6,)))
    write(table, im_ablation.collect(runs, table))
    again = tmp_path / "again"
    cell(again / "confirm-cells", "labels only", scores=((0.4,),))
    cell(again / "confirm-cells", "labels only", 1, scores=((0.3,),))
    rows = im_ablation.collect(again, table)
    assert [(r["arm"], int(r["seed"]), r["val_miou"]) for r in rows] == [
        ("labels only", 0, 0.4), ("ensemble", 0, 0.6), ("labels only", 1, 0.3),
    ]  # fmt: skip
    ensemble = rows[1]
    assert ensemble["delta_centre"] == pytest.approx(0.2) and (ensemble["factor"], ensemble["reference"]) == (
        "mask",
        "im",
    )


def test_only_what_is_finished(runs):
    cell(runs / "screen-cells", "im", status="running")
    cell(runs / "stability-cells", "im", 1)
    assert collected(runs) == {} == collected(runs / "nowhere")


def test_arguments_are_those_that_the_run_noted(runs):
    """Whatever a default is today; nothing of the machine."""
    cell(runs / "screen-cells", "im, fill=zero", program=("im", {"fill": "zero", "members": 9}))
    words = collected(runs)["im, fill=zero", 0]["arguments"].split()
    assert {"steps=500", "augment=default", "im.fill=zero", "im.members=9"} <= set(words)
    assert not any(w.startswith(("out=", "device=", "data=")) for w in words)


def test_a_row_for_every_generation(runs):
    """Also of those that came after a collapse, and of a model that is not shipped."""
    scores = ((0.5, 0.6), (0.7, 0.6), (0.3, 0.2))
    cell(runs / "stability-cells", "im, members=2", scores=scores)
    rows = stability.generations(runs)
    assert [(r["generation"], r["member_0"], r["member_1"]) for r in rows] == [(g, *s) for g, s in enumerate(scores)]
    assert [r["mean"] for r in rows] == pytest.approx([0.55, 0.65, 0.25])
    assert [r["promoted"] for r in rows] == ["yes", "yes", "no"]
    assert [r["inconsistent_share"] for r in rows] == [0.1, 0.1, None]


def test_generations_outlive_their_folders(runs, tmp_path):
    """A seed whose cells are gone keeps its rows and its line; a cell that is trained anew takes the place of its rows."""
    table, chart = tmp_path / "table.csv", tmp_path / "chart.svg"
    cell(runs / "stability-isic2018", "im, members=2", scores=((0.5, 0.5), (0.3, 0.3)))
    write(table, stability.generations(runs))
    anew = tmp_path / "anew"
    cell(anew / "stability-cells", "im, members=2", scores=((0.4, 0.4), (0.2, 0.2)))
    cell(anew / "stability-isic2018", "im, members=2", 1, scores=((0.5, 0.5), (0.6, 0.6)))
    write(table, measured.kept(table, stability.generations(anew)))
    rows = measured.kept(table, stability.generations(anew))
    found = [(r["data"], str(r["seed"]), int(r["generation"]), float(r["mean"])) for r in rows]
    assert found == [
        ("cells", "0", 0, 0.4), ("cells", "0", 1, 0.2),
        *(("isic2018", str(seed), g, m) for seed, means in ((0, (0.5, 0.3)), (1, (0.5, 0.6))) for g, m in enumerate(means)),
    ]  # fmt: skip
    stability.draw(rows, chart)
    assert chart.read_text().count('class="line"') == 3


def test_the_chart_shows_the_decay(runs, tmp_path):
    """A panel for each set, a line for each arm and seed that falls where the scores fall; nothing for labels only."""
    for name in ("cells", "isic2018"):
        cell(runs / f"stability-{name}", "self_training, members=2", scores=((0.5, 0.5), (0.3, 0.3)))
        cell(runs / f"stability-{name}", "im, members=2", scores=((0.5, 0.5), (0.6, 0.6)))
        cell(runs / f"stability-{name}", "im, members=2", 1, scores=((0.5, 0.5), (0.6, 0.6)))
        cell(runs / f"stability-{name}", "labels only", scores=((0.5, 0.5),))
    path = tmp_path / "images" / "im_stability.svg"
    stability.draw(stability.generations(runs), path)
    root = ET.parse(path).getroot()
    space = "{http://www.w3.org/2000/svg}"
    panels = root.findall(f"{space}svg")
    assert [float(p.get("x")) for p in panels] == [0, stability.WIDTH]
    for panel in panels:
        lines = [p for p in panel.iter(f"{space}path") if p.get("class") == "line"]
        ends = {p.find(f"{space}title").text: [pair.split() for pair in p.get("d")[1:].split("L")] for p in lines}
        assert set(ends) == {"self_training, members=2, seed 0", "im, members=2, seed 0", "im, members=2, seed 1"}
        assert all(
            (float(d[-1][1]) > float(d[0][1])) == name.startswith("self") for name, d in ends.items()
        )  # y points down
    texts = [t.text for t in root.findall(f"{space}text")]
    assert texts.count("im") == 1 and any("isic2018" in t for t in texts)
    assert "labels only" not in path.read_text()


def choice(choice, seed, miou, split="val", **changes):
    return {"data": "cells", "split": split, "steps": "500", "start": "20", "labels": "40", "seed": seed, "choice": choice,
            "miou": miou, **changes}  # fmt: skip


def test_rankings_are_compared_with_their_own_seeds_draws():
    """Differences .06, .04, .05: mean .05, standard deviation .01, so half an interval is 4.303 · .01 / √3 = .0248."""
    rows = []
    for seed, (base, ranked) in enumerate([(0.50, 0.56), (0.60, 0.64), (0.70, 0.75)]):
        rows += [choice("random-0", seed, base - 0.1), choice("random-1", str(seed), base + 0.1)]
        rows += [choice("plain", seed, ranked), choice("diverse", seed, base + 0.05 * (-1) ** seed)]
    rows += [choice("plain", 0, 0.9, split="test")]  # another split, and no draws there
    made = {r["choice"]: r for r in label_next.summarise(rows)}
    assert set(made) == {"plain", "diverse"}
    plain = made["plain"]
    assert (plain["seeds"], plain["delta"], plain["verdict"]) == (3, 0.05, "better than random")
    assert (plain["low"], plain["high"]) == pytest.approx((0.0252, 0.0748), abs=1e-4)
    assert plain["per_seed"] == "+0.0600 +0.0400 +0.0500"
    assert made["diverse"]["verdict"] == "no difference shown"


def test_one_seed_has_no_interval():
    made = label_next.interval([-0.2])
    assert (made["delta"], made["low"], made["high"], made["verdict"]) == (-0.2, "", "", "no difference shown")
    assert label_next.interval([-0.2, -0.2001])["verdict"] == "worse than random"
