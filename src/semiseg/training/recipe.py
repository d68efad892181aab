"""Recipes: YAML files of settings, read strictly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from semiseg.errors import USAGE, Problem, Refusal


class _Strict(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice and any alias."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(k, deep=True) for k, _ in node.value]
        twice = {str(k) for k in keys if keys.count(k) > 1}
        if twice:
            raise yaml.YAMLError(f"the key {', '.join(sorted(twice))} is given twice")
        return super().construct_mapping(node, deep)

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        return super().compose_node(parent, index)


def read_recipe(path: Path) -> dict[str, Any]:
    """The keys of a recipe; nested program settings stay dotted. Refuses (exit 2) what is no plain mapping.

    `published`, the paper's numbers and where they stand, is for readers and tables: no setting.
    """
    try:
        if path.stat().st_size > 1_000_000:
            raise yaml.YAMLError("it is larger than 1 MB")
        loaded = _Strict(path.read_text(encoding="utf-8")).get_single_data()
    except FileNotFoundError:
        raise Refusal(Problem("C07", str(path), "does not exist", "check the path of --config"), USAGE) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        text = " ".join(str(error).split())
        raise _no_recipe(path, f"is no recipe: {text}") from error
    if not isinstance(loaded, dict):
        raise _no_recipe(path, "is no recipe")
    flat: dict[str, Any] = {}
    for key, value in loaded.items():
        if key == "published":
            continue
        if isinstance(value, dict):
            flat.update({f"{key}.{k}": v for k, v in value.items()})
        else:
            flat[str(key)] = value
    return flat


def _no_recipe(path: Path, found: str) -> Refusal:
    return Refusal(Problem("C07", str(path), found, "correct the file", "lines of `key: value`"), USAGE)
