"""The speeds of `r1mm.plan.duration` that fit what `step.py` measured, and how well they foretell what was held out.

Not a part of the plan: it reads a file of measurements and prints numbers that a person may carry into it.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from r1mm.errors import BadInput
from r1mm.plan.duration import CPU_SPEEDS, GPU_SPEEDS, Part, Phase, Speeds, seconds_of, step_parts
from r1mm.plan.hardware import GPUS, Gpu, Machine, known_by
from r1mm.plan.layout import Layout, Work
from r1mm.plan.shapes import Shape, read_shape

# What `step.py` calls a phase, and what the plan calls its part.  Rewards and the rest of a step are one to the plan.
PART_OF: dict[str, tuple[Phase, str]] = {
    "pre-processing": ("other", "pre-processing"),
    "generation: tower": ("generation", "tower"),
    "generation: prefill": ("generation", "prefill"),
    "generation: decoding": ("generation", "decoding"),
    "reference: tower": ("reference", "tower"),
    "reference: rest": ("reference", "language"),
    "policy: tower": ("update", "tower forward"),
    "policy: forward": ("update", "language forward"),
    "policy: tower backward": ("update", "tower backward"),
    "policy: backward": ("update", "language backward"),
    "optimizer": ("update", "optimizer"),
    "rewards": ("other", "rewards, logging"),
    "other and idle": ("other", "rewards, logging"),
}
FITTED = (
    "utilisation",
    "backward_utilisation",
    "decoding_utilisation",
    "pass_latency",
    "layer_latency",
    "per_patch_decoded",
    "per_patch_made",
    "per_step",
)
_HELD_NEAR = 0.004  # weight that keeps a number which no measurement speaks of where it was, per factor of e


@dataclass(frozen=True)
class Point:
    """One side of one run: what it had to do, and the median seconds and the operations of each of the plan's parts."""

    name: str
    tokens: int
    parts: dict[tuple[Phase, str], Part]
    measured: dict[tuple[Phase, str], float]
    operations: dict[tuple[Phase, str], float]
    machine: Machine

    def foretold(self, speeds: Speeds) -> dict[tuple[Phase, str], float]:
        """Seconds of each part by the plan's model."""
        return {name: seconds_of(part, self.machine, speeds)[0] for name, part in self.parts.items()}


@dataclass(frozen=True)
class Miss:
    """How far foretold seconds lie from measured ones: of whole steps, and of each part, as factors."""

    steps: dict[str, float]
    parts: dict[tuple[Phase, str], list[float]]

    @property
    def worst_step(self) -> float:
        """The largest error of a whole step, either way, as a share: 0.2 is a fifth too long or too short."""
        return max(max(ratio, 1 / ratio) for ratio in self.steps.values()) - 1

    @property
    def typical_part(self) -> float:
        """The median error of a part, as a share."""
        return statistics.median(max(one, 1 / one) for found in self.parts.values() for one in found) - 1


def machine_of(found: dict[str, Any]) -> Machine:
    """The measured machine as the plan knows machines; its peak is the ceiling that was measured."""
    if found["device"] == "cpu":
        return Machine(1, 1, Gpu("cpu", 1.0, found["ceiling_tflops"], 20.0, 25.0, None))
    seen = found["machine"]["gpus"][0]
    name = known_by(seen["name"], seen["memory_gb"])
    if name is None:
        raise BadInput(f"{seen['name']} with {seen['memory_gb']} GB is not in the plan's table; add it to r1mm/plan/")
    return Machine(1, 1, replace(GPUS[name], tflops=found["ceiling_tflops"]))


def _work(run: dict[str, Any], device: str, grouped: bool) -> Work:
    settings, work = run["settings"], run["work"]
    return Work(
        prompts=settings["prompts"],
        group=settings["group"],
        prompt_tokens=work["prompt_tokens"],
        image_tokens=work["image_tokens"],
        completion_tokens=max(work["longest_tokens"]),
        precision="bfloat16" if device == "cuda" else "float32",
        reference=True,
        images_in_logprobs=True,
        images_in_reference=True,
        rescored=False,
        steps=1,
        grouped=grouped,
    )


def _layout(run: dict[str, Any], device: str) -> Layout:
    settings = run["settings"]
    return Layout(
        gpus="cpu" if device == "cpu" else "1x80G",
        device="cpu" if device == "cpu" else "cuda",
        nodes=1,
        processes=1,
        completions_per_device=settings["rows"],
        accumulation=settings["accumulation"],
        sharding="ddp",
        offload=False,
        gradient_checkpointing=settings["gradient_checkpointing"],
        generation="transformers",
        vllm_gpus=0,
        vllm_memory=None,
    )


def points_of(found: dict[str, Any]) -> list[Point]:
    """Every side of every run of a file that `step.py --json` wrote.

    Raises BadInput for a file without measured steps, or with a phase that the plan does not know.
    """
    points = []
    machine = machine_of(found)
    for run in found["runs"]:
        shape: Shape = read_shape(run["config"])
        for side, taken in run["sides"].items():
            work = _work(run, found["device"], grouped=side != "stock")
            mean = round(statistics.median(run["work"]["mean_tokens"]))
            longest = round(statistics.median(run["work"]["longest_tokens"]))
            parts = {
                (part.phase, part.name): part
                for part in step_parts(shape, work, _layout(run, found["device"]), mean=mean, longest=longest)
            }
            measured: dict[tuple[Phase, str], float] = dict.fromkeys(parts, 0.0)
            operations: dict[tuple[Phase, str], float] = dict.fromkeys(parts, 0.0)
            for phase, seconds in taken["seconds"].items():
                if phase == "step":
                    continue
                if phase not in PART_OF:
                    raise BadInput(f"the file has a phase {phase!r}, of which the plan knows nothing; extend PART_OF")
                if not seconds:
                    raise BadInput("the file holds no measured steps; run step.py with --steps 3 or more")
                measured[PART_OF[phase]] += statistics.median(seconds)
                operations[PART_OF[phase]] += taken["operations"].get(phase, 0.0)
            points.append(Point(f"{run['size']}, {side}", longest, parts, measured, operations, machine))
    return points


def fit(points: Sequence[Point], start: Speeds) -> Speeds:
    """`start` with the numbers of FITTED moved to where the foretold seconds of `points` miss the measured ones least.

    The misses are logarithms of ratios, each weighted by its part's share of the step's time.  A weak pull back to
    `start` decides only where the points say nothing.
    """
    origin = np.log([getattr(start, name) for name in FITTED])

    def speeds_at(place: np.ndarray) -> Speeds:
        return replace(start, **{name: float(math.exp(value)) for name, value in zip(FITTED, place, strict=True)})

    def misses(place: np.ndarray) -> np.ndarray:
        speeds, rows = speeds_at(place), []
        for point in points:
            foretold, step = point.foretold(speeds), sum(point.measured.values())
            for name, seconds in point.measured.items():
                if seconds > 0:
                    rows.append(math.sqrt(seconds / step) * math.log(foretold[name] / seconds))
        return np.array([*rows, *(_HELD_NEAR * (place - origin))])

    return speeds_at(least_squares(misses, origin).x)


def missed(points: Sequence[Point], speeds: Speeds) -> Miss:
    """How far `speeds` foretell `points`, as ratios foretold / measured."""
    steps: dict[str, float] = {}
    parts: dict[tuple[Phase, str], list[float]] = {}
    for point in points:
        foretold = point.foretold(speeds)
        steps[f"{point.name}, {point.tokens} tokens"] = sum(foretold.values()) / sum(point.measured.values())
        for name, seconds in point.measured.items():
            if seconds > 0:
                parts.setdefault(name, []).append(foretold[name] / seconds)
    return Miss(steps, parts)


def operations_missed(points: Sequence[Point]) -> dict[tuple[Phase, str], list[float]]:
    """Operations that the plan counts over those that were counted while a step ran, part by part."""
    found: dict[tuple[Phase, str], list[float]] = {}
    for point in points:
        for name, counted in point.operations.items():
            if counted > 0:
                found.setdefault(name, []).append(point.parts[name].operations / counted)
    return found


def split(points: Sequence[Point], held_out: Sequence[int]) -> tuple[list[Point], list[Point]]:
    """Those to fit, and those whose completions have a length of `held_out`.  BadInput when either would be empty."""
    fitted = [point for point in points if point.tokens not in held_out]
    others = [point for point in points if point.tokens in held_out]
    lengths = sorted({point.tokens for point in points})
    if not fitted or not others:
        raise BadInput(
            f"the file has completions of {', '.join(map(str, lengths))} tokens, held out are "
            f"{', '.join(map(str, held_out)) or 'none'}; hold out one length or more and keep one or more"
        )
    return fitted, others


def print_fit(found: dict[str, Any], held_out: Sequence[int]) -> Miss:
    """Fit, print constants and misses, and return the misses of what was held out."""
    points = points_of(found)
    fitted, others = split(points, held_out)
    start = CPU_SPEEDS if found["device"] == "cpu" else GPU_SPEEDS
    speeds = fit(fitted, start)
    print(f"{found['date']}, {found['device']}, ceiling {found['ceiling_tflops']:.3g} Tflop/s; the plan's terms:\n")
    for name in FITTED:
        print(f"    {name}={getattr(speeds, name):.3g},  # was {getattr(start, name):.3g}")
    before, seen, unseen = missed(fitted, start), missed(fitted, speeds), missed(others, speeds)
    print("\n| part | foretold / measured, fitted on | held out | operations, counted by the plan / by torch |")
    print("|---|---:|---:|---:|")
    operations = operations_missed(points)
    for part in points[0].parts:
        cells = [_range(where.get(part, [])) for where in (seen.parts, unseen.parts, operations)]
        print(f"| {part[0]}: {part[1]} | {' | '.join(cells)} |")
    print("\n| step | foretold / measured | |\n|---|---:|---|")
    for miss, words in ((seen, "fitted on"), (unseen, "held out")):
        for name, ratio in miss.steps.items():
            print(f"| {name} | {ratio:.2f} | {words} |")
    for words, miss in (("before the fit", before), ("fitted on", seen), ("held out", unseen)):
        print(
            f"\n{words}: a step is missed by {miss.worst_step:.0%} at most, a part typically by {miss.typical_part:.0%}"
        )
    return unseen


def _range(ratios: Sequence[float]) -> str:
    return f"{min(ratios):.2f} to {max(ratios):.2f}" if ratios else "-"
