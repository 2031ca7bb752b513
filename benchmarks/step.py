"""A GRPO step phase by phase: stock TRL and r1mm in turns, from the same weights, data and random state.

python benchmarks/step.py --size mini                           random weights, rendered images
python benchmarks/step.py --size mini --base RUNS/base-seed1/stages/warm-start/model --train .../train.parquet
python benchmarks/step.py --size 2b --tokens 20,60,150,300      Qwen2-VL-2B's shape, 480 x 320, 16 x 8; wants a GPU
python benchmarks/step.py --size 2b --depth 14 --prompts 2 --group 4 --vocabulary 8192 --tokens 20       on a CPU
python benchmarks/step.py --check-only                          does r1mm's tower see every image once?  exits 1 if not

The stock side is trl.GRPOTrainer with the settings, rewards and processor of the recipe and images that `datasets`
decodes; the other is `build_trainer`.  Both train at learning rate 0: the update is computed and changes nothing, so
that every step starts from the same weights and both sample the same completions, whose share is counted.  `--json`
keeps every time, `--picture` draws the median step of both on one axis.
"""

import argparse
import dataclasses
import functools
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from datasets import Dataset, Image
from step_phases import PHASES, Side, Step, measured_functions
from step_table import SIDES, complaints, median_step, print_run
from step_worlds import World, build_world
from trl import GRPOTrainer

from r1mm.data.counting import read_parquet
from r1mm.data.prompts import conversation
from r1mm.libraries import threads_here
from r1mm.manifest import surroundings
from r1mm.mini.language import VISION_TOKENS
from r1mm.plan import Layout
from r1mm.processor import load_processor
from r1mm.recipe import Recipe, resolve
from r1mm.recipe_files import RECIPES, load_recipe
from r1mm.sourced import Setting
from r1mm.train import rewards
from r1mm.train.checkpoints import FiniteGradients
from r1mm.train.grpo import build_trainer
from r1mm.train.settings import grpo_config

RECIPE_OF = {"mini": "r1v-mini", "2b": "r1v-clevr-2b"}


def setting(value: Any) -> Setting[Any]:
    return Setting[Any](value=value, source="our choice: for a benchmark")


def recipe_for(options: argparse.Namespace, tokens: int | None) -> Recipe:
    """The recipe with the benchmark's batch, length of completions and a learning rate of 0."""
    recipe = resolve(load_recipe(RECIPES / RECIPE_OF[options.size] / "recipe.yaml")).recipe
    train = {
        "max_steps": options.warm_up + options.steps + 2,
        "num_generations": options.group,
        "learning_rate": 0.0,
        "save_steps": 10**6,
    }
    if tokens is not None:
        train |= {"max_completion_length": tokens, "generation_kwargs": {"min_new_tokens": tokens}}
    if recipe.miniature:
        train["per_device_train_batch_size"] = options.rows
        train["gradient_accumulation_steps"] = options.prompts * options.group // options.rows
    changed = recipe.train | {key: setting(value) for key, value in train.items()}
    threads = setting(options.threads or threads_here(recipe))
    return recipe.model_copy(
        update={"train": changed, "prompts_per_step": setting(options.prompts), "threads": threads}
    )


def layout_for(recipe: Recipe, options: argparse.Namespace) -> Layout | None:
    """One process on this machine's device; a miniature has its layout in its recipe."""
    if recipe.miniature:
        return None
    return Layout(
        gpus="1x80G" if options.device == "cuda" else "cpu",
        device=options.device,
        nodes=1,
        processes=1,
        completions_per_device=options.rows,
        accumulation=options.prompts * options.group // options.rows,
        sharding="ddp",
        offload=False,
        gradient_checkpointing=options.checkpointing,
        generation="transformers",
        vllm_gpus=0,
        vllm_memory=None,
    )


def suppressed(tokenizer: Any) -> list[int]:
    ids: list[int] = tokenizer.convert_tokens_to_ids(list(VISION_TOKENS))
    return ids


def build_side(
    name: str, recipe: Recipe, options: argparse.Namespace, world: World, rows: Dataset, scratch: Path
) -> Any:
    """The trainer of one side: `stock` or `r1mm`."""
    layout, folder = layout_for(recipe, options), scratch / name
    if name == "r1mm":
        trainer: Any = build_trainer(
            recipe,
            model=world.base,
            dataset=rows,
            seed=options.seed,
            folder=folder,
            suppressed=suppressed,
            layout=layout,
        )
        trainer.add_callback(FiniteGradients())  # as every run of r1mm has it
    else:
        processor = load_processor(world.base)
        template = recipe.prompts.train.value
        prompts = [conversation(template.format(question=problem)) for problem in rows["problem"]]
        trainer = GRPOTrainer(
            model=str(world.base),
            reward_funcs=[rewards.accuracy_reward, rewards.format_reward_for(recipe.factors.format_match.value)],
            args=grpo_config(recipe, folder, options.seed, suppressed(processor.tokenizer), layout),
            train_dataset=rows.remove_columns("problem").add_column("prompt", prompts),
            processing_class=processor,
        )
    if options.device == "cuda":
        # As deepspeed holds them; autocast of float32 weights would copy them at every decoded token.
        for network in (trainer.model, trainer.ref_model):
            network.to(torch.bfloat16)
    return trainer


def share_weights(trainers: Sequence[Any]) -> None:
    """Let all trainers' policies, and all their references, lie in the same memory: at rate 0 nobody changes them."""
    first, *others = trainers
    for other in others:
        for mine, theirs in ((first.model, other.model), (first.ref_model, other.ref_model)):
            for one, two in zip(mine.parameters(), theirs.parameters(), strict=True):
                if not torch.equal(one, two):
                    raise RuntimeError("the two sides do not start from the same weights")
                two.data = one.data


def resident(trainer: Any) -> int:
    """Bytes of a side's weights, reference and optimizer state."""
    tensors = [*trainer.model.parameters(), *trainer.ref_model.parameters()]
    for state in trainer.optimizer.state.values():
        tensors += [value for value in state.values() if isinstance(value, torch.Tensor)]
    return sum({tensor.data_ptr(): tensor.numel() * tensor.element_size() for tensor in tensors}.values())


def ceiling(device: str) -> float:
    """Tera-operations per second of a large matrix product, the best of several, in the type that is trained in."""
    size, dtype = (8192, torch.bfloat16) if device == "cuda" else (1536, torch.float32)
    one, two = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(8):
        started = time.perf_counter()
        one @ two
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best / 1e12


def own_caches() -> dict[str, Any]:
    """Fresh copies of what the rewards remember: the second side must not find what the first has worked out."""
    return {
        name: functools.lru_cache(**function.cache_parameters())(function.__wrapped__)
        for name, function in vars(rewards).items()
        if hasattr(function, "cache_parameters")
    }


def equal_share(one: Step, other: Step) -> float:
    """The share of rows in which two steps sampled the same completion."""
    same = [a == b for a, b in zip(one.completions, other.completions, strict=True)]
    return sum(same) / len(same)


def measure(
    options: argparse.Namespace, tokens: int | None, world: World, scratch: Path, names: Sequence[str] = SIDES
) -> dict[str, Any]:
    """One run: the sides `names` in turns; what `--json` keeps of it."""
    gc.collect()  # the trainers of the run before hold themselves in circles, and a GPU has no room for both
    torch.cuda.empty_cache()
    recipe = recipe_for(options, tokens)
    rows = read_parquet([world.train], scratch / "cache").cast_column("image", Image())
    trainers = {name: build_side(name, recipe, options, world, rows, scratch) for name in names}
    share_weights(list(trainers.values()))
    sides = {name: Side(trainer, recipe.threads.value, options.device == "cuda") for name, trainer in trainers.items()}
    caches = {name: own_caches() for name in names}
    turn: list[Side] = []
    taken: dict[str, list[Step]] = {name: [] for name in names}
    counted: dict[str, Step] = {}
    equal = []
    with measured_functions(lambda: turn[0].clock):
        for index in range(options.warm_up + options.steps + 1):
            last = index == options.warm_up + options.steps
            for name, side in sides.items():
                turn[:] = [side]
                for function, cached in caches[name].items():
                    setattr(rewards, function, cached)
                step = side.step(options.seed * 1000 + index, count=last)
                if last:
                    counted[name] = step
                elif index >= options.warm_up:
                    taken[name].append(step)
                if options.verbose:
                    print(f"  {'counted' if last else index} {name} {step.total:.3f} s", file=sys.stderr, flush=True)
            if len(names) == 2 and index >= options.warm_up:
                equal.append(equal_share(*(counted[name] if last else taken[name][-1] for name in names)))
    memory = {name: resident(trainer) for name, trainer in trainers.items()}
    for side in sides.values():
        side.end()
    config = json.loads((world.base / "config.json").read_text(encoding="utf-8"))
    reference = taken[names[0]] or [counted[names[0]]]
    lengths = [[len(row) for row in step.completions] for step in reference]
    return {
        "size": options.size,
        "tokens": tokens,
        "left_out": world.left_out,
        "settings": {
            **{key: getattr(options, key) for key in ("prompts", "group", "rows", "depth", "vocabulary", "seed")},
            "accumulation": options.prompts * options.group // options.rows,
            "gradient_checkpointing": options.checkpointing,
            "threads": recipe.threads.value,
        },
        "config": config,
        "work": {
            "prompt_tokens": reference[0].prompt_tokens,
            "image_tokens": world.patches // config["vision_config"].get("spatial_merge_size", 2) ** 2,
            "patches": world.patches,
            "mean_tokens": [statistics.mean(row) for row in lengths],
            "longest_tokens": [max(row) for row in lengths],
        },
        "sides": {
            name: {
                "seconds": {
                    "step": [step.total for step in taken[name]],
                    **{phase: [step.seconds[phase] for step in taken[name]] for phase in PHASES},
                },
                "operations": counted[name].operations,
                "images": counted[name].images,
                "memory": {
                    "resident": memory[name],
                    "peak": memory[name] + max((step.peak for step in taken[name]), default=0)
                    if options.device == "cuda"
                    else None,
                },
            }
            for name in names
        },
        "equal_completions": min(equal) if equal else None,
    }


def peak_on_cpu(name: str, options: argparse.Namespace, tokens: int | None, world: World) -> int:
    """Peak resident bytes of one side's second step, in a process of its own: allocators keep what they once had."""
    plain = {**vars(options), "tokens": [tokens], "steps": 1, "warm_up": 1}
    found = subprocess.run(
        [sys.executable, __file__, "--peak-of", name],
        input=json.dumps({"options": plain, "world": dataclasses.asdict(world)}, default=str),
        capture_output=True,
        text=True,
    )
    if found.returncode:
        raise RuntimeError(f"the process that measures memory ended with {found.returncode}:\n{found.stderr[-2000:]}")
    return int(found.stdout.splitlines()[-1])


def print_own_peak(name: str) -> None:
    """What the process of `peak_on_cpu` does: what to build comes on standard input."""
    given = json.load(sys.stdin)
    options = argparse.Namespace(**given["options"])
    made = given["world"]
    world = World(Path(made["base"]), Path(made["train"]), made["patches"], made["left_out"])
    prepare_libraries(options.threads)
    with tempfile.TemporaryDirectory() as scratch:
        recipe = recipe_for(options, options.tokens[0])
        rows = read_parquet([world.train], Path(scratch) / "cache").cast_column("image", Image())
        side = Side(build_side(name, recipe, options, world, rows, Path(scratch)), recipe.threads.value, False)
        side.step(1)
        Path("/proc/self/clear_refs").write_text("5")  # the kernel's way to begin the peak anew
        side.step(2)
        status = Path("/proc/self/status").read_text().splitlines()
        print(1024 * int(next(line.split()[1] for line in status if line.startswith("VmHWM"))))
        side.end()


def prepare_libraries(threads: int | None) -> None:
    torch.set_num_threads(threads or 2)
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.use_deterministic_algorithms(not torch.cuda.is_available())
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*min_new_tokens.*|.*lr_scheduler.step.*")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=sorted(RECIPE_OF), default="mini")
    parser.add_argument("--base", type=Path, help="a warm-started model (default: random weights)")
    parser.add_argument("--train", type=Path, help="its training set, a parquet file (default: rendered images)")
    parser.add_argument(
        "--tokens", help="fixed lengths of completions, as 20,60 (default: mini none, 2b 20,60,150,300)"
    )
    parser.add_argument("--steps", type=int, default=7, help="measured steps of each side (default: %(default)s)")
    parser.add_argument("--warm-up", type=int, default=2, help="steps before them (default: %(default)s)")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--rows", type=int, help="completions in one pass (default: mini all, 2b one group)")
    parser.add_argument("--depth", type=int, default=1, help="2b: divides the layers of both stacks (default: 1)")
    parser.add_argument("--vocabulary", type=int, help="2b: fewer tokens than the model's")
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing (2b)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, help="of the CPU (default: the recipe's, as many as there are cores)")
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True, help="CPU: peak memory too")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path, help="an SVG of the first run's median step on both sides")
    parser.add_argument("--require-sharing", action="store_true", help="exit 1 where r1mm shares less than it says")
    parser.add_argument("--check-only", action="store_true", help="one small step of r1mm, for --require-sharing alone")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    options.device = "cuda" if torch.cuda.is_available() and options.size == "2b" else "cpu"
    if options.check_only:
        options.prompts, options.group = min(options.prompts, 3), min(options.group, 4)
        options.warm_up, options.steps, options.tokens = 0, 0, options.tokens or "4"
    if (options.base is None) != (options.train is None):
        parser.error("--base and --train go together: a model and the set whose words it knows")
    options.rows = options.rows or (options.prompts * options.group if options.size == "mini" else options.group)
    if (options.prompts * options.group) % options.rows:
        parser.error(f"--rows {options.rows} does not divide {options.prompts} x {options.group} completions")
    lengths = options.tokens or ("20,60,150,300" if options.size == "2b" else "")
    options.tokens = [int(part) for part in lengths.split(",")] if lengths else [None]
    return options


def main() -> None:
    if sys.argv[1:2] == ["--peak-of"]:
        return print_own_peak(sys.argv[2])
    options = parse()
    prepare_libraries(options.threads)
    runs = []
    with tempfile.TemporaryDirectory() as scratch:
        world = build_world(options, Path(scratch))
        peak_operations = ceiling(options.device)
        for number, tokens in enumerate(options.tokens):
            sides = ("r1mm",) if options.check_only else SIDES
            run = measure(options, tokens, world, Path(scratch) / f"run-{number}", sides)
            peak_operations = max(peak_operations, ceiling(options.device))
            if not options.check_only:
                if options.device == "cpu" and options.memory:
                    for name in SIDES:
                        run["sides"][name]["memory"]["peak"] = peak_on_cpu(name, options, tokens, world)
                print_run(run, peak_operations)
            runs.append(run)
    found = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": options.device,
        "threads": torch.get_num_threads(),
        "dtype": "bfloat16" if options.device == "cuda" else "float32",
        "ceiling_tflops": peak_operations,
        "machine": surroundings(),
        "runs": runs,
    }
    gpus, cpu = found["machine"]["gpus"], found["machine"]["cpu"]
    where = gpus[0]["name"] if options.device == "cuda" else f"{found['threads']} threads of {cpu['model']}"
    print(f"\n{found['date']}, {where}, {found['dtype']}, ceiling {peak_operations:.3g} Tflop/s.")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if options.picture and not options.check_only:
        from step_picture import draw_step

        options.picture.write_text(draw_step(median_step(runs[0])), encoding="utf-8")
    if options.require_sharing or options.check_only:
        wrong = [
            text
            for run in runs
            for text in complaints(run["sides"]["r1mm"]["images"], options.prompts, options.group, options.rows)
        ]
        for text in wrong:
            print(f"NOT SHARED: {text}", file=sys.stderr)
        if wrong:
            sys.exit(1)
        seen = runs[0]["sides"]["r1mm"]["images"]
        print(f"Shared: {options.prompts} prompts of {options.group}, images counted: {seen}.")


if __name__ == "__main__":
    main()
