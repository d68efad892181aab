"""What is typed wrong is said with what is right (exit 2), before anything is read or written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from _data import PLAIN, make, tree
from _messages import clear
from _runner import Ended

Command = Callable[..., Ended]


TYPED: dict[str, tuple[tuple[object, ...], tuple[str, ...]]] = {
    "option": (("--sise", 16), ("--sise is no option of semiseg train", "Fix: Did you mean '--size'?")),
    "option with two names near it": (("--stepz", 3), ("Did you mean '--steps'?",)),
    "option that drops a letter": (("--labls", 3), ("Did you mean '--labels'?",)),
    "option with letters turned": (("--netwrok", "x"), ("Did you mean '--network'?",)),
    "option like no other": (("--xyzzy",), ("semiseg train --help lists them",)),
    "key as an option": (("--lr", 1), ("Fix: type --set lr=VALUE",)),
    "key": (("--set", "banana=1"), ("a setting, or weight, mix. Fix: semiseg methods supervised lists",)),
    "key of a program, far": (("--method", "im", "--set", "xyzzy=1"), ("one of the 25 ", "Fix: semiseg methods im lists")),
    "near key": (("--set", "schedul=poly"), ("Fix: Did you mean 'schedule'?",)),
    "key of a program": (("--method", "im", "--set", "im.member=2"), ("im.member", "Fix: Did you mean 'im.members'?")),
    "no equals sign": (("--set", "lr"), ("--set lr", "key=value", "Fix: type --set lr=VALUE")),
    "type": (("--set", "lr=fast"), ("lr", "a number")),
    "range": (("--set", "lr=-1"), ("lr", "Expected: ")),
    "nan": (("--set", "lr=nan"), ("lr",)),
    "choice": (("--set", "schedule=cosin"), ("Expected: cosine or poly or constant. Fix: Did you mean 'cosine'?",)),
    "method": (("--method", "fixmach"), ("Expected: supervised, mean_teacher, ", "Did you mean 'fixmatch'?")),
    "method like no other": (("--method", "zzz"), ("u2pl", "a program, or ./FILE.py:CLASS")),
    "key of a method, far": (("--method", "fixmatch", "--set", "zz=1"), ("a setting, or threshold, weight, refine",)),
    "word of a method": (("--method", "fixmatch", "--set", "refine=cls"), ("confidence or csl", "Did you mean 'csl'?")),
    "program like no other": (("--method", "fixmatch+xyz"), ("'xyz'", "Fix: semiseg methods lists them")),
    "program": (("--method", "fixmatch+in"), ("Fix: Did you mean 'im'?",)),
    "method's file": (("--method", "./gone.py:Mine"), ("gone.py does not exist",)),
    "network": (("--network", "unet1x2"), ("unet1x",)),
    "one member": (("--method", "im", "--set", "im.members=1"), ("im.members", "at least 2")),
    "labels": (("--labels", 99), ("99",)),
    "labels word": (("--labels", "many"), ("many",)),
    "labels nan": (("--labels", "nan"), ("nan",)),
    "augment": (("--augment", "stronger"), ("none or default or strong", "Did you mean 'strong'")),
    "recipe": (("--config", "gone.yaml"), ("gone.yaml",)),
    "oracle": (("--oracle",), ("--oracle",)),
    "negative steps": (("--steps", -5), ("steps",)),
    "no steps": (("--steps", 0), ("sets steps to 0", "1 to 1e+08")),
    "no batch": (("--batch", 0), ("sets batch to 0", "1 to 4096")),
    "no size": (("--set", "size=0"), ("sets size to 0", "8 to 4096")),
    "endless steps": (("--set", "steps=inf"), ("steps", "a whole number")),
    "data": (("--set", "data=other"), ("--set data=other sets data", "use DATA")),
    "out": (("--set", "out=other"), ("--set out=other sets out", "use --out")),
    "method by a key": (("--set", "method=im"), ("use --method",)),
    "device": (("--set", "device=foo"), ("device", "auto or cpu or cuda or mps")),
    "no such device": (("--set", "device=cuda"), ("device is cuda", "device=cpu")),
    "half on a CPU": (("--set", "precision=16-mixed"), ("precision is 16-mixed", "bf16-mixed")),
    "threshold": (("--method", "fixmatch", "--set", "threshold=2"), ("threshold to 2", "0 to 1")),
    "decay": (("--method", "mean_teacher", "--set", "ema=1"), ("ema to 1", "0 to 0.99999")),
    "weight": (("--method", "fixmatch", "--set", "fixmatch.weight=-1"), ("weight to -1",)),
    "another program's key": (("--method", "fixmatch", "--set", "im.members=2"), ("belongs to +im", "--method fixmatch+im")),
    "another method's key": (("--set", "fixmatch.threshold=.9"), ("belongs to the method fixmatch", "--method fixmatch")),
    "among the images": (("--out", "data/images/run"), ("--out data/images/run lies in data/images",)),
    "among the masks": (("--out", "data/masks/sub/../sub/run"), ("lies in data/masks",)),
    "among what is unlabeled": (("--out", "data/unlabeled"), ("lies in data/unlabeled",)),
}  # fmt: skip


ALLOWED = ("one member", "method like no other")  # Expected names all that is allowed, and needs no other way out


@pytest.mark.parametrize("name", TYPED)
def test_what_is_typed_wrong_is_said_with_what_is_right(semiseg: Command, tmp_path: Path, name: str) -> None:
    extra, words = TYPED[name]
    root = make(tmp_path / "data", labeled=2)
    before = tree(root)
    ended = semiseg("train", "data", "--out", "run", *PLAIN, *extra)
    clear(ended, 2, *words)
    assert "Fix: " in ended.err or name in ALLOWED
    assert tree(root) == before and not list(tmp_path.rglob("*.safetensors"))
    assert name == "oracle" or not (tmp_path / "run").exists(), "what is typed wrong leaves nothing"


def test_commands_and_recipes_typed_wrong(semiseg: Command, tmp_path: Path) -> None:
    clear(semiseg("trian", "data"), 2, "No such command 'trian'. Fix: Did you mean 'train'?")
    clear(semiseg("predict", "run"), 2, "Fix: semiseg predict --help")
    clear(semiseg("predict", "run", "--ensembel"), 2, "Fix: Did you mean '--ensemble'?")
    clear(semiseg("evaluate", "run", "data", "--splt", "val"), 2, "Fix: Did you mean '--split'?")
    clear(semiseg("--hlep"), 2, "--hlep is no option of semiseg. Fix: Did you mean '--help'?")
    clear(semiseg("methods", "fixmach"), 2, "fixmach is no method or program. Fix: Did you mean 'fixmatch'?")
    clear(semiseg("methods", "xyzzy"), 2, "Fix: semiseg methods lists them")
    make(tmp_path / "data", labeled=2)
    for text, word in (("steps: 3\nsteps: 4\n", "twice"), ("- steps\n", "key: value"), ("a: &x 1\nb: *x\n", "aliases"),
                       ("!!python/object/apply:os.system ['touch harm']\n", "recipe"), ("stepps: 3\n", "steps"),
                       ("steps: 0\n", "1 to 1e+08"), ("data: other\n", "use DATA"), ("program: im\n", "METHOD+PROGRAM"),
                       ("method: fixmatch\nim: {members: 2}\n", "belongs to +im"),
                       ("steps: [1\n", "recipe")):  # fmt: skip
        (tmp_path / "recipe.yaml").write_text(text)
        clear(semiseg("train", "data", "--out", "run", "--config", "recipe.yaml"), 2, "recipe.yaml", word)
    assert not (tmp_path / "harm").exists()


def test_several_mistakes_are_said_together(semiseg: Command, tmp_path: Path) -> None:
    make(tmp_path / "data", labeled=2)
    ended = semiseg("train", "data", "--out", "run", "--set", "lr=fast", "--set", "schedule=never", "--set", "stepps=1")
    clear(ended, 2, "lr=fast", "schedule", "Did you mean 'steps'?", "correct it, or leave lr out")


def test_resume_in_python_is_a_flag_or_a_word(tmp_path: Path) -> None:
    from semiseg.errors import Refusal
    from semiseg.programs.train import train

    make(tmp_path / "data", labeled=2)
    for resume in (True, "force"):
        with pytest.raises(Refusal, match="holds no run") as refused:
            train(tmp_path / "data", tmp_path / "run", resume=resume)
        assert refused.value.exit == 4
    with pytest.raises(Refusal, match=r"resume is 'yes'. Expected: True to continue"):
        train(tmp_path / "data", tmp_path / "run", resume="yes")
    assert not (tmp_path / "run").exists()
