"""Noisy student: one teacher labels every unlabeled image; larger students with more noise learn from all of them.

[0] Xie et al., arXiv 1911.04252; the NS baseline of Vorndran and Roeck, arXiv 2401.14387
[1] MichaelVorndran/InconsistencyMasks, ISIC_2018/08_*.py
Differs from [1]: noise is drawn anew every time; every student gets the same steps; no promotion without a gain on val.
"""

from __future__ import annotations

from semiseg.programs._growing import Growing
from semiseg.programs._teacher import OneTeacher


class NoisyStudent(Growing, OneTeacher):
    """The best member of a generation teaches the next one; the schedule of noise and width is im_plus's.

    members: models of a generation that compete for being the teacher. grow: what unet1x1 gains in width every generation.
    """

    name = "noisy_student"
