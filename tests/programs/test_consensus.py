"""A committee's opinions become planes that lie like the pixels of the unlabeled store."""

import csv

import pytest
import torch

import tiny
from semiseg import storage
from semiseg.batch import IGNORE
from semiseg.errors import Refusal
from semiseg.inconsistency import inconsistency_mask
from semiseg.programs.consensus import Rule, claims, consensus, load, opinions
from semiseg.storage import faults
from semiseg.task import Multiclass, Multilabel


@pytest.fixture
def asked(kind, prepared, tmp_path):
    """A session and three networks fresh from their initialisation, which disagree a lot."""
    data = prepared(kind)
    networks = []
    for seed in range(3):
        torch.manual_seed(seed)
        networks.append(data.make().eval())
    return tiny.session(tmp_path, data), networks


def image_planes(stored, store, i):
    """Label (L,h,w) and agreement (1|L,h,w) of image i, cut out of the flat rows by hand."""
    start, h, w = int(store.offset[i]), int(store.height[i]), int(store.width[i])
    return [plane[start : start + h * w].view(h, w, -1).permute(2, 0, 1) for plane in stored.planes]


@torch.no_grad()
def votes_of(networks, session, i):
    """Labels of every member for one whole clean image, one image and one member at a time."""
    data = session.data
    image = data.units.apply(data.unlabeled.image(i)).unsqueeze(0)
    return torch.stack([data.task.label(data.task.prob(net(image))) for net in networks])


@pytest.mark.parametrize("rule", [Rule(), Rule(agreement=2), Rule(erode=3, dilate=3), Rule(reduce="channel")])
def test_planes_are_the_inconsistency_mask_of_the_members_labels(asked, rule):
    session, networks = asked
    store, task = session.data.unlabeled, session.data.task
    assert store.height.unique().numel() == 2  # images of two sizes
    stored = consensus(session, networks, "c", rule)
    assert all(len(p) == len(store.pixels) for p in stored.planes)
    shares = []
    for i in range(len(store)):
        made = inconsistency_mask(votes_of(networks, session, i), task, agreement=rule.agreement, reduce=rule.reduce,
                                  erode=rule.erode, dilate=rule.dilate)  # fmt: skip
        label, agree = image_planes(stored, store, i)
        want = made.label[0] if task.multilabel else made.label
        assert torch.equal(label.long(), want.long()) and torch.equal(agree == 1, made.agree[0])
        shares.append(made.inconsistent.float().mean().item())
        plain = inconsistency_mask(votes_of(networks, session, i), task).inconsistent.float().mean().item()
        want = {"inconsistent_share": shares[-1], "disagreement": plain}  # the second whatever the rule
        assert stored.rows[i] == {"image": store.names[i], **{k: pytest.approx(v, abs=1e-6) for k, v in want.items()}}
    size = store.height * store.width
    assert stored.share == pytest.approx(float((torch.tensor(shares) * size).sum() / size.sum()), abs=1e-6)
    always = task.multilabel and rule.agreement == 2  # of three answers yes or no two are always equal
    assert (stored.share > 0) != always


def test_the_average_is_trusted_everywhere(asked):
    session, networks = asked
    data = session.data
    stored = consensus(session, networks, "c", Rule("mean"))
    assert (stored.planes[1] == 1).all() and stored.share > 0  # the disagreement is still reported
    for i in range(len(data.unlabeled)):
        image = data.units.apply(data.unlabeled.image(i)).unsqueeze(0)
        with torch.no_grad():
            mean = torch.stack([data.task.prob(net(image)) for net in networks]).mean(0)
        label, _ = image_planes(stored, data.unlabeled, i)
        want = data.task.label(mean)
        assert torch.equal(label.long(), (want[0] if data.task.multilabel else want).long())


@pytest.mark.parametrize("reduce", ["union", "channel"])
def test_shares_per_class_by_counting(asked, reduce):
    """Of the pixels that some member gave to the class: the share that is inconsistent, by channel for this label alone."""
    session, networks = asked
    data = session.data
    stored = consensus(session, networks, "c", Rule(reduce=reduce))
    for k, name in enumerate(data.task.names):
        claimed = disputed = 0
        for i in range(len(data.unlabeled)):
            votes = votes_of(networks, session, i)
            some = ((votes[:, :, k] == 1) if data.task.multilabel else votes == k).any(0)
            agree = inconsistency_mask(votes, data.task, reduce=reduce).agree
            hidden = ~agree[:, k if reduce == "channel" and data.task.multilabel else 0]
            claimed, disputed = claimed + int(some.sum()), disputed + int((some & hidden).sum())
        want = None if not claimed else pytest.approx(disputed / claimed)
        assert stored.per_class[name] == want


@pytest.mark.parametrize("multilabel", [False, True])
def test_claims_by_counting(multilabel):
    """A pixel counts once for a class, however many members give it, and for none where a member has no opinion."""
    torch.manual_seed(0)
    task = Multilabel("abc") if multilabel else Multiclass("abcdefg")
    votes = torch.randint(0, 2 if multilabel else 7, (4, 2, 3, 5, 6) if multilabel else (4, 2, 5, 6), dtype=torch.uint8)
    votes[torch.rand(votes.shape) < 0.2] = IGNORE
    for agree in (torch.rand(2, 1, 5, 6) < 0.5, torch.rand(2, task.channels if multilabel else 1, 5, 6) < 0.5):
        counts = claims(votes, agree, task)
        for k in range(task.channels):
            some = ((votes[:, :, k] == 1) if multilabel else votes == k).any(0)
            hidden = ~agree[:, k if agree.shape[1] > 1 else 0]
            assert counts[:, k].tolist() == [int(some.sum()), int((some & hidden).sum())]
            assert 0 < counts[1, k] < counts[0, k]


def test_a_stored_answer_is_not_asked_for_again(asked):
    session, networks = asked
    first = consensus(session, networks, "c", Rule())
    again = consensus(session, [], "c", Rule())
    assert all(map(torch.equal, first.planes, again.planes)) and first.rows == again.rows
    assert (first.share, first.per_class) == (again.share, again.per_class)
    with (session.run / "c/inconsistency.csv").open() as file:
        assert [r["image"] for r in csv.DictReader(file)] == session.data.unlabeled.names
    assert storage.is_sealed(session.run / "c") and load(session.run / "c").share == first.share


def test_members_that_are_equal_agree(asked):
    session, networks = asked
    stored = consensus(session, networks[:1] * 2, "c", Rule())
    assert stored.share == 0 and (stored.planes[1] == 1).all() and (stored.planes[0] != 255).all()


def test_opinions_of_whole_batches(asked):
    session, networks = asked
    data = session.data
    image = torch.stack([data.units.apply(data.unlabeled.image(i)) for i in range(2)])
    votes, mean = opinions(networks, data.task, image, True)
    assert votes.dtype == torch.uint8 and votes.shape[:2] == (3, 2) and mean.shape[1] == data.task.channels
    assert opinions(networks, data.task, image)[1] is None
    assert torch.equal(votes[:, :1].long(), votes_of(networks, session, 0).long())


def test_a_full_disk_while_it_is_written(asked, monkeypatch):
    session, networks = asked
    storage.remove(session.run / "full")
    monkeypatch.setenv("SEMISEG_FAULT", "write:2:enospc")
    faults.counts.clear()
    with pytest.raises(Refusal, match=r"R01: .*agree\.bin does not fit on the disk: it needs \d+ bytes") as error:
        consensus(session, networks, "full", Rule())
    assert error.value.exit == 6 and not storage.is_sealed(session.run / "full")
    monkeypatch.delenv("SEMISEG_FAULT")
    assert torch.equal(
        consensus(session, networks, "full", Rule()).planes[1], consensus(session, networks, "c2", Rule()).planes[1]
    )
