"""How the weights of a network lie."""

import pytest
import torch

from semiseg import networks


@pytest.mark.parametrize(("threads", "gpu", "last"), [(1, False, True), (2, False, False), (1, True, False)])
@pytest.mark.parametrize("name", ["unet1x1", "unet/resnet18"])
def test_channels_are_last_with_one_thread_of_a_cpu(monkeypatch, name, threads, gpu, last):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    kernels = [p for p in networks.build(name, 3, 2).parameters() if p.ndim == 4 and min(p.shape) > 1]
    assert (
        kernels and all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels if p.shape[-1] > 1) == last
    )


def test_scores_are_the_same_however_they_lie(monkeypatch):
    x = torch.rand(2, 3, 32, 32)
    scores = []
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        torch.manual_seed(0)
        scores.append(networks.build("unet1x1", 3, 2).eval()(x))
    torch.testing.assert_close(*scores, rtol=1e-4, atol=1e-5)
