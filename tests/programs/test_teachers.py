"""One teacher: noisy student and input ensemble; who teaches, what of, and what the students are."""

import pytest
import torch
from torch import nn

import semiseg
import tiny
from semiseg.errors import Refusal
from semiseg.programs import _generations
from semiseg.programs._growing import noise
from semiseg.programs.consensus import load
from semiseg.programs.input_ensemble import InputEnsemble, View, ways
from semiseg.programs.noisy_student import NoisyStudent


@torch.no_grad()
def labels_by_hand(session, network, i):
    data = session.data
    image = data.units.apply(data.unlabeled.image(i)).unsqueeze(0)
    return data.task.label(data.task.prob(network(image)))[0]


def test_the_teacher_labels_every_clean_image(kind, prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(_generations, "judge", lambda *_: (True, "better"))
    session = tiny.session(tmp_path, prepared(kind), steps=2, eval_every=2)
    outcome = NoisyStudent(generations=2).run(session)
    assert [len(g["members"]) for g in session.generations] == [1, 1, 1]
    assert not [w for w in session.warnings if "disagree" in w]
    assert [a["name"] for a in session.arms] == ["labels only"] + [f"noisy_student, generation {g}" for g in (1, 2)]
    assert [m.result["network"] for m in session.members] == ["unet1x1:0.25", "unet1x1:0.25", "unet1x1:0.5"]
    assert outcome.committee == [outcome.model] and outcome.model.generation == 2
    store = session.data.unlabeled
    for generation in (1, 2):  # the members of the generation before
        planes = load(tmp_path / f"generation-{generation}/consensus").planes
        assert (planes[1] == 1).all()
        assert session.generations[generation - 1]["inconsistent_share"] is None, "nobody was there to disagree"
        assert not session.generations[generation - 1]["inconsistent_per_class"]
        network = session.load(session.members[generation - 1])
        for i in range(len(store)):
            start, h, w = int(store.offset[i]), int(store.height[i]), int(store.width[i])
            label = planes[0][start : start + h * w].view(h, w, -1).permute(2, 0, 1)
            want = labels_by_hand(session, network, i)
            assert torch.equal(label.long(), (want if session.data.task.multilabel else want[None]).long())


def test_the_best_of_a_generation_teaches(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr("semiseg.programs.session.SELECTABLE", 1)
    session = tiny.session(tmp_path, prepared("binary"), steps=1, eval_every=1)
    seen = []
    monkeypatch.setattr(NoisyStudent, "ask", lambda self, session, teacher, folder: seen.append(teacher) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        NoisyStudent(members=3, generations=1).run(session)
    assert seen == [max(session.members, key=lambda m: m.val["miou"])]


def test_students_are_noised(prepared, tmp_path):
    data = prepared("binary")
    session = tiny.session(tmp_path, data)
    pixels = len(data.unlabeled.pixels)
    stored = type("S", (), {"planes": (torch.zeros(pixels, 1), torch.ones(pixels, 1))})
    made, _ = NoisyStudent().lessons(session, 3, stored)
    assert made.data.drawing.colors == noise(3) and made.data.config.network == "unet1x1:0.75"
    fixed, _ = NoisyStudent(grow=0.0).lessons(session, 3, stored)
    assert fixed.data.config.network == "unet1x1:0.25"


@pytest.mark.parametrize(("cls", "arguments", "text"), [
    (NoisyStudent, {"members": 0}, r"noisy_student\.members is 0"), (NoisyStudent, {"grow": 9.0}, "0 to 8"),
    (NoisyStudent, {"share": 2.0}, r"noisy_student\.share"), (InputEnsemble, {"views": 1}, "2 to 8"),
    (InputEnsemble, {"views": 9}, "2 to 8"), (InputEnsemble, {"generations": -1}, "at least 1"),
])  # fmt: skip
def test_wrong_arguments(cls, arguments, text):
    with pytest.raises(Refusal, match=text) as refused:
        cls(**arguments)
    assert refused.value.exit == 2


def test_models():
    assert (
        NoisyStudent(members=1, generations=5).models == 6
        and InputEnsemble(members=2, generations=2, students=1).models == 5
    )


class Ramp(nn.Module):
    """Logits that know where they are: the brightness plus a slope that points in one direction only."""

    def forward(self, x):
        return x + 0.1 * torch.arange(x.shape[3]) + 0.03 * torch.arange(x.shape[2]).unsqueeze(1)


@pytest.mark.parametrize("turn", [True, False])
def test_eight_views_that_differ_and_come_back(turn):
    views = ways(turn)
    assert len(set(views)) == 8 and views[0] == (0, False, 1.0)
    assert all(k == 0 for k, _, _ in views) != turn
    image = torch.rand(2, 1, 5, 7)
    for k, mirror, gain in views:
        centre = image.mean((2, 3), keepdim=True)
        same = centre + (image - centre) * gain
        torch.testing.assert_close(View(nn.Identity(), k, mirror, gain)(image), same)
    seen = [View(Ramp(), *how)(image) for how in views]
    assert all(not torch.allclose(a, b) for i, a in enumerate(seen) for b in seen[:i])


def test_the_mean_over_views_is_what_is_taught(prepared, tmp_path):
    data = prepared("multiclass")
    session = tiny.session(tmp_path, data, steps=1, eval_every=1)
    InputEnsemble(**tiny.ALONE, views=4).run(session)
    planes = load(tmp_path / "generation-1/consensus").planes
    network, store = session.load(session.members[0]), data.unlabeled
    assert (planes[1] == 1).all()
    for i in range(len(store)):
        image = data.units.apply(store.image(i)).unsqueeze(0)
        probs = []
        for quarter in range(4) if data.turn else [0, 0, 0, 0]:
            with torch.no_grad():
                turned = network(torch.rot90(image, quarter, (2, 3)))
            probs.append(torch.rot90(data.task.prob(turned), -quarter, (2, 3)))
        want = data.task.label(torch.stack(probs).mean(0))
        start, h, w = int(store.offset[i]), int(store.height[i]), int(store.width[i])
        if data.turn:
            assert torch.equal(planes[0][start : start + h * w].view(h, w).long(), want[0])
    assert data.turn, "the tiny data have no up, so the views are turns"


def test_a_grown_student_is_shipped(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(_generations, "judge", lambda *_: (True, "better"))
    summary = semiseg.train(
        folders["binary"], tmp_path / "run", method="noisy_student", sets=["noisy_student.generations=2"], size=16,
        steps=2, batch=2, unlabeled_batch=2, network="unet1x1:0.25", device="cpu", threads=1, workers=1, quiet=True,
    )  # fmt: skip
    assert summary["model"]["folder"] == summary["committee"][0] == "generation-2/member-0"
    model = semiseg.load(tmp_path / "run")
    assert model.predict(folders["binary"] / "unlabeled/00.png").label.shape == (24, 24)
    assert model.network(model.folders["model"]).alpha == 0.5
