"""Faults 54-57, 61, 68, 72 (tests T1, T3, T4, T5, T10): whatever fails or dies, a reader finds the old or the new."""

import os
import random
import resource
import select
import signal
from pathlib import Path

import pytest

from semiseg import storage
from semiseg.errors import Refusal
from semiseg.storage import faults
from semiseg.storage.files import writing


def child(work, **environment):
    """The exit code of `work()` in a fork: its own, 6 after a refusal of exit 6, 9 when killed by the hook."""
    pid = start(work, **environment)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def start(work, **environment):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.alarm(60)  # nothing outlives a failed test for long
            os.environ.update(environment)
            faults.counts.clear()
            code = work() or 0
        except Refusal as refusal:
            code = refusal.exit
        finally:
            os._exit(code)
    return pid


def attempt(work, point, number, action):
    """The exit code of `work()` with that fault, or None when it made fewer calls. Only a kill needs a process."""
    fault = f"{point}:{number}:{action}"
    if action == "kill":
        code = child(lambda: work() or (0 if faults.counts[point] >= number else 10), SEMISEG_FAULT=fault)
        return None if code == 10 else code
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEMISEG_FAULT", fault)
        faults.counts.clear()
        try:
            work()
        except Refusal as refusal:
            return refusal.exit
        return 0 if faults.counts[point] >= number else None


def leftovers(folder):
    return sorted(p.name for p in folder.rglob("*") if ".tmp-" in p.name or ".old-" in p.name)


# ---- the scenarios: prepare the old state, do the one thing, say what a reader sees ("old", "new" or anything else)

OLD = {"weights": b"o" * 300, "sub/state.json": b"old"}
NEW = {"weights": b"n" * 400, "sub/state.json": b"new", "more": b"n"}


class SaveNew:
    """The first checkpoint of a folder that does not exist yet."""

    def before(self, root):
        pass

    def act(self, root):
        storage.save_folder(root / "m/step-00000002", NEW, {"step": 2})

    def see(self, root):
        path, note = storage.newest_checkpoint(root / "m")
        assert note == ""
        if path is None:
            return "old"
        return "new" if storage.verify(path)["meta"] == {"step": 2} and content(path) == NEW else "broken"


class Replace(SaveNew):
    """A sealed checkpoint of the same name is replaced."""

    def before(self, root):
        storage.save_folder(root / "m/step-00000002", OLD, {"step": 1})

    def see(self, root):
        path, note = storage.newest_checkpoint(root / "m")
        assert note == "" and path == root / "m/step-00000002"
        kind = {1: "old", 2: "new"}[storage.verify(path)["meta"]["step"]]
        return kind if content(path) == {"old": OLD, "new": NEW}[kind] else "broken"


class ReplaceHalf(SaveNew):
    """A half-written folder of the same name, without manifest, is replaced."""

    def before(self, root):
        storage.write_bytes(root / "m/step-00000002/weights", b"half")

    def see(self, root):
        return "new" if storage.is_sealed(root / "m/step-00000002") and super().see(root) == "new" else "old"


class Json(SaveNew):
    """A single file is replaced."""

    def before(self, root):
        storage.write_json(root / "run.json", "old")

    def act(self, root):
        storage.write_json(root / "run.json", "new")

    def see(self, root):
        return storage.read_json(root / "run.json")


class Seal(SaveNew):
    """A folder of memmaps is written in place, nothing of it synced, and then sealed."""

    def before(self, root):
        storage.make_folder(root / "cache/sub")

    def act(self, root):
        for name, data in (("sub/pixels", b"p" * 500), ("index", b"i")):
            path = root / "cache" / name
            with writing(path, len(data)), path.open("wb") as file:
                faults.write(file.fileno(), path, data)
        storage.seal(root / "cache", {"n": 500})

    def see(self, root):
        if not storage.is_sealed(root / "cache"):
            return "old"
        return "new" if storage.verify(root / "cache")["meta"] == {"n": 500} else "broken"


class Remove(SaveNew):
    """A sealed folder goes at once."""

    def before(self, root):
        storage.save_folder(root / "m/step-00000002", OLD, {"step": 1})

    def act(self, root):
        storage.remove(root / "m/step-00000002")

    def see(self, root):
        path = root / "m/step-00000002"
        return ("old" if content(path) == OLD and storage.verify(path) else "broken") if path.exists() else "new"


class Truncate(SaveNew):
    """A log is cut back to the step of a checkpoint."""

    def before(self, root):
        storage.write_text(root / "metrics.csv", "step,loss\n1,.5\n2,.4\n3,.3\n")

    def act(self, root):
        storage.CsvLog.truncate(root / "metrics.csv", 2)

    def see(self, root):
        texts = {"step,loss\n1,.5\n2,.4\n3,.3\n": "old", "step,loss\n1,.5\n2,.4\n": "new"}
        return texts.get((root / "metrics.csv").read_text(), "broken")


SCENARIOS = [SaveNew, Replace, ReplaceHalf, Json, Seal, Remove, Truncate]
every_scenario = pytest.mark.parametrize("scenario", SCENARIOS, ids=[s.__name__ for s in SCENARIOS])


def content(folder):
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != "manifest.json")
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


@pytest.fixture
def no_wait(monkeypatch):
    """Where no power is lost, or a model of a disk counts: the calls are made, this disk does not wait for them."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@every_scenario
def test_every_call_fails_once(tmp_path, no_wait, scenario):
    """T3, after SQLite: let the 1st, 2nd, ... call of every kind fail in every way until none is left to fail."""
    fired = 0
    for action in faults.ACTIONS:
        for point in faults.POINTS:
            for number in range(1, 100):
                root = tmp_path / f"{action}-{point}-{number}"
                case = scenario()
                case.before(root)

                code = attempt(lambda case=case, root=root: case.act(root), point, number, action)
                if code is None:
                    break
                fired += 1
                # a failing clean-up of what is committed costs nothing but a leftover
                assert code == 9 if action == "kill" else code == 6 or (code == 0 and point in ("unlink", "replace"))
                seen = case.see(root)
                if code == 6 and seen == "old" and point in ("write", "fsync", "mkdir"):
                    assert not leftovers(root), "who refuses cleans up"
                assert seen in ("old", "new"), f"{root.name}: {seen}"
                if code == 0:
                    assert seen == "new"
                storage.sweep(root)
                assert not leftovers(root) and case.see(root) == seen, root.name
                if seen == "old":  # and the same thing can simply be done again
                    case.act(root)
                    assert case.see(root) == "new"
            else:
                raise AssertionError("the loop did not end")
    assert fired >= 4 * 3, "the hook did not fire"


@pytest.mark.parametrize("number", range(1, 6))
def test_a_forgotten_older_folder_never_comes_back(tmp_path, number):
    folder = tmp_path / "final"
    storage.save_folder(tmp_path / "final.old-0-0", OLD, {"n": 0})
    storage.save_folder(folder, OLD, {"n": 1})
    storage.save_folder(tmp_path / "final.old-0-0", OLD, {"n": 0})
    assert attempt(lambda: storage.save_folder(folder, NEW, {"n": 2}), "replace", number, "kill") in (None, 0, 9)
    assert storage.verify(folder)["meta"]["n"] in (1, 2)


def test_a_reader_that_puts_the_old_folder_back_does_not_stop_the_writer(tmp_path, monkeypatch):
    folder, looks = tmp_path / "final", []
    storage.save_folder(folder, OLD, {"n": 1})
    hit = faults.hit

    def reader(point, path, detail=None):
        if point == "replace" and detail == folder and not looks:
            looks.append(1)
            assert storage.verify(folder)["meta"] == {"n": 1}
        return hit(point, path, detail)

    monkeypatch.setattr(faults, "hit", reader)
    storage.save_folder(folder, NEW, {"n": 2})
    assert looks and storage.verify(folder)["meta"] == {"n": 2}
    assert content(folder) == NEW and not leftovers(tmp_path)


@pytest.mark.parametrize(("action", "code", "word"), [("enospc", "R01", "free"), ("eio", "R02", "Input/output error")])
def test_a_full_or_failing_disk_names_the_path_and_the_bytes(tmp_path, monkeypatch, action, code, word):
    target, size = tmp_path / "m/step-00000002", sum(map(len, NEW.values()))
    for point in ("write", "fsync", "replace", "mkdir"):
        monkeypatch.setenv("SEMISEG_FAULT", f"{point}:1:{action}")
        faults.counts.clear()
        with pytest.raises(Refusal) as caught:
            storage.save_folder(target, NEW, {})
        (problem,) = caught.value.problems
        assert (
            caught.value.exit == 6 and problem.code == code and problem.where == str(target) and word in problem.found
        )
        needed = int("".join(c if c.isdigit() else " " for c in problem.found).split()[0])
        assert size < needed < size + 2000
        assert not leftovers(tmp_path)


# ---- T4: power loss


class Folder:
    """A folder of a disk that may forget: `history` has its names after each change since the last fsync."""

    def __init__(self):
        self.history = [{}]

    @property
    def names(self):
        return self.history[-1]

    def change(self, name, node):
        names = dict(self.names)
        names.pop(name, None)
        self.history.append({**names, name: node} if node is not None else names)

    def settle(self):
        self.history = [self.names]


class File:
    """A file of such a disk: what programs see, and what is safely on the disk (None: nothing yet)."""

    def __init__(self, data):
        self.data, self.disk = data, None

    def settle(self):
        self.disk = self.data


class Disk:
    """Replays recorded calls; `crash` writes what may be left of them to a real folder."""

    def __init__(self):
        self.root = Folder()

    def find(self, path):
        node = self.root
        for part in Path(path).parts:
            node = node.names[part]
        return node

    def play(self, point, path, detail):
        parent = self.find(path.parent) if path.parts else None
        if point == "mkdir":
            parent.change(path.name, Folder())
        elif point == "write":
            parent.change(path.name, File(detail))
        elif point == "fsync":
            self.find(path).settle()
        elif point == "unlink":
            parent.change(path.name, None)
        elif point == "replace":
            node = self.find(path)
            assert parent is self.find(detail.parent), "only renames within one folder are atomic"
            names = {k: v for k, v in parent.names.items() if k != path.name}
            parent.history.append({**names, detail.name: node})

    def settle(self, node=None):
        node = node or self.root
        node.settle()
        for below in node.names.values() if isinstance(node, Folder) else ():
            self.settle(below)

    def crash(self, target, names, data, node=None):
        """`names(history)` picks one of the lists of names, `data(file)` the bytes that survive."""
        target.mkdir()
        for name, below in names((node or self.root).history).items():
            if isinstance(below, Folder):
                self.crash(target / name, names, data, below)
            else:
                (target / name).write_bytes(data(below))


def recorded(monkeypatch, root, work):
    trace = []

    def hit(point, path, detail=None):
        inside = path.is_relative_to(root)
        assert inside or point == "fsync", f"{point} outside the run: {path}"
        if inside:
            relative = detail.relative_to(root) if isinstance(detail, Path) else detail
            trace.append((point, path.relative_to(root), relative))
        return ""

    with monkeypatch.context() as patch:
        patch.setattr(faults, "hit", hit)
        work()
    return trace


DATA = {
    "all of it": lambda file: file.data,
    "what was synced": lambda file: file.disk or b"",
    "half of the rest": lambda file: file.data[: len(file.data) // 2] if file.disk is None else file.disk,
    "zeros": lambda file: b"\0" * len(file.data) if file.disk is None else file.disk,
}
NAMES = {"first": lambda history: history[0], "last": lambda history: history[-1]}
NAMES |= {f"any {k}": random.Random(k).choice for k in range(2)}


def replay(tmp_path, case, before, trace):
    """What readers see after a power loss at every moment of `trace`: pairs of (calls done, seen)."""
    seen = []
    for done in range(len(trace) + 1):
        for how in NAMES.values():
            for left in DATA.values():
                disk = Disk()
                for call in before:
                    disk.play(*call)
                disk.settle()
                for call in trace[:done]:
                    disk.play(*call)
                target = tmp_path / f"crash-{done}-{len(seen)}"
                disk.crash(target, how, left)
                try:
                    seen.append((done, case.see(target)))
                except (Refusal, AssertionError, FileNotFoundError) as error:
                    seen.append((done, f"broken: {error}"))
    return seen


@every_scenario
def test_power_loss_at_every_moment_leaves_the_old_or_the_new(tmp_path, monkeypatch, no_wait, scenario):
    case, root = scenario(), tmp_path / "run"
    root.mkdir()
    before = recorded(monkeypatch, root, lambda: case.before(root))
    trace = recorded(monkeypatch, root, lambda: case.act(root))
    seen = replay(tmp_path, case, before, trace)
    assert {s for _, s in seen} == {"old", "new"}
    assert {s for done, s in seen if done == len(trace)} == {"new"}, "what has returned is durable"


@pytest.mark.parametrize("forgotten", ["file", "folder"])
@pytest.mark.parametrize("scenario", [Json, Replace], ids=["Json", "Replace"])
def test_the_power_loss_model_notices_a_missing_fsync(tmp_path, monkeypatch, no_wait, scenario, forgotten):
    case, root = scenario(), tmp_path / "run"
    root.mkdir()
    before = recorded(monkeypatch, root, lambda: case.before(root))
    trace = recorded(monkeypatch, root, lambda: case.act(root))
    written = {path for point, path, _ in trace if point == "write"}
    short = [c for c in trace if c[0] != "fsync" or (c[1] in written) != (forgotten == "file")]
    assert len(short) < len(trace)
    seen = replay(tmp_path, case, before, short)
    late = {s for done, s in seen if done == len(short)}
    assert late != {"new"}


# ---- T1: kill -9


def save_for_ever(root, acknowledge):
    storage.sweep(root)
    path, _ = storage.newest_checkpoint(root)
    step = int(path.name[5:]) if path else 0
    for older in root.glob("step-*"):
        if older != path:
            storage.remove(older)
    while True:
        step += 1
        files = {"weights": step.to_bytes(4, "big") * 5000, "state.json": f"{step}"}
        storage.save_folder(root / f"step-{step:08d}", files, {"step": step})
        storage.save_folder(root / "final", files, {"step": step})
        storage.write_json(root / "run.json", {"step": step, "pad": "x" * 3000})
        os.write(acknowledge, step.to_bytes(4, "big"))
        if step > 2:
            storage.remove(root / f"step-{step - 2:08d}")


def kill_often(root, kills):
    """Kill a process that saves without pause, at random moments; each time all is old or new, and readable."""
    chance = random.Random(0)
    root.mkdir()
    known = said = 0  # the newest step found so far, and the newest one that a child told of
    for kill in range(kills):
        told, tell = os.pipe()
        ended, end = os.pipe()
        pid = start(lambda tell=tell: save_for_ever(root, tell))
        os.close(tell)
        os.close(end)  # now the child alone holds it
        if kill % 5 == 4:  # on a busy machine too, some get as far as the second round
            select.select([told], [], [], 30)
        assert not select.select([ended], [], [], chance.uniform(0.001, 0.03))[0], "the child gave up"
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        while piece := os.read(told, 4):
            said = int.from_bytes(piece, "big")
        os.close(told)
        os.close(ended)
        path, note = storage.newest_checkpoint(root)
        assert note == ""
        if path is None:
            assert known == 0
            continue
        step = storage.verify(path)["meta"]["step"]
        assert max(known, said) <= step <= max(known, said) + 1
        assert (path / "weights").read_bytes() == step.to_bytes(4, "big") * 5000
        known = step
        if said:
            assert said <= storage.verify(root / "final")["meta"]["step"] <= step
            assert said <= storage.read_json(root / "run.json")["step"] <= step
    assert said >= kills // 5, "the children hardly saved anything"
    storage.sweep(root)
    assert not leftovers(root)


def test_200_random_kills_corrupt_nothing(tmp_path):
    kill_often(tmp_path / "run", 200)


@pytest.mark.slow
def test_1000_random_kills_corrupt_nothing(tmp_path):
    kill_often(tmp_path / "run", 1000)


def test_a_reader_beside_the_writer_disturbs_nobody(tmp_path):
    storage.save_folder(tmp_path / "final", OLD, {})

    def work():
        for _ in range(60):
            storage.save_folder(tmp_path / "final", OLD, {})

    pid = start(work)
    looks = 0
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        storage.is_sealed(tmp_path / "final")
        looks += 1
    assert looks > 0 and storage.verify(tmp_path / "final")["meta"] == {}
    storage.save_folder(tmp_path / "final", NEW, {})
    assert content(tmp_path / "final") == NEW


# ---- T5: a disk that is really full


def test_a_real_size_limit_leaves_the_old_checkpoint(tmp_path):
    folder = tmp_path / "step-00000001"
    storage.save_folder(folder, OLD, {"step": 1})

    def work():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            storage.save_folder(folder, {"weights": b"n" * 300_000}, {"step": 2})
        except Refusal as refusal:
            text = str(refusal)
            return 7 if refusal.exit == 6 and str(folder) in text and "300" in text and "free" in text else 1

    assert child(work) == 7
    assert storage.verify(folder)["meta"] == {"step": 1} and content(folder) == OLD
    assert not leftovers(tmp_path)


def test_a_log_on_a_full_disk_warns_once_and_goes_on():
    with pytest.warns(UserWarning, match="rows are being lost") as caught:
        log = storage.CsvLog(Path("/dev/full"), ["step"])
        log.row({"step": 1})
        log.sync()
        log.close()
    assert len(caught) == 1


def test_a_row_that_did_not_fit_leaves_no_half_row(tmp_path, monkeypatch):
    for number, rows in ((1, "123"), (2, "23"), (3, "13"), (4, "12")):  # 1 is the header: the first row brings it
        path = tmp_path / f"{number}.csv"
        monkeypatch.setenv("SEMISEG_FAULT", f"write:{number}:short")
        faults.counts.clear()
        with pytest.warns(UserWarning, match="rows are being lost"):
            log = storage.CsvLog(path, ["step", "loss"])
            for step in (1, 2, 3):
                log.row({"step": step, "loss": 0.5})
        assert path.read_text() == "step,loss\n" + "".join(f"{r},0.5\n" for r in rows)
        log.close()


def test_run_state_on_a_failing_disk_keeps_the_old_one(tmp_path, monkeypatch):
    storage.run_state(tmp_path, "running")
    for point in ("write", "fsync", "replace"):
        monkeypatch.setenv("SEMISEG_FAULT", f"{point}:1:enospc")
        faults.counts.clear()
        storage.run_state(tmp_path, "done")
        assert storage.read_json(tmp_path / "run_state.json")["status"] == "running"


# ---- T10: damaged checkpoints


def damage(files, chance):
    """One random damage of one or two files (name to bytes, in place): what it was and the names touched."""
    name = chance.choice(sorted(files))
    data = bytearray(files[name])
    kind = chance.choice(["flip", "cut", "zero", "swap", "more", "lose", "noise"])
    at = chance.randrange(len(data))
    size = min(chance.choice([1, 16, 512]), len(data) - at)
    if kind == "flip":
        data[at] ^= 1 << chance.randrange(8)
    elif kind == "cut":
        del data[at:]
    elif kind == "zero":
        data[at : at + size] = bytes(size)
    elif kind == "noise":
        data[at : at + size] = chance.randbytes(size)
    elif kind == "more":
        data += chance.randbytes(size)
    elif kind == "swap":
        other = chance.choice(sorted(set(files) - {name}))
        return kind, {name: files[other], other: files[name]}
    return kind, {name: None if kind == "lose" else bytes(data)}


def damage_often(folder, copies):
    chance = random.Random(0)
    files = {f"part-{k}.bin": chance.randbytes(3000) for k in range(2)} | {"state.json": b'{"step": 7}'}
    storage.save_folder(folder, files, {"step": 7, "config": {"lr": 0.001, "names": ["a", "b"]}})
    files["manifest.json"] = (folder / "manifest.json").read_bytes()
    done, kinds = 0, set()
    while done < copies:
        kind, changed = damage(files, chance)
        if all(files[name] == data for name, data in changed.items()):
            continue
        for name, data in changed.items():
            (folder / name).unlink(missing_ok=True) if data is None else (folder / name).write_bytes(data)
        with pytest.raises(Refusal) as caught:
            storage.verify(folder)
        assert caught.value.exit == 4
        assert any(name in caught.value.problems[0].where + caught.value.problems[0].found for name in changed)
        for name in changed:
            (folder / name).write_bytes(files[name])
        done += 1
        kinds.add(kind)
    assert len(kinds) == 7
    storage.verify(folder)


def test_2000_damaged_checkpoints_are_all_detected_and_the_file_named(tmp_path):
    damage_often(tmp_path / "m", 2000)


@pytest.mark.slow
def test_10000_damaged_checkpoints_are_all_detected_and_the_file_named(tmp_path):
    damage_often(tmp_path / "m", 10_000)
