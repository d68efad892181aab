"""A server for commands, and runs that several tests look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from _data import ONE, QUICK, make
from _runner import Ended, Server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("server"))
    yield made
    made.close()


@pytest.fixture
def semiseg(server: Server, tmp_path: Path) -> Callable[..., Ended]:
    """`semiseg ARGV` in a process of its own, in the test's folder."""
    return lambda *argv, **options: server.run(*argv, **{"cwd": tmp_path, **options})


@pytest.fixture(scope="session")
def trained(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """trained(coding) -> folder with data/ and a finished run/; trained once per coding. Never write into it."""
    made: dict[tuple[Any, ...], Path] = {}

    def get(coding: str = "255", method: str = "supervised", channels: int = 3) -> Path:
        key = (coding, method, channels)
        if key not in made:
            folder = tmp_path_factory.mktemp("trained")
            make(folder / "data", coding, channels=channels)
            more = ONE if method.endswith("im") else ()
            ended = server.run("train", "data", "--out", "run", "--method", method, *QUICK, *more, cwd=folder)
            assert ended.code == 0, ended.text
            made[key] = folder
        return made[key]

    return get
