"""Shared by all tests: one thread, no network, and one tiny data folder of each kind."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
from hypothesis import HealthCheck, settings

import tiny

torch.set_num_threads(1)
settings.register_profile(
    "tiny", deadline=None, max_examples=25, derandomize=True, suppress_health_check=list(HealthCheck)
)
settings.load_profile("tiny")


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """{kind: data folder}: 6 labeled, 5 unlabeled (of two sizes) and 3 val images of about 24 px."""
    root = tmp_path_factory.mktemp("data")
    return {kind: tiny.write_folder(root / kind, kind) for kind in tiny.KINDS}


@pytest.fixture(scope="session")
def prepared(folders, tmp_path_factory):
    """kind -> Prepared, from `look` and `prepare` themselves; made once per kind."""
    made = {}

    def get(kind):
        if kind not in made:
            made[kind] = tiny.prepare(folders[kind], tmp_path_factory.mktemp("cache"))
        return made[kind]

    return get


@pytest.fixture(params=tiny.KINDS)
def kind(request):
    return request.param
