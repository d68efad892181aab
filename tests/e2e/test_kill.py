"""SIGKILL at any moment: the same command with `--resume auto` ends in the same run, to the last bit.

Planned kills end the process at a chosen call or half-written file of a phase, random ones after a random time. After
every kill the same command goes on, and may be killed again, until it finishes.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from _data import ONE, discs, make, picture, save
from _runner import Kill, Server, ends

from semiseg import storage

PHASES = ("cache", "training", "saving", "consensus", "generation switch", "report")
STEPS, EVERY = 12, 4
MEMBERS = ("generation-0/member-0", "generation-0/member-1", "generation-1/member-0")
LOOP = "semiseg.training.loop:_Run.one_step"

# In the order in which a run comes to them; every one is met by the try that follows the kill before it.
SHORT = [
    ("cache", Kill(3, call="semiseg.data.cache:_decode")),
    ("training", Kill(8, call=LOOP)),
    ("saving", Kill(1, point="write", match=r"member-0/step-\d+\.tmp.*/state\.safetensors")),
    ("consensus", Kill(2, call="semiseg.programs.consensus:opinions")),
    ("generation switch", Kill(1, point="write", match="generation-1/member-0/metrics.csv")),
    ("report", Kill(1, point="replace", match="summary.json")),
]


def long(seed: int) -> list[tuple[str, Kill]]:
    """Three or more kills in every phase, at drawn places."""
    draw = random.Random(seed)
    return [
        ("cache", Kill(draw.randint(1, 9), call="semiseg.data.cache:_decode")),
        ("cache", Kill(draw.randint(1, 2), point="write", match="cache/labeled/")),
        ("cache", Kill(draw.randint(1, 4), point="fsync", match="cache/unlabeled")),
        ("cache", Kill(1, point="replace", match="cache/val/manifest.json")),
        ("training", Kill(draw.randint(1, STEPS), call=LOOP)),
        ("saving", Kill(draw.randint(1, 3), point="write", match=r"member-\d/step-")),
        ("training", Kill(draw.randint(2, 6), point="write", match="metrics.csv")),
        ("saving", Kill(draw.randint(1, 9), point="fsync", match=r"member-\d/step-")),
        ("saving", Kill(1, point="replace", match=r"member-1/step-")),
        ("saving", Kill(1, point="unlink", match=r"member-1/step-")),
        ("saving", Kill(draw.randint(1, 3), point="write", match="member-1/final")),
        ("generation switch", Kill(1, call="semiseg.programs.session:Session.add_generation")),
        ("generation switch", Kill(1, call="semiseg.programs._generations:consensus")),
        ("consensus", Kill(draw.randint(1, 6), call="semiseg.programs.consensus:opinions")),
        ("consensus", Kill(draw.randint(1, 2), point="write", match="consensus/.*(csv|json)")),
        ("consensus", Kill(draw.randint(1, 5), point="fsync", match="consensus")),
        ("generation switch", Kill(1, call="semiseg.programs.im:on_device")),
        ("generation switch", Kill(1, point="mkdir", match="generation-1/member-0")),
        ("training", Kill(draw.randint(1, STEPS), call=LOOP)),
        ("saving", Kill(1, point="replace", match="generation-1/member-0/final")),
        ("generation switch", Kill(1, call="semiseg.programs._generations:judge")),
        ("report", Kill(1, call="semiseg.programs.train:write_report")),
        ("report", Kill(draw.randint(1, 3), point="write", match="samples/")),
        ("report", Kill(1, point="write", match="label_next.csv")),
        ("report", Kill(1, point="fsync", match="report.html")),
        ("report", Kill(2, point="replace", match="run_state.json")),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6 labeled images, 1 of them set aside as val; 6 unlabeled ones of alternating size: 6 batches of a consensus."""
    root = make(tmp_path_factory.mktemp("kill") / "data", labeled=6, unlabeled=0)
    for k in range(6):
        save(root / f"unlabeled/u{k}.png", picture(discs(100 + k, (24 + 8 * (k % 2), 32)), 100 + k))
    return root


@dataclass
class Run:
    """The same command again and again in one run folder."""

    server: Server
    data: Path
    out: Path
    kills: list[tuple[str, str]] = field(default_factory=list)
    done: set[str] = field(default_factory=set)

    def go(self, kill: Kill | None = None, watch: Callable[[int], None] | None = None) -> int:
        """One try; checks what it repeated of the tries before."""
        steps = {m: last_step(self.out / m) for m in MEMBERS}
        finished = {m for m in MEMBERS if storage.is_sealed(self.out / m / "final")}
        seen = len(events(self.out))
        ended = self.server.run(
            "train", self.data.name, "--out", self.out.name, "--method", "im", "--steps", STEPS, "--size", 16,
            "--batch", 2, *ONE, "--set", f"checkpoint_every={EVERY}", "--resume", "auto",
            cwd=self.data.parent, kill=kill, watch=watch,
        )  # fmt: skip
        assert ended.code in (0, -signal.SIGKILL), ended.text
        for event in events(self.out)[seen:]:
            if event["event"] == "member":
                member = folder(event["title"])
                assert member not in finished, f"{member} was finished and is trained again"
                assert steps[member] - event["resumed_at"] <= EVERY, f"{member} lost more than {EVERY} steps"
        return ended.code

    def killed(self, phase: str, kill: Kill) -> None:
        assert self.go(kill) == -signal.SIGKILL, f"{phase}: {kill} was never reached"
        self.kills.append((phase, str(kill)))


def events(run: Path) -> list[dict[str, Any]]:
    path = run / "events.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def folder(title: str) -> str:
    """The folder of a member from its title: im · generation 0 · 1/2."""
    found = re.search(r"generation (\d+)\D+(\d+)/\d+$", title)
    assert found, title
    return f"generation-{found[1]}/member-{int(found[2]) - 1}"


def last_step(member: Path) -> int:
    """The newest step in a member's log."""
    path = member / "metrics.csv"
    found = re.findall(r"^(\d+),train,", path.read_text(), re.M) if path.exists() else []
    return int(found[-1]) if found else 0


def outcome(run: Path) -> dict[str, Any]:
    """Everything of a run that must not depend on how often it was killed."""
    summary = json.loads((run / "summary.json").read_text())
    for generation in summary["generations"]:
        for member in generation["members"]:
            member.pop("seconds")
    files = {
        p.relative_to(run).as_posix(): p.read_bytes()
        for pattern in ("**/metrics.csv", "**/weights.safetensors", "**/*.bin", "**/*.csv", "samples/*")
        for p in run.glob(pattern)
    }
    hashes = {m: json.loads((run / m / "final/result.json").read_text())["hash"] for m in MEMBERS}
    said = {
        k: summary[k] for k in ("hash", "arms", "generations", "model", "committee", "warnings", "images_forwarded")
    }
    return {"files": files, "hashes": hashes, **said}


def finished(run: Run, whole: dict[str, Any]) -> None:
    """Let the run end, and compare it with the uninterrupted one."""
    assert run.go() == 0
    again = outcome(run.out)
    for key, value in whole.items():
        assert again[key] == value, key
    assert json.loads((run.out / "run_state.json").read_text())["status"] == "finished"
    assert (run.out / "report.html").stat().st_size > 1000
    left = [p.name for p in run.out.rglob("*") if re.search(r"\.(tmp|old)-\d", p.name)]
    assert not left, "what killed writers left behind is still there"


def table(kills: Sequence[tuple[str, str]]) -> str:
    count = Counter(phase for phase, _ in kills)
    lines = [f"{phase:18} {count[phase]:3}  " + ", ".join(w for p, w in kills if p == phase) for phase in PHASES]
    return "\n".join([f"{len(kills)} kills", *lines])


@pytest.fixture(scope="module")
def whole(server: Server, data: Path) -> dict[str, Any]:
    """The run that nobody interrupts."""
    run = Run(server, data, data.parent / "whole")
    assert run.go() == 0
    assert [e["event"] for e in events(run.out)].count("member") == 3
    return outcome(run.out)


def test_one_kill_in_every_phase(server: Server, data: Path, whole: dict[str, Any]) -> None:
    run = Run(server, data, data.parent / "short")
    for phase, kill in SHORT:
        run.killed(phase, kill)
    finished(run, whole)
    print(table(run.kills))
    assert {phase for phase, _ in run.kills} == set(PHASES)


def test_a_damaged_checkpoint_is_noticed_and_passed_over(server: Server, data: Path, whole: dict[str, Any]) -> None:
    run = Run(server, data, data.parent / "damaged")
    run.killed("training", Kill(EVERY + 3, call=LOOP))
    state = run.out / MEMBERS[0] / f"step-{EVERY:08d}" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-4] + b"\0\0\0\1")
    ended = server.run("train", data.name, "--out", run.out.name, "--resume", cwd=data.parent,
                       kill=Kill(1, call=LOOP))  # fmt: skip
    assert ended.code == -signal.SIGKILL
    assert "Warning" in ended.err and "changed since it was written" in ended.err
    assert [e["resumed_at"] for e in events(run.out) if e["event"] == "member"] == [0, 0]
    finished(run, whole)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_kills_at_drawn_places_of_every_phase(server: Server, data: Path, whole: dict[str, Any], seed: int) -> None:
    run = Run(server, data, data.parent / f"long-{seed}")
    for phase, kill in long(seed):
        run.killed(phase, kill)
    finished(run, whole)
    print(table(run.kills))
    count = Counter(phase for phase, _ in run.kills)
    assert len(run.kills) >= 20 and min(count[p] for p in PHASES) >= 3


def where(run: Path) -> str:
    """The phase in which a run was when it died, from what lies in its folder."""
    if any(e["event"] == "report" for e in events(run)[-1:]):
        return "report"
    if not all(storage.is_sealed(run / "cache" / s) for s in ("labeled", "unlabeled", "val")):
        return "cache"
    if any(run.glob("generation-*/member-*/*.tmp-*")):
        return "saving"
    consensus = run / "generation-1/consensus"
    if consensus.exists() and not storage.is_sealed(consensus):
        return "consensus"
    between = all(storage.is_sealed(run / m / "final") for m in MEMBERS[:2]) and not (run / MEMBERS[2]).exists()
    return "generation switch" if between else "training"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3, 4])
def test_kills_at_random_times(server: Server, data: Path, whole: dict[str, Any], seed: int) -> None:
    """From outside, the whole process group, whatever it is doing."""
    draw = random.Random(seed)
    run = Run(server, data, data.parent / f"random-{seed}")

    def watch(pid: int) -> None:
        if not ends(pid, draw.uniform(0.1, 1.2)):
            os.killpg(pid, signal.SIGKILL)

    while len(run.kills) < 20 and run.go(watch=watch) != 0:
        run.kills.append((where(run.out), f"{last_step(run.out / MEMBERS[0])}"))
    finished(run, whole)
    print(table(run.kills))
