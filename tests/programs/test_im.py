"""Inconsistency masks over generations: arguments, what is promoted, and whole runs at toy size."""

import csv
import json
from types import SimpleNamespace

import pytest
import torch

import semiseg
import tiny
from semiseg.errors import Refusal
from semiseg.inconsistency import InconsistencyMask
from semiseg.programs import PROGRAMS, _generations, program_class
from semiseg.programs._generations import judge
from semiseg.programs.consensus import Rule, Stored
from semiseg.programs.im import IM
from semiseg.programs.session import Member
from semiseg.storage import read_tensors
from semiseg.training.config import Config

SMALL = {"size": 16, "steps": 8, "batch": 2, "network": "unet1x1:0.25", "device": "cpu", "threads": 1,
         "workers": 1, "unlabeled_batch": 2, "checkpoint_every": 4, "quiet": True}  # fmt: skip


def refiner(prepared, tmp_path, method="supervised", **arguments):
    return vars(IM(**arguments).refiner(tiny.session(tmp_path, prepared("multiclass"), method=method)))


def test_defaults():
    im = IM()
    assert (im.members, im.generations, im.students) == (3, 3, 1) and im.rule() == Rule()
    assert (im.members_by, im.patience, im.start, im.draw) == ("snapshots", 3, "warm", "even") and im.models == 4
    fresh = IM(preset="paper")
    assert (fresh.members_by, fresh.generations, fresh.patience, fresh.start) == ("seed", 1, 1, "fresh")
    for apart in ({"members_by": "folds"}, {"members_by": "seed"}, {"networks": "unet1x1,unet"}):
        im = IM(**apart)  # members with a training each: a recipe of its own
        assert (im.members_by, im.generations, im.patience, im.start, im.models) == (
            apart.get("members_by", "seed"), 1, 1, "fresh", 4,
        )  # fmt: skip
    typed = {"members_by": "folds", "generations": 2, "patience": 3, "start": "warm"}
    assert {key: getattr(IM(**typed), key) for key in typed} == typed
    typed = {"members_by": "snapshots", "generations": 2, "patience": 1, "start": "fresh"}
    assert {key: getattr(IM(**typed), key) for key in typed} == typed
    assert program_class("im") is IM and set(PROGRAMS) >= {"im", "ensemble"}


def test_the_refiner_follows_the_route(prepared, tmp_path):
    default = {"label": "consensus", "fill": "none", "share": 1.0, "rest": "none", "background": False,
               "extra": 0, "doubt": 0.0, "balance": None}  # fmt: skip
    assert refiner(prepared, tmp_path) == default
    assert refiner(prepared, tmp_path, "fixmatch") == {**default, "share": 0.5}
    with pytest.raises(Refusal, match=r"im\.share is 0\.5, and supervised has no belief .* fixmatch\+im"):
        IM(share=0.5).fits(Config(method="supervised"))
    for share, method in ((0.0, "supervised"), (1.0, "supervised"), (0.5, "fixmatch")):
        IM(share=share).fits(Config(method=method))
    assert refiner(prepared, tmp_path, "fixmatch", share=0.3) == {**default, "share": 0.3}
    assert refiner(prepared, tmp_path, "fixmatch", route="both") == {**default, "share": 0.5, "rest": "own"}
    online = refiner(prepared, tmp_path, "mean_teacher", route="online", fill="mean")
    assert (online["label"], online["fill"]) == ("own", "mean")


def test_the_papers_preset(prepared, tmp_path):
    """Black-out everywhere; background on overlapping labels, a class of its own otherwise; what is given wins."""
    made = refiner(prepared, tmp_path, preset="paper")
    assert (made["fill"], made["background"], made["label"], made["share"]) == ("zero", True, "consensus", 1.0)
    assert made["extra"] == 3 and IM(preset="paper").draw == "pool"
    assert refiner(prepared, tmp_path, preset="paper", fill="noise")["fill"] == "noise"
    given = refiner(prepared, tmp_path, preset="paper", fill="none", label="ignore")
    assert (given["fill"], given["background"]) == ("none", False)
    assert refiner(prepared, tmp_path, "fixmatch", preset="paper")["extra"] == 0
    session = tiny.session(tmp_path, prepared("binary"))
    assert vars(IM(preset="paper").refiner(session))["extra"] == 0
    with pytest.raises(Refusal, match="a class beside others"):
        IM(label="extra").refiner(session)


def test_switches_that_need_others():
    for arguments, text in (
        ({"label": "background", "route": "online"}, "never teaches"),
        ({"disc_weight": 2.0}, "discs=LABEL"),
    ):
        with pytest.raises(Refusal, match=text):
            IM(**arguments)


def test_switches_of_the_mask():
    rule = IM(members=4, agreement=3, reduce="channel", erode=3, dilate=5).rule()
    assert rule == Rule("consensus", 3, "channel", 3, 5)


def test_supervised_has_no_belief_to_refine_online(prepared, tmp_path, folders):
    for route in ("online", "both"):
        with pytest.raises(Refusal, match="no belief of its own") as refused:
            IM(route=route).fits(prepared("binary").config)
        assert refused.value.exit == 2
    with pytest.raises(Refusal, match="no belief of its own"):
        semiseg.train(folders["binary"], tmp_path / "r", method="im", sets=["im.route=online"], **SMALL)
    assert not list((tmp_path / "r").glob("*"))  # nothing was written, nothing read


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("im.members=1", "at least 2"), ("im.generations=-1", "at least 1"), ("im.students=0", "at least 1"),
        ("im.patience=-1", "at least 1"), ("im.members_by=snapshot", "Did you mean 'snapshots'"),
        ("im.preset=papr", "Did you mean 'paper'"), ("im.route=onlin", "Did you mean 'online'"),
        ("im.gate=foregrund", "Did you mean 'foreground'"), ("im.draw=pol", "Did you mean 'pool'"),
        ("im.member=3", "Did you mean 'im.members'"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused_before_anything_is_read(tmp_path, setting, text):
    with pytest.raises(Refusal, match=text) as refused:
        semiseg.train(tmp_path / "nowhere", tmp_path / "r", method="im", sets=[setting], **SMALL)
    assert refused.value.exit == 2 and not (tmp_path / "r").exists()


def member(name="m", **val):
    return Member(name, 0, {"val": val or None})


@pytest.mark.parametrize("selectable", [True, False])
def test_promotion(selectable):
    """Enough val images: pooled mIoU. Few: the mean of the paired differences per image. Equal is not better."""
    session = SimpleNamespace(folded=False, selectable=lambda: selectable)
    old = dict(miou=0.5, iou_per_image=0.5)
    for miou, per_image in ((0.6, 0.4), (0.4, 0.6), (0.5, 0.5)):
        promoted, why = judge(session, old, dict(miou=miou, iou_per_image=per_image))
        assert promoted == ((miou if selectable else per_image) > 0.5)
        assert ("miou" if selectable else "iou_per_image") in why and "0.5000 →" in why
    assert judge(session, None, None)[0]
    assert judge(session, dict(miou=None, iou_per_image=None), dict(miou=0.1, iou_per_image=0.1))[0]


def test_best_needs_enough_val_images(prepared, tmp_path, monkeypatch):
    session = tiny.session(tmp_path, prepared("binary"))
    members = [member("a", miou=0.1), member("b", miou=None), member("c", miou=0.3), member("d")]
    assert not session.selectable() and session.best(members) is members[0]
    monkeypatch.setattr("semiseg.programs.session.SELECTABLE", 3)
    assert session.selectable() and session.best(members) is members[2]


def result(run, folder):
    return json.loads((run / folder / "final/result.json").read_text())


def test_a_whole_run(kind, folders, prepared, tmp_path):
    run = tmp_path / "run"
    summary = semiseg.train(folders[kind], run, method="im", **SMALL)
    assert summary == json.loads((run / "summary.json").read_text())
    assert (summary["name"], summary["program"], summary["kind"]) == ("supervised+im", "im", kind)
    names = prepared(kind).task.names
    assert summary["classes"] == list(names)
    assert summary["counts"]["labeled"] == 6 and summary["counts"]["unlabeled"] == 5 and summary["counts"]["val"] == 3
    arms = [a["name"] for a in summary["arms"]]
    first = ["labels only", "supervised, generation 0", "average of 3 snapshots at prediction"]
    assert arms == [*first, *(f"im, generation {g}" for g in (1, 2, 3))]
    assert [len(g["members"]) for g in summary["generations"]] == [3, 3, 3, 1] and summary["models_trained"] == 5
    alone = result(run, "baseline")
    assert (summary["baseline"], alone["steps"], alone["images_forwarded"]) == ("baseline", 4 * 8, 4 * 8 * 2)
    noted = json.loads((run / "run.json").read_text())["config"]["program_args"]
    assert [noted[k] for k in ("members_by", "generations", "patience", "start", "draw")] == [
        "snapshots", 3, 3, "warm", "even",
    ]  # fmt: skip
    for row in summary["generations"][:3]:
        assert 0 <= row["inconsistent_share"] <= 1 and set(row["inconsistent_per_class"]) == set(names)
    shots = [[f"generation-{g}/member-0{s}" for s in ("", "/snapshot-0", "/snapshot-1")] for g in range(3)]
    assert [[m["folder"] for m in g["members"]] for g in summary["generations"][:3]] == shots
    assert [[m["steps"] for m in g["members"]] for g in summary["generations"]] == [*3 * [[8, 5, 7]], [8]]
    plain = summary["model"]["why"].startswith("labels only is better")
    own = (*(of[0] for of in shots), "generation-3/member-0")
    assert summary["model"]["folder"] in (("baseline",) if plain else own)
    assert summary["committee"] in shots
    html = (run / "report.html").read_text()
    assert "</html>" in html and len(html) > 5000
    with (run / "label_next.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(r["rank"]) for r in rows] == [1, 2, 3, 4, 5] and len({r["image"] for r in rows}) == 5
    scores = [float(r["score"]) for r in rows]
    assert scores == sorted(scores, reverse=True) and all(r["path"].endswith(".png") for r in rows)
    assert json.loads((run / "run_state.json").read_text())["status"] == "finished"
    assert len({result(run, f"generation-{g}/member-0")["first_batch"] for g in range(4)}) == 1  # the same labels


def test_a_whole_run_of_one_generation(folders, tmp_path):
    run = tmp_path / "run"
    summary = semiseg.train(folders["multiclass"], run, method="im", sets=tiny.words(), **SMALL)
    arms = [a["name"] for a in summary["arms"]]
    assert arms == ["labels only", "average of 3 at prediction", "im, generation 1"]
    assert [len(g["members"]) for g in summary["generations"]] == [3, 1]
    assert summary["model"]["folder"] in ("generation-0/member-0", "generation-1/member-0")
    assert summary["committee"] == [f"generation-0/member-{i}" for i in range(3)]
    streams = [result(run, f)["first_batch"] for f in (*summary["committee"], "generation-1/member-0")]
    assert streams[0] == streams[3] and len(set(streams)) == 3  # a member and its student see the same labels


def test_around_another_method_there_is_a_baseline(folders, tmp_path):
    sets = ["im.members=2", "im.route=both", "im.fill=noise"]
    summary = semiseg.train(
        folders["multilabel"], tmp_path / "r", method="fixmatch+im", sets=sets, **{**SMALL, "steps": 4}
    )
    assert [a["name"] for a in summary["arms"]][:2] == ["labels only", "fixmatch, generation 0"]
    assert summary["baseline"] == "baseline" and summary["method"] == "fixmatch"
    run = tmp_path / "r"
    assert result(run, "baseline")["first_batch"] == result(run, "generation-0/member-0")["first_batch"]


def test_the_papers_preset_in_a_whole_run(kind, folders, tmp_path):
    """A pool of 6 labeled and at most 5 others, four images a step: the stream is the same, the shares are not."""
    options = {**SMALL, "steps": 4, "batch": 4}
    sets = ["im.preset=paper", "im.members=2", *(["im.discs=alive"] if kind == "multilabel" else [])]
    summary = semiseg.train(folders[kind], tmp_path / "r", method="im", sets=sets, **options)
    assert not [w for w in summary["warnings"] if "preset=paper" in w]
    first, student = (result(tmp_path / "r", f"generation-{g}/member-0") for g in (0, 1))
    assert first["first_batch"] == student["first_batch"] and student["images_forwarded"] == 4 * 4
    assert summary["generations"][1]["members"][0]["val"] is not None


def test_a_student_starts_where_the_model_of_labels_alone_started(folders, tmp_path):
    """Training that changes nothing (a rate of 1e-8) leaves the initial weights to compare."""
    options = {**SMALL, "steps": 1, "lr": 1e-8, "weight_decay": 0}
    semiseg.train(
        folders["binary"], tmp_path / "r", method="im", sets=[*tiny.words(members=2), "lr_warmup=0"], **options
    )
    teacher, other, student = (
        read_tensors(tmp_path / f"r/generation-{m}/final/weights.safetensors")["last.weight"]
        for m in ("0/member-0", "0/member-1", "1/member-0")
    )
    torch.testing.assert_close(student, teacher, rtol=0, atol=1e-6)
    assert (other - teacher).abs().max() > 1e-2


def run_program(session, program):
    outcome = program.run(session)
    return outcome, [g["promoted"] for g in session.generations]


def test_a_committee_that_agrees_on_nothing_teaches_nobody(prepared, tmp_path, monkeypatch):
    """Its models are still there to be shipped; nothing is trained on masks that hide every pixel."""
    data = prepared("multiclass")
    pixels = len(data.unlabeled.pixels)
    planes = torch.full((pixels, 1), 255, dtype=torch.uint8), torch.zeros((pixels, 1), dtype=torch.uint8)
    rows = [{"image": n, "inconsistent_share": 1.0} for n in data.unlabeled.names]
    nothing = Stored(planes, 1.0, dict.fromkeys(data.task.names, 1.0), rows)
    monkeypatch.setattr(IM, "opinion", lambda *_: nothing)
    session = tiny.session(tmp_path, data, steps=1, eval_every=1)
    outcome, promoted = run_program(session, IM(**{**tiny.ONE, "generations": 3}, members=2))
    assert promoted == [True] and outcome.model.generation == 0 and "agrees on nothing" in outcome.why
    assert any("agrees on no pixel" in w for w in session.warnings) and len(session.members) == 2


def test_a_generation_that_is_not_better_is_never_shipped(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(_generations, "judge", lambda *_: (False, "worse"))
    session = tiny.session(tmp_path, prepared("binary"), steps=1, eval_every=1)
    outcome, promoted = run_program(session, IM(**{**tiny.ONE, "generations": 3}, members=2, students=1))
    assert promoted == [True, False] and outcome.model.folder == "generation-0/member-0" and "worse" in outcome.why
    assert [m.folder for m in outcome.committee] == ["generation-0/member-0", "generation-0/member-1"]


def test_a_better_one_becomes_the_committee(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(_generations, "judge", lambda *_: (True, "better"))
    session = tiny.session(tmp_path, prepared("multiclass"), steps=1, eval_every=1)
    program = {**tiny.ONE, "members": 2, "generations": 2}
    outcome, promoted = run_program(session, IM(**program, students=1))
    assert promoted == [True, True, True] and outcome.model.folder == "generation-2/member-0"
    assert [len(g["members"]) for g in session.generations] == [2, 2, 1]
    assert [m.folder for m in outcome.committee] == ["generation-1/member-0", "generation-1/member-1"]
    again, _ = run_program(tiny.session(tmp_path, prepared("multiclass"), steps=1, eval_every=1), IM(**program))
    assert again.model.result == outcome.model.result  # everything was found, nothing trained again


def test_patience_trains_on_after_a_generation_that_failed(prepared, tmp_path, monkeypatch):
    answers = iter([(False, "worse"), (True, "better"), (False, "worse"), (False, "worse"), (True, "never asked")])
    monkeypatch.setattr("semiseg.programs._generations.judge", lambda *a: next(answers))
    session = tiny.session(tmp_path, prepared("binary"), steps=1, eval_every=1)
    outcome, promoted = run_program(session, IM(**{**tiny.ONE, "generations": 6, "patience": 2}, members=2))
    assert promoted == [True, False, True, False, False] and outcome.model.generation == 2
    assert "not better" in outcome.why
    with pytest.raises(Refusal, match=r"im\.patience is -1"):
        IM(patience=-1)


def test_without_unlabeled_images(prepared, tmp_path):
    from dataclasses import replace

    data = prepared("binary")
    empty = replace(data, unlabeled=replace(data.unlabeled, names=[]))
    for method in ("supervised", "fixmatch"):
        with pytest.raises(Refusal, match="no unlabeled images") as refused:
            IM().run(tiny.session(tmp_path, empty, method=method))
        assert refused.value.exit == 3


def test_the_mask_is_what_students_are_taught_with(prepared, tmp_path, monkeypatch):
    seen = []
    original = InconsistencyMask.__call__

    def spy(self, unlabeled, target, clock):
        seen.append(float((~unlabeled.planes.agree).float().mean()))
        return original(self, unlabeled, target, clock)

    monkeypatch.setattr(InconsistencyMask, "__call__", spy)
    session = tiny.session(tmp_path, prepared("multiclass"), steps=3)
    IM(**tiny.ONE, members=2).run(session)
    assert len(seen) == 3 and sum(seen) > 0  # the student's three steps, no member's
