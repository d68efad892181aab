"""Weights that a training starts from are known by what the file holds, not by its path alone."""

import shutil

import pytest
import torch
from safetensors.torch import save_file

import semiseg
import tiny
from semiseg.errors import Refusal
from semiseg.networks import build
from semiseg.storage import read_json
from semiseg.training.config import Config

QUICK = {"steps": 2, "size": 16, "batch": 2, "baseline": False, "quiet": True}


def weights(path, seed):
    torch.manual_seed(seed)
    path.parent.mkdir(exist_ok=True)
    save_file(build("unet1x1", 3, 1).state_dict(), path)
    return str(path)


def test_other_weights_under_the_same_name_are_another_training(tmp_path):
    data = tiny.write_folder(tmp_path / "data", "binary")
    options = QUICK | {"method": "supervised", "weights": weights(tmp_path / "w.safetensors", 0)}
    first = semiseg.train(data, tmp_path / "first", **options)
    noted = read_json(tmp_path / "first/run.json")["weights"]
    weights(tmp_path / "w.safetensors", 1)
    with pytest.raises(Refusal, match=r"S08: .*w\.safetensors changed since models of .*first were trained") as refused:
        semiseg.train(data, tmp_path / "first", resume="auto", **options)
    assert refused.value.exit == 4
    again = semiseg.train(data, tmp_path / "again", reuse=str(tmp_path / "first"), **options)
    assert "taken over" not in (tmp_path / "again/events.jsonl").read_text() and again["hash"] != first["hash"]
    weights(tmp_path / "w.safetensors", 0)
    back = semiseg.train(data, tmp_path / "back", reuse=str(tmp_path / "first"), **options)
    assert "taken over" in (tmp_path / "back/events.jsonl").read_text() and back["hash"] == first["hash"]
    assert read_json(tmp_path / "back/run.json")["weights"] == noted


def test_a_shape_knows_weights_wherever_they_lie_and_how_colours_are_scaled(tmp_path):
    def shape(path):
        return Config(weights=str(path)).shape((0,), "supervised", "")

    here = shape(weights(tmp_path / "a/model.safetensors", 0))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert shape(tmp_path / "b/model.safetensors") == shape(tmp_path / "a") == here != shape("")
    (tmp_path / "b/config.json").write_text('{"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}')
    assert shape(tmp_path / "b") != here
    assert "weights" not in semiseg.training.origin.files("supervised", "imagenet")
