"""What may be typed, and where: ranges of keys and arguments, and the places that keys have."""

from __future__ import annotations

import pytest

from semiseg.errors import Refusal
from semiseg.methods import METHODS, arguments, method_class
from semiseg.programs import PROGRAMS, program_class
from semiseg.programs.train import configure
from semiseg.training.config import RESOLVED, Config, lacking
from semiseg.training.ranges import ARGUMENTS, OFF, RANGES


def typed(method, *sets, **options):
    """The configuration of what was typed, and the program made of it."""
    config = configure({"data": "x", "method": method, **options}, list(sets), None, {})
    program_class(config.program)(**config.program_args)
    return config


def numeric(name):
    cls = program_class(name) if name in PROGRAMS else method_class(name)
    return {k: v for k, v in arguments(cls).items() if isinstance(v, int | float) and not isinstance(v, bool)}


@pytest.mark.parametrize("name", [*METHODS, *PROGRAMS])
def test_every_number_of_a_method_has_a_range_that_holds_its_default(name):
    """-1 and 1e9 are refused by their names, by the table or by the program itself."""
    for key, default in numeric(name).items():
        if name in METHODS or key in ARGUMENTS:
            low, high = ARGUMENTS[key]
            assert low <= default <= high, key
        for value in (-1, 10**9) if key in ARGUMENTS else (-1,):
            with pytest.raises(Refusal, match=key) as refused:
                typed(name, f"{name}.{key}={value}")
            assert refused.value.exit == 2


def test_every_number_of_the_configuration_has_a_range():
    numbers = {k for k, v in vars(Config()).items() if isinstance(v, int | float) and not isinstance(v, bool)}
    assert numbers == set(RANGES)


@pytest.mark.parametrize("key", [k for k in RANGES if RANGES[k][0] > 0])
def test_nobody_types_0_for_a_choice_that_is_ours(key):
    """Inside Config 0 stays "choose for me"; typed it is a number like any other."""
    if key in OFF:
        assert getattr(typed("supervised", f"{key}=0"), key) == 0
        with pytest.raises(Refusal, match=f"{key} to 3. Expected: 0, or "):
            typed("supervised", f"{key}=3")
        return
    for options, sets in (({key: 0}, []), ({}, [f"{key}=0"])):
        with pytest.raises(Refusal, match=f"sets {key} to 0.* Expected: {RANGES[key][0]:g} to "):
            typed("supervised", *sets, **options)
    assert key not in RESOLVED or getattr(typed("supervised"), key) == 0


@pytest.mark.parametrize("text", ["clip=0", "average=0", "lr_warmup=0", "weight_decay=0", "seed=0"])
def test_0_where_it_is_a_value(text):
    assert getattr(typed("supervised", text), text.partition("=")[0]) == 0


def test_a_constructor_and_a_file_of_ones_own_take_other_numbers(tmp_path):
    """The table is for what people type into methods of the house; names of others are theirs."""
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from semiseg.methods.supervised import Supervised\n\n\nclass Mine(Supervised):\n"
        "    def __init__(self, make, task, *, threshold: float = 5.0):\n        super().__init__(make, task)\n"
    )
    assert typed(f"{mine}:Mine", "threshold=7").method_args == {"threshold": 7.0}
    with pytest.raises(Refusal, match=r"sets threshold to 1\.01. Expected: 0 to 1"):
        typed("fixmatch", "threshold=1.01")
    assert typed("fixmatch", "threshold=0").method_args["threshold"] == 0.0


def test_arguments_are_noted_whole():
    """What was left to a default is noted as well, so that another default tomorrow is another setting."""
    config = typed("fixmatch+im", "im.members=2")
    assert config.method_args == arguments(method_class("fixmatch"))
    taken = {
        "members_by": "snapshots", "generations": 3, "patience": 3, "start": "warm", "draw": "even", "view": "strong",
    }  # fmt: skip
    assert config.program_args == arguments(program_class("im")) | {"members": 2} | taken
    saved = config.to_json() | {"method_args": config.method_args | {"threshold": 0.5}}
    again = configure({"data": "x", "out": "y"}, [], None, saved)
    assert again.method_args["threshold"] == 0.5  # resumed: as it was started


def test_a_word_that_is_a_number_elsewhere_is_no_number():
    assert typed("fixmatch", "mix=classmix").method_args["mix"] == "classmix"
    with pytest.raises(Refusal, match="mix to 2"):
        typed("u2pl", "mix=2")


@pytest.mark.parametrize(("key", "program"), [("im.members=2", "+im"), ("evalnet.threshold=.5", "+evalnet")])
def test_a_key_of_another_program_names_its_owner_not_every_key(key, program):
    with pytest.raises(Refusal) as refused:
        typed("fixmatch+ensemble", key)
    said = str(refused.value)
    assert f"belongs to {program}, and the method is fixmatch+ensemble" in said and len(said) < 200


def test_what_the_machine_lacks_is_said_together(monkeypatch):
    from torch import cuda

    monkeypatch.setattr(cuda, "is_available", lambda: False)
    with pytest.raises(Refusal) as refused:
        typed("supervised", "device=cuda", "precision=16-mixed", "steps=0")
    assert [p.where for p in refused.value.problems] == ["--set steps=0", "device", "precision"]
    monkeypatch.setattr(cuda, "is_available", lambda: True)
    assert lacking(Config(device="cuda", precision="16-mixed")) == lacking(Config(precision="16-mixed")) == []
    assert [p.where for p in lacking(Config(device="cpu", precision="16-mixed"))] == ["precision"]
