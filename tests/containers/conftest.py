"""The engine that DOCKER_HOST or the default socket names; everything here runs on it for real."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from python_on_whales import DockerClient

from r1mm.errors import BadInput
from r1mm.launch.engine import client, find_engine
from r1mm.launch.images import Image, build, default_base, held
from tests.tiny import tiny_recipe

STAND_IN = "stand-in/python:3.11-slim-bookworm"


@pytest.fixture(scope="session", autouse=True)
def engine() -> Iterator[None]:
    """Skips everything where no engine answers; builds on the stand-in base where the engine has one."""
    try:
        find_engine()
    except BadInput as error:
        if os.environ.get("R1MM_NEEDS_ENGINE"):  # set where an engine was started for these tests
            raise
        pytest.skip(str(error))
    patch = pytest.MonkeyPatch()
    if "BASE_IMAGE" not in os.environ and held(client(), default_base("cpu")) is None and held(client(), STAND_IN):
        patch.setenv("BASE_IMAGE", STAND_IN)
    yield
    patch.undo()


@pytest.fixture(scope="session")
def docker() -> DockerClient:
    return client()


@pytest.fixture(scope="session")
def image() -> Image:
    return build("cpu", print)


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_recipe(tmp_path_factory.mktemp("recipes"), claims=True)


def leavings(docker: DockerClient) -> list[str]:
    """What a run of ours might leave on an engine: containers, and networks of the project."""
    containers = docker.container.list(all=True, filters={"label": "r1mm.runs"})  # type: ignore[arg-type]
    containers += docker.container.list(all=True, filters={"name": "^r1mm-"})  # type: ignore[arg-type]
    networks = docker.network.list(filters={"name": "r1mm"})
    return sorted({str(container.name) for container in containers} | {str(network.name) for network in networks})


@pytest.fixture
def nothing_left(docker: DockerClient) -> Iterator[None]:
    """Fails the test when it leaves anything on the engine."""
    assert leavings(docker) == []
    yield
    assert leavings(docker) == []
