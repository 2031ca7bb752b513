"""Which place a run gets, and why."""

from pathlib import Path

import pytest

from r1mm.doctor import preflight
from r1mm.errors import BadInput
from r1mm.launch.choose import decide, open_place
from r1mm.launch.local import Local


def test_auto_stays_here_for_a_miniature() -> None:
    launch, reason = decide("auto", wanted_gpus=0, image=None)
    assert launch == "local"
    assert "no GPU is asked for" in reason


def test_auto_takes_containers_for_a_named_image() -> None:
    assert decide("auto", wanted_gpus=0, image="r1mm-cpu")[0] == "compose"


def test_auto_stays_here_when_no_engine_answers_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    launch, reason = decide("auto", wanted_gpus=8, image=None)
    assert launch == "local"
    assert "docker" in reason


@pytest.mark.parametrize("launch", ["local", "compose"])
def test_what_was_asked_for_is_taken(launch: str) -> None:
    assert decide(launch, wanted_gpus=8, image=None) == (launch, "as asked")


def test_an_image_without_containers_is_refused() -> None:
    with pytest.raises(BadInput, match="--image r1mm-cpu is for containers"):
        decide("local", wanted_gpus=0, image="r1mm-cpu")


def test_this_machine_is_refused_when_it_lacks_the_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no nvidia-smi
    with pytest.raises(BadInput, match="gpus: none: only miniatures run here -> use a host with 2 NVIDIA GPUs"):
        preflight(launch="local", wanted_gpus=2)
    preflight(launch="local", wanted_gpus=0)
    assert isinstance(open_place("local", runs=tmp_path, wanted_gpus=0, image=None, say=print), Local)
