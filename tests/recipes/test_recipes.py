"""Every recipe says what its source says, names networks that exist, and trains two steps on a folder of its layout."""

import json
from functools import cache
from pathlib import Path

import layouts
import pytest
import table
import torch
import yaml

import semiseg
import tiny
from semiseg.batch import Clock
from semiseg.data.check import check
from semiseg.data.classfile import read_spec
from semiseg.errors import Refusal
from semiseg.methods import arguments, method_class
from semiseg.methods.fixmatch import FixMatch
from semiseg.methods.maskmatch import MaskMatch
from semiseg.networks import build
from semiseg.programs.train import configure
from semiseg.training.recipe import read_recipe

RECIPES = {p.stem: p for p in sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))}
ROWS = table.rows()


@cache
def published(name):
    return yaml.safe_load(RECIPES[name].read_text())["published"]


def test_every_setting_has_a_recipe_and_every_recipe_a_row():
    assert set(RECIPES) == set(ROWS) == set(table.SCORES)


@pytest.mark.parametrize("name", RECIPES)
def test_the_values_are_those_of_the_table(name):
    found = read_recipe(RECIPES[name])
    assert set(found) == set(ROWS[name])
    assert {k: v for k, v in found.items() if v != ROWS[name][k]} == {}


@pytest.mark.parametrize("name", RECIPES)
def test_the_numbers_are_those_of_the_table_and_have_a_source(name):
    block = published(name)
    assert list(block["scores"].values()) == [float(v) for v in table.SCORES[name].split()]
    assert block["metric"] and block["data"] in layouts.LAYOUTS
    assert block["source"] and (block["source"] == "not verified") == (not block["scores"])
    assert all(0 < v < 100 for v in block["scores"].values())
    if "moving average" in block["metric"]:
        assert "ema" in arguments(method_class(ROWS[name]["method"].partition("+")[0]))
    if "base" in block:  # inconsistency masks beside the same method without them
        assert list(block["base"]) == list(block["scores"])


@pytest.mark.parametrize("name", RECIPES)
def test_every_value_has_a_source(name):
    text = RECIPES[name].read_text().partition("\npublished:")[0].splitlines()
    keys = [line for line in text if line and not line.startswith(("#", " ", "method:"))]
    assert keys and all("  # " in line for line in keys), [line for line in keys if "  # " not in line]
    assert text[0].startswith("# ") and text[0].endswith(".") and text[1].startswith("# [1] ")


@pytest.mark.parametrize(("name", "lists", "steps"), table.UPDATES)
def test_epochs_give_the_updates_that_the_authors_report(name, lists, steps):
    recipe = read_recipe(RECIPES[name])
    assert recipe["epochs"] * (table.UNLABELED[lists] // recipe["unlabeled_batch"]) == steps


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_a_configuration(name):
    config = configure({"data": "x"}, [], RECIPES[name], {})
    assert config.name in (ROWS[name]["method"], f"supervised+{ROWS[name]['method']}")
    assert bool(config.steps) != bool(config.epochs) and config.data == "x"


@pytest.mark.parametrize("network", sorted({r["network"] for r in ROWS.values()}))
def test_its_network_exists(network):
    """Built without memory: names, options and shapes of parameters are real, values are not."""
    with torch.device("meta"):
        net = build(network, 3, 21)
    assert sum(p.numel() for p in net.parameters()) > 1e5


@pytest.mark.parametrize(
    ("name", "count"), [("pascal", 21), ("cityscapes", 19), ("coco", 81), ("ade20k", 150), ("cityscapes208", 35)]
)
def test_classes_are_as_many_as_the_authors_train(name, count):
    spec, problems = read_spec(layouts.CLASSES / f"{name}.yaml")
    assert not problems and len(spec.names) == count


def test_the_study_trains_networks_of_the_authors_size():
    """3 channels in, 35 classes out."""
    net = build(ROWS["scratch-cityscapes208"]["network"], 3, 35)
    assert sum(p.numel() for p in net.parameters()) == 680_755


def test_maskmatch_without_its_own_terms_is_fixmatch_with_a_teacher():
    """At the first step the teacher is the student: same labels, same boxes, and so FixMatch's loss, whatever is hidden."""
    chosen = {k: ROWS["fixmatch-pascal-dinov2b"][k] for k in ("masked", "spread", "ema")} | {"threshold": 0.4}
    task = tiny.task_of("multiclass")

    def make(role="student", **options):
        torch.manual_seed(0)
        return tiny.Pixelwise(1, 3)  # like a ViT without batch normalisation

    labeled, unlabeled = tiny.labeled("multiclass"), tiny.unlabeled("multiclass")
    one, other = FixMatch(make, task, threshold=0.4), MaskMatch(make, task, **chosen)
    with torch.no_grad():
        other.teacher.network.conv.bias += torch.tensor([2.0, 0.0, -2.0])
    wanted, found = (m.step(labeled, unlabeled, Clock(0, 100))["loss"] for m in (one, other))
    assert not torch.isclose(wanted, found)  # labels are the teacher's
    other.teacher.update(other.student)  # the first update copies the student
    assert torch.isclose(wanted, other.step(labeled, unlabeled, Clock(0, 100))["loss"])


def test_numbers_are_no_settings(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("method: supervised\nlr: 1.0e-3\npublished: {scores: {all: 1}}\n")
    assert read_recipe(recipe) == {"method": "supervised", "lr": 1e-3}
    recipe.write_text("method: supervised\npublishd: {scores: {all: 1}}\n")
    with pytest.raises(Refusal, match=r"published|publishd"):
        configure({"data": "x"}, [], recipe, {})


def small(name):
    """Everything that makes a recipe quick and leaves its code path alone."""
    method = ROWS[name]["method"]
    sets = ["unlabeled_batch=2", "baseline=no", "threads=1", "workers=1", "device=cpu", "eval_every=2", "freeze=no",
            "resize=0"]  # fmt: skip
    program = method.rpartition("+")[2]
    if program in ("im", "ensemble"):
        sets += [f"{program}.members=2", f"{program}.generations=1", f"{program}.students=1"]
    if "segkc" in method:
        sets.append("senior=unet1x1:0.5")
    if "u2pl" in method:
        sets.append("bank=64")
    return {"network": "unet1x1:0.25", "weights": "", "size": 32, "steps": 2, "batch": 2, "sets": sets}


def representatives():
    """The fewest recipes in whose paths every method, program, data set, loss and optimiser occurs."""
    seen, chosen = set(), []
    for name, row in ROWS.items():
        parts = {*row["method"].split("+"), row["loss"], row["optimizer"], published(name)["data"]}
        parts |= {"oracle"} & set(row)
        if parts - seen:
            chosen.append(name)
            seen |= parts
    return chosen


@pytest.mark.parametrize(
    "name", [n if n in representatives() else pytest.param(n, marks=pytest.mark.slow) for n in RECIPES]
)
def test_two_steps(name, tmp_path):
    block = published(name)
    data = layouts.LAYOUTS[block["data"]](tmp_path / "data")
    options = small(name)
    result = semiseg.train(data, tmp_path / "run", recipe=RECIPES[name], quiet=True, **options)
    done = json.loads((tmp_path / "run/run.json").read_text())["config"]
    overridden = {*options, "method", "epochs", "resize", *(s.split("=")[0] for s in options["sets"])}
    for key, value in ROWS[name].items():
        if key not in overridden:
            found = {
                **done,
                **done["method_args"],
                **{f"{done['program']}.{k}": v for k, v in done["program_args"].items()},
            }
            assert {"yes": True, "no": False}.get(found[key], found[key]) == value, key
    counts = json.loads((tmp_path / "run/check.json").read_text())["counts"]
    assert counts["labeled"] == (9 if "oracle" in ROWS[name] else 4)
    assert done["steps"] == 2 and (tmp_path / "run/report.html").is_file()
    assert result["arms"][-1]["val"]["miou"] is not None
    states = list((tmp_path / "run").glob("generation-*/member-*/metrics.csv"))
    assert states and all("2,train," in path.read_text() for path in states)


@pytest.mark.parametrize("layout", layouts.LAYOUTS)
def test_lists_of_every_family_are_read_unchanged(layout, tmp_path):
    checked = check(layouts.LAYOUTS[layout](tmp_path / "data"))
    assert checked.errors == [] and not [p for p in checked.problems if p.code in ("D18", "D19", "D31")]
    assert {k: checked.index.counts()[k] for k in layouts.COUNT} == layouts.COUNT
    assert checked.classes.kind == {"isic": "binary", "hela": "multilabel"}.get(layout, "multiclass")
    family = layout.split()[0]
    if checked.classes.kind == "multiclass":
        assert checked.classes.names == read_spec(layouts.CLASSES / f"{family}.yaml")[0].names
    if family in ("pascal", "cityscapes", "coco", "ade20k"):  # a row of 255 in every mask of these
        assert checked.pixels["labeled"]["ignore"] == layouts.COUNT["labeled"] * 2 * layouts.SIDE[1]


@pytest.mark.parametrize(
    "pair", [("pascal", "pascal u2pl"), ("pascal", "pascal cps"), ("cityscapes", "cityscapes u2pl")]
)
def test_two_families_name_the_same_images_alike(pair, tmp_path):
    one, two = (check(layouts.LAYOUTS[style](tmp_path / str(i))) for i, style in enumerate(pair))
    assert [i.name for i in one.index.labeled] == [i.name for i in two.index.labeled]
    assert one.pixels == two.pixels and one.digests == two.digests
