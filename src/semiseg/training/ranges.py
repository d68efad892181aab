"""What may be typed, and as what it is read: ranges and words of every key, and of the arguments of methods and programs.

They bind what people type. A constructor takes what its caller gives: a test may ask for a threshold above 1.
"""

from __future__ import annotations

import math
import types
from typing import Any, Union, get_args, get_origin

RANGES: dict[str, tuple[float, float]] = {
    "size": (8, 4096), "resize": (8, 16384), "steps": (1, 10**8), "epochs": (1, 10**6), "batch": (1, 4096),
    "unlabeled_batch": (1, 4096), "lr": (1e-8, 10.0), "head_lr": (1e-3, 1e3), "weight_decay": (0, 10),
    "lr_warmup": (0, 1), "clip": (0, 1e6), "average": (0, 0.99999), "seed": (0, 2**63 - 1), "eval_every": (1, 10**8),
    "checkpoint_every": (1, 10**8), "threads": (1, 1024), "workers": (1, 256), "ohem_kept": (0, 1),
    "eps": (1e-16, 1), "ema_window": (0, 1),
}  # fmt: skip
OFF = {"resize"}
"""Keys whose 0 has a meaning of its own outside their range."""
CHOICES = {
    "augment": ("none", "default", "strong"), "turn": ("auto", "yes", "no"),
    "loss": ("ce", "ce+dice", "mse", "ohem", "paper"),
    "optimizer": ("adamw", "adam", "sgd"), "schedule": ("cosine", "poly", "constant"),
    "precision": ("32-true", "bf16-mixed", "16-mixed"), "device": ("auto", "cpu", "cuda", "mps"),
}  # fmt: skip

SHARE, DECAY, WEIGHT, COUNT = (0, 1), (0, 0.99999), (0, 1e6), (1, 10**6)
ARGUMENTS: dict[str, tuple[float, float]] = {
    "threshold": SHARE, "relax": SHARE, "mass": SHARE, "sure": SHARE, "unreliable": SHARE,  # probabilities and quantiles
    "warmup": SHARE, "ramp": SHARE, "share": SHARE, "alone": SHARE,  # of the training
    "doubt": SHARE,
    "dropout": SHARE, "weak": SHARE, "strong": SHARE, "spared": SHARE, "mix": SHARE,  # how often it is drawn
    "cover": SHARE, "hidden": SHARE, "masked": SHARE, "eta": SHARE,
    "ema": DECAY, "spread": DECAY,
    "weight": WEIGHT, "contrast": WEIGHT, "discriminator": WEIGHT, "distill": WEIGHT, "prediction": WEIGHT,
    "feature": WEIGHT, "back": WEIGHT, "disc_weight": WEIGHT,
    "alpha": (1e-3, 1e3), "temperature": (1e-3, 1e3),
    "positives": COUNT, "anchors": COUNT, "negatives": COUNT, "bank": COUNT, "dims": COUNT, "dim": COUNT,
    "low_rank": (0, 10**6), "high_rank": COUNT, "stride": (1, 256), "side": (0, 4096),
    "erode": (0, 255), "dilate": (0, 255),
}  # fmt: skip
"""An argument of one name has one range, whoever takes it. What depends on other arguments, their owner refuses."""


def outside(key: str, value: object, ranges: dict[str, tuple[float, float]]) -> str:
    """The range of a key, in words, when a number lies outside of it; empty for everything else."""
    if key not in ranges or isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    low, high = ranges[key]
    if low <= value <= high or (value == 0 and key in OFF):
        return ""
    return ("0, or " if key in OFF else "") + f"{low:g} to {high:g}"


def convert(value: Any, kind: Any) -> Any:
    """A typed value from what YAML or the command line gave; "1e-3" is a number, "no" is no string for a flag."""
    if get_origin(kind) in (Union, types.UnionType):
        kind = next(k for k in get_args(kind) if k is not type(None))
    if kind is bool:
        if isinstance(value, bool):
            return value
        if str(value).lower() in ("true", "yes", "on", "1"):
            return True
        if str(value).lower() in ("false", "no", "off", "0"):
            return False
        raise ValueError("true or false")
    if kind is str and isinstance(value, bool):  # YAML 1.1 reads no and yes as flags
        return "yes" if value else "no"
    if kind in (int, float):
        if isinstance(value, bool):
            raise ValueError("a number")
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise ValueError("a number") from None
        if not math.isfinite(number) or (kind is int and number != int(number)):
            raise ValueError("a whole number" if kind is int else "a number, not NaN or infinite")
        return kind(number)
    return kind(value) if callable(kind) else value


def typed(value: Any, default: Any) -> Any:
    """What was typed as the kind of an argument's default; words between commas for a list or tuple, as a list."""
    if default is None:
        return amount(value) if isinstance(value, str) else value
    if not isinstance(default, list | tuple):
        return convert(value, type(default))
    parts = value.strip("()[] ").split(",") if isinstance(value, str) else list(value)
    kind = type(default[0]) if default else str
    return [convert(part.strip() if isinstance(part, str) else part, kind) for part in parts if part != ""]


def amount(text: str) -> int | float | str:
    """`--labels`: "40" is a number of images, "0.1" a share, "all" all; anything else is left for the check to refuse."""
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        return number if number == number else text
    return text
