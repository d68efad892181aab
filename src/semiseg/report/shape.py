"""What the report expects of the files of a run, and how anything else becomes the nothing of its kind, once, here."""

from __future__ import annotations

from typing import Any

from semiseg.report.markup import number

Json = dict[str, Any]

SCORES = {"miou": float, "dice": float, "iou_per_image": float, "per_class": {str: {"iou": float, "dice": float}}}
MEMBER = {"name": str, "folder": str, "val": SCORES}
GENERATION = {
    "generation": float, "members": [MEMBER], "promoted": None, "why": str,
    "inconsistent_share": float, "inconsistent_per_class": {str: float},
    "kept_per_class": {str: float}, "labeled_per_class": {str: float},
    "quality": {str: {"inconsistent_share": float, "recall": float, "precision": float, "agreed_wrong": float}},
}  # fmt: skip
SUMMARY = {
    "name": str, "method": str, "kind": str, "classes": [str], "network": str, "parameters": float,
    "counts": {str: float}, "val_source": str, "scored": {"on": str, "images": float},
    "steps": float, "size": float, "batch": float, "seed": float, "command": str,
    "arms": [MEMBER], "generations": [GENERATION], "model": {"folder": str, "why": str}, "baseline": str,
    "committee": [str], "hash": str,
    "warnings": [str], "seconds": {str: float}, "models_trained": float, "images_forwarded": float, "peak_memory_mb": float,
}  # fmt: skip
RECORD = {"config": {}, "data": {"channels": float}, "machine": {}, "created": str, "version": str}
SAMPLE = {
    "name": str, "split": str, "share": float, "classes": [str],
    "image": str, "truth": str, "baseline": str, "model": str, "inconsistency": str,
}  # fmt: skip
EVALUATION = {"images": float, "metrics": SCORES, "model": str}
COLOR = {"name": str, "color": str}


def shaped(value: Any, shape: Any) -> Any:
    """`value` in `shape`, which is what JSON can hold.

    float: a finite number or None. str: a text, or an empty one. None: as it is. [s]: a list of what s says, without
    items of another kind. {str: s}: any names. {"a": s, …}: these keys, which are then always there, and whatever else it
    holds; so {} is any mapping.
    """
    if shape is None:
        return value
    if shape is float:
        return number(value)
    if shape is str:
        return value if isinstance(value, str) else ""
    if isinstance(shape, list):
        kind = shape[0] if isinstance(shape[0], type) else type(shape[0])
        return [shaped(v, shape[0]) for v in value if isinstance(v, kind)] if isinstance(value, list) else []
    given = value if isinstance(value, dict) else {}
    if str in shape:
        return {k: shaped(v, shape[str]) for k, v in given.items()}
    return given | {k: shaped(given.get(k), s) for k, s in shape.items()}
