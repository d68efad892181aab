"""Half precision is in force on one device, and what it needs is part of the state."""

import pytest
import torch
from torch import nn

import tiny
from semiseg.training import prepare
from semiseg.training.config import Config


@pytest.mark.parametrize("method", ["supervised", "fixmatch"])
def test_bf16_is_used_where_it_is_asked_for(method, prepared, tmp_path, monkeypatch):
    """Convolutions answer in it, the model is another one, and what is kept is float32."""
    seen = []
    forward = nn.Conv2d.forward

    def watched(self, x):
        out = forward(self, x)
        if self.training:
            seen.append(out.dtype)
        return out

    monkeypatch.setattr(nn.Conv2d, "forward", watched)
    made = {}
    for precision in ("32-true", "bf16-mixed"):
        seen.clear()
        session = tiny.session(tmp_path / precision, prepared("multiclass"), method=method, precision=precision, steps=2,
                               eval_every=2)  # fmt: skip
        member = session.train(0, 0, "m")
        made[precision] = member.result["hash"]
        assert set(seen) == {torch.bfloat16 if precision == "bf16-mixed" else torch.float32}
        assert {p.dtype for p in session.load(member).parameters()} == {torch.float32}
    assert len(set(made.values())) == 2


def test_networks_go_where_they_are_asked_to(monkeypatch):
    """As Fabric decides it; pixels go there only if they fit."""
    for cuda, mps, auto in ((True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: mps)
        assert prepare.device_of(Config(device="auto")) == auto and prepare.device_of(Config(device="mps")) == "mps"
