"""classes.yaml: what the user says about the masks. Every mistake in it is reported with the line to write instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from semiseg.data.classes import MAX_CLASSES, Color
from semiseg.data.decode import shown
from semiseg.errors import Problem, nearest

FILE = "classes.yaml"
KEYS = ("names", "colors", "values", "ignore", "task")
TASKS = ("binary", "multiclass", "multilabel")
_BYTES, _DEPTH = 100_000, 10


@dataclass(frozen=True)
class Spec:
    """A class file: names in order, and per name a value or a colour (or neither: ids 0..K-1, folders, channels)."""

    names: tuple[str, ...]
    task: str = ""
    values: tuple[int, ...] = ()
    colors: tuple[Color, ...] = ()
    ignore: tuple[int | Color, ...] | None = None


class _Wrong(Exception):
    """Found, and the fix."""


def read_spec(path: Path) -> tuple[Spec | None, list[Problem]]:
    """(Spec or None, problems D17 or D20) of a class file; (None, []) when there is no such file."""
    if not path.is_file():
        return None, []
    try:
        raw = path.read_bytes()
        if len(raw) > _BYTES:
            raise _Wrong("is larger than 100 kB", "list names, colors or values only")
        return _spec(_load(raw)), []
    except OSError as error:
        return None, [Problem("D17", shown(path), f"cannot be read: {error.strerror}", "make it readable")]
    except _Wrong as error:
        return None, [Problem("D20", shown(path), error.args[0], error.args[1])]
    except UnicodeDecodeError:
        return None, [Problem("D20", shown(path), "is not written in UTF-8", "save it again with the encoding UTF-8")]
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark else ""
        return None, [Problem("D20", shown(path), f"is not valid YAML{line}", "write for example  names: [cell, gap]")]


def say_ignored(names: Sequence[str]) -> str:
    """What to do where 255 beside 0 was taken for the foreground, and is not."""
    return f"write  names: [{', '.join(names)}]  and  ignore: 255  into {FILE} if 255 means ignore"


def block(colors: list[Color] | None = None, values: list[int] | None = None, path: str = FILE, labels: int = 0) -> str:
    """A class file to paste, naming colours or grey values; the first (or black, or 0) is taken for background.

    labels: the channels of the colours could as well be this many labels; what to write then follows as a comment, as does
    what to write if black is not the background but what nobody labeled.
    """
    entries: list[Any] = [list(c) for c in colors] if colors is not None else list(values or [])
    names = ["background"] + [f"class {k}" for k in range(1, len(entries))]
    lines = [f"write {path} with these lines, with your own names in place of 'class ...':"]
    lines += ["task: binary"] if len(entries) == 2 else []
    lines += ["colors:" if colors is not None else "values:"]
    lines += [f"  {name}: {entry}" for name, entry in zip(names, entries, strict=True)]
    if labels:
        named = ", ".join(f"label {k}" for k in range(labels))
        lines += ["# or, if each channel is a label of its own, which may overlap the others:"]
        lines += ["# task: multilabel", f"# names: [{named}]"]
    elif colors and len(colors) > 2 and colors[0] == (0, 0, 0):
        lines += [f"# or, if black is what nobody labeled, instead of the line of {names[0]}:", "# ignore: [[0, 0, 0]]"]
    return "\n".join(lines)


def _load(raw: bytes) -> dict[str, Any]:
    text = raw.decode("utf-8-sig")
    opened = 0
    for c in text:  # the parser takes seconds over brackets in brackets
        opened += (c in "[{") - (c in "]}")
        if opened > _DEPTH:
            raise _Wrong("is nested too deeply", "write for example  names: [background, cell]")
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
        raise _Wrong("uses YAML aliases", "write every name out")
    _no_repeats(yaml.compose(text, yaml.SafeLoader))
    loaded = yaml.safe_load(text)
    if not isinstance(loaded, dict):
        raise _Wrong("holds no keys", "write for example  names: [background, cell]")
    return loaded


def _no_repeats(node: Any) -> None:
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise _Wrong(f"has the key {key!r} twice", "keep one of the two")
        for _, value in node.value:
            _no_repeats(value)


def _spec(raw: dict[str, Any]) -> Spec:
    for key in raw:
        if key not in KEYS:
            raise _Wrong(f"has the unknown key {key!r}", f"use {', '.join(KEYS)}. {nearest(str(key), KEYS)}")
    if "colors" in raw and "values" in raw:
        raise _Wrong("has both colors and values", "keep the one that your masks use")
    table = raw.get("colors", raw.get("values"))
    if table is not None and not isinstance(table, dict):
        raise _Wrong("has colors or values that are no table", "write one line per class:  cell: [255, 0, 0]")
    names = _names(raw.get("names", list(table) if table else []))
    if table is not None:
        texts = {str(key): entry for key, entry in table.items()}
        if set(texts) != set(names):
            raise _Wrong("has names that differ from those in colors or values", "use the same names in both")
        table = [texts[name] for name in names]
    colors = tuple(_color(c) for c in table) if "colors" in raw and table else ()
    values = tuple(_value(v) for v in table) if "values" in raw and table else ()
    if len(set(colors)) < len(colors) or len(set(values)) < len(values):
        raise _Wrong("gives two classes the same colour or value", "give each class its own")
    task = raw.get("task", "")
    if task not in ("", *TASKS):
        raise _Wrong(f"has the task {task!r}", f"use {', '.join(TASKS)}. {nearest(str(task), TASKS)}")
    if task == "binary" and len(names) not in (1, 2):
        fix = "name the foreground, or background and foreground"
        raise _Wrong(f"names {len(names)} classes for a binary task", fix)
    if task != "multilabel" and (colors or values) and len(names) < 2:
        raise _Wrong("gives one colour or value only", "name the background too")
    if task == "multiclass" and len(names) < 2:
        raise _Wrong("names one class for a multiclass task", "name the background too")
    return Spec(names, task, values, colors, _ignore(raw))


def _names(raw: Any) -> tuple[str, ...]:
    if not isinstance(raw, list) or not raw:
        raise _Wrong("names no classes", "write for example  names: [background, cell]")
    for name in raw:
        if isinstance(name, bool) or not isinstance(name, str | int) or not str(name).strip():
            raise _Wrong(f"has the name {name!r}", "put names into quotes:  names: ['no', 'yes']")
        if any(c in str(name) for c in "/\\\n\0") or str(name).startswith("."):
            raise _Wrong(f"has the name {name!r}", "leave out slashes and leading dots: files are named by class")
    names = tuple(str(name) for name in raw)
    if len({n.casefold() for n in names}) < len(names):
        raise _Wrong("has two names that differ by nothing but case", "give each class its own name")
    if len(names) > MAX_CLASSES:
        raise _Wrong(f"names {len(names)} classes", f"use at most {MAX_CLASSES}")
    return names


def _ignore(raw: dict[str, Any]) -> tuple[int | Color, ...] | None:
    if "ignore" not in raw:
        return None
    entries = raw["ignore"] if isinstance(raw["ignore"], list) else [raw["ignore"]]
    if len(entries) == 3 and "colors" in raw and all(isinstance(e, int) for e in entries):
        entries = [entries]
    return tuple(_color(e) if isinstance(e, list) else _value(e) for e in entries)


def _value(raw: Any) -> int:
    if isinstance(raw, bool) or not isinstance(raw, int) or not 0 <= raw <= 65535:
        raise _Wrong(f"has the value {raw!r}", "use whole numbers from 0 to 65535")
    return raw


def _color(raw: Any) -> Color:
    if not isinstance(raw, list) or len(raw) != 3 or any(_value(c) > 255 for c in raw):
        raise _Wrong(f"has the colour {raw!r}", "use [red, green, blue] from 0 to 255")
    return int(raw[0]), int(raw[1]), int(raw[2])
