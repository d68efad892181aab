"""Keys of a state dict under the names of another library."""

import torch

from lite0 import renamed


def test_blocks_are_numbered_by_stage():
    """Of 1 + 2 blocks the third is the second of the second stage; in the first stage nothing is expanded."""
    given = {
        "_conv_stem.weight": "conv_stem.weight", "_blocks.0._depthwise_conv.weight": "blocks.0.0.conv_dw.weight",
        "_blocks.0._bn1.bias": "blocks.0.0.bn1.bias", "_blocks.0._project_conv.weight": "blocks.0.0.conv_pw.weight",
        "_blocks.1._expand_conv.weight": "blocks.1.0.conv_pw.weight",
        "_blocks.2._bn0.running_mean": "blocks.1.1.bn1.running_mean",
        "_blocks.2._bn1.bias": "blocks.1.1.bn2.bias", "_blocks.2._project_conv.weight": "blocks.1.1.conv_pwl.weight",
        "_bn1.num_batches_tracked": "bn2.num_batches_tracked", "_fc.bias": "classifier.bias",
    }  # fmt: skip
    found = renamed({key: torch.tensor(i) for i, key in enumerate(given)}, [1, 2])
    assert {key: int(value) for key, value in found.items()} == {key: i for i, key in enumerate(given.values())}
