"""One paper, one file. A method has a `step`; its keyword-only arguments are its configuration and its help."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import TYPE_CHECKING

from semiseg.errors import USAGE, Problem, Refusal, nearest
from semiseg.methods import own

if TYPE_CHECKING:
    from semiseg.methods.base import Method

METHODS = {
    "supervised": "semiseg.methods.supervised:Supervised",
    "mean_teacher": "semiseg.methods.mean_teacher:MeanTeacher",
    "consistency": "semiseg.methods.consistency:Consistency",
    "fixmatch": "semiseg.methods.fixmatch:FixMatch",
    "cutmix_seg": "semiseg.methods.cutmix_seg:CutMixSeg",
    "cps": "semiseg.methods.cps:CPS",
    "fpl": "semiseg.methods.fpl:FPL",
    "unimatch": "semiseg.methods.unimatch:UniMatch",
    "unimatch_v2": "semiseg.methods.unimatch_v2:UniMatchV2",
    "u2pl": "semiseg.methods.u2pl:U2PL",
    "imas": "semiseg.methods.imas:IMAS",
    "classmix": "semiseg.methods.classmix:ClassMix",
    "supmix": "semiseg.methods.supmix:SupMix",
    "sufd": "semiseg.methods.supmix:SUFD",
    "csl": "semiseg.methods.csl:CSL",
    "maskmatch": "semiseg.methods.maskmatch:MaskMatch",
    "crossmatch": "semiseg.methods.crossmatch:CrossMatch",
    "segkc": "semiseg.methods.segkc:SegKC",
}


def method_class(name: str) -> type[Method]:
    """The class behind a name of METHODS, or behind `./file.py:Class`. Refuses unknown names and broken files."""
    if name in METHODS:
        module, attribute = METHODS[name].split(":")
        return getattr(importlib.import_module(module), attribute)
    path, attribute = own.parted(name)
    if path:
        return own.load(Path(path), attribute)
    known = f"{', '.join(METHODS)}, or ./FILE.py:CLASS"
    raise Refusal(Problem("C03", "--method", f"is '{name}'", nearest(name, METHODS), known), USAGE)


def arguments(cls: type) -> dict[str, object]:
    """The keyword-only arguments of a method or program and their defaults: its configuration.

    A constructor with `**inherited` has those of the class it inherits from as well, with its own defaults where it
    names them.
    """
    found: dict[str, object] = {}
    for base in reversed(cls.__mro__[:-1]):
        if "__init__" not in vars(base):
            continue
        parameters = list(inspect.signature(vars(base)["__init__"]).parameters.values())
        own = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        found = {**found, **own} if any(p.kind is p.VAR_KEYWORD for p in parameters) else own
    return found
