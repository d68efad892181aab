"""The experiments ask for arms that exist: a queue of hours must not stop at a misspelt one."""

from pathlib import Path

import pytest

import does_it_help
import im_ablation
import label_next
import stability
from semiseg.compare.request import Request, configured
from shared import RAMP, read, write


def asked(request):
    problems, notes = [], []
    arms = configured(request, problems, notes)
    assert problems == [] and all("has its own " in note for note in notes)
    return arms


def typed(tmp_path, stage, *words):
    return im_ablation.arguments([str(tmp_path), "--stage", stage, "--runs", str(tmp_path), *words])


@pytest.mark.parametrize("stage", ["screen", "confirm", "stability"])
def test_the_ablation_can_be_configured(stage, tmp_path, monkeypatch):
    monkeypatch.setattr(im_ablation, "folder", lambda name, root, runs: root / name)
    chosen = ["--arms", *im_ablation.ARMS] if stage == "confirm" else []
    for request in im_ablation.requests(typed(tmp_path, stage, *chosen)):
        assert request.split == "val" and request.seeds >= 2
        assert len(asked(request)) == len(request.methods)


def test_confirming_takes_arms_that_are_known(tmp_path, capsys):
    for words in ([], ["--arms", "im@members=7"]):
        with pytest.raises(SystemExit):
            typed(tmp_path, "confirm", *words)
    assert "--arms" in capsys.readouterr().err
    assert typed(tmp_path, "confirm", "--arms", "im@generations=1", "--seeds", "5").seeds == 5


def test_every_arm_has_one_factor():
    """Its row finds it again by the title that `compare` gives it, and what it is compared with is an arm as well."""
    arms = [arm for group in (im_ablation.SCREENED, im_ablation.OTHERS) for same in group.values() for arm in same]
    assert len(arms) == len(set(arms)) == len(im_ablation.ARMS)
    titles = [a.title for a in asked(Request([Path("data")], arms, Path("out")))]
    found = [im_ablation.factor(title) for title in titles]
    assert all(factor for factor, _ in found)
    assert {other for _, other in found} <= {"", im_ablation.CENTRE, *titles}
    assert im_ablation.factor(im_ablation.CENTRE) == ("centre", "")
    assert im_ablation.factor("labels only") == ("", "")


def test_the_table_of_factors_is_whole():
    """At the top of the file stands what each of them is."""
    for factor in im_ablation.SCREENED | im_ablation.OTHERS:
        assert f"\n{factor}  " in im_ablation.__doc__


def test_the_screen_is_around_im_as_it_is(tmp_path, monkeypatch):
    """Every factor that the screen has has an arm there; other arms are trained when they are asked for."""
    monkeypatch.setattr(im_ablation, "folder", lambda name, root, runs: root / name)
    methods = im_ablation.requests(typed(tmp_path, "screen"))[0].methods
    assert methods[0] == im_ablation.CENTRE and len(methods) == len(set(methods)) > 13
    assert {factor for arm in methods[1:] for factor in [im_ablation.ARMS[arm][0]]} == set(im_ablation.SCREENED)
    asked_for = im_ablation.requests(typed(tmp_path, "screen", "--arms", "im@doubt=0.3"))[0].methods
    assert asked_for == ["im", "im@doubt=0.3"]


@pytest.mark.parametrize("arm", im_ablation.ARMS)
def test_one_factor_at_a_time(arm):
    """Beside the arm it is compared with, an arm changes settings of its own factor, or the method."""
    factor, other = im_ablation.ARMS[arm]
    if "im" not in (arm.split("@")[0], other.split("@")[0]):  # the route, and what stands on it
        assert factor in ("route", "warm-up")
        return
    mine, theirs = map(settings, (arm, other))
    if arm.split("@")[0] == other.split("@")[0]:
        changed = {k for k in mine if mine[k] != theirs[k]} - {"patience"}  # which goes with the number of generations
        several = {"preset": {"preset", "fill", "label"}, "scheme": {"members_by", "start"}, "both": {"weight", "view"}}
        assert several[factor] <= changed if factor in several else len(changed) == 1


def settings(arm):
    """What an arm trains with: of its program, whatever was typed, and of its training."""
    one = asked(Request([Path("data")], [arm], Path("out")))[0]
    given = {k: v for k, v in one.config.to_json().items() if not k.endswith("_args")}
    taught = {k: one.config.method_args.get(k) for k in ("weight", "mix") if one.config.method == "supervised"}
    return {k: v for k, v in (given | taught | vars(one.program)).items() if k != "asked"}


def test_arms_of_the_stability_differ_in_one_thing():
    """Who teaches: the same models everywhere, and none of them is left out because val got worse."""
    arms = asked(Request([Path("data")], stability.ARMS, Path("out")))
    settings = [a.config.program_args for a in arms]
    for key in set.intersection(*(set(s) for s in settings)):
        assert len({s[key] for s in settings}) == 1, key
    assert settings[0]["generations"] == settings[0]["patience"] >= 5
    assert settings[0]["members"] == settings[0]["students"]
    assert len({a.models for a in arms}) == 1


def test_the_comparisons_can_be_configured():
    assert len(asked(Request([Path("data")], does_it_help.ARMS, Path("out")))) == len(does_it_help.ARMS)


def test_what_was_screened_is_what_is_tested():
    """The ablation's FixMatch and does_it_help's have the same warm-up and ramp."""
    for arm in (*im_ablation.ARMS, *does_it_help.ARMS):
        if arm.startswith(("fixmatch", "mean_teacher")) and "warmup=0@" not in arm:
            assert set(RAMP) <= set(arm.split("@")), arm


def test_seeds_can_be_raised(tmp_path):
    def seeds(name, *words):
        args = does_it_help.arguments([str(tmp_path), *words])
        made = does_it_help.command(name, tmp_path / name, tmp_path / "out", args)
        return made[made.index("--seeds") + 1]

    assert [seeds(name) for name in does_it_help.SETS] == ["3", "3", "3", "3", "5", "5"]
    assert [seeds(name, "--seeds", "7") for name in does_it_help.SETS] == ["7"] * 6


def test_few_test_images_are_not_drawn_in_blocks(tmp_path):
    """vnc_em has 5: runs of 3 would leave one block, and `compare` gives no interval from fewer than 5."""
    made = does_it_help.command("vnc_em", tmp_path, tmp_path, does_it_help.arguments([str(tmp_path)]))
    assert "--blocks" not in made


def test_arms_are_confirmed_and_tested_with_as_many_steps(tmp_path):
    """The screen and the stability have fewer; folders are told apart by them."""
    words = does_it_help.command("cells", tmp_path, tmp_path, does_it_help.arguments([str(tmp_path)]))
    place = ["--runs", str(tmp_path / "runs"), "--only", "isic2018"]
    stages = {"screen": [], "stability": [], "confirm": ["--arms", "ensemble"]}
    made = {
        stage: im_ablation.requests(im_ablation.arguments([str(tmp_path), "--stage", stage, *place, *more]))[0]
        for stage, more in stages.items()
    }
    assert [r.steps for r in made.values()] == [500, 500, int(words[words.index("--steps") + 1])]
    assert [r.out.name for r in made.values()] == [
        "screen-isic2018-500", "stability-isic2018-500", "confirm-isic2018-1000",
    ]  # fmt: skip


def test_rankings_are_chosen_on_val(tmp_path):
    args = label_next.arguments([str(tmp_path)])
    rankings = {"plain", "per_foreground", "per_outline", "diverse", "typical", "typical_doubt"}
    assert args.split == "val" and rankings == set(args.choices)


def test_a_table_of_rows_from_two_versions_has_the_columns_of_both(tmp_path: Path) -> None:
    write(tmp_path / "table.csv", [{"arm": "im", "miou": 0.5}, {"arm": "im", "miou": 0.6, "risk": 0.1}])
    assert read(tmp_path / "table.csv") == [
        {"arm": "im", "miou": "0.5", "risk": ""},
        {"arm": "im", "miou": "0.6", "risk": "0.1"},
    ]
