"""The verb that lays a recipe out on GPUs before any is rented."""

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from r1mm.verbs.common import AddVerb, print_json

if TYPE_CHECKING:
    from rich.table import Table

    from r1mm.plan import Plan

_HELP = """Says how one optimizer step of RECIPE is spread over the GPUs you name, what memory it takes on each, part by
part, and about how long the run takes and what it costs.  Nothing is downloaded and nothing runs: it is arithmetic on
the model's shape, with every assumption printed.  Times are estimates, not measurements.

A step's completions (prompts x group), or its examples where a recipe is fine-tuned on some, are kept exactly; a
number of GPUs over which they cannot be split is refused.  The recipe's own sharding is kept where it fits, and every
departure from upstream's layout is listed with its reason and whether it changes numbers.  GPUs that cannot hold the
run are refused, with the smallest that can.

GPUs:
  8xA100-80G    eight GPUs of one machine
  2x8xH100      nodes x GPUs
  1x24G         any GPU of that memory
  cpu           this machine's processors and memory: one process, float32, for tiny stand-in models

  r1mm plan r1v-clevr-2b --gpus 8xA100-80G
  r1mm plan r1v-clevr-2b --gpus 1xH100 --variant as-fixed+vllm
  r1mm plan r1v-clevr-2b --gpus cpu --model assets/model     the shape of a checkpoint of your own
  r1mm plan r1v-clevr-2b --gpus 4xA100-40G --json            the same for programs; .layout is what a run uses

exit status: 0 it fits, 2 it does not, or the input is bad"""


def add(verb: AddVerb) -> None:
    """Add this verb."""
    plan = verb("plan", _plan, "lay a recipe out on given GPUs: batch, memory, time, cost", _HELP)
    plan.add_argument("recipe", help="name of a recipe (see `r1mm recipes list`), or a folder that holds recipe.yaml")
    plan.add_argument("--gpus", metavar="SPEC", help="what to plan for (default: upstream's; cpu for a miniature)")
    plan.add_argument("--variant", help="reading of upstream, with options (as-fixed+vllm); default: the recipe's own")
    plan.add_argument("--model", metavar="FOLDER", type=Path, help="checkpoint whose config.json gives the shape")
    plan.add_argument(
        "--image",
        metavar="WxH",
        type=_image_size,
        help="size of the training images, e.g. 480x320; default: the training set's where known, else as many tokens "
        "as a prompt may have",
    )
    plan.add_argument("--price", metavar="USD", type=_dollars, help="dollars per GPU and hour; default: assumed")


def _image_size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if not found:
        raise argparse.ArgumentTypeError(f"must be width x height in pixels such as 480x320, is {text!r}")
    return int(found[1]), int(found[2])


def _dollars(text: str) -> float:
    try:
        dollars = float(text)
    except ValueError:
        dollars = -1.0
    if not 0 <= dollars < 10_000:
        raise argparse.ArgumentTypeError(f"must be dollars per GPU and hour from 0 on, is {text!r}")
    return dollars


def _plan(options: argparse.Namespace) -> int:
    from r1mm.plan import default_gpus, make_plan
    from r1mm.plan.layout import base_repo
    from r1mm.plan.shapes import config_of_folder, config_of_repo
    from r1mm.recipe import resolve
    from r1mm.recipe_files import find_recipe, load_recipe

    recipe = load_recipe(find_recipe(options.recipe) / "recipe.yaml")
    chosen = resolve(recipe, options.variant)
    config = config_of_folder(options.model) if options.model else config_of_repo(base_repo(recipe))
    gpus = options.gpus or default_gpus(chosen.recipe)
    plans = [
        make_plan(chosen.recipe, config, gpus, training=training, image=options.image, price=options.price)
        for training in chosen.recipe.trainings
    ]
    if options.json:
        # Of the last training, as for a recipe that trains once, and of the one before it by its name.
        before = {plan.training: plan.model_dump(mode="json") for plan in plans[:-1]}
        print_json({"variant": chosen.variant, **plans[-1].model_dump(mode="json"), **before})
        return 0
    for plan in plans:
        _print_plan(plan, chosen.variant)
    return 0


def summary(plan: "Plan") -> str:
    """A plan in one line."""
    layout, rows = plan.layout, "completions" if plan.training == "grpo" else "examples"
    extras = [
        *(["weights and optimizer in the host's memory"] if layout.offload else []),
        *(["gradient checkpointing"] if layout.gradient_checkpointing else []),
        *([f"vLLM with {layout.vllm_memory:.0%} of each GPU"] if layout.vllm_memory else []),
        *([f"vLLM on {layout.vllm_gpus} GPUs of their own"] if layout.vllm_gpus else []),
    ]
    cost = "" if plan.cost is None else f", ${plan.cost:.2f} to {plan.cost_at_most:.2f}"
    return (
        f"{layout.gpus}: {layout.processes} x {layout.completions_per_device} {rows} x {layout.accumulation} "
        f"accumulation = {plan.completions_per_step} a step, {', '.join([layout.sharding, *extras])}; "
        f"{plan.peak:.1f} of {plan.device_memory:.1f} GiB; about {plan.hours:.2f} to {plan.hours_at_most:.2f} h{cost}"
    )


def _memory_table(plan: "Plan") -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(
        title=f"memory of each device in GiB; it peaks in '{plan.peak_phase}'",
        title_justify="left",
        title_style="",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("part")
    for phase in plan.memory:
        table.add_column(phase, justify="right")
    for part in dict.fromkeys(part for parts in plan.memory.values() for part in parts):
        table.add_row(part, *(f"{parts[part]:.2f}" if part in parts else "" for parts in plan.memory.values()))
    table.add_section()
    always = sum(plan.memory["always"].values())
    sums = (sum(parts.values()) + (0 if phase == "always" else always) for phase, parts in plan.memory.items())
    table.add_row("with 'always'", *(f"{total:.2f}" for total in sums))
    return table


def _print_plan(plan: "Plan", variant: str) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    how = "GRPO" if plan.training == "grpo" else "supervised fine-tuning"
    console.print(f"[bold]{plan.recipe}, {variant}, {how}[/bold]: {plan.parameters:,} parameters")
    console.print(escape(summary(plan)))
    console.print(_memory_table(plan))
    if plan.layout.offload:
        console.print(f"and {plan.host_memory:.1f} GiB of the host's memory on each node")
    times = ", ".join(f"{name} {seconds:.1f}" for name, seconds in plan.step_seconds.items() if seconds)
    console.print(f"estimated seconds of a step: {times}\n")
    console.print("[bold]departures from upstream's layout[/bold]" + ("" if plan.deviations else ": none"))
    words = {"no": "changes no number", "rounding": "changes rounding alone", "yes": "changes numbers"}
    for item in plan.deviations:
        console.print(
            escape(f"  {item.setting}: {item.upstream} -> {item.ours}; {item.reason}; {words[item.changes_numbers]}")
        )
    console.print("[bold]assumptions[/bold]")
    for text in plan.assumptions:
        console.print(escape(f"  {text}"))
