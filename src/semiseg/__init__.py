"""Semi-supervised image segmentation on your own folder of images.

semiseg.train("my_images", "runs/first", method="im")     train beside a labels-only baseline
semiseg.load("runs/first").predict("new.png").label       segment an image
semiseg.inconsistency_mask(labels)                        the operator, for a loop of your own
semiseg.METHODS, semiseg.PROGRAMS                         what there is
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["METHODS", "PROGRAMS", "__version__", "inconsistency_mask", "load", "train"]

if TYPE_CHECKING:
    from pathlib import Path

    from semiseg.inconsistency import inconsistency_mask
    from semiseg.methods import METHODS
    from semiseg.model import Model
    from semiseg.programs import PROGRAMS
    from semiseg.programs.train import train

_LAZY = {
    "METHODS": "semiseg.methods",
    "PROGRAMS": "semiseg.programs",
    "inconsistency_mask": "semiseg.inconsistency",
    "train": "semiseg.programs.train",
}


def load(run: str | Path, ensemble: bool = False) -> Model:
    """A finished run's model; `ensemble=True` lets its committee predict together. See `semiseg.model.Model`."""
    from pathlib import Path

    from semiseg.model import Model

    return Model(Path(run), ensemble)


def __getattr__(name: str) -> Any:
    """Import on first use: `import semiseg` and `semiseg --help` stay quick."""
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'semiseg' has no attribute '{name}'")
