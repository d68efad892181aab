"""IM+, IM++ and their A variants: copies by EvalNet's opinion, schedules, whole runs at toy size."""

import csv
from dataclasses import replace

import pytest
import torch

import semiseg
import tiny
from semiseg.data.sampler import Feed
from semiseg.errors import Refusal
from semiseg.programs import PROGRAMS, _generations, program_class
from semiseg.programs._growing import noise
from semiseg.programs.aim import AIMPlus, AIMPlusPlus
from semiseg.programs.im import IM
from semiseg.programs.im_plus import IMPlus, IMPlusPlus, copies_of


def test_copies_of_the_paper():
    quality = torch.tensor([0.71, 0.72, 0.725, 0.735, 0.741, 0.747, 0.76])
    assert copies_of(quality, 0.72, 0.75).tolist() == [1, 1, 1, 3, 4, 5, 5]
    assert copies_of(torch.full((3,), 0.5), 0.5, 0.5).tolist() == [1, 1, 1]  # everything is judged alike
    many = copies_of(torch.linspace(0, 1, 101), 0.2, 0.8)
    assert (many.diff() >= 0).all() and many[0] == 1 and many[-1] == 5 and len(many.unique()) == 5


def test_names_and_defaults():
    for name, cls in (
        ("im_plus", IMPlus),
        ("im_plusplus", IMPlusPlus),
        ("aim_plus", AIMPlus),
        ("aim_plusplus", AIMPlusPlus),
    ):
        assert program_class(name) is cls and cls.name == name and name in PROGRAMS
        program = cls()
        assert (program.members, program.generations, program.route, program.models) == (2, 5, "offline", 11)
        assert program.rule() == IM().rule() and program.clean == name.startswith("aim")
    assert IMPlus(preset="paper", discs="x").disc_weight == 3 and IMPlus(preset="paper").fill == "zero"


@pytest.mark.parametrize(("cls", "arguments", "text"), [
    (IMPlus, {"grow": -1.0}, r"im_plus\.grow is -1"), (IMPlus, {"fill": "black"}, r"im_plus\.fill is 'black'"),
    (IMPlusPlus, {"low": 0.5, "high": 0.4}, r"im_plusplus\.low is 0.5"),
    (AIMPlus, {"members": 1}, r"aim_plus\.members is 1"),
])  # fmt: skip
def test_wrong_arguments(cls, arguments, text):
    with pytest.raises(Refusal, match=text):
        cls(**arguments)


def without_val(data):
    return replace(data, val=data.val.take([]))


def test_without_val_images_there_is_nothing_to_judge_by(prepared, tmp_path):
    data = without_val(prepared("binary"))
    for cls in (IMPlusPlus, AIMPlusPlus):
        with pytest.raises(Refusal, match="learns to judge masks from val images") as refused:
            cls().run(tiny.session(tmp_path, data, method="supervised"))
        assert refused.value.exit == 2 and not list(tmp_path.glob("generation-*"))


def test_augmented_labels_need_augmentation(prepared, tmp_path):
    for cls in (AIMPlus, AIMPlusPlus):
        with pytest.raises(Refusal, match="--augment is none") as refused:
            cls().fits(tiny.session(tmp_path, prepared("binary"), augment="none").data.config)
        assert refused.value.exit == 2


@pytest.fixture
def drawn(monkeypatch):
    """Every Drawing that students were trained with; promotion is given away."""
    seen = []
    original = Feed.unlabeled

    def spy(self, step, names):
        seen.append((self.drawing, self.augment, original(self, step, names)))
        return seen[-1][2]

    monkeypatch.setattr(Feed, "unlabeled", spy)
    monkeypatch.setattr(_generations, "judge", lambda *_: (True, "better"))
    return seen


def test_students_grow_and_are_noised(prepared, tmp_path, drawn):
    session = tiny.session(tmp_path, prepared("binary"), steps=1, eval_every=1)
    outcome = IMPlus(generations=2).run(session)
    networks = [m.result["network"] for m in session.members]
    assert networks == ["unet1x1:0.25"] * 4 + ["unet1x1:0.5"]
    drawings = [d for d, _, batch in drawn if batch is not None]
    assert [d.colors for d in drawings] == [noise(1), noise(1), noise(2)] and not any(d.clean for d in drawings)
    assert outcome.model.result["parameters"] > session.members[0].result["parameters"]
    assert session.load(outcome.model)(torch.rand(1, 1, 16, 16)).shape == (1, 1, 16, 16)


def test_good_masks_are_seen_more_often(kind, prepared, tmp_path, drawn):
    session = tiny.session(tmp_path, prepared(kind), steps=2, eval_every=2)
    AIMPlusPlus(generations=2, members=2).run(session)
    for generation in (1, 2):
        with (tmp_path / f"generation-{generation}/quality.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [r["image"] for r in rows] == session.data.unlabeled.names
        assert all(0 <= float(r["quality"]) <= 1 for r in rows)
    drawings = [d for d, _, batch in drawn if batch is not None]
    quality = torch.tensor([float(r["quality"]) for r in rows])
    number = drawings[-1].multiplicity
    assert drawings[-1].clean and number.min() >= 1 and number.max() <= 5
    assert (number[quality.argsort()].diff() >= 0).all() and number.tolist() != [1] * 5
    assert (tmp_path / "generation-0/evalnet/weights.safetensors").is_file()


@pytest.mark.parametrize("name", ["im_plusplus", "evalnet"])
def test_whole_runs(folders, tmp_path, name):
    sets = [f"{name}.generations=1", f"{name}.members=2"]
    summary = semiseg.train(
        folders["multilabel"], tmp_path / "run", method=name, sets=sets, size=16, steps=2, batch=2, unlabeled_batch=2,
        network="unet1x1:0.25", device="cpu", threads=1, workers=1, quiet=True,
    )  # fmt: skip
    assert summary["name"] == f"supervised+{name}" and summary["arms"][-1]["name"] == f"{name}, generation 1"
    assert any("3 val images only" in w for w in summary["warnings"])
    assert (tmp_path / "run/report.html").is_file() and (tmp_path / "run/generation-1/quality.csv").is_file()
