"""Snapshots of one training serve every program that begins with the same one."""

import semiseg
import tiny
from semiseg import storage
from semiseg.programs.committee import Committee

SMALL = {"steps": 6, "size": 16, "batch": 2, "network": "unet1x1:0.125", "quiet": True}


def hashes(run):
    return [m["hash"] for m in storage.read_json(run / "summary.json")["generations"][0]["members"]]


def test_a_run_takes_over_the_snapshots_of_another(folders, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    semiseg.train(folders["binary"], one, method="ensemble", **SMALL)
    semiseg.train(folders["binary"], two, method="im", reuse=str(one), **SMALL)
    assert len(set(hashes(one))) == 3 and hashes(one) == hashes(two)
    assert (two / "events.jsonl").read_text().count("taken over") == 2  # labels only, too
    for name in ("final", "snapshot-0/final", "snapshot-1/final"):
        assert storage.is_sealed(two / "generation-0/member-0" / name)
        storage.verify(two / "generation-0/member-0" / name)


def test_one_with_snapshots_is_not_one_without(prepared, tmp_path):
    """It ends alike, but whoever takes it over would look for them; and other moments are others."""
    shapes = set()
    for members in (1, 2, 3):
        session = tiny.session(tmp_path / str(members), prepared("binary"), steps=8)
        Committee(members=max(2, members), members_by="snapshots" if members > 1 else "seed").run(session)
        shapes.add(session.members[0].result["shape"])
    assert len(shapes) == 3 and "" not in shapes
