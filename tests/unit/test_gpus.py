"""What nvidia-smi says, read through a program of that name; what a stage does when it was promised more."""

from pathlib import Path

import pytest

from r1mm.doctor import gpu_checks
from r1mm.errors import StageFailed
from r1mm.gpus import PROMISE_VARIABLE, gpus, require_promised

H100 = "NVIDIA H100 80GB HBM3, 81559, 580.95.05, 9.0"
V100 = "Tesla V100-SXM2-16GB, 16384, 535.183.01, 7.0"


@pytest.fixture
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in request.param))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")


@pytest.mark.parametrize("cards", [[H100, H100]], indirect=True)
@pytest.mark.usefixtures("cards")
def test_cards_that_will_do() -> None:
    assert gpus()[0] == {
        "name": "NVIDIA H100 80GB HBM3",
        "memory_gb": 79.6,
        "driver": "580.95.05",
        "compute_capability": "9.0",
    }
    assert all(check.good for check in gpu_checks(2, launch="compose"))


@pytest.mark.parametrize("cards", [[V100]], indirect=True)
@pytest.mark.usefixtures("cards")
def test_cards_that_will_not_do_each_say_why() -> None:
    found = {check.name: check for check in gpu_checks(8, launch="compose")}
    assert [name for name, check in found.items() if check.fails] == [
        *("gpus", "gpu memory", "compute capability", "driver"),
    ]
    assert found["driver"].seen == "535.183.01"
    assert "580 or newer" in found["driver"].remedy
    assert not any(check.fails for check in gpu_checks(0, launch="local"))  # a miniature needs none of it


@pytest.mark.parametrize("cards", [["NVIDIA GB10, [N/A], 580.95.05, 12.1"], ["no devices were found"]], indirect=True)
@pytest.mark.usefixtures("cards")
def test_what_the_tool_does_not_know_is_not_invented() -> None:
    assert [card["memory_gb"] for card in gpus()] in ([None], [])
    assert {check.name: check.seen for check in gpu_checks(0, launch="compose")}["gpus"]


def test_a_promise_that_is_not_kept_fails_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    require_promised()
    there = torch.cuda.device_count()
    monkeypatch.setenv(PROMISE_VARIABLE, str(there + 1) if there else "all")
    with pytest.raises(StageFailed, match=rf"promised .+ and sees {there}.*; `r1mm doctor"):
        require_promised()
