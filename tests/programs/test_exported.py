"""An exported model is the run's model: compared when it is written, and predicting the same when it is read."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import semiseg
import tiny
from semiseg.commands import export_run
from semiseg.errors import Refusal
from semiseg.programs import exported
from semiseg.programs.exported import Exported, export
from semiseg.programs.given import open_all

onnx = pytest.importorskip("onnx")
SMALL = {"size": 16, "steps": 2, "batch": 2, "network": "unet1x1:0.125", "device": "cpu", "threads": 1,
         "workers": 1, "unlabeled_batch": 2, "checkpoint_every": 4, "quiet": True}  # fmt: skip


def pixelwise_file(path, about):
    """An ONNX file made by hand: logits x - .5 and .5 - x of a grey image."""
    h = onnx.helper
    nodes = [h.make_node("Sub", ["image", "half"], ["up"]), h.make_node("Neg", ["up"], ["down"]),
             h.make_node("Concat", ["up", "down"], ["logits"], axis=1)]  # fmt: skip
    ends = [
        h.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["b", c, "h", "w"])
        for n, c in (("image", 1), ("logits", 2))
    ]
    half = h.make_tensor("half", onnx.TensorProto.FLOAT, [1], [0.5])
    model = h.make_model(h.make_graph(nodes, "g", ends[:1], ends[1:], [half]), opset_imports=[h.make_opsetid("", 18)])
    model.ir_version = 9
    if about:
        h.set_model_props(model, {"semiseg": json.dumps(about)})
    path.write_bytes(model.SerializeToString())
    return path


ABOUT = {
    "classes": {"task": "multilabel", "names": ["high", "low"], "coding": "folders", "values": [0, 255], "colors": [],
                "ignore": [], "palette": None, "replicate": False},
    "units": {"low": [0.0], "high": [255.0], "mean": [0.5], "std": [0.2]}, "channels": 1, "dtype": "uint8", "resize": 0,
}  # fmt: skip


def test_a_file_predicts_by_its_metadata_alone(tmp_path):
    model = Exported(pixelwise_file(tmp_path / "m.onnx", ABOUT))
    image = np.array([[0, 100], [128, 255]], np.uint8)
    made = model.predict(image)
    assert np.array_equal(made.label, [[[0, 0], [1, 1]], [[1, 1], [0, 0]]])
    assert made.prob[0, 1, 1] == pytest.approx(1 / (1 + np.exp(-0.5)), abs=1e-6)
    with pytest.raises(Refusal, match="has 3 channels, the model was trained on 1"):
        model.predict(np.zeros((4, 4, 3), np.uint8))
    wide = np.random.default_rng(0).integers(0, 256, (520, 700), np.uint8)
    assert np.array_equal(model.predict(wide).label[0], wide > 127)  # in tiles
    paths = [str(tmp_path / "m.onnx"), str(pixelwise_file(tmp_path / "n.onnx", {**ABOUT, "resize": 100}))]
    voices = open_all(paths, None, tmp_path)
    assert voices[0].label("x", Path("x"), image[..., None]).shape == (2, 2, 2)
    lacks = voices[0].lacks({"y": (Path("y.png"), (2, 2, 3, "uint8")), "z": (Path("z.tif"), (2, 2, 1, "uint16"))})
    assert [(p.code, p.where) for p in lacks] == [("P01", paths[0]), ("P02", paths[0])]
    (tmp_path / "n.onnx").write_bytes((tmp_path / "m.onnx").read_bytes())
    with pytest.raises(Refusal, match=r"n\.onnx is .*m\.onnx once more") as error:
        open_all(paths, None, tmp_path)
    assert error.value.exit == 2


def test_files_of_others_are_refused(tmp_path):
    pixelwise_file(tmp_path / "foreign.onnx", None)
    pixelwise_file(tmp_path / "less.onnx", {k: v for k, v in ABOUT.items() if k != "classes"})
    (tmp_path / "text.onnx").write_text("hello")
    for name, text in (
        ("foreign", "no entry 'semiseg'.*masks"),
        ("text", "is no ONNX model"),
        ("gone", "does not exist"),
        ("less", "its metadata entry 'semiseg' lacks classes"),
    ):
        with pytest.raises(Refusal, match=text) as error:
            Exported(tmp_path / f"{name}.onnx")
        assert error.value.exit == 4


def test_what_export_refuses(tmp_path, monkeypatch):
    with pytest.raises(Refusal, match=r"does not end in \.onnx") as error:
        export(tmp_path, tmp_path / "m.pt")
    assert error.value.exit == 2
    monkeypatch.setattr(exported.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        Refusal, match=r"needs onnx, onnxscript, onnxruntime\. Fix: pip install 'semiseg\[onnx\]'"
    ) as error:
        export(tmp_path, tmp_path / "m.onnx")
    assert error.value.exit == 2


def test_a_place_that_cannot_be_written_is_said_before_the_conversion(folders, tmp_path, monkeypatch):
    semiseg.train(folders["binary"], tmp_path / "run", method="supervised", **SMALL)
    monkeypatch.setattr(exported, "_bytes", lambda *_: pytest.fail("converted all the same"))
    (tmp_path / "file").write_text("")
    with pytest.raises(Refusal, match="cannot be written") as error:
        export(tmp_path / "run", tmp_path / "file" / "m.onnx")
    assert error.value.exit == 6


def test_a_file_that_differs_is_not_written(folders, tmp_path, monkeypatch):
    semiseg.train(folders["binary"], tmp_path / "run", sets=["im.members=2"], **SMALL)
    about = {**ABOUT, "classes": semiseg.load(tmp_path / "run").classes.to_json()}
    other = pixelwise_file(tmp_path / "other.onnx", about).read_bytes()
    monkeypatch.setattr(exported, "_bytes", lambda *_: other)
    with pytest.raises(Refusal, match="differ from torch's by") as error:
        export(tmp_path / "run", tmp_path / "m.onnx")
    assert error.value.exit == 1 and not (tmp_path / "m.onnx").exists()
    (tmp_path / "m.onnx").write_bytes(b"an earlier one")
    with pytest.raises(Refusal, match="so it was not written"):
        export(tmp_path / "run", tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_bytes() == b"an earlier one"


def test_an_export_that_gives_no_numbers_is_no_equal(folders, tmp_path, monkeypatch):
    semiseg.train(folders["binary"], tmp_path / "run", sets=["im.members=2"], **SMALL)
    model = semiseg.load(tmp_path / "run")
    told = model.predict

    class Broken:
        def predict(self, image):
            found = told(image)
            return replace(found, prob=np.full_like(found.prob, np.nan))

    assert math.isnan(exported._compare(model, Broken())["largest_difference"])


def test_a_run_and_its_export_are_one_member(folders, tmp_path, monkeypatch):
    """Whatever the file is called; and `semiseg export` does not propose to ask both."""
    semiseg.train(folders["binary"], tmp_path / "run", sets=["im.members=2"], **SMALL)
    model = semiseg.load(tmp_path / "run")
    about = {**ABOUT, "classes": model.classes.to_json(), "model": model.hash}
    path = pixelwise_file(tmp_path / "m.onnx", about)
    other = pixelwise_file(tmp_path / "other.onnx", {**about, "model": "of another run"})
    run, mine = str(tmp_path / "run"), str(path)
    assert [v.title for v in open_all([mine, str(other)], None, tmp_path)] == [mine, str(other)]
    assert len(open_all([run, str(other)], None, tmp_path)) == 2
    for pair in ((run, mine), (mine, f"{run}/{model.folders['model']}")):
        with pytest.raises(Refusal, match="once more") as error:
            open_all([*pair, str(other)], None, tmp_path)
        assert error.value.exit == 2 and [p.where for p in error.value.problems] == [pair[1]]
    made = {"size_mb": 1, "images": 1, "largest_difference": 0.0, "other_labels": 0.0}
    monkeypatch.setattr(exported, "export", lambda run, out: made)
    following = export_run(tmp_path / "run", path, False)[3]
    assert following == f"semiseg consensus {path} OTHER_RUN --images IMAGES --out consensus"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["multiclass"])
def test_an_exported_run_is_the_run(folders, tmp_path, kind):
    semiseg.train(folders[kind], tmp_path / "run", method="im", sets=["im.members=2"], **SMALL)
    made = export(tmp_path / "run", tmp_path / "deep/m.onnx")
    assert made["largest_difference"] < 1e-4 and made["other_labels"] < 1e-3 and made["images"] == 4
    with pytest.raises(Refusal, match="once more"):
        open_all([str(tmp_path / "run"), str(tmp_path / "deep/m.onnx")], None, tmp_path)
    model, other = semiseg.load(tmp_path / "run"), Exported(tmp_path / "deep/m.onnx")
    for size in ((24, 24), (31, 47), (1, 5), (600, 70)):
        image = (
            (tiny.draw(tiny.truth(kind, 1, max(size)), 9)[0, 0, : size[0], : size[1]].clamp(0, 1) * 255).byte().numpy()
        )
        one, two = model.predict(image), other.predict(image)
        assert np.abs(one.prob - two.prob).max() < 1e-4 and (one.label != two.label).mean() < 1e-3
    batch = torch.rand(3, 1, 48, 64)
    with torch.inference_mode():
        both = [m.network(m.folders["model"])(batch.to(m.device)).cpu() for m in (model, other)]
    assert torch.allclose(*both, atol=1e-4)
    assert other.classes == model.classes and other.units == model.units
