"""The page of arithmetic `SCALING.md`: a step of r1v-clevr-2b on 8 x A100, 8 x H100 and 64 x H100 by the plan's model.

Every number of the page comes from `r1mm.plan`; the sentences around them are checked against the numbers they name.
"""

import functools
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, replace

from r1mm.plan import Layout, Machine, make_plan, parse_gpus
from r1mm.plan.duration import (
    GPU_SPEEDS,
    LONGEST_TOKENS,
    MEAN_TOKENS,
    VLLM_LATENCY,
    Bound,
    Part,
    seconds_of,
    step_parts,
)
from r1mm.plan.hardware import NODE_LINK, PRICES_OF
from r1mm.plan.layout import Work, base_repo, work_of
from r1mm.plan.memory import images_of
from r1mm.plan.shapes import Shape, config_of_repo, read_shape
from r1mm.recipe import resolve
from r1mm.recipe_files import RECIPES, load_recipe

RECIPE, VARIANT = "r1v-clevr-2b", "as-fixed"
MACHINES = ("8xA100-80G", "8xH100-80G", "8x8xH100-80G")
LENGTHS = (20, 60, 150, 300)  # as `step.py` has them
STEPS = 100
QUICK_START = 0.25e-3  # seconds: a quarter of what the plan assumes for a layer's kernels, to show what hangs on it
KERNELS: Bound = "kernel starts"
UPSTREAM_MINUTES, UPSTREAM_DOLLARS = 30.0, 2.62  # Deep-Agent/R1-V's README: 8 A100, 100 steps


@dataclass(frozen=True)
class Laid:
    """The recipe on a machine, with transformers or vLLM, with or without sharing."""

    shape: Shape
    work: Work
    layout: Layout
    machine: Machine

    @property
    def vllm(self) -> bool:
        """Whether vLLM makes the completions."""
        return self.layout.generation != "transformers"

    def parts(self, mean: int = MEAN_TOKENS, longest: int = LONGEST_TOKENS) -> list[tuple[Part, float, Bound]]:
        """Parts of a step with their seconds and what bounds them."""
        made = step_parts(self.shape, self.work, self.layout, mean=mean, longest=longest)
        return [(part, *seconds_of(part, self.machine, GPU_SPEEDS, vllm=self.vllm)) for part in made]

    def seconds(self, mean: int = MEAN_TOKENS, longest: int = LONGEST_TOKENS) -> float:
        """Of a whole step."""
        return sum(seconds for _, seconds, _ in self.parts(mean, longest))

    def minutes(self, mean: int = MEAN_TOKENS, longest: int = LONGEST_TOKENS) -> float:
        """Of STEPS steps."""
        return self.seconds(mean, longest) * STEPS / 60

    def dollars(self, minutes: float) -> float:
        """At the plan's assumed price."""
        assert self.machine.gpu.price is not None  # the machines of this page have one
        return minutes / 60 * self.machine.gpu.price * self.machine.devices


@functools.cache
def laid(gpus: str, *, grouped: bool, vllm: bool = False) -> Laid:
    """The recipe as its plan lays it out on `gpus`; stock TRL in the same layout, so that one thing differs."""
    recipe = resolve(load_recipe(RECIPES / RECIPE / "recipe.yaml"), VARIANT + ("+vllm" if vllm else "")).recipe
    config = config_of_repo(base_repo(recipe))
    shape = read_shape(config)
    layout = make_plan(recipe, config, gpus).layout
    work = replace(work_of(recipe, shape), grouped=grouped).under(layout.sharding)
    return Laid(shape, work, layout, parse_gpus(gpus))


def _time(seconds: float) -> str:
    return f"{seconds:.2f}" if seconds >= 0.1 else f"{seconds:.3f}" if seconds >= 0.001 else "< 0.001"


def _parts_table(gpus: str) -> list[str]:
    ours, stock, fast = laid(gpus, grouped=True), laid(gpus, grouped=False), laid(gpus, grouped=True, vllm=True)
    stock_parts = {(part.phase, part.name): (part, seconds) for part, seconds, _ in stock.parts()}
    fast_parts = {(part.phase, part.name): seconds for part, seconds, _ in fast.parts()}
    whole = ours.seconds()
    rows = [
        "| part of a step | seconds | share | spent on | 10^12 operations | GB sent "
        "| stock TRL: seconds, 10^12 operations | vLLM: seconds |",
        "|---|---:|---:|---|---:|---:|---:|---:|",
    ]
    for part, seconds, bound in ours.parts():
        other, taken = stock_parts[part.phase, part.name]
        quick = fast_parts.pop((part.phase, part.name))
        of_stock = _time(taken) + (f", {other.operations / 1e12:.1f}" if other.operations else "")
        counted = f"{part.operations / 1e12:.1f}" if part.operations else ""
        sent = f"{part.sent / 1e9:.1f}" if part.sent else ""
        rows.append(
            f"| {part.phase}: {part.name} | {_time(seconds)} | {seconds / whole:.1%} | {bound} | {counted} | {sent} "
            f"| {of_stock} | {_time(quick)} |"
        )
    rows += [f"| {phase}: {name} | | | | | | | {_time(seconds)} |" for (phase, name), seconds in fast_parts.items()]
    operations = [sum(part.operations for part, _, _ in side.parts()) / 1e12 for side in (ours, stock)]
    sent = sum(part.sent for part, _, _ in ours.parts()) / 1e9
    rows.append(
        f"| **a step** | **{whole:.2f}** | | | {operations[0]:.0f} | {sent:.1f} "
        f"| {stock.seconds():.2f}, {operations[1]:.0f} | {fast.seconds():.2f} |"
    )
    return rows


def _layout_line(gpus: str) -> str:
    ours = laid(gpus, grouped=True)
    layout, work = ours.layout, ours.work
    images = images_of(layout.generated, work, layout)
    return (
        f"{layout.processes} processes x {layout.completions_per_device} completions x {layout.accumulation} "
        f"accumulation, {layout.sharding}; a device has {layout.generated} completions of "
        f"{images} image{'s' if images > 1 else ''}, "
        f"{layout.generated * work.prompt_tokens:,} prompt and {layout.generated * LONGEST_TOKENS:,} completion tokens "
        f"with padding. Sharing makes {layout.generated} images {images}."
    )


def _run_rows() -> list[str]:
    rows = [
        f"| {STEPS} steps | stock TRL | r1mm | stock, vLLM | r1mm, vLLM |",
        "|---|---:|---:|---:|---:|",
        f"| 8 A100, upstream's own trainer, by its README: {UPSTREAM_MINUTES:.0f} min, ${UPSTREAM_DOLLARS} | | | | |",
    ]
    for gpus in MACHINES:
        cells = []
        for vllm in (False, True):
            for grouped in (False, True):
                one = laid(gpus, grouped=grouped, vllm=vllm)
                cells.append(f"{one.minutes():.1f} min, ${one.dollars(one.minutes()):.2f}")
        rows.append(f"| {gpus} | {' | '.join(cells)} |")
    return rows


def _length_rows() -> list[str]:
    rows = [
        f"| {STEPS} steps in minutes, stock / r1mm | " + " | ".join(f"{length} tokens" for length in LENGTHS) + " |",
        "|---|" + "---:|" * len(LENGTHS),
    ]
    for gpus in MACHINES:
        for vllm in (False, True):
            cells = []
            for length in LENGTHS:
                stock, ours = (laid(gpus, grouped=g, vllm=vllm).minutes(length, length) for g in (False, True))
                cells.append(f"{stock:.1f} / {ours:.1f} = {stock / ours:.2f}")
            rows.append(f"| {gpus}{', vLLM' if vllm else ''} | {' | '.join(cells)} |")
    return rows


def _scoring_rows() -> list[str]:
    starting = replace(GPU_SPEEDS, pass_latency=QUICK_START)
    measures: dict[str, Callable[[Part, Machine], float]] = {
        "seconds": lambda part, machine: seconds_of(part, machine, GPU_SPEEDS)[0],
        f"seconds, were a layer started in {1e3 * QUICK_START:g} ms": (
            lambda part, machine: seconds_of(part, machine, starting)[0]
        ),
        "operations": lambda part, _: part.operations,
    }
    rows = [
        "| reference, forward, backward | " + " | ".join(f"{length} tokens" for length in LENGTHS) + " |",
        "|---|" + "---:|" * len(LENGTHS),
    ]
    for gpus in MACHINES:
        for name, measure in measures.items():
            cells = []
            for length in LENGTHS:
                stock, ours = (_scoring(laid(gpus, grouped=grouped), length, measure) for grouped in (False, True))
                cells.append(f"{stock / ours:.2f}")
            rows.append(f"| {gpus}, {name} | {' | '.join(cells)} |")
    return rows


def _scoring(one: Laid, length: int, measure: Callable[[Part, Machine], float]) -> float:
    return sum(
        measure(part, one.machine)
        for part, _, _ in one.parts(length, length)
        if part.phase in ("reference", "update") and part.name != "optimizer"
    )


def _share(one: Laid, phase: str, name: str) -> float:
    return sum(seconds for part, seconds, _ in one.parts() if (part.phase, part.name) == (phase, name)) / one.seconds()


def _bounds() -> list[str]:
    """What the numbers come to.  AssertionError when a sentence no longer says what they do."""
    eight, node, many = (laid(gpus, grouped=True) for gpus in MACHINES)
    fast, fast_many = (laid(gpus, grouped=True, vllm=True) for gpus in MACHINES[1:])
    decoding = [_share(one, "generation", "decoding") for one in (eight, node, many)]
    assert min(decoding) > 0.5
    assert _bound_by(eight, "decoding") == _bound_by(node, "decoding") == _bound_by(many, "decoding") == KERNELS
    rest = _share(fast, "other", "rewards, logging")
    assert rest == max(_share(fast, part.phase, part.name) for part, _, _ in fast.parts())
    assert _bound_by(node, "tower forward") == KERNELS
    seconds_saved = [
        _scoring(laid(MACHINES[1], grouped=grouped), 60, lambda part, machine: seconds_of(part, machine, GPU_SPEEDS)[0])
        for grouped in (False, True)
    ]
    assert seconds_saved[0] < 1.2 * seconds_saved[1]
    copies = [images_of(one.layout.generated, one.work, one.layout) for one in (node, many)]
    assert copies == [2, 1]
    assert (node.layout.generated, many.layout.generated) == (16, 2)
    implied = UPSTREAM_DOLLARS / (UPSTREAM_MINUTES / 60 * eight.machine.devices)
    sent = sum(part.sent for part, _, _ in many.parts()) / 1e9
    together, apart = (
        sum(seconds for part, seconds, _ in one.parts() if part.phase == "exchange") for one in (node, many)
    )
    assert apart > 2 * together
    sayings = [
        f"""**Decoding through transformers.** {min(decoding):.0%} to {max(decoding):.0%} of a step, spent on starting
        kernels one layer after the other: neither a faster GPU nor fewer sequences on each shorten it. 64 GPUs are
        {node.seconds() / many.seconds():.2f} times as fast as 8 of the same kind, and cost
        {many.dollars(many.minutes()) / node.dollars(node.minutes()):.1f} times as much. The longest completion of a
        call sets the time, so a limit on completions acts on it directly.""",
        f"""**With vLLM** a step of 8 x H100 is {node.seconds() / fast.seconds():.1f} times as fast. The largest part
        is then beside the GPU: {rest:.0%} for rewards and logging, {GPU_SPEEDS.per_step:g} s that are assumed and that
        no measurement has touched. From 8 to 64 GPUs a step with vLLM becomes
        {fast.seconds() / fast_many.seconds():.2f} times as fast.""",
        """**The tower.** Where it encodes one or two images, its time is that of starting its kernels, so that on an
        H100 sharing saves operations and, at the assumed latency, few seconds. Seconds follow where a pass is bound by
        operations: larger micro-batches or images, slower GPUs, kernels that start faster. The table of the passes
        shows both ends; a measurement on one GPU would decide between them.""",
        f"""**Sharing shrinks as GPUs are added.** On 8 GPUs each encodes {copies[0]} images for its 16 completions;
        64 GPUs split a group of 8 over four, and each encodes {copies[1]} for its 2.""",
        f"""**The links.** 64 GPUs send {sent:.1f} GB each per step at {NODE_LINK:g} GB/s between nodes, {apart:.2f} s;
        inside one node it takes {together:.2f} s.""",
        f"""**Dollars.** Upstream's figure is ${implied:.2f} per GPU and hour; this page assumes typical prices of
        {PRICES_OF}, ${eight.machine.gpu.price:.2f} for an A100 and ${node.machine.gpu.price:.2f} for an H100. At
        upstream's price {STEPS} steps on 8 x A100 would cost
        ${eight.minutes() / 60 * eight.machine.devices * implied:.2f}.""",
        f"""**Upstream's 30 minutes** are steps of short completions (about 38 tokens on average by its curve), one call
        per completion. With 38 tokens for all, in one call, this model says {eight.minutes(38, 38):.1f} minutes on the
        same GPUs.""",
    ]
    return [_paragraph(f"- {saying}", "  ") for saying in sayings]


def _bound_by(one: Laid, name: str) -> Bound:
    return next(bound for part, _, bound in one.parts() if part.name == name)


def _paragraph(text: str, indent: str = "") -> str:
    return textwrap.fill(" ".join(text.split()), 128, subsequent_indent=indent, break_on_hyphens=False)


def _opening() -> list[str]:
    one = laid(MACHINES[0], grouped=True)
    said = [
        """Arithmetic, not measurement: no GPU was at hand. `python benchmarks/scaling.py page` prints this page from
        the time model of `r1mm/plan/duration.py`, and a test keeps the two the same.""",
        f"""A step is {one.work.prompts} prompts x {one.work.group} completions, prompts of {one.work.prompt_tokens}
        tokens ({one.work.image_tokens} of the image, 480 x 320), completions of {MEAN_TOKENS} tokens on average and
        {LONGEST_TOKENS} for the longest of a call (variant `{VARIANT}`). Passes reach {GPU_SPEEDS.utilisation:.0%}
        of the peak and take {1e3 * GPU_SPEEDS.pass_latency:g} ms a layer at least; a decoding step takes
        {1e3 * GPU_SPEEDS.layer_latency:g} ms a layer through transformers and {1e3 * VLLM_LATENCY:g} ms through vLLM,
        and reads at {GPU_SPEEDS.bandwidth_used:.0%} of the memory's bandwidth. These are assumptions, held against two
        published times (see the module).""",
        """Stock TRL processes, encodes and prefills an image for each completion, r1mm once per group and device; both
        in the same layout. vLLM keeps the features of images itself, and runs in the training processes. Seconds,
        operations and bytes are those of one GPU.""",
    ]
    return [line for text in said for line in (_paragraph(text), "")]


def page() -> str:
    """The page, in Markdown."""
    lines = [f"# Where the time of {RECIPE} would go on 8 and 64 GPUs", "", *_opening()]
    lines += ["## The run", "", *_run_rows(), "", "With completions of one length:", "", *_length_rows(), ""]
    lines += ["How much shorter sharing makes the passes that score and train, stock / r1mm:", "", *_scoring_rows(), ""]
    lines += ["## A step"]
    for gpus in MACHINES:
        lines += ["", f"### {gpus}", "", _paragraph(_layout_line(gpus)), "", *_parts_table(gpus)]
    lines += ["", "## What bounds it", "", *_bounds()]
    return "\n".join(lines) + "\n"
