"""Cross pseudo supervision: two networks of different initialisation are each other's teacher on a mixed image.

[0] Chen et al. 2021, https://arxiv.org/abs/2106.01226   [1] charlesCXK/TorchSemiSeg @5e0c29c, CPS+CutMix/train.py
Differs from [1]: the CutMix partner is another image of the batch (there often another crop of the same image), so its
labels come from the same pass; labeled and mixed images share a pass; pixels outside the image do not count; one
optimiser serves both branches; the learning rate is not multiplied by the number of processes.
"""

from __future__ import annotations

from torch import Tensor

from semiseg.batch import Target
from semiseg.methods._pair import CrossPseudo


class CPS(CrossPseudo):
    """L = L_sup(1) + L_sup(2) + weight · ramp(t) · (CE(1, labels of 2) + CE(2, labels of 1)), means over valid pixels.

    weight: 1 on VOC with CutMix in [1], 5 on Cityscapes; without (paste=no) 1.5 and 6. The labels are hard, no
    confidence is asked for, and no gradient reaches the branch that gives them. `_pair.py` has the step.
    """

    def taught(self, logits: Tensor, target: Target) -> Tensor:
        """Cross-entropy with the other branch's hard labels: Σ w·CE / #pixels inside the image."""
        return self.task.consistency(logits, target)
