"""What semiseg.storage promises when nothing fails, and its refusals (faults: tests/faults/test_storage_faults.py)."""

import ast
import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import semiseg
from semiseg import storage
from semiseg.errors import Refusal

SOURCE = Path(semiseg.__file__).parent


def leftovers(folder):
    return [p for p in folder.rglob("*") if ".tmp-" in p.name or ".old-" in p.name]


def refused(exit, *words):
    class Check:
        def __enter__(self):
            self.raises = pytest.raises(Refusal)
            self.info = self.raises.__enter__()

        def __exit__(self, *trouble):
            caught = self.raises.__exit__(*trouble)
            if caught:
                assert self.info.value.exit == exit, str(self.info.value)
                for word in words:
                    assert str(word) in str(self.info.value)
                assert "Fix: " in str(self.info.value)
            return caught

    return Check()


# ---- files


def test_files_round_trip_and_leave_nothing_behind(tmp_path):
    storage.write_bytes(tmp_path / "a/b/c.bin", b"\0\xff")
    storage.write_text(tmp_path / "t.txt", "ä")
    storage.write_json(tmp_path / "x.json", {"ü": [1, 0.1, None]})
    storage.write_json(tmp_path / "x.json", {"ü": [2, 0.1, None]})
    assert (tmp_path / "a/b/c.bin").read_bytes() == b"\0\xff"
    assert (tmp_path / "t.txt").read_text(encoding="utf-8") == "ä"
    assert storage.read_json(tmp_path / "x.json") == {"ü": [2, 0.1, None]}
    assert not leftovers(tmp_path)


def test_a_name_of_255_bytes_can_be_written(tmp_path):
    path = tmp_path / ("ä" * 125 + ".json")
    storage.write_json(path, 1)
    assert storage.read_json(path) == 1


def test_a_table_has_the_columns_it_is_given(tmp_path):
    rows = [{"image": 'a,"b"', "share": 0.1, "other": 1}, {"image": "\udcff\n", "share": None}]
    storage.write_csv(tmp_path / "t.csv", ["image", "share"], rows)
    assert (tmp_path / "t.csv").read_bytes() == b'image,share\n"a,""b""",0.1\n"\xff\n",\n'


def test_nan_is_no_json(tmp_path):
    with pytest.raises(ValueError):
        storage.write_json(tmp_path / "x.json", {"miou": float("nan")})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_missing_or_damaged_json_is_named(tmp_path, content):
    path = tmp_path / "run.json"
    if content is not None:
        path.write_bytes(content)
    with refused(4, path):
        storage.read_json(path)


def test_what_cannot_be_written_is_exit_6(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with refused(6, tmp_path / "file/x.json"):
        storage.write_json(tmp_path / "file/x.json", 1)


def test_too_little_room_is_exit_6_with_path_and_bytes(tmp_path):
    with refused(6, tmp_path / "new/run", 10**18, "free"):
        storage.require_space(tmp_path / "new/run", 10**18)
    storage.require_space(tmp_path / "new/run", 1)


def test_remove(tmp_path):
    storage.save_folder(tmp_path / "a", {"x/y": b"1"}, {})
    (tmp_path / "kept").write_text("behind a link")
    (tmp_path / "a/link").symlink_to(tmp_path / "kept")
    for _ in range(2):
        storage.remove(tmp_path / "a")
        assert [p.name for p in tmp_path.iterdir()] == ["kept"]


def test_run_state_is_written_and_never_raises(tmp_path):
    storage.run_state(tmp_path, "stopped", 143, "SIGTERM", "semiseg train d --resume auto")
    state = {"status": "stopped", "code": 143, "reason": "SIGTERM", "resume": "semiseg train d --resume auto"}
    assert storage.read_json(tmp_path / "run_state.json") == state
    storage.run_state(tmp_path / "run_state.json/below-a-file", "running")


# ---- sealed folders


def test_a_saved_folder_verifies_and_keeps_its_meta(tmp_path):
    folder = tmp_path / "m/step-00000001"
    storage.save_folder(folder, {"a.json": "{}", "masks/b.png": b"png"}, {"step": 1, "loss": 0.1, "what": {"x": None}})
    manifest = storage.verify(folder)
    assert manifest["meta"] == {"step": 1, "loss": 0.1, "what": {"x": None}}
    assert sorted(manifest["files"]) == ["a.json", "masks/b.png"]
    assert storage.is_sealed(folder) and not leftovers(tmp_path)
    assert (folder / "masks/b.png").read_bytes() == b"png"


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    folder = tmp_path / "final"
    folder.mkdir()
    (folder / "half").write_text("a killed run of long ago")
    assert not storage.is_sealed(folder)
    for files in ({"a": b"1", "b": b"1"}, {"a": b"2"}):
        storage.save_folder(folder, files, {"n": len(files)})
        assert {p.name for p in folder.iterdir()} == {*files, "manifest.json"}
        assert storage.verify(folder)["meta"] == {"n": len(files)}
    assert [p.name for p in tmp_path.iterdir()] == ["final"]


def test_a_folder_without_manifest_is_not_complete(tmp_path):
    with refused(4, tmp_path / "x", "manifest.json"):
        storage.verify(tmp_path / "x")


def test_seal_folders_written_in_place(tmp_path):
    folder = tmp_path / "cache"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub/pixels.npy").write_bytes(b"p" * 1000)
    (folder / "y.npy.tmp-999999999-0").write_bytes(b"of a killed writer")
    storage.seal(folder, {"kind": "cache"})
    assert sorted(storage.verify(folder)["files"]) == ["sub/pixels.npy"]
    with refused(7, folder):
        storage.seal(folder, {})
    (folder / "sub/pixels.npy").write_bytes(b"p" * 999 + b"q")
    assert storage.is_sealed(folder), "the quick look compares sizes"
    with refused(4, folder / "sub/pixels.npy"):
        storage.verify(folder)
    (folder / "sub/pixels.npy").write_bytes(b"p" * 999)
    assert not storage.is_sealed(folder)


BAD_NAMES = [
    "../x",
    "/etc/passwd",
    "a/../../x",
    "",
    "a//b",
    "./a",
    "a/",
    "ä.png",
    "a\\b",
    "a b",
    "a\n",
    "manifest.json",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_leave_the_folder_are_refused_when_writing(tmp_path, name):
    with refused(4, repr(name)):
        storage.save_folder(tmp_path / "m", {name: b"x"}, {})
    assert not list(tmp_path.iterdir())


def forge(folder, files, format=1):
    """A manifest as somebody who knows the format would write it."""
    body = {
        "format": format,
        "meta": {},
        "files": {n: {"sha256": hashlib.sha256(b"x").hexdigest(), "size": 1} for n in files},
    }
    whole = {**body, "sha256": hashlib.sha256(dump(body)).hexdigest()}
    folder.mkdir(exist_ok=True)
    (folder / "manifest.json").write_bytes(dump(whole))


def dump(obj):
    return (json.dumps(obj, indent=1, ensure_ascii=False) + "\n").encode()


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_leave_the_folder_are_refused_when_reading(tmp_path, name):
    (tmp_path / "x").write_bytes(b"x")
    forge(tmp_path / "m", [name])
    with refused(4, repr(name)):
        storage.verify(tmp_path / "m")


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    (tmp_path / "x").write_bytes(b"x")
    forge(tmp_path / "m", ["a"])
    (tmp_path / "m/a").write_bytes(b"x")
    storage.verify(tmp_path / "m")
    (tmp_path / "m/a").unlink()
    (tmp_path / "m/a").symlink_to("../x")
    with refused(4, "m/a", "link"):
        storage.verify(tmp_path / "m")


def test_a_newer_format_asks_for_an_update(tmp_path):
    forge(tmp_path / "m", [], format=2)
    with refused(4, "format 2", "update semiseg"):
        storage.verify(tmp_path / "m")


@pytest.mark.parametrize("content", ["[]", "1", '{"files": []}', '{"format": "x", "files": {}}', "{}"])
def test_a_manifest_of_another_shape_is_damaged(tmp_path, content):
    body = json.loads(content)
    if isinstance(body, dict):
        body = {**body, "sha256": hashlib.sha256(dump(body)).hexdigest()}
    (tmp_path / "manifest.json").write_bytes(dump(body))
    with refused(4, "manifest.json"):
        storage.verify(tmp_path)


# ---- checkpoints


def test_the_newest_checkpoint_goes_by_step_and_not_by_time_or_letters(tmp_path):
    assert storage.newest_checkpoint(tmp_path / "none") == (None, "")
    for step in (100_000_000, 20, 3):
        storage.save_folder(tmp_path / f"step-{step:08d}", {"a": b"x"}, {"step": step})
    (tmp_path / "step-00000004.tmp-1-0").mkdir()
    (tmp_path / "final").mkdir()
    assert storage.newest_checkpoint(tmp_path) == (tmp_path / "step-100000000", "")


def test_a_damaged_checkpoint_falls_back_and_says_so(tmp_path):
    for step in (1, 2, 3):
        storage.save_folder(tmp_path / f"step-{step:08d}", {"a": b"x"}, {})
    (tmp_path / "step-00000003/a").write_bytes(b"y")
    (tmp_path / "step-00000002/manifest.json").unlink()
    path, note = storage.newest_checkpoint(tmp_path)
    assert path == tmp_path / "step-00000001"
    assert "step-00000003/a" in note and "step-00000002" in note and "went back to step 1" in note
    (tmp_path / "step-00000001/a").unlink()
    path, note = storage.newest_checkpoint(tmp_path)
    assert path is None and "step-00000001" in note


def test_sweep_removes_what_dead_writers_left_and_nothing_else(tmp_path):
    dead, alive = 999_999_999, os.getppid()
    storage.save_folder(tmp_path / "m/keep", {"a": b"x"}, {})
    storage.save_folder(tmp_path / f"m/lost.old-{dead}-0", {"a": b"old"}, {})
    storage.save_folder(tmp_path / f"m/keep.old-{dead}-0", {"a": b"old"}, {})
    (tmp_path / f"m/x.tmp-{dead}-3/sub").mkdir(parents=True)
    (tmp_path / f"m/x.tmp-{dead}-3/sub/file").write_text("half")
    for name in (f"run.json.tmp-{dead}-1", f"run.json.tmp-{os.getpid()}-1", f"run.json.tmp-{alive}-1", "a.tmp-1-2.png"):
        (tmp_path / name).write_text("half")
    storage.sweep(tmp_path)
    left = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    files = {f"m/{f}/{n}" for f in ("keep", "lost") for n in ("a", "manifest.json")}
    assert left == {*files, f"run.json.tmp-{alive}-1", "a.tmp-1-2.png"}
    assert (tmp_path / "m/keep/a").read_bytes() == b"x"
    assert storage.sweep(tmp_path) == []


def test_sweep_does_not_follow_links(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/image.png").write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/x.tmp-999999999-0").symlink_to(tmp_path / "data")
    storage.sweep(tmp_path / "run")
    assert (tmp_path / "data/image.png").exists() and not list((tmp_path / "run").iterdir())


# ---- the CSV log


def test_rows_keep_all_digits_and_a_second_log_continues(tmp_path):
    path = tmp_path / "m/metrics.csv"
    for step in (1, 2):
        log = storage.CsvLog(path, ["step", "split", "loss", "note"])
        log.row({"step": step, "split": "train", "loss": 1 / 3, "note": "a,\nb"})
        log.sync()
        log.close()
    rows = list(csv.DictReader(path.open(newline="")))
    assert [r["step"] for r in rows] == ["1", "2"] and float(rows[1]["loss"]) == 1 / 3
    assert len(path.read_bytes().splitlines()) == 3
    with pytest.raises(ValueError, match="lr"):
        log.row({"lr": 1})
    with refused(4, path):
        storage.CsvLog(path, ["step", "lr"])


@given(cut=st.integers(0, 200), step=st.integers(0, 12))
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_log_cut_anywhere_continues_as_if_nothing_happened(tmp_path, cut, step):
    path, fields = tmp_path / "metrics.csv", ["step", "loss"]

    def write(first, last):
        log = storage.CsvLog(path, fields)
        for k in range(first, last + 1):
            log.row({"step": k, "loss": k / 7})
        log.close()

    path.unlink(missing_ok=True)
    write(1, 12)
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    storage.CsvLog.truncate(path, step)
    kept = len(path.read_bytes().splitlines()) - 1 if path.exists() else 0
    assert kept <= step
    write(max(kept, 0) + 1, 12)
    assert path.read_bytes() == whole
    assert not leftovers(tmp_path)


def test_truncate_drops_later_and_senseless_rows(tmp_path):
    path = tmp_path / "m.csv"
    assert storage.CsvLog.truncate(path, 1) == 0
    path.write_bytes(b"step,a\n1,x\n3,x\n\0\0\0\n2,y\n1\n7,")
    assert storage.CsvLog.truncate(path, 2) == 4
    assert path.read_bytes() == b"step,a\n1,x\n2,y\n"
    path.write_bytes(b"time,a\n")
    with refused(4, path, "step"):
        storage.CsvLog.truncate(path, 2)


# ---- tensors


def test_tensors_round_trip_and_hash():
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    base = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    tensors = {
        "a": base, "tied": base, "view": base.t(), "half": base.to(torch.bfloat16), "n": torch.tensor(7),
        "mask": base > 3, "none": torch.empty(0, 3), "grad": base.clone().requires_grad_(),
    }  # fmt: skip
    back = storage.tensors_from_bytes(storage.tensors_to_bytes(tensors))
    assert set(back) == set(tensors)
    assert all(torch.equal(back[n], t) and back[n].dtype == t.dtype for n, t in tensors.items())
    assert storage.hash_tensors(back) == storage.hash_tensors(dict(reversed(tensors.items())))
    hashes = [
        {**tensors, "n": torch.tensor(8)},
        {**tensors, "n": torch.tensor([7])},
        {**tensors, "n": torch.tensor(7.0)},
    ]
    hashes += [{**tensors, "m": torch.tensor(7)}, {k: v for k, v in tensors.items() if k != "none"}]
    assert len({storage.hash_tensors(t) for t in [tensors, *hashes]}) == 6


def test_tensors_in_a_folder_and_in_a_broken_file(tmp_path):
    torch = pytest.importorskip("torch")
    storage.save_folder(tmp_path / "m", {"weights.safetensors": {"w": torch.ones(3)}}, {})
    path = tmp_path / "m/weights.safetensors"
    assert torch.equal(storage.read_tensors(path)["w"], torch.ones(3))
    for damage in (b"", path.read_bytes()[:-1], b"\xff" * 100, b"\x80\x04cos\nsystem\n."):
        path.write_bytes(damage)
        with refused(4, path):
            storage.read_tensors(path)
    path.unlink()
    with refused(4, path):
        storage.read_tensors(path)


# ---- the lock


def test_the_lock_refuses_a_second_holder_and_names_the_first(tmp_path):
    run = tmp_path / "run"
    with storage.lock(run):
        with refused(7, run, f"in use by pid {os.getpid()} on", "since 2"), storage.lock(run):
            raise AssertionError("two holders")
        with storage.lock(tmp_path / "other"):
            pass
    with storage.lock(run):
        pass


def child(work):
    """Run `work` in a fork; its pid. Nothing of pytest runs in the child."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.alarm(60)  # nothing outlives a failed test for long
            code = work() or 0
        finally:
            os._exit(code)
    return pid


def test_exactly_one_of_three_gets_the_lock_in_30_races_and_a_kill_frees_it(tmp_path):
    for _ in range(30):
        start, news = os.pipe(), os.pipe()

        def racer(start=start, news=news):
            os.read(start[0], 1)
            try:
                with storage.lock(tmp_path):
                    os.write(news[1], b"w")
                    signal.pause()
            except Refusal as refusal:
                os.write(news[1], b"l" if refusal.exit == 7 else b"?")

        pids = [child(racer) for _ in range(3)]
        os.write(start[1], b"gogo")
        result = b""
        while len(result) < 3:
            result += os.read(news[0], 3)
        assert sorted(result) == sorted(b"wll")
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        with storage.lock(tmp_path):
            pass
        for fd in (*start, *news):
            os.close(fd)


def test_a_worker_does_not_keep_the_lock_of_its_killed_parent(tmp_path):
    news, stop = os.pipe(), os.pipe()

    def worker():
        os.close(stop[1])
        os.read(stop[0], 1)  # lives until the test closes the pipe

    def parent():
        with storage.lock(tmp_path):
            child(worker)
            os.write(news[1], b"1")
            signal.pause()

    pid = child(parent)
    os.read(news[0], 1)
    with refused(7, "in use by pid", pid), storage.lock(tmp_path):
        pass
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with storage.lock(tmp_path):
        pass
    for fd in (*news, *stop):
        os.close(fd)


# ---- the source


def test_importing_storage_does_not_import_torch():
    code = "import sys, semiseg.storage; sys.exit(any(m in sys.modules for m in ('torch', 'safetensors', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
CALLS = {"eval", "exec", "torch.load", "yaml.load", "yaml.full_load", "yaml.unsafe_load"}
METHODS = {"extractall", "unpack_archive", "load_state_dict_from_url"}


def unsafe(source):
    """Line and name of every use of what can run code or write anywhere when it reads a file."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [a.name.split(".")[0] for a in node.names if a.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom):
            full = [f"{node.module}.{a.name}" for a in node.names]
            names = [n for n in full if n.split(".")[0] in MODULES or n in CALLS or n.split(".")[-1] in METHODS]
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            names = [name] if name in CALLS or name.split(".")[-1] in METHODS else []
            names += [k.arg for k in node.keywords if k.arg == "allow_pickle" and ast.unparse(k.value) != "False"]
        found += [(node.lineno, n) for n in names]
    return found


def test_nothing_in_the_source_unpickles_or_evaluates():
    files = sorted(SOURCE.rglob("*.py"))
    assert len(files) > 5
    assert {str(f.relative_to(SOURCE)): u for f in files if (u := unsafe(f.read_text(encoding="utf-8")))} == {}


@pytest.mark.parametrize(
    "line",
    ["import pickle", "from pickle import loads", "torch.load(p)", "from torch import load", "yaml.load(f)",
     "eval('1')", "exec(x)", "tar.extractall()", "shutil.unpack_archive(a)", "np.load(p, allow_pickle=True)"],
)  # fmt: skip
def test_the_gate_bites(line):
    assert unsafe(line)
    assert not unsafe("model.eval(); yaml.safe_load(f); np.load(p, allow_pickle=False)  # eval( pickle")
