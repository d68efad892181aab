"""Programs train several models around a method; their keyword-only arguments are their configuration."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from semiseg.programs.base import Program

PROGRAMS = {
    "im": "semiseg.programs.im:IM",
    "im_moving": "semiseg.programs.im_moving:IMMoving",
    "im_plus": "semiseg.programs.im_plus:IMPlus",
    "im_plusplus": "semiseg.programs.im_plus:IMPlusPlus",
    "aim_plus": "semiseg.programs.aim:AIMPlus",
    "aim_plusplus": "semiseg.programs.aim:AIMPlusPlus",
    "ensemble": "semiseg.programs.ensemble:Ensemble",
    "self_training": "semiseg.programs.self_training:SelfTraining",
    "input_ensemble": "semiseg.programs.input_ensemble:InputEnsemble",
    "noisy_student": "semiseg.programs.noisy_student:NoisyStudent",
    "evalnet": "semiseg.programs.evalnet:EvalNetProgram",
    "committee": "semiseg.programs.committee:Committee",
}


def program_class(name: str) -> type[Program]:
    """The class behind a name of PROGRAMS; the empty name trains one member."""
    module, attribute = PROGRAMS.get(name, "semiseg.programs.base:Single").split(":")
    return getattr(importlib.import_module(module), attribute)
