"""One paper, one file. A method has a `step`; its keyword-only arguments are its configuration and its help."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import traceback
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from semiseg.errors import USAGE, Problem, Refusal, nearest

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


LOADED: dict[str, str] = {}
"""Users' own files in this process: resolved path -> path as typed, to name the line when one of them fails later."""


def method_class(name: str) -> type[Method]:
    """The class behind a name of METHODS, or behind `./file.py:Class`. Refuses unknown names and broken files."""
    if name in METHODS:
        module, attribute = METHODS[name].split(":")
        return getattr(importlib.import_module(module), attribute)
    path, _, attribute = name.rpartition(":")
    if path.endswith(".py"):
        return _from_file(Path(path), attribute)
    fix = nearest(name, METHODS) or "semiseg methods lists them"
    raise Refusal(Problem("C03", "--method", f"is '{name}'", fix), USAGE)


def _from_file(path: Path, attribute: str) -> type[Method]:
    from semiseg.methods.base import Method

    if not path.is_file():
        raise Refusal(Problem("C03", str(path), "does not exist", "check the path: ./file.py:Class"), USAGE)
    module = _load(path)
    cls = getattr(module, attribute, None)
    classes = [n for n, v in vars(module).items() if inspect.isclass(v) and issubclass(v, Method) and v is not Method]
    if cls is None:
        found = f"has no class '{attribute}'. {nearest(attribute, classes)}".strip()
        raise Refusal(Problem("C03", str(path), found, expected=" or ".join(classes) or "a Method"), USAGE)
    if not (inspect.isclass(cls) and issubclass(cls, Method)):
        found = f"defines {attribute}, which is no semiseg.methods.base.Method"
        raise Refusal(Problem("C03", str(path), found, "inherit from Method and write step()"), USAGE)
    return cls


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    LOADED[str(path.resolve())] = str(path)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise Refusal(Problem("C03", f"{path}:{error.lineno}", f"does not parse: {error.msg}"), USAGE) from error
    except Exception as error:
        inside = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).resolve() == path.resolve()]
        line = inside[-1].lineno if inside else "?"
        found = f"fails on import: {type(error).__name__}: {error}"
        raise Refusal(Problem("C03", f"{path}:{line}", found), USAGE) from error
    return module


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
