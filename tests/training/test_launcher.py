"""Several processes cannot share a run: said at once, instead of one waiting for the other."""

import pytest

import semiseg
import tiny
from semiseg.errors import USAGE, Refusal


def test_a_launcher_with_several_processes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    data = tiny.write_folder(tmp_path / "data", "binary")
    with pytest.raises(Refusal, match="has started 2 processes") as refused:
        semiseg.train(data, tmp_path / "run", steps=1)
    assert refused.value.exit == USAGE and not (tmp_path / "run").exists()
