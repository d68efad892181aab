"""What a pixel of the consensus counts: classes that the mask thins out, pixels that are in doubt."""

import itertools

import pytest
import torch

import semiseg
import tiny
from semiseg.batch import IGNORE, Clock, Planes, Target, Unlabeled
from semiseg.errors import Refusal
from semiseg.inconsistency import InconsistencyMask, inconsistency_mask
from semiseg.programs._lessons import HEAVIEST, balance
from semiseg.programs.consensus import Rule, agreed
from semiseg.programs.im import IM
from semiseg.task import make_task

SMALL = {"size": 16, "steps": 4, "batch": 2, "network": "unet1x1:0.25", "device": "cpu", "threads": 1, "workers": 1,
         "unlabeled_batch": 2, "quiet": True}  # fmt: skip


def taught(labels, agree, own=None, **arguments):
    image = torch.rand(len(labels), 3, *labels.shape[-2:])
    valid = torch.ones(len(labels), 1, *labels.shape[-2:], dtype=torch.bool)
    unlabeled = Unlabeled(image, (image,), valid, Planes(labels, agree))
    return InconsistencyMask(**arguments)(unlabeled, own, Clock(0, 10))[1]


def test_classes_get_their_share_of_the_labels_back():
    """The weighted shares of what is kept are those of the labels."""
    kept, labeled = {"a": 0.9, "b": 0.08, "c": 0.02}, {"a": 0.7, "b": 0.2, "c": 0.1}
    weight = balance(kept, labeled, multilabel=False)
    assert torch.allclose(weight * torch.tensor([0.9, 0.08, 0.02]), torch.tensor([0.7, 0.2, 0.1]))
    off, on = balance(kept, labeled, multilabel=True)
    assert torch.allclose(on * torch.tensor([0.9, 0.08, 0.02]), torch.tensor([0.7, 0.2, 0.1]))
    assert torch.allclose(off * torch.tensor([0.1, 0.92, 0.98]), torch.tensor([0.3, 0.8, 0.9]))


def test_a_class_that_is_gone_has_no_weight_of_its_own():
    weight = balance({"a": 0.999, "b": 0.001, "c": 0.0, "d": None}, {"a": 0.5, "b": 0.3, "c": 0.2, "d": 0.1}, False)
    assert weight[1] == HEAVIEST and weight[2] == 1 and weight[3] == 1 and torch.isfinite(weight).all()
    assert torch.equal(balance({"a": 1.0}, {"a": 0.5}, True), torch.tensor([[1.0], [0.5]]))


@pytest.mark.parametrize("multilabel", [False, True])
def test_weights_pixel_by_pixel(multilabel):
    drawn = torch.Generator().manual_seed(0)
    shape = (2, 3, 4, 4) if multilabel else (2, 4, 4)
    label = torch.randint(0, 2 if multilabel else 3, shape, generator=drawn)
    agree = torch.rand(2, 1, 4, 4, generator=drawn) > 0.4
    weight = torch.tensor([[0.5, 0.6, 0.7], [2.0, 3.0, 4.0]] if multilabel else [0.5, 2.0, 4.0])
    made = taught(label, agree, balance=weight).weight
    for b, y, x in itertools.product(range(2), range(4), range(4)):
        sure = float(agree[b, 0, y, x])
        for k in range(made.shape[1]):
            want = weight[label[b, k, y, x], k] if multilabel else weight[label[b, y, x]]
            assert made[b, k, y, x] == sure * want
    plain = taught(label, agree).weight
    assert torch.equal(plain.expand_as(made) > 0, made > 0)


def test_doubtful_pixels_count_less_and_have_the_label_of_most():
    votes = torch.tensor([[0, 1, 2, 2, IGNORE], [0, 1, 2, 1, IGNORE], [0, 2, 1, 0, 1]])[:, None, None]  # (3,1,1,5)
    label, agree = agreed(votes, make_task("multiclass", ["a", "b", "c"]), Rule(doubtful=True))
    assert label[0, 0].tolist() == [0, 1, 2, 0, IGNORE] and agree.flatten().tolist() == [True, *[False] * 4]
    weight = taught(label, agree, doubt=0.3).weight[0, 0, 0]
    assert torch.allclose(weight, torch.tensor([1, 0.3, 0.3, 0.3, 0]))  # where nobody has an opinion nothing is taught
    assert torch.equal(taught(label, agree).weight[0, 0, 0], torch.tensor([1.0, 0, 0, 0, 0]))
    own = Target(torch.ones(1, 3, 1, 5) / 3, torch.zeros(1, 1, 5, dtype=torch.long), torch.full((1, 1, 1, 5), 0.5),
                 torch.ones(1, 1, 1, 5, dtype=torch.bool))  # fmt: skip
    kept = taught(label, agree, own, label="own", doubt=0.3).weight[0, 0, 0]
    assert torch.allclose(kept, torch.tensor([0.5, 0.15, 0.15, 0.15, 0.15]))


def test_without_a_fill_the_most_frequent_label_stays():
    votes = torch.randint(0, 4, (4, 2, 5, 5), generator=torch.Generator().manual_seed(1))
    made, plain = inconsistency_mask(votes, fill=None), inconsistency_mask(votes)
    assert torch.equal(made.agree, plain.agree)
    for b, y, x in itertools.product(range(2), range(5), range(5)):
        seen = votes[:, b, y, x].tolist()
        assert made.label[b, y, x] == min(set(seen), key=lambda v: (-seen.count(v), v))


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"doubt": 0.3, "label": "background"}, "doubt"), ({"doubt": 1.0}, "doubt"),
        ({"doubt": 0.3, "discs": "position"}, "doubt"), ({"balance": True, "label": "background"}, "balance"),
        ({"balance": True, "route": "online"}, "balance"), ({"balance": True, "preset": "paper"}, "balance"),
    ],
)  # fmt: skip
def test_switches_that_exclude_each_other(arguments, key):
    with pytest.raises(Refusal, match=f"im.{key}"):
        IM(**arguments)


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel"])
def test_whole_runs(folders, tmp_path, kind):
    """Both change the students and nothing of generation 0."""
    hashes, first = {}, {}
    for name, sets in {"im": [], "balance": ["balance=yes"], "doubt": ["doubt=0.3"]}.items():
        made = semiseg.train(folders[kind], tmp_path / name, method="im", sets=[*tiny.words(), *sets], **SMALL)
        zero, one = made["generations"]
        first[name], hashes[name] = [m["hash"] for m in zero["members"]], one["members"][0]["hash"]
    assert first["im"] == first["balance"] == first["doubt"]
    assert len(set(hashes.values())) == 3


@pytest.mark.parametrize("doubt", [0.0, 0.25])
@pytest.mark.parametrize("kind", ["multiclass", "multilabel"])
def test_what_is_taught_has_the_shares_of_the_labels(prepared, tmp_path, kind, doubt):
    """Whole planes, weighted as a step weighs them, against the labeled pixels."""
    session, im = tiny.session(tmp_path, prepared(kind)), IM(balance=True, doubt=doubt)
    assert vars(im.refiner(session))["balance"] is None  # nothing was agreed yet
    task, pixels, drawn = session.data.task, 4000, torch.Generator().manual_seed(2)
    label = (torch.rand(pixels, task.channels if task.multilabel else 1, generator=drawn) * 2.4).to(torch.uint8)
    label = label.clamp(max=1) if task.multilabel else label
    agree = (torch.rand(pixels, 1, generator=drawn) > 0.3 * (label[:, :1] > 0)).to(torch.uint8)
    refine = im.refiner(session, (label, agree))
    rows = label.T[None, :, None].contiguous() if task.multilabel else label.T[None].long()
    weight = taught(rows, agree.T[None, None].bool(), balance=refine.balance, doubt=doubt).weight[0, :, 0]
    known = session.data.labeled.labels
    for k in range(task.channels):
        if task.multilabel:
            share, want = weight[k, label[:, k] == 1].sum() / weight[k].sum(), (known[:, k] == 1).double().mean()
        else:
            share, want = weight[0, label[:, 0] == k].sum() / weight.sum(), (known == k).sum() / (known != IGNORE).sum()
        assert share == pytest.approx(float(want), abs=1e-4)
