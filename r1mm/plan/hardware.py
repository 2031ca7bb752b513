"""What GPUs there are to plan for, and how a user names them.

Memory is what the driver reports, in GiB.  Peak speed and bandwidth are the vendor's data sheets (dense bfloat16, no
sparsity).  Prices are assumptions: typical hourly on-demand prices of GPU clouds as of PRICES_OF, for the order of
magnitude only; `--price` replaces them.
"""

import difflib
import os
import re
from dataclasses import dataclass, replace

import psutil

from r1mm.errors import BadInput
from r1mm.gpus import gpus

PRICES_OF = "2025"
GIB = 2**30

FORMS = "8xA100-80G (GPUs), 2x8xH100 (nodes x GPUs), 1x24G (any GPU of that memory), or cpu"


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU.

    `memory` GiB; `tflops` peak dense bfloat16; `bandwidth` GB/s of its memory; `link` GB/s to its neighbours in the
    node, one way; `price` dollars per hour, None where nothing is assumed.
    """

    name: str
    memory: float
    tflops: float
    bandwidth: float
    link: float
    price: float | None


@dataclass(frozen=True)
class Machine:
    """What a plan is laid out on.  `gpus` is per node; on a CPU it is 1, the one process."""

    nodes: int
    gpus: int
    gpu: Gpu

    @property
    def cpu(self) -> bool:
        """Whether there is no GPU."""
        return self.gpu.name == "cpu"

    @property
    def devices(self) -> int:
        """GPUs of all nodes."""
        return self.nodes * self.gpus

    @property
    def name(self) -> str:
        """The machine in the one spelling that `parse_gpus` reads back: 8xA100-80G, 2x8xH100-80G, cpu."""
        if self.cpu:
            return "cpu"
        return (f"{self.nodes}x" if self.nodes > 1 else "") + f"{self.gpus}x{self.gpu.name}"


_NVLINK, _PCIE = 300.0, 25.0
GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("A10-24G", 22.5, 125, 600, _PCIE, 0.75),
        Gpu("L4-24G", 22.5, 121, 300, _PCIE, 0.70),
        Gpu("RTX3090-24G", 24.0, 71, 936, _PCIE, 0.30),
        Gpu("RTX4090-24G", 24.0, 165, 1008, _PCIE, 0.45),
        Gpu("RTX5090-32G", 31.8, 210, 1792, _PCIE, 0.70),
        Gpu("A100-40G", 40.0, 312, 1555, _NVLINK, 1.30),
        Gpu("L40S-48G", 45.0, 362, 864, _PCIE, 1.00),
        Gpu("A6000-48G", 48.0, 155, 768, _PCIE, 0.60),
        Gpu("A100-80G", 80.0, 312, 2039, _NVLINK, 1.80),
        Gpu("A800-80G", 80.0, 312, 2039, 200.0, 1.80),
        Gpu("H100-80G", 79.6, 989, 3350, 450.0, 3.00),
        Gpu("H800-80G", 79.6, 989, 3350, 200.0, 3.00),
        Gpu("H20-96G", 95.6, 148, 4000, 450.0, 2.00),
        Gpu("H200-141G", 140.4, 989, 4800, 450.0, 3.80),
        Gpu("B200-180G", 179.0, 2250, 8000, 900.0, 5.50),
    )
}
NODE_LINK = 50.0  # GB/s between nodes, an assumption: one 400 Gb/s adapter per GPU
_LARGEST = 1024
_SEEN_BY_DRIVER = 0.9375  # of the nominal memory, on cards that check and correct theirs (A10, L4: 22.5 of 24)


def _generic(memory: int) -> Gpu | None:
    """Any GPU of `memory` GB: what its driver leaves of them, and the speed of the slowest known card as large."""
    as_large = [gpu for gpu in GPUS.values() if gpu.memory >= 0.9 * memory]
    if memory < 1 or not as_large:
        return None
    slowest = min(as_large, key=lambda gpu: (gpu.tflops, gpu.bandwidth))
    return replace(slowest, name=f"{memory}G", memory=memory * _SEEN_BY_DRIVER, link=_PCIE, price=None)


def find_gpu(name: str) -> Gpu:
    """A GPU by name, in any case: A100-80G, a name that has one size alone (H100), or a memory alone (24G).

    Raises BadInput with the nearest name for an unknown one, with the sizes for one that has several.
    """
    by_name = {known.lower(): gpu for known, gpu in GPUS.items()}
    wanted = name.lower().removesuffix("b")
    if wanted in by_name:
        return by_name[wanted]
    sizes = [gpu for known, gpu in by_name.items() if known.split("-")[0] == wanted]
    if len(sizes) == 1:
        return sizes[0]
    if sizes:
        raise BadInput(f"GPU {name!r} comes in several sizes; write {' or '.join(gpu.name for gpu in sizes)}")
    if (generic := re.fullmatch(r"(\d{1,4})g", wanted)) and (gpu := _generic(int(generic[1]))):
        return gpu
    near = difflib.get_close_matches(wanted, by_name, n=1, cutoff=0.4)
    hint = f"; did you mean {by_name[near[0]].name!r}?" if near else "."
    raise BadInput(f"unknown GPU {name!r}{hint} Known: {', '.join(GPUS)}, or a memory alone such as 24G")


def _this_cpu() -> Gpu:
    """This machine's memory and processors in the terms of a GPU: a core's float32 products (measured on one machine).

    It is the ceiling that `duration.CPU_SPEEDS` was fitted against.  The bandwidth is an assumption.
    """
    processors = os.cpu_count() or 1
    return Gpu("cpu", psutil.virtual_memory().total / GIB, 0.109 * processors, 20.0, _PCIE, None)


def parse_gpus(text: str) -> Machine:
    """The machine that `text` names: `8xA100-80G`, `2x8xH100` (nodes x GPUs), `1x24G`, `cpu` (this machine's memory).

    Raises BadInput for an unknown form or GPU.
    """
    if text.strip().lower() == "cpu":
        return Machine(1, 1, _this_cpu())
    found = re.fullmatch(r"(?:(\d{1,6})x)?(?:(\d{1,6})x)?([a-z0-9][a-z0-9-]*)", text.strip(), re.IGNORECASE)
    if not found:
        raise BadInput(f"{text!r} names no GPUs; write {FORMS}")
    first, second, name = found.groups()
    nodes, gpus = (int(first), int(second)) if second else (1, int(first or 1))
    if nodes < 1 or gpus < 1 or nodes * gpus > _LARGEST:
        raise BadInput(f"{text!r} is {nodes} x {gpus} GPUs; from 1 to {_LARGEST} in all can be planned for")
    return Machine(nodes, gpus, find_gpu(name))


def link_of(machine: Machine) -> float:
    """GB/s at which the GPUs exchange gradients and weights: the slowest stretch between any two of them."""
    return machine.gpu.link if machine.nodes == 1 else min(machine.gpu.link, NODE_LINK)


def known_by(name: str, memory: float) -> str | None:
    """The GPU of the table that a driver's name and GiB mean: `NVIDIA A100-SXM4-80GB` is an A100-80G."""
    compact = name.upper().replace(" ", "").replace("-", "")
    alike = [gpu for gpu in GPUS.values() if gpu.name.split("-")[0].upper() in compact]
    near = [gpu for gpu in alike if abs(gpu.memory - memory) <= 0.1 * gpu.memory]
    # RTX A10G and L40S hold the names of others; the longest says most.
    return max(near, key=lambda gpu: len(gpu.name.split("-")[0])).name if near else None


def gpus_here() -> str:
    """This machine's GPUs as `parse_gpus` takes them; `cpu` without one, the least of them where they differ."""
    seen = [gpu for gpu in gpus() if gpu["memory_gb"]]
    if not seen:
        return "cpu"
    least = min(seen, key=lambda gpu: gpu["memory_gb"])
    name = known_by(least["name"], least["memory_gb"]) if len({gpu["name"] for gpu in seen}) == 1 else None
    # Where the driver keeps some to itself, a card of 24 GB shows 22 to 24.
    name = name or f"{round(least['memory_gb'] / _SEEN_BY_DRIVER)}G"
    return f"{len(seen)}x{name}"
