"""What `step.py` says of its measurements: the table of phases, the median step, and whether images were shared."""

import statistics
from collections.abc import Sequence
from typing import Any

from step_phases import BACKWARD, DECODING, FORWARD, PASSES, PHASES, PREFILL, REFERENCE_REST, TOWER_BACKWARD

SIDES = ("stock", "r1mm")
# Phases taken together, as the issue of speed asks for them.
SUMS = {
    "generation, all": ("generation: tower", PREFILL, DECODING),
    "reference pass, all": ("reference: tower", REFERENCE_REST),
    "policy pass and backward, all": ("policy: tower", FORWARD, TOWER_BACKWARD, BACKWARD),
    "tower, all": ("generation: tower", "reference: tower", "policy: tower", TOWER_BACKWARD),
}


def middle(values: Sequence[float]) -> float:
    return statistics.median(values) if values else float("nan")


def with_sums(seconds: dict[str, list[float]]) -> dict[str, list[float]]:
    """Phases, their sums, and the step, in the order of the table."""
    added = {
        name: [sum(parts) for parts in zip(*(seconds[phase] for phase in phases), strict=True)]
        for name, phases in SUMS.items()
    }
    return {**{phase: seconds[phase] for phase in PHASES}, **added, "step": seconds["step"]}


def print_run(run: dict[str, Any], peak_operations: float) -> None:
    """A run as Markdown."""
    stock, ours = (run["sides"][name] for name in SIDES)
    settings, work = run["settings"], run["work"]
    title = f"{run['size']}, {settings['prompts']} x {settings['group']}, {settings['rows']} rows a pass"
    print(f"\n### {title}, completions of {middle(work['mean_tokens']):.0f} tokens\n")
    if run["left_out"]:
        print("Left out: " + "; ".join(run["left_out"]) + ".\n")
    times = {name: with_sums(run["sides"][name]["seconds"]) for name in SIDES}
    operations = {
        name: {
            **run["sides"][name]["operations"],
            **{total: sum(run["sides"][name]["operations"][p] for p in phases) for total, phases in SUMS.items()},
            "step": sum(run["sides"][name]["operations"].values()),
        }
        for name in SIDES
    }
    print("| phase | stock TRL, ms (range) | r1mm, ms (range) | stock / r1mm | 10^9 operations | of the ceiling |")
    print("|---|---:|---:|---:|---:|---:|")
    for phase in times["stock"]:
        cells, use = [], []
        for name in SIDES:
            taken = times[name][phase]
            cells.append(f"{1e3 * middle(taken):.1f} ({1e3 * min(taken):.1f} to {1e3 * max(taken):.1f})")
            share = operations[name][phase] / max(middle(taken), 1e-9) / (peak_operations * 1e12)
            use.append(f"{share:.0%}" if operations[name][phase] else "-")
        base, own = middle(times["stock"][phase]), middle(times["r1mm"][phase])
        ratio = f"{base / own:.2f}" if own > 0 else "-"
        counts = " / ".join(f"{operations[name][phase] / 1e9:.1f}" for name in SIDES)
        print(f"| {phase} | {cells[0]} | {cells[1]} | {ratio} | {counts} | {' / '.join(use)} |")
    print("\n| | stock TRL | r1mm |\n|---|---:|---:|")
    print("| images in a step: " + ", ".join(("pixels", *PASSES)), end="")
    for side in (stock, ours):
        print(" | " + ", ".join(str(side["images"].get(where, 0)) for where in ("pixels", *PASSES)), end="")
    print(" |")
    sampled = settings["prompts"] * settings["group"] * middle(work["mean_tokens"])
    seconds = [middle(side["seconds"]["step"]) for side in (stock, ours)]
    print("| completion tokens a second | " + " | ".join(f"{sampled / each:.0f}" for each in seconds) + " |")
    print("| prompts' images a second | " + " | ".join(f"{settings['prompts'] / each:.1f}" for each in seconds) + " |")
    names = {"resident": "weights, gradients and optimizer", "peak": "peak (on a CPU with Python and its libraries)"}
    for what, words in names.items():
        cells = [side["memory"][what] for side in (stock, ours)]
        if all(cells):
            print(f"| {words}, MiB | " + " | ".join(f"{cell / 2**20:.0f}" for cell in cells) + " |")
    print(f"\nThe same completions on both sides: {run['equal_completions']:.1%} of rows.", flush=True)


def median_step(run: dict[str, Any]) -> dict[str, dict[str, float]]:
    """By side, the phases of the step whose length is the median: one real step, whose phases add up to it."""
    found = {}
    for name in SIDES:
        seconds = run["sides"][name]["seconds"]
        at = seconds["step"].index(statistics.median_low(seconds["step"]))
        found[name] = {phase: seconds[phase][at] for phase in PHASES}
    return found


def complaints(images: dict[str, int], prompts: int, group: int, rows: int) -> list[str]:
    """What is wrong with the number of images that were processed and that the tower saw in a step of r1mm."""
    # A group that does not fit into one pass comes in several: the passes of its first row to its last.
    passes = sum(((number + 1) * group - 1) // rows - number * group // rows + 1 for number in range(prompts))
    found = []
    for where in ("pixels", *PASSES):
        seen, most = images.get(where, 0), passes if where in ("reference", "policy") else prompts
        what = "the processor made pixels of" if where == "pixels" else f"in the {where} pass the tower saw"
        if seen == 0:
            found.append(f"{what} no image at all: the benchmark's hooks do not fit this trainer")
        elif seen > most:
            found.append(f"{what} {seen} images, where {most} would do: images of a group are not shared")
    return found
