"""Where a stage runs, as the pipeline sees it: something that runs one stage and can say what that stage ran in."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

Say = Callable[[str], None]

# On a CPU alone: large tensors stay in the heap, in huge pages; else the kernel clears their pages anew at every step.
_CPU = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=100000000000"}

# What every stage's process is started with, wherever it runs.
ENVIRONMENT = {
    # Threads that spin while they wait slow a step down severalfold as soon as anything else wants a core.
    "GOMP_SPINCOUNT": "10000",
    # A library that takes fewer threads while the machine is busy adds up in another order.
    "MKL_DYNAMIC": "FALSE",
    "OMP_DYNAMIC": "FALSE",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # A process that has asked the CUDA runtime for its devices cannot fork; the driver's library can be asked instead.
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    # cuBLAS with fixed workspaces, without which its sums may differ from run to run; read only where there is a GPU.
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}


@dataclass(frozen=True)
class StageCall:
    """One stage of one job, whose locks the caller holds.  `recipe` is a name, or the path of a recipe's folder."""

    stage: str
    recipe: str
    recipe_name: str
    variant: str
    seed: int
    base_seed: int
    gpus: str
    runs: Path
    threads: int
    offline: bool

    def arguments(self) -> list[str]:
        """The arguments of `r1mm stage` that run it."""
        return [
            *(self.stage, self.recipe, "--locks-held", "--variant", self.variant),
            *("--seed", str(self.seed), "--base-seed", str(self.base_seed), "--runs", str(self.runs)),
            *("--gpus", self.gpus),
        ]


def stage_environment(call: StageCall) -> dict[str, str]:
    """The environment of a stage's process.

    The number of threads is pinned for every arithmetic library: a sum's order, and so its last bit, depends on it.
    """
    hub = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"} if call.offline else {}
    threads = {name: str(call.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    return {**ENVIRONMENT, **(_CPU if call.gpus == "cpu" else {}), **threads, **hub}


class Place(Protocol):
    """Somewhere to run stages."""

    def surroundings(self) -> dict[str, Any]:
        """What a manifest records of code, packages and machine of the stages that run here."""

    def run_stage(self, call: StageCall) -> int:
        """Run one stage to its end and return its exit status; its output goes to ours.

        Raises StageFailed when the stage could not be started, or was ended by something other than itself.
        """
