"""GPUs as a user names them, and as a driver does."""

import re

import pytest

from r1mm.errors import BadInput
from r1mm.plan import parse_gpus
from r1mm.plan.hardware import known_by


def test_gpus_are_read_in_every_form() -> None:
    assert parse_gpus("8xA100-80G").name == "8xA100-80G"
    assert parse_gpus("2x8xh100").name == "2x8xH100-80G"
    assert parse_gpus("H100-80GB").name == "1xH100-80G"
    assert (parse_gpus("2x8xH100").nodes, parse_gpus("2x8xH100").devices) == (2, 16)
    assert parse_gpus("1x24G").gpu.memory == 22.5
    assert parse_gpus("cpu").cpu
    for spec in ("8xA100-80G", "2x8xH100", "1x24G", "cpu"):
        assert parse_gpus(parse_gpus(spec).name) == parse_gpus(spec)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("8xA10O-80G", "unknown GPU 'A10O-80G'; did you mean 'A100-80G'?"),
        ("1xTPUv5", "unknown GPU 'TPUv5'. Known: "),
        ("8xA100", "write A100-40G or A100-80G"),
        ("0xH100", "'0xH100' is 1 x 0 GPUs"),
        ("9999xH100", "from 1 to 1024"),
        ("two H100", "names no GPUs; write 8xA100-80G"),
        ("", "names no GPUs"),
        ("1x500G", "unknown GPU '500G'"),
    ],
)
def test_gpus_that_are_none_are_refused(spec: str, words: str) -> None:
    with pytest.raises(BadInput, match=re.escape(words)):
        parse_gpus(spec)


@pytest.mark.parametrize(
    ("name", "memory", "known"),
    [
        ("NVIDIA A100-SXM4-80GB", 80.0, "A100-80G"),
        ("NVIDIA A100-SXM4-40GB", 40.0, "A100-40G"),
        ("NVIDIA H100 80GB HBM3", 79.6, "H100-80G"),
        ("NVIDIA GeForce RTX 4090", 24.0, "RTX4090-24G"),
        ("NVIDIA L40S", 45.0, "L40S-48G"),
        ("NVIDIA A10G", 22.5, "A10-24G"),
        ("Tesla V100-SXM2-32GB", 32.0, None),
    ],
)
def test_a_drivers_name_is_a_gpu_of_the_table(name: str, memory: float, known: str | None) -> None:
    assert known_by(name, memory) == known
