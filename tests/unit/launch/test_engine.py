"""Versions, and the engine's refusals in our words."""

import pytest
from python_on_whales import DockerException

from r1mm.errors import BadInput
from r1mm.launch.engine import (
    NoEngine,
    find_engine,
    in_our_words,
    last_words,
    parse_version,
    require_local,
    too_old,
)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("2.26.1-4", (2, 26, 1)),
        ("v0.13.1+ds1", (0, 13, 1)),
        ("26.1.5+dfsg1", (26, 1, 5)),
        ("1.45", (1, 45)),
        ("none", ()),
    ],
)
def test_versions_are_read_as_the_plugins_write_them(text: str, numbers: tuple[int, ...]) -> None:
    assert parse_version(text) == numbers


@pytest.mark.parametrize(
    ("name", "version", "old"),
    [
        ("compose", "2.26.1-4", False),
        ("compose", "2.25.9", True),
        ("compose", "5.0.0", False),
        ("compose", "none", True),
        ("buildx", "0.9.1", True),
        ("buildx", "0.13", False),
        ("engine", "26.0.2", True),
        ("engine", "28.2.2", False),
    ],
)
def test_what_is_older_than_any_that_was_tried_is_too_old(name: str, version: str, old: bool) -> None:
    assert too_old(name, version) is old


def raised(said: str) -> DockerException:
    return DockerException(["docker", "version"], 1, b"", said.encode())


def test_the_engines_own_line_is_the_reason() -> None:
    said = "docker: Error response from daemon: no GPUs here\n\nRun 'docker run --help' for more information\n"
    assert last_words(raised(said)) == "docker: Error response from daemon: no GPUs here"
    assert last_words(raised("first\nlast\n")) == "last"
    assert last_words(raised("")) == "`docker` ended with status 1 and said nothing"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("Cannot connect to the Docker daemon at unix:///nowhere", "no container engine answers at unix:///nowhere"),
        (
            "permission denied while trying to connect to the Docker daemon socket at unix:///nowhere",
            "you may not talk to the container engine",
        ),
    ],
)
def test_an_engine_that_does_not_answer_is_no_engine(said: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere")
    with pytest.raises(NoEngine, match=words), in_our_words("trying"):
        raise raised(said)


@pytest.mark.parametrize("host", ["ssh://me@far", "tcp://10.0.0.1:2376"])
def test_an_engine_elsewhere_is_refused(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    with pytest.raises(BadInput, match="is on another machine"):
        require_local()


@pytest.mark.parametrize("host", ["", "unix:///var/run/docker.sock", "tcp://127.0.0.1:2375"])
def test_an_engine_here_is_not(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    require_local()


def test_no_docker_command_is_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NoEngine, match="no `docker` command on PATH"):
        find_engine()
