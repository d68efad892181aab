"""Methods in a file of the user's own, `./mine.py:Mine`: loaded, looked over, and every mistake named with its line."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any

from semiseg.errors import USAGE, Problem, Refusal, nearest

if TYPE_CHECKING:
    from semiseg.methods.base import Method

LOADED: dict[str, str] = {}
"""Users' own files in this process: resolved path -> path as typed, to name the line when one of them fails later."""
STRENGTHS = ("strong", "mild", "train", "weak")
"""Views that a method may ask for (see data.views)."""
SCALARS = (str, int, float, bool)


def parted(name: str) -> tuple[str, str]:
    """`./mine.py:Mine` to file and class; ("", "") for everything else."""
    path, _, attribute = name.rpartition(":")
    if path.endswith(".py"):
        return path, attribute
    return (name, "") if name.endswith(".py") else ("", "")


def digest(name: str) -> str:
    """SHA-256 of the file behind a method's name and of those beside it that it imports; "" for semiseg's own methods."""
    path, _ = parted(name)
    if not path or not Path(path).is_file():
        return ""
    return hashlib.sha256(b"".join(file.read_bytes() for file in _sources(Path(path)))).hexdigest()


def _sources(path: Path) -> list[Path]:
    """A file, and every file beside it that it or one of those imports, in the order of the imports."""
    found, folder = [path.resolve()], path.resolve().parent
    for file in found:  # grows as it is read
        with suppress(SyntaxError, ValueError):  # loading it says where
            for word in _imported(ast.parse(file.read_bytes())):
                beside = folder / f"{word}.py"
                package = word and (folder / word / "__init__.py").is_file()
                inside = sorted(p for p in (folder / word).rglob("*.py") if p.is_file()) if package else []
                found += [new for new in ([beside] if beside.is_file() else inside) if new not in found]
    return found


def _imported(tree: ast.AST) -> Iterator[str]:
    """The first words of what is imported, wherever that stands; of `from . import x` they are x."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = [node.module] if node.module else [alias.name for alias in node.names]
            yield from (name.partition(".")[0] for name in names)


def load(path: Path, attribute: str) -> type[Method]:
    """The class of a file. Refuses (exit 2) files that do not run, and classes that cannot be a method, by line."""
    from semiseg.methods.base import Method

    if not path.is_file():
        raise Refusal(Problem("C03", str(path), "does not exist", "check the path: ./file.py:Class"), USAGE)
    module = _module(path)
    cls = getattr(module, attribute, None)
    classes = [n for n, v in vars(module).items()
               if inspect.isclass(v) and issubclass(v, Method) and v.__module__ == module.__name__]  # fmt: skip
    wanted = " or ".join(f"{path}:{n}" for n in classes) or "a class that inherits from semiseg.methods.base.Method"
    if cls is None:
        found = f"has no class '{attribute}'. {nearest(attribute, classes)}".strip() if attribute else "names no class"
        raise Refusal(Problem("C03", str(path), found, expected=wanted), USAGE)
    if not (inspect.isclass(cls) and issubclass(cls, Method)):
        found = f"defines {attribute}, which is no semiseg.methods.base.Method"
        raise Refusal(Problem("C03", str(path), found, "inherit from Method and write step()"), USAGE)
    if problems := [*_mistakes(cls)]:
        raise Refusal(problems, USAGE)
    return cls


def _module(path: Path) -> ModuleType:
    """The file, run once for each content; files beside it can be imported."""
    code = path.read_bytes()
    name = f"semiseg_own_{path.stem}_{hashlib.sha256(str(path.resolve()).encode() + code).hexdigest()[:16]}"
    LOADED[str(path.resolve())] = str(path)
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses and pickles look it up there
    try:
        with _beside(path):
            spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, KeyboardInterrupt):
            raise
        raise Refusal(_unread(path, error), USAGE) from error
    return module


def _unread(path: Path, error: BaseException) -> Problem:
    if isinstance(error, SyntaxError):
        where = f"{path}:{error.lineno}" if error.lineno else str(path)
        return Problem("C03", where, f"does not parse: {error.msg}")
    if isinstance(error, ValueError) and "null bytes" in str(error):  # Python before 3.11.4
        return Problem("C03", str(path), f"does not parse: {error}")
    inside = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).resolve() == path.resolve()]
    where = f"{path}:{inside[-1].lineno}" if inside else str(path)
    return Problem("C03", where, f"fails on import: {type(error).__name__}: {error}")


@contextmanager
def _beside(path: Path) -> Iterator[None]:
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def where(cls: type, name: str = "") -> str:
    """`path:line` of a class, or of a function of it, as the file was typed; "" when it is in no file of the user's."""
    thing: Any = vars(cls).get(name) or cls
    try:
        path, line = inspect.getsourcefile(cls) or "", inspect.getsourcelines(thing)[1]
    except (OSError, TypeError):
        return ""
    typed = LOADED.get(str(Path(path).resolve()))
    return f"{typed}:{line}" if typed else ""


def refines(name: str) -> None:
    """Refuses (exit 2) a method of a file that never asks for `refine`: what is attached to it would change nothing."""
    path, attribute = parted(name)
    if not path:
        return
    cls = load(Path(path), attribute)
    base = next(b for b in cls.__mro__ if "step" in vars(b))
    file = str(Path(inspect.getsourcefile(base) or "").resolve())
    if file not in LOADED or "refine" in _names(compile(Path(file).read_bytes(), file, "exec")):
        return
    fix = "write unlabeled, target = self.refine(unlabeled, target, clock) before the belief teaches"
    found = f"is {attribute}, which never calls self.refine: inconsistency masks would change nothing"
    raise Refusal(Problem("C03", where(cls, "step") or name, found, fix), USAGE)


def _names(code: CodeType) -> set[str]:
    """Every name and attribute that a file's code mentions."""
    inner = (c for c in code.co_consts if isinstance(c, CodeType))
    return set(code.co_names).union(*(_names(c) for c in inner))


def _mistakes(cls: type[Method]) -> Iterator[Problem]:
    """What can be seen without training."""
    from semiseg.methods.base import Method

    def said(name: str, found: str, fix: str = "", expected: str = "") -> Problem:
        return Problem("C03", where(cls, name) or cls.__name__, found, fix, expected)

    if cls.step is Method.step:
        yield said("", f"is {cls.__name__}, which has no step", "write def step(self, labeled, unlabeled, clock)")
    else:
        try:
            inspect.signature(cls.step).bind(None, None, None, None)
        except TypeError as error:
            yield said(
                "step", f"is a step that cannot be called: {error}", "write step(self, labeled, unlabeled, clock)"
            )
    own = [*inspect.signature(cls.__init__).parameters.values()][1:]
    plain = [p for p in own if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(plain) < 2 and not any(p.kind is p.VAR_POSITIONAL for p in own):
        yield said("__init__", "takes no make and task", "write __init__(self, make, task, *, …)")
    for p in plain[2:]:
        yield said("__init__", f"takes '{p.name}' by its place, so it is no configuration", "put it behind a '*'")
    for p in own:
        if p.kind is p.KEYWORD_ONLY and p.default is p.empty:
            yield said("__init__", f"has the argument '{p.name}' without a default", f"write {p.name}=VALUE")
        elif p.kind is p.KEYWORD_ONLY and not _typeable(p.default):
            found = f"has the argument '{p.name}' = {p.default!r}, which nobody can type"
            yield said("__init__", found, expected="a number, a word, a flag, None, or a list or tuple of these")
    yield from _unknown(cls, cls.views)


def _typeable(default: Any) -> bool:
    many = isinstance(default, tuple | list)
    return default is None or isinstance(default, SCALARS) or (many and all(isinstance(v, SCALARS) for v in default))


def _unknown(cls: type, views: Any) -> Iterator[Problem]:
    """Views that there are not."""
    at, expected = where(cls) or cls.__name__, f"a tuple of {', '.join(STRENGTHS)}"
    if not isinstance(views, tuple | list):
        yield Problem("C03", at, f"is {cls.__name__}, whose views are {views!r}", expected=expected)
        return
    for name in views:
        if name not in STRENGTHS:
            found = f"is {cls.__name__}, whose views have '{name}'. {nearest(str(name), STRENGTHS)}".strip()
            yield Problem("C03", at, found, expected=expected)


def made(method: Method) -> Method:
    """A fresh method, looked over: it has a network, asks for views that there are, and predicts with its network."""
    from torch import nn

    cls = type(method)
    if not isinstance(vars(method).get("_modules"), Mapping) or not isinstance(
        getattr(method, "student", None), nn.Module
    ):
        fix = "begin __init__ with super().__init__(make, task), which makes self.student"
        raise Refusal(Problem("C03", where(cls, "__init__") or cls.__name__, "makes no network", fix), USAGE)
    if problems := [*_unknown(cls, method.views)]:
        raise Refusal(problems, USAGE)
    if "predictor" in vars(cls) and method.predictor().state_dict().keys() != method.student.state_dict().keys():
        found = "returns a network with other weights than the student's, which no model could be loaded from"
        fix = "return self.student, or another network that make() built"
        raise Refusal(Problem("C03", where(cls, "predictor") or cls.__name__, found, fix), USAGE)
    return method


def stepped(method: Method, losses: Any) -> dict[str, Any]:
    """What a step returned, looked over: a dictionary of scalar tensors with "loss", which has a gradient."""
    from torch import Tensor

    found = ""
    if not isinstance(losses, dict):
        found = f"returns {type(losses).__name__}"
    elif "loss" not in losses:
        found = f"returns no 'loss', but {', '.join(map(str, losses)) or 'nothing'}"
    elif wrong := [k for k, v in losses.items() if not isinstance(v, Tensor) or v.numel() != 1]:
        value = losses[wrong[0]]
        kind = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        found = f"returns '{wrong[0]}' as {kind}"
    elif not losses["loss"].requires_grad:
        found = "returns a 'loss' that depends on no parameter, so nothing can learn from it"
    if not found:
        return losses
    at = where(type(method), "step") or f"{type(method).__name__}.step"
    expected = "a dictionary of tensors with one number each, of which 'loss' is minimised"
    raise Refusal(Problem("C03", at, found, expected=expected), USAGE)
