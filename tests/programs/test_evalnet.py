"""EvalNet as a judge and as a program: what it is taught, what it can learn, which masks it picks and which it keeps."""

from dataclasses import replace

import pytest
import torch

import tiny
from semiseg.batch import IGNORE
from semiseg.errors import Refusal
from semiseg.networks.evalnet import EvalNet
from semiseg.programs import _generations
from semiseg.programs._judge import Judge, judge_of, overall, quality
from semiseg.programs.consensus import Rule, consensus, load
from semiseg.programs.evalnet import EvalNetProgram, pick, read_quality
from semiseg.storage import read_json
from semiseg.task import Multiclass, Multilabel


def test_true_quality_by_counting():
    """Classes: of class 1 two of four pixels are shared, one truth pixel is ignored; class 2 is not there."""
    truth = torch.tensor([[1, 1, 1, IGNORE], [0, 0, 0, 0]])
    label = torch.tensor([[1, 1, 0, 1], [1, 0, 0, IGNORE]])
    iou, seen = quality(label, truth, Multiclass("abc"))
    assert iou.tolist() == pytest.approx([2 / 5, 2 / 4, 0]) and seen.tolist() == [True, True, False]
    iou, seen = quality((label == 1).unsqueeze(0).to(torch.uint8), truth.unsqueeze(0).to(torch.uint8), Multilabel("a"))
    assert iou.tolist() == pytest.approx([2 / 4]) and seen.tolist() == [True]
    empty = torch.zeros(1, 2, 2, dtype=torch.uint8)
    assert quality(empty, empty, Multilabel("a"))[0].item() == 0


def test_one_number_from_two_heads():
    """Mean predicted IoU over the classes that are there rather than not; of one class there is no second head."""
    iou, seen = torch.tensor([[0.2, 0.6, 0.9]]).logit(), torch.tensor([[0.7, 0.5, 0.4]]).logit()
    assert overall(iou, seen).item() == pytest.approx(0.4)
    assert overall(iou, -torch.ones(1, 3)).item() == 0
    assert overall(iou[:, :1], None).item() == pytest.approx(0.2)


class Bright(EvalNet):
    """Judges a mask by its share of ones: quality = sigmoid(mean of the first class)."""

    def forward(self, image, mask):
        return mask.mean((2, 3)), None if mask.shape[1] == 1 else torch.ones(mask.shape[:2])


def test_the_best_of_several_masks_is_picked_for_each_image():
    votes = torch.zeros(3, 2, 1, 4, 4, dtype=torch.uint8)
    votes[1, 0], votes[2, 1], votes[0, 1, 0, 0] = 1, 1, 1
    judge = Judge(Bright(1, 1, 0.25), Multilabel("a"), 8, 0.5)
    label, value = pick(judge, torch.zeros(2, 1, 4, 4), votes)
    assert torch.equal(label, torch.ones(2, 1, 4, 4)) and value.tolist() == pytest.approx([0.731059] * 2, abs=1e-5)


def without_val(data):
    return replace(data, val=data.val.take([]))


def test_without_val_images(prepared, tmp_path):
    data = without_val(prepared("binary"))
    with pytest.raises(Refusal, match="learns to judge masks from val images") as refused:
        EvalNetProgram().run(tiny.session(tmp_path, data))
    assert refused.value.exit == 2 and not list(tmp_path.glob("generation-*"))


def test_thresholds_are_shares():
    for arguments in ({"threshold": 1.5}, {"share": -0.1}):
        with pytest.raises(Refusal, match="0 to 1"):
            EvalNetProgram(**arguments)


def test_it_learns_to_tell_good_masks_from_bad_ones(prepared, tmp_path, monkeypatch):
    """Two members, one of which knows the truth of val: after some steps its masks are judged better."""
    data = prepared("binary")
    session = tiny.session(tmp_path, replace(data, unlabeled=data.val), steps=60, size=32, batch=4)

    class Knows(torch.nn.Module):
        """Brightness tells the label: the truth; or its opposite."""

        def __init__(self, sign):
            super().__init__()
            self.sign = sign

        def forward(self, x):
            return self.sign * 40 * (x - 0.25)

    monkeypatch.setattr(type(session), "load", lambda self, sign: Knows(sign))
    session.first = [1.0, -1.0]
    judge = judge_of(session)
    assert 0.3 < judge.typical < 0.7
    for i in range(3):
        image = data.units.apply(data.val.image(i)).unsqueeze(0)
        good, bad = (judge(image, (sign * (image - 0.25) > 0).to(torch.uint8)).item() for sign in (1, -1))
        assert good > bad + 0.2
    again = judge_of(session)  # found, not trained
    assert all(map(torch.equal, again.network.state_dict().values(), judge.network.state_dict().values()))


def test_it_learns_from_every_snapshot(prepared, tmp_path):
    """Three masks of each val image, a consensus and the truth, though one network was trained."""
    session = tiny.session(tmp_path, prepared("binary"), steps=6, eval_every=6)
    EvalNetProgram(members=3, members_by="snapshots", generations=1).run(session)
    about = read_json(tmp_path / "generation-0/evalnet/result.json")
    assert about["pairs"] == 5 * about["val_images"] == 5 * 3
    assert sum("EvalNet learns" in text for text in session.warnings) == 1 and "3 val images" in session.warnings[0]


def test_kept_images_stay_kept(kind, prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(_generations, "judge", lambda *_: (True, "better"))
    session = tiny.session(tmp_path, prepared(kind), steps=2, eval_every=2)
    program = EvalNetProgram(members=2, generations=2)
    outcome = program.run(session)
    first, second = (read_quality(session, g) for g in (1, 2))
    assert (second >= first - 1e-5).all()  # the mask kept so far is a candidate
    for g in (1, 2):
        stored = load(tmp_path / f"generation-{g}/consensus")
        assert (stored.planes[1] == 1).all() and stored.planes[0].max() < 3
        members = [session.load(m) for m in session.members if m.generation == g - 1][:2]
        plain = consensus(session, members, f"plain-{g}", Rule())
        assert stored.share == plain.share > 0 and stored.per_class == plain.per_class, "the members' own disagreement"
    assert outcome.model.generation == 2 and not [w for w in session.warnings if "disagree" in w]
    again = EvalNetProgram(members=2, generations=2)
    found = tiny.session(tmp_path, prepared(kind), steps=2, eval_every=2)
    assert again.run(found).model.result == outcome.model.result


def test_a_threshold_nothing_reaches_keeps_the_best(prepared, tmp_path, monkeypatch):
    session = tiny.session(tmp_path, prepared("binary"))
    monkeypatch.setattr("semiseg.programs.evalnet.read_quality", lambda *_: torch.tensor([0.1, 0.4, 0.4, 0.2, 0.3]))
    pixels = len(session.data.unlabeled.pixels)
    stored = type("S", (), {"planes": (torch.zeros(pixels, 1), torch.ones(pixels, 1))})
    for threshold, want in ((0.25, [0, 1, 1, 0, 1]), (0.9, [0, 1, 1, 0, 0])):
        made, _ = EvalNetProgram(threshold=threshold).lessons(session, 1, stored)
        assert made.data.drawing.multiplicity.tolist() == want
    assert len(session.warnings) == 1 and "at 0.90" in session.warnings[0]
