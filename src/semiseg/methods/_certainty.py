"""How much unlabeled images count: by the share of their pixels that the teacher is sure of (ClassMix)."""

from __future__ import annotations

from semiseg import losses
from semiseg.batch import Target
from semiseg.errors import usage

PER = ("batch", "image", "pixel")


def weigh(target: Target, threshold: float, per: str = "batch") -> Target:
    """The belief, its weight multiplied by a share of the pixels inside the image with confidence >= threshold.

    per: "batch" one number for all images (`trainSSL.py:460-472` of WilhelmT/ClassMix @aa85291, there over padding,
    too), "image" one each, "pixel" 1 where that pixel is sure and 0 where it is not. Labels that overlap count singly.
    """
    sure = target.confidence >= threshold
    inside = target.valid.expand_as(sure)
    if per == "batch":
        share = losses.count(sure & inside, 0.0) / losses.count(inside)
    elif per == "image":
        share = (sure & inside).sum((1, 2, 3), keepdim=True) / inside.sum((1, 2, 3), keepdim=True).clamp(min=1)
    elif per == "pixel":
        share = sure.float()
    else:
        raise usage("per", f"is '{per}'", expected=" or ".join(PER))
    return target.replace(weight=target.weight * share)
