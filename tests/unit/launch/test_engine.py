"""Versions, and the engine's refusals in our words."""

import pytest
from python_on_whales import DockerException

from r1mm.errors import StageFailed
from r1mm.launch.engine import NoEngine, find_engine, in_our_words, parse_version, too_old


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


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        (
            "Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?",
            NoEngine,
            "no container engine",
        ),
        ("error during connect: Get http://x: dial tcp: lookup x: no such host", NoEngine, "no container engine"),
        (
            "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock",
            NoEngine,
            "you may not talk to the container engine",
        ),
        ("Error response from daemon: no space left on device", StageFailed, "trying: Error response .* no space left"),
        ("", StageFailed, "ended with status 1 and said nothing"),
    ],
)
def test_refusals_are_told_apart(said: str, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words), in_our_words("trying"):
        raise DockerException(["docker", "version"], 1, b"", said.encode())


def test_no_docker_command_is_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NoEngine, match="no `docker` command on PATH"):
        find_engine()
