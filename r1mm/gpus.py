"""The GPUs of this machine: what the driver says of them, and whether a stage sees those it was promised."""

import json
import os
import subprocess
import sys
from typing import Any

from r1mm.errors import StageFailed

# Set by compose.gpu.yaml in every container of the GPU profile: a number, or "all" for at least one.
PROMISE_VARIABLE = "R1MM_GPUS"

# CUDA 13 in the images: the oldest driver series on Linux, and the oldest architecture it compiles for (Turing).
# Source: NVIDIA, CUDA 13.0 release notes, driver compatibility table and list of dropped architectures.
MINIMUM_DRIVER = 580
MINIMUM_CAPABILITY = (7, 5)


def gpus() -> list[dict[str, Any]]:
    """Name, memory in GiB, driver and compute capability of each NVIDIA GPU, by nvidia-smi; empty without one."""
    query = [
        "nvidia-smi",
        "--query-gpu=name,memory.total,driver_version,compute_cap",
        "--format=csv,noheader,nounits",
    ]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[cell.strip() for cell in line.split(",")] for line in lines if line.strip()]
    return [
        {
            "name": name,
            # Where CPU and GPU share their memory the tool has no number for it.
            "memory_gb": round(int(memory) / 1024, 1) if memory.isdigit() else None,
            "driver": driver,
            "compute_capability": capability,
        }
        for name, memory, driver, capability in (row for row in rows if len(row) == 4)
    ]


def cuda_facts() -> dict[str, Any]:
    """How many GPUs torch can use here, of which CUDA it was built with, and, when it is none, torch's own reason."""
    import torch

    facts: dict[str, Any] = {"gpus": 0, "version": torch.version.cuda, "reason": ""}
    if torch.cuda.is_available():
        return facts | {"gpus": torch.cuda.device_count()}
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return facts | {"reason": str(error).splitlines()[0]}
    return facts | {"reason": "torch finds no CUDA device"}


def require_promised() -> None:
    """Raise StageFailed unless this process sees the GPUs that its container was promised, if any."""
    promised = os.environ.get(PROMISE_VARIABLE)
    if not promised:
        return
    # In a process of its own, which asks CUDA: this one asks the driver's library alone, so that it can still fork.
    script = "import json; from r1mm.gpus import cuda_facts; print(json.dumps(cuda_facts()))"
    environment = {name: value for name, value in os.environ.items() if name != "PYTORCH_NVML_BASED_CUDA_CHECK"}
    asked = subprocess.run([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, check=False)
    if asked.returncode:
        raise StageFailed(f"this stage was promised GPUs, and asking CUDA for them failed (status {asked.returncode})")
    cuda = json.loads(asked.stdout)
    if cuda["gpus"] < (1 if promised == "all" else int(promised)):
        reason = f" ({cuda['reason']})" if cuda["reason"] else ""
        raise StageFailed(
            f"this stage was promised {promised} GPU{'' if promised == '1' else 's'} and sees {cuda['gpus']}{reason}; "
            "`r1mm doctor --launch compose --gpus N` says what the host and its containers see"
        )
