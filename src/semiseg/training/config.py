"""One flat configuration: what `train` was asked for, resolved to numbers, saved as run.json, compared on resume."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, get_type_hints

from semiseg.errors import USAGE, Problem, Refusal, nearest
from semiseg.methods import METHODS, method_class, own
from semiseg.training import origin
from semiseg.training.ranges import ARGUMENTS, CHOICES, RANGES, convert, outside, typed

LISTED = 12
"""Arguments that a message names; more are counted, and `semiseg methods` lists them."""
SELECTABLE = 20
"""Below this many val images no single score selects anything."""
FREE = {"out", "workers", "threads", "tensorboard", "device", "data", "reuse", "checkpoint_every", "diagnose"}
"""Keys that may change when a run is resumed."""
RESOLVED = {"size", "steps", "batch", "unlabeled_batch", "lr", "eval_every", "checkpoint_every", "threads"}
"""Keys whose 0 means "choose for me" here and in run.json; nobody types it: leaving the key out says the same."""
ELSEWHERE = {
    "data": "DATA, the first argument", "out": "--out", "method": "--method", "program": "--method METHOD+PROGRAM",
}  # fmt: skip
"""Keys that say what the run is. Each is given in one place, and nothing overrides it from another."""


@dataclass
class Config:
    """Zeros and "auto" are resolved from the data by `prepare.resolve` before anything is trained."""

    data: str = ""
    out: str = ""
    method: str = "supervised"
    program: str = ""
    network: str = "unet1x1"
    weights: str = ""  # "", "imagenet", or a path: pretrained encoder
    freeze: bool = False  # keep the pretrained encoder as it is, its batch normalisation included
    size: int = 0  # side of the training crop, px
    resize: int = 0  # shorter side of larger images, px; 0 = as they are
    steps: int = 0
    epochs: int = 0  # passes over the unlabeled (labels only: the labeled) images; sets steps where steps is open
    batch: int = 0  # labeled images a step
    unlabeled_batch: int = 0  # unlabeled images a step
    labels: str = "all"  # a number, a share, or all
    oracle: bool = False  # open the masks of unlabeled images and train on them: the full-label baseline
    augment: str = "default"
    turn: str = "auto"  # right angles and up-down flips: auto (do the masks know up from down?), yes, no
    loss: str = "ce+dice"
    ohem_kept: float = 0.156  # loss=ohem: the least share of a device's pixels that counts, see losses.OHEM_KEPT
    optimizer: str = "adamw"  # adamw, adam, or sgd with momentum .9
    lr: float = 0.0
    head_lr: float = 1.0  # multiplies lr for everything that is no encoder
    eps: float = 1e-8  # adam, adamw: added to the root of the second moment
    weight_decay: float = 0.01  # adamw: apart from the gradient; adam, sgd: added to it (papers take 1e-4 there)
    schedule: str = "cosine"
    lr_warmup: float = 0.05  # share of the steps over which the learning rate rises
    clip: float = 1.0  # norm of the gradient; 0 = off
    average: float = 0.0  # decay of a moving average of the weights that is evaluated instead of them; 0 = off
    ema_window: float = 0.02  # longest share of the training that moving averages look back; 0 = as their decay says
    precision: str = "32-true"
    seed: int = 0
    committee: str = ""  # runs, members, .onnx files, folders of masks, with commas: a given committee of generation 0
    reuse: str = ""  # other runs (os.pathsep between): members that the same things shaped are taken over
    diagnose: bool = False  # open masks of unlabeled images to count errors of pseudo-labels, never to train
    baseline: bool = True  # train the plain supervised model beside every other method
    eval_every: int = 0
    checkpoint_every: int = 0
    device: str = "auto"
    threads: int = 0
    workers: int = 2
    tensorboard: bool = False
    method_args: dict[str, Any] = field(default_factory=dict)
    program_args: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """METHOD[+PROGRAM], as in tables."""
        return f"{self.method}+{self.program}" if self.program else self.method

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return asdict(self)

    def sources(self) -> list[str]:
        """The runs that `reuse` names; a path may hold the separator itself, if it is there."""
        found, parts = [], [part for part in self.reuse.split(os.pathsep) if part]
        while parts:
            whole = (n for n in range(len(parts), 0, -1) if os.path.isdir(os.pathsep.join(parts[:n])))
            taken = next(whole, 1)
            found.append(os.pathsep.join(parts[:taken]))
            parts = parts[taken:]
        return found

    def shape(self, key: tuple[object, ...], method: str, data: str) -> str:
        """A fingerprint of every setting that decides what a member of generation 0 becomes; data: the set's hash.

        Not of the code: what another version trained is taken over too, and result.json says which commit that was.
        """
        other = FREE | {"program", "program_args", "baseline", "epochs", "committee"}
        kept = {k: v for k, v in self.to_json().items() if k not in other}
        args = self.method_args if method == self.method else {}
        idle = method_class(method).students if method in METHODS else ()
        kept |= {"method": method, "method_args": {k: v for k, v in args.items() if k not in idle}}
        kept |= origin.files(method, self.weights)  # whatever the path to the same weights is
        return hashlib.sha256(json.dumps([kept, key, data], sort_keys=True).encode()).hexdigest()


def settings() -> dict[str, Any]:
    """Every key that may be set, whatever is trained, with its default; "auto" for what is chosen from the data."""
    mine = {f.name: getattr(Config(), f.name) for f in fields(Config) if not f.name.endswith("_args")}
    return {k: v if v or k not in RESOLVED else "auto" for k, v in mine.items() if k not in ELSEWHERE}


def split_name(name: str, programs: Mapping[str, Any]) -> tuple[str, str]:
    """METHOD[+PROGRAM] to its two parts; a program alone stands on `supervised`."""
    if name in programs:
        return "supervised", name
    method, plus, program = name.rpartition("+")
    if plus and not name.endswith(".py"):
        if program not in programs:
            fix = nearest(program, programs) or "semiseg methods lists them"
            raise Refusal(Problem("C03", "--method", f"names the program '{program}', which is none", fix), USAGE)
        return method, program
    if name not in METHODS and not own.parted(name)[0]:
        known = [*METHODS, *programs]
        expected = f"{', '.join(METHODS)}, a program, or ./FILE.py:CLASS"
        raise Refusal(Problem("C03", "--method", f"is '{name}'", nearest(name, known), expected), USAGE)
    return name, ""


class Settings:
    """Collects options, a recipe and `--set key=value` into one Config; reports every mistake at once."""

    def __init__(
        self, method_args: Mapping[str, Any], program_args: Mapping[str, Any], config: Config, programs: Collection[str]
    ) -> None:
        self.config, self.programs = config, programs
        self.arguments = {config.method: dict(method_args), config.program: dict(program_args)}
        self.problems: list[Problem] = []
        self.typed: set[str] = set()
        self.types = get_type_hints(Config)

    def known(self) -> list[str]:
        """Every key that may be set."""
        dotted = [f"{self.config.program}.{k}" for k in self.arguments[self.config.program] if self.config.program]
        return [*settings(), *self.arguments[self.config.method], *dotted]

    def put(self, key: str, value: Any, where: str) -> None:
        """Set one key: a field, a method's argument by its name, or NAME.argument of the method or program."""
        owner, dot, argument = key.rpartition(".")
        if key in ELSEWHERE:
            self.problems.append(Problem("C04", where, f"sets {key}, which is no setting", f"use {ELSEWHERE[key]}"))
        elif not dot and key in self.types and not key.endswith("_args"):
            self._field(key, value, where)
        elif owners := [o for o in ([owner] if dot else self.arguments) if argument in self.arguments.get(o, ())]:
            self._argument(owners[0], argument, value, where)
        else:
            self.problems.append(self._unknown(key, owner, where))

    def _unknown(self, key: str, owner: str, where: str) -> Problem:
        mine = self.config.method
        if owner not in self.arguments and owner in self.programs:
            found = f"sets {key}, which belongs to +{owner}, and the method is {self.config.name}"
            return Problem("C04", where, found, f"use --method {mine}+{owner}, or leave {key} out")
        if owner not in self.arguments and owner in METHODS:
            found = f"sets {key}, which belongs to the method {owner}, and the method is {self.config.name}"
            return Problem("C04", where, found, f"use --method {owner}, or leave {key} out")
        asked = [owner] if owner and owner in self.arguments else [n for n in self.arguments if n]
        dotted = [f"{name}.{a}" for name in asked for a in self.arguments[name]]
        fix = nearest(key, dotted if owner else self.known()) or f"semiseg methods {asked[-1]} lists them"
        taken = [a for name in asked for a in self.arguments[name]]
        named = ", ".join(taken) if len(taken) <= LISTED else f"one of the {len(taken)} arguments of {'+'.join(asked)}"
        expected = named if owner or not taken else f"a setting, or {named}"
        return Problem("C04", where, f"sets the unknown key '{key}'", fix, expected)

    def _wrong(self, code: str, where: str, key: str, value: Any, expected: str, fix: str = "") -> None:
        fix = fix or f"correct it, or leave {key} out"
        self.problems.append(Problem(code, where, f"sets {key} to {value!r}", fix, expected))

    def _field(self, key: str, value: Any, where: str) -> None:
        try:
            value = convert(value, self.types[key])
        except ValueError as error:
            return self._wrong("C05", where, key, value, str(error))
        if expected := outside(key, value, RANGES):
            return self._wrong("C06", where, key, value, expected)
        if key in CHOICES and value not in CHOICES[key]:
            hint = nearest(str(value), CHOICES[key])
            return self._wrong("C06", where, key, value, " or ".join(CHOICES[key]), hint)
        setattr(self.config, key, value)
        self.typed.add(key)

    def suggest(self, defaults: Mapping[str, Any]) -> None:
        """What a program would have for keys that nobody typed: settings, or METHOD.argument where that is the method."""
        for key, value in defaults.items():
            owner, dot, argument = key.rpartition(".")
            if dot and owner == self.config.method:
                self.config.method_args.setdefault(argument, value)
            elif not dot and key not in self.typed:
                setattr(self.config, key, value)

    def _argument(self, owner: str, key: str, value: Any, where: str) -> None:
        default = self.arguments[owner][key]
        try:
            value = typed(value, default)
        except ValueError as error:
            return self._wrong("C05", where, key, value, str(error))
        ours = owner in METHODS or owner in self.programs  # in a file of the user's own a name may mean anything
        if expected := outside(key, value, ARGUMENTS if ours else {}):
            return self._wrong("C06", where, key, value, expected)
        if owner in METHODS and isinstance(default, str):
            from semiseg.methods._choices import CHOICES  # which brings torch

            if value not in (known := CHOICES.get(key, (value,))):
                return self._wrong("C06", where, key, value, " or ".join(known), nearest(str(value), known))
        store = self.config.program_args if owner == self.config.program else self.config.method_args
        store[key] = value

    def finish(self) -> Config:
        """The configuration, or a refusal with everything that is wrong."""
        if self.config.freeze and not self.config.weights:
            found = "keeps the encoder as it is, but nothing was learned before: there are no weights"
            self.problems.append(Problem("C06", "freeze", found, "add --weights imagenet, or freeze=no"))
        self.problems += lacking(self.config)
        if self.problems:
            raise Refusal(self.problems, USAGE)
        return self.config


def lacking(config: Config) -> list[Problem]:
    """What this machine cannot do: a device that is not there, half precision without a GPU."""
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    problems = []
    if not there.get(config.device, True):
        found, fix = f"is {config.device}, and this machine has none that torch can use", "use device=cpu, or auto"
        problems.append(Problem("C06", "device", found, fix))
    if config.precision == "16-mixed" and (config.device == "cpu" or not any(there.values())):
        found = "is 16-mixed, which needs a GPU"
        problems.append(Problem("C06", "precision", found, "use precision=32-true, or bf16-mixed"))
    return problems


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Keys whose change forbids resuming, as `key: old → new`."""
    old = Config().to_json() | dict(old)  # what an older version did not know it did as by default
    keys = sorted((set(old) | set(new)) - FREE)
    return [f"{k}: {old.get(k)!r} → {new.get(k)!r}" for k in keys if old.get(k) != new.get(k)]
