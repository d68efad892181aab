"""Self-training: one teacher labels every unlabeled image, and a student learns from all; no mask, no committee.

[0] Lee 2013, pseudo-label (ICML workshop on challenges in representation learning)
Differs from [0]: the teacher is asked once in a generation instead of in every step; students learn from hard labels of
the whole image.
"""

from __future__ import annotations

from semiseg.programs._teacher import OneTeacher


class SelfTraining(OneTeacher):
    """What `ensemble` and `im` are without a committee, and `noisy_student` without noise and growth.

    members: models of a generation that compete for being the teacher; the other arguments as `im`'s of the same name.
    """

    name = "self_training"
