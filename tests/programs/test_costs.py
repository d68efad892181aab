"""What a run cost: members, EvalNet and every question to a committee, on a resumed run as on one that nobody stopped."""

import json

import pytest

import semiseg
import tiny
from semiseg import storage
from semiseg.compare.cells import spent
from semiseg.programs.consensus import load

SMALL = {"size": 16, "steps": 4, "batch": 2, "network": "unet1x1:0.25", "device": "cpu", "threads": 1,
         "workers": 1, "unlabeled_batch": 2, "checkpoint_every": 4, "quiet": True}  # fmt: skip
UNLABELED = 5
STUDENT = 4 * 4
"""Images that `tiny.write_folder` makes, and those that 4 steps on 2 labeled and 2 unlabeled images send forward."""


def train(data, run, program, resume=False, method=None, committee=None, **sets):
    given = {"committee": committee} if committee else {}
    sets = [f"{program}.{key}={value}" for key, value in sets.items()]
    return semiseg.train(data, run, method=method or program, sets=sets, resume=resume, **given, **SMALL)


def mine(run):
    """seconds and images_forwarded of each consensus of the run."""
    return [json.loads(p.read_text()) for p in sorted(run.glob("generation-*/consensus/consensus.json"))]


@pytest.mark.parametrize(("program", "trained", "asked", "sets"), [
    ("im", 1 + 1 + 1 + 1, (2, 2), {"members": 2}), ("im", 2 + 2 + 1, (2, 2), {"members": 2, "members_by": "seed"}),
    ("ensemble", 3 + 3 + 1, (3, 3), {"members": 3, "members_by": "seed"}),
    ("self_training", 1 + 1 + 1 + 1, (1, 1), {"members": 1}),  # labels only beside it, of as many steps in a row
    ("input_ensemble", 1 + 1 + 1 + 1, (3, 3), {"views": 3}),
    ("evalnet", 2 + 2 + 1 + 1, (2, 2), {"members": 2, "threshold": 0.01}),
    ("im_plusplus", 2 + 2 + 1 + 1, (2, 2), {"members": 2, "grow": 0}),
])  # fmt: skip
def test_a_resumed_run_costs_what_it_cost(folders, tmp_path, program, trained, asked, sets):
    run, sets = tmp_path / "run", {"generations": 2, "patience": 2, **sets}
    first = train(folders["binary"], run, program, **sets)
    members = sum(m["images_forwarded"] for g in first["generations"] for m in g["members"])
    members += 3 * 4 * 2 if first["baseline"] == "baseline" else 0
    judge = 4 * 2 if "evalnet" in program or program == "im_plusplus" else 0
    assert [c["images_forwarded"] for c in mine(run)] == [UNLABELED * n for n in asked]
    assert first["images_forwarded"] == members + judge + UNLABELED * sum(asked)
    assert first["models_trained"] == trained
    seconds = [c["seconds"] for c in mine(run)]
    assert all(s > 0 for s in seconds) and first["seconds"]["consensus_all_tries"] == pytest.approx(
        sum(seconds), abs=0.01
    )
    again = train(folders["binary"], run, program, resume=True, **sets)
    for key in ("images_forwarded", "models_trained", "warnings", "hash"):
        assert again[key] == first[key], key
    for key in ("training_all_tries", "consensus_all_tries"):
        assert again["seconds"][key] == first["seconds"][key] > 0, key
    assert spent(again) == spent(first)


def test_who_asks_nobody_pays_for_no_consensus(folders, tmp_path):
    made = train(folders["binary"], tmp_path / "run", "fixmatch")
    assert "consensus_all_tries" not in made["seconds"] and made["models_trained"] == 2  # labels only beside it
    alone = train(folders["binary"], tmp_path / "one", "committee", members=2, members_by="snapshots")
    assert len(alone["generations"][0]["members"]) == 2 and alone["models_trained"] == 1
    text = (tmp_path / "one/report.html").read_text()
    assert "Models trained</dt><dd>1</dd>" in text


def test_of_a_given_committee_its_networks_count(folders, tmp_path):
    data, masks = folders["binary"], [tmp_path / "one", tmp_path / "two"]
    for folder in masks:
        for i, side in enumerate((24, 24, 32, 32, 32)):
            mask = tiny.truth("binary", 1, side, 50 + i * (1 + masks.index(folder)))[0, 0]
            tiny.save(folder / f"{i:02d}.png", mask.numpy() * 255)
    train(data, tmp_path / "k", "committee", members=3)
    member = tmp_path / "k/generation-0/member-1"
    given = ((0, masks), (1, [member, masks[0]]), (3, [tmp_path / "k"]))
    for networks, committee in given:
        typed = ",".join(map(str, committee))
        made = train(data, tmp_path / f"of-{networks}", "im", committee=typed, **tiny.ONE)
        assert made["images_forwarded"] == 4 * 2 + STUDENT + networks * UNLABELED  # labels only, a student
        assert made["models_trained"] == 2
    made = train(data, tmp_path / "default", "im", committee=typed)
    assert made["models_trained"] == 1 + 3 and made["images_forwarded"] == (
        3 * 4 * 2 + 3 * STUDENT + (3 + 3 + 3) * UNLABELED  # the networks, then two times three snapshots
    )


def test_a_consensus_of_an_older_version_costs_nothing(folders, tmp_path):
    first = train(folders["binary"], tmp_path / "run", "im", members=2)
    path = tmp_path / "run/generation-1/consensus"
    about = storage.read_json(path / "consensus.json")
    storage.write_json(
        path / "consensus.json", {k: about[k] for k in ("label", "agree", "share", "per_class", "absent")}
    )
    (path / "manifest.json").unlink()
    storage.seal(path, {"members": 2})
    assert load(path).cost == {"seconds": 0, "images_forwarded": 0} and load(path).who == []
    again = train(folders["binary"], tmp_path / "run", "im", resume=True, members=2)
    assert first["images_forwarded"] - again["images_forwarded"] == 2 * UNLABELED


def test_seconds_of_an_older_summary():
    """It notes those of asking as of its last try alone."""
    old = {"seconds": {"training_all_tries": 2.0, "consensus": 0.5}, "images_forwarded": 7}
    new = {"seconds": {**old["seconds"], "consensus_all_tries": 1.5}, "images_forwarded": 7}
    assert (spent(old), spent(new)) == ((2.5, 7), (3.5, 7))
