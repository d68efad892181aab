"""What sets members apart: folds, bootstrap, networks, snapshots; a finished one is found again, its score is honest."""

import json
from dataclasses import replace

import pytest
import torch

import semiseg
import tiny
from semiseg import storage
from semiseg.errors import Refusal
from semiseg.programs.committee import Committee
from semiseg.programs.im import IM
from semiseg.programs.members import Share, shares, snapshot_steps
from semiseg.programs.session import Member, Session
from semiseg.training.config import Config
from semiseg.training.prepare import Prepared

SMALL = {"size": 16, "steps": 4, "batch": 2, "network": "unet1x1:0.25", "device": "cpu", "threads": 1,
         "workers": 1, "unlabeled_batch": 2, "checkpoint_every": 2, "quiet": True}  # fmt: skip
NAMES = [f"i{k}" for k in range(9)]
DIGESTS = {name: f"d{min(k, 7)}" for k, name in enumerate(NAMES)}  # the last two images are equal


def made(members=3, way="seed", networks=(), names=NAMES, seed=0, scored=False):
    return shares(members, way, networks, names, DIGESTS, seed, scored)


def test_folds_are_a_partition_and_equal_images_stay_together():
    folds = made(way="folds")
    assert sorted(i for s in folds for i in s.held) == list(range(9))
    for share in folds:
        assert share.held and set(share.labeled) == set(range(9)) - set(share.held)
        assert ({7, 8} <= set(share.held)) == bool({7, 8} & set(share.held))
    assert made(way="folds") == folds != made(way="folds", seed=1)
    assert {n for s in made(way="folds", names=NAMES[::-1]) for n in [frozenset(NAMES[::-1][i] for i in s.held)]} == {
        frozenset(NAMES[i] for i in s.held) for s in folds
    }  # whatever the order of the files
    assert all(
        s.held == () and s.labeled == f.labeled for s, f in zip(made(way="folds", scored=True), folds, strict=True)
    )


def test_bootstrap_draws_as_many_with_repetitions():
    drawn = made(way="bootstrap")
    assert all(len(s.labeled) == 9 and len(set(s.labeled)) < 9 and not s.held for s in drawn)
    assert len({s.labeled for s in drawn}) == 3 and drawn == made(way="bootstrap") != made(way="bootstrap", seed=1)


def test_networks_take_turns_and_seeds_share_everything():
    assert [s.network for s in made(networks=("a", "b"))] == ["a", "b", "a"]
    assert made() == [Share()] * 3 and Share().key == ()
    assert len({s.key for s in (*made(way="folds"), *made(way="bootstrap"))}) == 6


def test_too_few_labels_for_folds():
    with pytest.raises(Refusal, match="D33: the labels are 8 different images, too few for 9 folds") as refused:
        made(members=9, way="folds")
    assert refused.value.exit == 3


@pytest.mark.parametrize(
    ("sets", "text"),
    [
        ({"members_by": "fold"}, "Did you mean 'folds'"), ({"networks": "a,b,c,d"}, "names 4 networks for 3 members"),
        ({"members_by": "snapshots", "networks": "a"}, "snapshots are taken of one network"),
    ],
)  # fmt: skip
def test_wrong_ways_are_refused(sets, text):
    for program in (IM, Committee):
        with pytest.raises(Refusal, match=text) as refused:
            program(**{"members": 3, **sets})
        assert refused.value.exit == 2


def test_an_unknown_network_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(Refusal, match="unet2"):
        semiseg.train(tmp_path / "nowhere", tmp_path / "r", method="im", sets=["networks=unet1x1,unet2"], **SMALL)
    assert not (tmp_path / "r").exists()


@pytest.fixture
def folded(prepared, tmp_path):
    session = tiny.session(tmp_path, prepared("multiclass"), steps=2, eval_every=2)
    session.share_out(3, "folds", ())
    return session


def test_a_member_on_folds_never_sees_what_it_is_scored_on(folded):
    store = folded.data.labeled
    for i in range(3):
        held = {store.names[k] for k in folded.share(i).held}
        feed = folded.data.feed((0, i), unlabeled=False, planes=None, rows=folded.share(i).labeled)
        seen = {name for step in range(9) for name in feed.names(step)}
        assert held and not held & seen and held | seen == set(store.names)
        assert set(folded.scored_on(i).names) == held
    assert not folded.selectable() and folded.folded


def test_out_of_fold_scores_every_label_once(folded):
    members = [folded.train(0, i, f"m{i}") for i in range(3)]
    assert len({m.result["hash"] for m in members}) == 3 and all(m.result["chosen"] == "last" for m in members)
    metrics = folded.data.task.metrics()
    for i, member in enumerate(members):
        net = folded.load(member)
        for k in folded.share(i).held:
            image = folded.data.units.apply(folded.data.labeled.image(k)).unsqueeze(0)
            with torch.no_grad():
                metrics.update(
                    folded.data.task.label(folded.data.task.prob(net(image)))[0], folded.data.labeled.label(k)
                )
    want = metrics.compute()
    assert folded.out_of_fold(members) == want and len(metrics.per_image) == 6
    assert folded.out_of_fold(members[:1])["iou_per_image"] == pytest.approx(members[0].val["iou_per_image"])


def test_what_sets_members_apart_is_in_their_fingerprint(prepared, tmp_path):
    shapes = set()
    for number, (way, networks) in enumerate(
        (("seed", ()), ("folds", ()), ("bootstrap", ()), ("seed", ("unet1x1:0.125",)))
    ):
        session = tiny.session(tmp_path / str(number), prepared("binary"), steps=1, eval_every=1)
        session.share_out(2, way, networks)
        shapes.add(session.train(0, 0, "m").result["shape"])
    assert len(shapes) == 4
    plain = tiny.session(tmp_path / "plain", prepared("binary"), steps=1, eval_every=1)
    assert plain.train(0, 0, "m").result["shape"] in shapes  # seeds change nothing for who shares nothing out


def test_folds_of_a_small_set_use_all_labels(folders, tmp_path):
    data = tmp_path / "data"
    import shutil

    shutil.copytree(folders["binary"], data)
    shutil.rmtree(data / "val")
    run = tmp_path / "run"
    summary = semiseg.train(data, run, method="im", sets=tiny.words(members_by="folds", students=3), **SMALL)
    assert summary["val_source"] == "folds" and summary["counts"]["labeled"] == 6 and summary["counts"]["val"] == 0
    pooled = summary["generations"][0]["out_of_fold"]
    assert [a["name"] for a in summary["arms"]] == ["labels only", "im, generation 1"]
    assert summary["arms"][0]["val"] == pooled  # three students: everything is pooled over all labels
    assert summary["arms"][1]["val"]["miou"] is not None and "each member" in (run / "report.html").read_text()
    alone = semiseg.train(data, tmp_path / "alone", method="im", sets=tiny.words(members_by="folds"), **SMALL)
    first = alone["generations"][0]["members"][0]
    assert alone["arms"][0]["val"] == first["val"]  # one student: on fold 0, as its rival
    assert summary["scored"] == {"on": "held-out labels", "images": 6} and alone["scored"]["images"] == 2
    page = (tmp_path / "alone/report.html").read_text()
    assert "mIoU on held-out labels" in page and "labels that they did not see, 2" in page.replace(
        "\N{NO-BREAK SPACE}", " "
    )
    assert alone["generations"][0]["out_of_fold"] == pooled
    words = ["members_by=folds", "members=3"]
    committee = semiseg.train(data, tmp_path / "committee", method="committee", sets=words, **SMALL)
    assert committee["generations"][0]["out_of_fold"] == committee["arms"][0]["val"] == pooled


def test_members_of_different_networks(folders, tmp_path):
    run = tmp_path / "run"
    sets = ["im.members=2", "networks=unet1x1:0.125,unet1x1:0.25"]
    semiseg.train(folders["binary"], run, method="im", sets=sets, **SMALL)
    said = [json.loads((run / f"generation-0/member-{i}/final/result.json").read_text()) for i in range(2)]
    assert [r["network"] for r in said] == ["unet1x1:0.125", "unet1x1:0.25"]
    assert said[0]["parameters"] < said[1]["parameters"]
    loaded = semiseg.load(run, ensemble=True)
    assert loaded.predict(torch.zeros(24, 24, dtype=torch.uint8).numpy(), inconsistency=True).inconsistency is not None


def test_a_rate_that_follows_the_network_follows_each_of_them(prepared):
    data = prepared("binary")
    auto = replace(data, config=replace(data.config, lr=3e-3))
    assert auto.with_network("unet/resnet18").config.lr == 1e-3 and auto.with_network("").config.lr == 3e-3
    asked = replace(data, config=replace(data.config, lr=0.02))
    assert asked.with_network("unet/resnet18").config.lr == 0.02


def weights(run, folder):
    return storage.read_tensors(run / folder / "final" / "weights.safetensors")


def test_snapshots_are_the_model_at_moments_of_its_second_half(prepared, tmp_path):
    session = tiny.session(tmp_path / "a", prepared("binary"), steps=8, eval_every=8, schedule="constant")
    program = IM(**{**tiny.ONE, "members_by": "snapshots"}, members=3)
    outcome = program.run(session)
    assert len(outcome.committee) == 3 and program.models == 2
    rows = session.generations[0]["members"]
    assert [(m["folder"], m["steps"]) for m in rows] == [
        ("generation-0/member-0", 8), ("generation-0/member-0/snapshot-0", 5), ("generation-0/member-0/snapshot-1", 7),
    ]  # fmt: skip
    assert len({m["hash"] for m in rows}) == 3 and rows[1]["images_forwarded"] == 0
    short = tiny.session(tmp_path / "b", prepared("binary"), steps=5, eval_every=8, schedule="constant", lr_warmup=0.0)
    long = tiny.session(tmp_path / "c", prepared("binary"), steps=8, eval_every=8, schedule="constant", lr_warmup=0.0)
    kept = long.snapshots(0, 3, "s")[1]
    want = weights(short.run, short.train(0, 0, "m").folder)
    assert all(torch.equal(v, want[k]) for k, v in weights(long.run, kept.folder).items())


def test_folds_need_two_members():
    with pytest.raises(Refusal, match=r"C02: committee\.members is 1, and a fold is what the other members learn from"):
        Committee(members=1, members_by="folds")


def test_snapshots_need_steps(prepared, tmp_path):
    with pytest.raises(Refusal, match="too few for 3 snapshots"):
        Committee(members=3, members_by="snapshots").run(tiny.session(tmp_path, prepared("binary"), steps=2))
    for program in (IM(), IM(generations=2)):  # before labels only are trained, where steps were asked for
        with pytest.raises(Refusal, match="C06: --steps is 2, too few for 3 snapshots"):
            program.fits(Config(steps=2))
    IM(generations=1).fits(Config(steps=2, committee="a,b"))  # none are taken
    session = tiny.session(tmp_path / "few", prepared("binary"), steps=3, eval_every=3)
    Committee(members=3, members_by="snapshots").run(session)
    rows = session.generations[0]["members"]
    assert [m["steps"] for m in rows] == [3, 1, 2] and len({m["hash"] for m in rows}) == 3


def test_committees_of_every_kind_train_without_unlabeled_images(prepared, tmp_path):
    for way in ("folds", "bootstrap", "snapshots"):
        session = tiny.session(tmp_path / way, prepared("multiclass"), steps=6, eval_every=6)
        outcome = Committee(members=3, members_by=way).run(session)
        assert len(outcome.committee) == 3 and len({m.result["hash"] for m in outcome.committee}) == 3
        names = [a["name"] for a in session.arms]
        assert names == (
            ["labels only"] if way == "folds" else ["labels only", "labels only, average of 3 at prediction"]
        )


@pytest.mark.parametrize("way", ["bootstrap", "folds"])
def test_who_forms_no_committee_learns_from_all_labels(prepared, tmp_path, monkeypatch, way):
    """The students of the last generation and labels only; members of a committee have a part each."""
    monkeypatch.setattr("semiseg.programs.session.SELECTABLE", 1)  # val is large enough: no fold is needed as one
    session, seen, feed = tiny.session(tmp_path, prepared("binary"), steps=2, eval_every=2), [], Prepared.feed

    def noted(self, *args, rows=None, **options):
        seen.append(None if rows is None else len(set(rows)))
        return feed(self, *args, rows=rows, **options)

    monkeypatch.setattr(Prepared, "feed", noted)
    IM(members=2, members_by=way, generations=2, patience=2).run(session)
    whole = len(session.data.labeled)
    assert len(seen) == 6 and [n is None for n in seen] == [True, False, False, False, False, True]
    assert all(n < whole for n in seen[1:5])


def test_no_snapshot_falls_on_a_look_at_val():
    """The end is the best of those moments: it would be the same weights twice."""
    for steps, count in ((20, 5), (50, 5), (1000, 4), (2000, 5), (60, 3)):
        every = max(1, steps // 10)
        moments = snapshot_steps(steps, count, every)
        assert not any(m % every == 0 for m in moments) and len(set(moments)) == count - 1
        assert all(0 <= a - b <= 1 for a, b in zip(snapshot_steps(steps, count), moments, strict=True))
    assert snapshot_steps(8, 4, 2) == (5, 6, 7)  # one step earlier is another one's


def test_two_snapshots_of_the_same_weights_are_said(prepared, tmp_path, monkeypatch):
    """With so few steps that val is asked in each, the best may be what a snapshot was."""
    for hashes in (("a", "b"), ("a", "a")):
        session = tiny.session(tmp_path, prepared("binary"), steps=4, eval_every=1)
        end = Member("generation-0/member-0", 0, {"hash": hashes[0]})
        storage.write_json(tmp_path / end.folder / "snapshot-0/final/result.json", {"hash": hashes[1]})
        monkeypatch.setattr(Session, "train", lambda *_, end=end, **__: end)
        assert len(session.snapshots(0, 2, "s")) == 2
        assert any("Two snapshots are the same weights" in w for w in session.warnings) == (hashes[0] == hashes[1])
