"""The plan: which cells, in which order, of which budget; and everything that is wrong, at once, before anything runs."""

import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

import tiny
from semiseg.compare.grid import _short, plan, slug
from semiseg.compare.request import route, separated
from semiseg.data import decode
from semiseg.errors import Refusal


def names(grid):
    return [c.name.partition("seed")[2] for c in grid.cells]


def test_labels_only_first_then_plain_then_programs(ask):
    grid = plan(ask("fixmatch+im", "im", "fixmatch", labels=["4"], seeds=2))
    one = ["committee-4", "labels-only-4x-steps", "fixmatch", "fixmatch+im", "im", "full-labels"]
    assert names(grid) == [f"{seed}-{n}" for seed in (0, 1) for n in one]
    assert grid.models == 4 and grid.splits == {"binary": "test"}
    by = {c.name: c for c in grid.cells}
    plain, program, im = (by[f"binary-4-seed0-{n}"] for n in ("fixmatch", "fixmatch+im", "im"))
    committee = "binary-4-seed0-committee-4"
    assert plain.needs == () and im.needs == ()  # snapshots are in no committee of labels only
    apart = plan(ask("im@members_by=seed", labels=["4"])).cells[2]
    assert apart.needs == (committee,)  # whose members it takes over: nobody else waits for them
    assert program.needs == (plain.name,)
    reuse = next(s for s in program.sets if s.startswith("reuse=")).removeprefix("reuse=").split(os.pathsep)
    assert [p.rpartition("/")[2] for p in reuse] == [plain.name]
    assert "baseline=false" in plain.sets


def test_equal_budgets(ask):
    """Same steps for every model; as many labels-only models as the largest program trains; one with K times the steps."""
    for name in ("im", "ensemble", "self_training", "input_ensemble"):
        assert plan(ask(name)).models == 4  # a teacher for each of three generations, and a student
    grid = plan(ask("im@members=2@generations=2@students=2@members_by=seed", "ensemble", labels=["4"]))
    assert grid.models == 6  # 2 + 2 + 2
    steps = {c.name.rpartition("seed0-")[2]: c.options["steps"] for c in grid.cells}
    assert steps.pop("labels-only-6x-steps") == 24
    assert set(steps.values()) == {4}
    committee = grid.cells[0]
    assert "committee.members=6" in committee.sets and committee.models == 6
    for cell in grid.cells:
        same = {k: cell.options[k] for k in ("size", "batch", "network")}
        assert same == {"size": 16, "batch": 2, "network": "unet1x1:0.25"} and cell.options["seed"] == 0


def test_a_method_with_the_steps_of_many_models(ask):
    """One FixMatch of as many steps as im's models have in all; no member of fixmatch+im is taken over from it."""
    grid = plan(ask("fixmatch@steps=4x", "fixmatch+im@members=2", labels=["4"]))
    by = {c.arm: c for c in grid.cells}
    longer = by["fixmatch, steps=4x"]
    assert (longer.options["steps"], longer.models, longer.steps) == (16, 1, 16) and grid.models == 4
    assert not any(text.startswith("steps") for text in longer.sets) and "has its own steps" not in " ".join(grid.notes)
    other = by["fixmatch+im, members=2"]
    assert other.options["steps"] == 4 and longer.name not in other.needs
    assert plan(ask("im", "fixmatch@steps=9x")).models == 9  # labels only are given as many
    with pytest.raises(Refusal, match="a multiple of --steps is steps=4x"):
        plan(ask("im@steps=4"))
    for typed in ("steps=0x", "steps=x", "steps=-1x"):
        with pytest.raises(Refusal, match="steps"):
            plan(ask(f"im@{typed}"))


def test_longer_rows_choose_among_as_many_moments(ask):
    """Four trainings in a row are asked on val 40 times; so is one of as many steps."""
    longer = ("labels only, 4× steps", "fixmatch, steps=4x")
    for sets, said in ([], "eval_every=3"), (["eval_every=5"], "eval_every=5"):
        cells = plan(ask("im", "fixmatch@steps=4x", labels=["4"], steps=30, sets=sets)).cells
        found = {c.arm: [text for text in c.sets if text.startswith("eval_every")] for c in cells}
        assert {arm: found.pop(arm) for arm in longer} == {arm: [said] for arm in longer}
        assert set(map(tuple, found.values())) == {tuple(sets)}


def test_labels_only_is_one_model_whatever_sets_members_apart(ask):
    shared = ["members_by=bootstrap", "committee.members_by=folds", "networks=unet1x1:0.25,unet1x1:0.5,unet"]
    for words in shared:
        grid = plan(ask("im@generations=1", labels=["4"], sets=[words, "lr=0.01"] if words[0] != "c" else ["lr=0.01"]))
        assert not any(key in text for text in grid.cells[0].sets for key in ("members_by", "networks")), words
        assert "lr=0.01" in grid.cells[0].sets


def test_an_evalnet_needs_val_and_a_committee_no_unlabeled_images(ask, tested, tmp_path):
    """Both are known when the grid is planned."""
    data = shutil.copytree(tested["binary"], tmp_path / "data")
    shutil.rmtree(data / "val")
    request = replace(ask("evalnet", "im_plusplus", "im", labels=["4"]), data=[data])
    with pytest.raises(
        Refusal, match=r"C08: .* has no val set with --labels 4, and evalnet, im_plusplus learn to judge"
    ):
        plan(request)
    shutil.rmtree(data / "unlabeled")
    request = replace(ask("committee@members=2", baselines="none"), data=[data])
    assert [c.arm for c in plan(request).cells][1:] == ["committee, members=2"]
    with pytest.raises(Refusal, match="D32"):
        plan(replace(request, methods=["im"]))


def test_an_evalnet_is_a_model(ask):
    """It is trained for as many steps as a member."""
    for arm, members in (("evalnet@members=2@generations=1", 3), ("im_plusplus@generations=2", 5), ("im", 4)):
        assert plan(ask(arm)).models == members + (arm != "im"), arm


def test_a_committee_takes_over_what_another_size_has(ask):
    request = ask("im@members_by=seed", "im", "ensemble", labels=["4"], seeds=2)
    for name in ("binary-4-seed0-committee-2", "binary-4-seed0-committee-4", "binary-all-seed0-committee-2"):
        (request.out / "cells" / name).mkdir(parents=True)
    of = {c.name: [s for s in c.sets if s.startswith("reuse=")] for c in plan(request).cells}
    assert of["binary-4-seed0-committee-4"] == [f"reuse={request.out / 'cells/binary-4-seed0-committee-2'}"]
    assert of["binary-4-seed1-committee-4"] == [] == of["binary-4-seed0-labels-only-4x-steps"]
    mine = [f"binary-4-seed0-{name}" for name in ("committee-4", "im-members_by=seed", "im", "ensemble")]
    theirs = [s.removeprefix("reuse=").split(os.pathsep) for name in mine[1:] for s in of[name]]
    cells = [str(request.out / "cells" / name) for name in mine]
    assert theirs == [cells[:1], cells[1:2], cells[1:3]]  # whoever began alike before it; snapshots are in no committee


def test_one_model_needs_no_longer_row(ask):
    grid = plan(ask("fixmatch", "mean_teacher", baselines="none"))
    assert names(grid) == ["0-committee-1", "0-fixmatch", "0-mean_teacher"]


def test_variants_are_rows_of_their_own(ask):
    grid = plan(ask("im", "im@members=2", baselines="none", sets=["im.fill=zero", "lr=0.01"]))
    first, second = grid.cells[1:]
    assert (first.arm, second.arm) == ("im", "im, members=2") and first.name != second.name
    assert "members=2" in second.sets and "members=2" not in first.sets
    assert all({"im.fill=zero", "lr=0.01"} <= set(c.sets) for c in (first, second))
    assert "im.fill=zero" not in grid.cells[0].sets and "lr=0.01" in grid.cells[0].sets


def test_settings_go_where_they_fit():
    sets = ["im.members=2", "threshold=0.9", "batch=3", "fixmatch.threshold=0.8"]
    assert route(sets, "fixmatch", "im") == sets
    assert route(sets, "supervised", "im") == ["im.members=2", "batch=3"]
    assert route(sets, "mean_teacher", "") == ["batch=3"]
    assert route(["nonsense=1", "im.lr=3"], "supervised", "im") == ["im.lr=3"]  # the one is refused, the other says why


def test_rows_that_are_there_anyway(ask):
    grid = plan(ask("supervised", "committee", "fixmatch", baselines="none"))
    assert [c.arm for c in grid.cells] == ["labels only", "fixmatch"]
    assert len(grid.notes) == 2


def test_a_val_set_too_small_to_choose_by_is_said(ask, tmp_path):
    """With 20 images there is the row, and with one model nothing is chosen."""
    small = tiny.write_folder(tmp_path / "small", "binary", labeled=6, val=19)
    said = plan(replace(ask("im"), data=[small])).notes
    assert any("val has 19 images, fewer than the 20" in n and "best of 4 on val" in n for n in said)
    assert not any("best of" in n for n in plan(ask("im")).notes)
    assert not any("best of" in n for n in plan(replace(ask("fixmatch"), data=[small])).notes)


def test_an_arm_with_a_training_of_its_own_is_noted(ask):
    own = ["im@lr=0.01@fill=zero", "im@preset=paper", "im@members=2", "im"]
    said = [n for n in plan(ask(*own)).notes if "of the method alone" in n]
    assert [n.partition(":")[0] for n in said] == ["im, lr=0.01, fill=zero", "im, preset=paper"]
    assert "has its own lr, so" in said[0] and "has its own preset=paper, so" in said[1]


def test_an_arm_has_no_budget_of_its_own(ask):
    """Where labels only could not have it, the difference would not be the method's."""
    for own in ("batch=8", "size=24", "resize=32", "network=unet", "batch =4"):
        key = own.partition("=")[0].strip()
        with pytest.raises(Refusal, match=f"sets {key} for itself.*another comparison") as caught:
            plan(ask(f"im@{own}"))
        assert caught.value.exit == 2
    assert plan(ask("im@unlabeled_batch=4", "fixmatch@lr=0.01", "im@augment=none")).cells
    with pytest.raises(Refusal, match="sets what the grid decides: seed"):
        plan(ask("im@seed=4"))


def test_no_labels_at_all(ask):
    with pytest.raises(Refusal, match="--labels names no number of labels") as caught:
        plan(ask("fixmatch", labels=[]))
    assert caught.value.exit == 2


def test_the_hash_of_a_folder_is_that_of_its_files(ask, tested, tmp_path):
    """Not of what is asked of it; masks of unlabeled images count where they are opened."""
    first = plan(ask("fixmatch")).data
    assert list(first) == ["binary"]
    assert plan(ask("im", labels=["3", "4"], seeds=2, split="val")).data == first
    assert plan(replace(ask("fixmatch"), options={"size": 24, "batch": 4})).data == first
    other = tmp_path / "binary"
    shutil.copytree(tested["binary"], other)
    mask = other / "test/masks/00.png"
    tiny.save(mask, np.full((24, 24), 255, np.uint8))
    assert plan(replace(ask("fixmatch"), data=[other])).data["binary"] != first["binary"]


def test_full_labels(ask, tested, tmp_path):
    """Without masks of unlabeled images: all labels where fewer were asked for, nothing and a note otherwise."""
    full = [c for c in plan(ask("fixmatch", labels=["3", "4"])).cells if c.arm == "full labels"]
    assert [(c.options["labels"], c.options.get("oracle")) for c in full] == [("all", None)]
    grid = plan(ask("fixmatch"))
    assert not [c for c in grid.cells if c.arm == "full labels"] and "no masks of unlabeled" in grid.notes[0]
    lists = tmp_path / "lists"
    shutil.copytree(tested["binary"], lists)
    for i in range(4):
        shutil.copy(lists / f"test/images/{i:02d}.png", lists / f"images/t{i}.png")
        shutil.copy(lists / f"test/masks/{i:02d}.png", lists / f"masks/t{i}.png")
    (lists / "splits").mkdir()
    for split, those in (("labeled", range(3)), ("unlabeled", range(3, 5))):
        (lists / f"splits/{split}.txt").write_text("\n".join(f"{i:02d}" for i in those))
    (lists / "splits/test.txt").write_text("t0\nt1")
    grid = plan(replace(ask("fixmatch"), data=[lists]))
    assert grid.cells[-1].options["oracle"] is True and list(grid.data) == ["lists", "lists/masks"]
    assert grid.cells[-1].arm == "full labels" and not any("full labels" in n for n in grid.notes)
    assert grid.path("lists/masks") == lists
    assert "--oracle" in grid.cells[-1].arguments(tmp_path)
    tiny.save(lists / "masks/04.png", np.zeros((9, 9), dtype=np.uint8))
    with pytest.raises(Refusal, match="D07"):
        plan(replace(ask("fixmatch"), data=[lists]))
    assert plan(replace(ask("fixmatch"), data=[lists], baselines="none"))  # which opens no mask of an unlabeled image


def test_every_file_is_read_once(ask, monkeypatch):
    """Also where the folder is checked with several numbers of labels."""
    opened = []
    load = decode.load
    monkeypatch.setattr(decode, "load", lambda path: opened.append(path) or load(path))
    plan(ask("fixmatch", labels=["3", "4", "5"]))
    assert opened and len(opened) == len(set(opened))


def test_without_a_test_set_val_is_reported_and_said(ask, folders):
    grid = plan(replace(ask("fixmatch"), data=[folders["binary"]]))
    assert {c.split for c in grid.cells} == {"val"}
    assert any("no test set" in n for n in grid.notes)


def test_neither_test_nor_val(ask, tmp_path):
    data = tiny.write_folder(tmp_path / "few", "binary", labeled=3, val=0)
    with pytest.raises(Refusal, match="has no test set, and no val set"):
        plan(replace(ask("fixmatch"), data=[data]))


def test_everything_wrong_at_once(ask, tmp_path):
    request = ask("fixmach", "im@members=1", "fixmatch", seeds=0, steps=-3, labels=["99"], split="tets",
                  sets=["nonsense=1", "seed=4", "committee=a,b"])  # fmt: skip
    request.data.append(tmp_path / "nowhere")
    with pytest.raises(Refusal) as caught:
        plan(request)
    said = str(caught.value)
    for word in ("fixmach", "Did you mean 'fixmatch'", "im.members", "--seeds", "steps", "99", "Did you mean 'test'",
                 "nonsense", "seed=4", "committee=a,b is decided", "nowhere"):  # fmt: skip
        assert word in said, word
    assert caught.value.exit == 2


def test_refused_data_is_exit_3(ask, tmp_path):
    with pytest.raises(Refusal) as caught:
        plan(replace(ask("fixmatch"), data=[tmp_path / "nowhere"]))
    assert caught.value.exit == 3


def test_a_method_that_needs_unlabeled_images(ask, tmp_path, tested):
    data = tmp_path / "labeled"
    shutil.copytree(tested["binary"], data)
    shutil.rmtree(data / "unlabeled")
    with pytest.raises(Refusal, match="no unlabeled images"):
        plan(replace(ask("im"), data=[data]))
    assert plan(replace(ask("im", labels=["4"]), data=[data])).cells


def test_two_words_for_the_same_labels_are_trained_once(ask):
    grid = plan(ask("im", labels=["3", "all", "0.5", "6"], baselines="all"))
    assert [c.labels for c in grid.cells if c.arm == "im"] == ["3", "all"]
    said = [n for n in grid.notes if "trained once" in n]
    assert len(said) == 2 and "--labels 0.5 are the 3 labels of --labels 3" in said[0] and "--labels 6 are" in said[1]


def test_two_folders_of_one_name(ask, tested, tmp_path):
    shutil.copytree(tested["binary"], tmp_path / "binary")
    request = ask("fixmatch", baselines="none")
    request.data.append(tmp_path / "binary")
    grid = plan(request)
    assert list(grid.splits) == ["binary", "binary-2"]
    assert len({c.name for c in grid.cells}) == 4


def test_files_of_one_name_are_two_methods(ask, tmp_path, monkeypatch):
    """./mine.py and sub/mine.py each have cells of their own; a file beside the folder keeps its plain name."""
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    code = "from semiseg.methods.supervised import Supervised\n\n\nclass Mine(Supervised):\n    pass\n"
    for path in ("mine.py", "sub/mine.py"):
        (tmp_path / path).write_text(code)
    arms = ["./mine.py:Mine", "sub/mine.py:Mine"]
    made = [c.name for c in plan(ask(*arms, baselines="none")).cells if "mine" in c.name]
    assert len(set(made)) == 2 and made[0] == "binary-all-seed0-mine.py-Mine"
    assert made == [c.name for arm in arms for c in plan(ask(arm, baselines="none")).cells if "mine" in c.name]


def test_students_that_grow_are_noted(ask):
    noted = " ".join(plan(ask("noisy_student", "im_plus@grow=0")).notes)
    assert "noisy_student: its students are wider" in noted and "im_plus, grow=0: its" not in noted


def test_slug():
    assert slug("./mine.py:Mine") == "mine.py-Mine"
    assert slug("fixmatch+im") == "fixmatch+im"
    assert slug("im, members=2") == "im-members=2"


def test_commands_can_be_typed(ask, tmp_path):
    cell = plan(ask("im", labels=["4"])).cells[0]
    words = cell.arguments(tmp_path)
    assert words[:2] == ["train", str(cell.path)] and words[-2:] == ["--resume", "auto"]
    assert words[words.index("--method") + 1] == "supervised+committee"


@pytest.mark.parametrize(
    ("text", "arms"),
    [
        ("im, fixmatch ,fixmatch+im", ["im", "fixmatch", "fixmatch+im"]),
        ("im@networks=unet1x1:0.5,unet/resnet18,u2pl", ["im@networks=unet1x1:0.5,unet/resnet18", "u2pl"]),
        ("im@im.networks=a,b@members=2,c", ["im@im.networks=a,b@members=2", "c"]),
        ("supmix@classes=mole,skin,./mine.py:Mine", ["supmix@classes=mole,skin", "./mine.py:Mine"]),
        ("im@members=2,fixmach", ["im@members=2", "fixmach"]),
        ("nothing@x=1,fixmach", ["nothing@x=1", "fixmach"]),
    ],
)
def test_methods_are_separated_by_commas_and_so_are_words_of_their_settings(text, arms):
    assert separated(text) == arms


def test_val_that_is_missing_is_said_for_what_it_is(ask, tmp_path, tested):
    data = tiny.write_folder(tmp_path / "few", "binary", labeled=4, val=0)
    shutil.copytree(tested["binary"] / "test", data / "test")
    with pytest.raises(Refusal, match=r"few has no val set with --labels all\. Fix: add val/images"):
        plan(replace(ask("fixmatch", split="val"), data=[data]))
    assert any(
        "there is no val set, so every generation counts" in n for n in plan(replace(ask("im"), data=[data])).notes
    )


def test_a_long_arm_has_a_name_that_a_folder_may_have():
    arm = "im, " + ", ".join(f"{k}={'x' * 9}" for k in ("fill", "label", "gate", "reduce", "draw", "view", "route") * 3)
    names = [_short(arm), _short(arm + ", seed=1")]
    assert len(set(names)) == 2 and all(len(n) < 140 for n in names) and _short("im, fill=zero") == "im-fill=zero"
