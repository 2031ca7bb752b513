"""Reading recipes: every error names the file, the line, the value seen and what to write instead.

This module does not import torch or TRL, so that `r1mm recipes` stays quick and a bad recipe is refused at once.
"""

import ast
import difflib
import functools
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from r1mm.errors import BadInput
from r1mm.expected import Expected
from r1mm.recipe import Recipe, resolve
from r1mm.sourced import Setting
from r1mm.task_parts import PICTURE_TASKS
from r1mm.training_parts import Training
from r1mm.yaml_files import Place, line_of, load_file

RECIPES = Path(__file__).resolve().parent.parent / "recipes"


# What a recipe never takes from the one that it extends: the readings of another result.
_OWN = ("name", "variants", "options")


@functools.cache
def config_fields(package: str, *classes: str) -> frozenset[str]:
    """Field names of TRL's and transformers' config classes, read from their source: importing TRL takes seconds."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise BadInput(f"package {package} is not installed; run `make setup`")
    root = Path(spec.origin).parent
    names: set[str] = set()
    for entry in classes:
        file, class_name = entry.split(":")
        tree = ast.parse((root / file).read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and node.name == class_name:
                names |= {
                    item.target.id
                    for item in node.body
                    if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
                }
    return frozenset(names)


def _trl_fields(own: str) -> frozenset[str]:
    common = config_fields("transformers", "training_args.py:TrainingArguments")
    return common | config_fields("trl", own, "trainer/base_config.py:_BaseConfig")


def grpo_fields() -> frozenset[str]:
    """Every field that TRL's `GRPOConfig` takes."""
    return _trl_fields("trainer/grpo_config.py:GRPOConfig")


def sft_fields() -> frozenset[str]:
    """Every field that TRL's `SFTConfig` takes."""
    return _trl_fields("trainer/sft_config.py:SFTConfig")


# Set by r1mm itself for every run; a recipe that set them would be overruled without notice.
OURS = frozenset(
    {
        *("output_dir", "seed", "data_seed", "use_cpu", "save_strategy", "trust_remote_code", "push_to_hub"),
        *("logging_steps", "logging_nan_inf_filter", "report_to", "disable_tqdm", "dataloader_pin_memory"),
    }
)
# Of TRL's `SFTConfig`, without effect here: r1mm makes the examples of supervised fine-tuning, as `sft_examples` says.
SFT_WITHOUT_EFFECT = frozenset(
    {
        *("dataset_text_field", "dataset_kwargs", "dataset_num_proc", "eos_token", "pad_token", "chat_template_path"),
        *("truncation_mode", "packing", "packing_strategy", "padding_free", "pad_to_multiple_of", "eval_packing"),
        *("completion_only_loss", "assistant_only_loss", "shuffle_dataset"),
    }
)
_MODEL = frozenset(
    {
        *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
        *("rope_theta", "vision_embed_dim", "vision_depth", "vision_num_heads", "vision_mlp_ratio"),
    }
)
_INITIAL = frozenset({"weight_scale"})  # of the tiny model, 1 where a recipe says nothing
_PROCESSOR = frozenset({"min_pixels", "max_pixels"})
_EVALUATION = frozenset({"max_new_tokens", "batch_size"})
_BACKEND = frozenset({"dtype", "backend"})  # float32 and transformers where a recipe says nothing
# Of tasks that lmms-eval asks: of a picture or frame, of a clip, of a question with several pictures (all or first).
_PIXELS, _FRAMES, _IMAGES = frozenset({"min_pixels", "max_pixels"}), frozenset({"frames"}), frozenset({"images"})
_EVALUATOR = _PIXELS | _FRAMES | _IMAGES
_UPSTREAM_LAYOUT = frozenset({"offload", "gradient_checkpointing"})
_CLIPS = frozenset({"fps", "frames", "min_pixels", "max_pixels", "undecodable"})
_WARM_START = frozenset(
    {
        *("max_steps", "per_device_train_batch_size", "answer_weight", "direct_prompt_share", "direct_share_early"),
        *("direct_share_late", "switch_at", "broken_share"),
    }
)
# Of the warm start of a recipe that distills, and of one of drawings.
_TRACED, _DRAWN = frozenset({"describe_share"}), frozenset({"fault_share", "slip_share", "line_share"})


def _check_keys(recipe: Recipe, path: Path, lines: dict[Place, int]) -> None:
    """The sections whose keys are settings: none unknown, none missing, none that r1mm sets itself."""
    training = config_fields("transformers", "training_args.py:TrainingArguments")

    def miniature(names: frozenset[str]) -> frozenset[str]:
        return names if recipe.miniature else frozenset()

    warm_start = _WARM_START | (_TRACED if recipe.distill else _DRAWN if recipe.drawings else frozenset())
    sections: tuple[tuple[str, dict[str, Setting[Any]], frozenset[str], frozenset[str], str], ...] = (
        ("model", recipe.model, _MODEL | _INITIAL, miniature(_MODEL), "setting of the tiny model"),
        ("warm_start", recipe.warm_start, warm_start | training, miniature(warm_start), "setting of the warm start"),
        ("processor", recipe.processor, _PROCESSOR, frozenset(), "limit of the image processor"),
        ("clips", recipe.clips, _CLIPS, frozenset(), "setting of how clips are read"),
        ("upstream_layout", recipe.upstream_layout, _UPSTREAM_LAYOUT, frozenset(), "part of upstream's layout"),
        (
            "evaluation",
            recipe.evaluation,
            _EVALUATION | _BACKEND | _EVALUATOR,
            _EVALUATION,
            "setting of the evaluation",
        ),
        ("train", recipe.train, grpo_fields(), frozenset(), "field of TRL's GRPOConfig"),
        ("sft", recipe.sft, sft_fields(), frozenset(), "field of TRL's SFTConfig"),
    )
    for name, section, known, needed, what in sections:
        for key, setting in section.items():
            where = f"{path}:{line_of((name, key), lines)}: {name}.{key}"
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise BadInput(f"{where}: is no {what} (value {setting.value!r}){hint}")
            if key in OURS:
                raise BadInput(f"{where}: is set by r1mm for every run (value {setting.value!r}); remove it")
            if name == "sft" and key in SFT_WITHOUT_EFFECT:
                raise BadInput(
                    f"{where}: has no effect (value {setting.value!r}), sft_examples says how examples are made; "
                    "remove it"
                )
            share = name == "warm_start" and ("_share" in key or key == "switch_at")
            if share and not (isinstance(setting.value, int | float) and 0 <= setting.value <= 1):
                raise BadInput(f"{where}: must be from 0 to 1, is {setting.value!r}")
        for key in sorted(needed - section.keys()):
            raise BadInput(f"{path}:{line_of((name,), lines)}: {name} lacks {key}; add it with its source")


def _check_clips(recipe: Recipe, path: Path, lines: dict[Place, int]) -> None:
    """What `clips`, `rewards` and lmms-eval's tasks say can be done."""

    def fail(place: Place, wanted: str, value: Any) -> None:
        raise BadInput(f"{path}:{line_of(place, lines)}: {'.'.join(map(str, place))}: {wanted}, is {value!r}")

    for key, setting in recipe.clips.items():
        value = setting.value
        number = isinstance(value, int | float) and not isinstance(value, bool) and value > 0
        if key == "undecodable":
            if value not in ("stop", "skip"):
                fail(("clips", key), "must be stop (a clip that cannot be decoded ends the run) or skip", value)
        elif not number or (key != "fps" and not isinstance(value, int)):
            fail(("clips", key), f"must be a {'' if key == 'fps' else 'whole '}number above 0", value)
        elif key == "frames" and value % 2:
            fail(("clips", key), "must be even: the model takes frames in pairs", value)
    least, most = (recipe.clips.get(key) for key in ("min_pixels", "max_pixels"))
    if least and most and least.value > most.value:
        fail(("clips", "min_pixels"), f"must be at most max_pixels {most.value}", least.value)
    if recipe.clips and "use_vllm" in recipe.train and recipe.train["use_vllm"].value:
        fail(("train", "use_vllm"), "must be false: clips reach completions through transformers alone", True)
    for name, task in recipe.tasks.items():
        if task.lmms is None:
            continue
        asset = recipe.assets.get(task.items)
        if asset is None or asset.kind != "repository" or asset.file is None:
            fail(
                ("tasks", name), "items must be an asset of kind repository with the `file` that lists them", task.items
            )
        pictures = task.lmms in PICTURE_TASKS
        for key in sorted(_PIXELS | {"dtype"} | (frozenset() if pictures else _FRAMES)):
            if key not in recipe.evaluation:
                fail(("evaluation",), f"must have {key} for lmms-eval's task {name}", list(recipe.evaluation))
        if pictures:
            continue
        for kind in ("evaluation", "direct"):
            template = getattr(recipe.prompts, kind).value
            if "{question}\n" not in template:
                fail(("prompts", kind), "must have a line break after {question}, as lmms-eval asks", template)
    shown = recipe.evaluation.get("images")
    if shown and shown.value not in ("all", "first"):
        fail(("evaluation", "images"), "must be all, or first (of a question's pictures the first alone)", shown.value)
    rewards = recipe.rewards.value
    if not rewards or len(set(rewards)) < len(rewards):
        fail(("rewards",), "must name one reward or more, each once", rewards)
    elif len({"accuracy", "letter", "answer"} & set(rewards)) > 1:
        which = "accuracy, or letter for questions with options, or answer by our reading"
        fail(("rewards",), f"must not count the answer twice: {which}", rewards)


# How a step is laid out on devices, in TRL's names: a miniature's to say, a full recipe's plan to choose.
_LAYOUT = ("per_device_train_batch_size", "gradient_accumulation_steps")
_SECTIONS: dict[Training, str] = {"sft": "sft", "grpo": "train"}


def _check_batch(recipe: Recipe, path: Path, lines: dict[Place, int]) -> None:
    """That every training's step is what the recipe says it is, and that it has an end."""
    for training in recipe.trainings:
        section, settings = _SECTIONS[training], recipe.settings_of(training)
        if not recipe.miniature:
            for key in (*_LAYOUT, "deepspeed", "gradient_checkpointing"):
                if key in settings:
                    says = "prompts_per_step and num_generations" if training == "grpo" else "examples_per_step"
                    raise _fault(
                        section,
                        key,
                        f"is for the plan to choose (r1mm plan); a full recipe sets {says}",
                        path,
                        lines,
                    )
        whole = ["num_generations", "max_steps"] if training == "grpo" else []
        if training == "sft":
            lengths = [key for key in ("max_steps", "num_train_epochs") if key in settings]
            if len(lengths) != 1:
                raise _fault(section, "", "must have either max_steps or num_train_epochs, whole", path, lines)
            whole = [*lengths, "max_length"]
        for key in (*whole, *(_LAYOUT if recipe.miniature else ())):
            value = settings[key].value if key in settings else None
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise _fault(section, key, f"must be a whole number from 1 on, is {value!r}", path, lines)
        if recipe.miniature:
            _check_split(recipe, training, path, lines)


def _check_split(recipe: Recipe, training: Training, path: Path, lines: dict[Place, int]) -> None:
    settings = recipe.settings_of(training)
    per_device, accumulation = (settings[key].value for key in _LAYOUT)
    batch = recipe.devices * per_device * accumulation
    if training == "grpo":
        prompts, group = recipe.grpo.prompts_per_step, settings["num_generations"].value
        wanted, what = prompts * group, "completions"
        why = (
            f"but prompts_per_step {prompts} x num_generations {group} = {wanted}; TRL counts completions here, "
            "upstream counted prompts"
        )
    else:
        assert recipe.examples_per_step  # of a recipe that runs it
        wanted, what = recipe.examples_per_step.value, "examples"
        why = f"but examples_per_step is {wanted}"
    if batch != wanted:
        says = f"{recipe.devices} devices x {per_device} {what} x {accumulation} accumulation = {batch} {what} per step"
        raise _fault(_SECTIONS[training], _LAYOUT[0], f"{says}, {why}", path, lines)


def _fault(section: str, key: str, text: str, path: Path, lines: dict[Place, int]) -> BadInput:
    place = (section, key) if key else (section,)
    return BadInput(f"{path}:{line_of(place, lines)}: {'.'.join(place)}: {text}")


def load_recipe(path: Path) -> Recipe:
    """The checked recipe of a `recipe.yaml`.  Raises BadInput with file and line."""
    recipe, lines = load_file(path, Recipe, _OWN)
    if recipe.name != path.parent.name:
        raise BadInput(f"{path}:{lines[('name',)]}: name {recipe.name!r} is not its directory's, {path.parent.name!r}")
    _check_keys(recipe, path, lines)
    _check_clips(recipe, path, lines)
    _check_batch(recipe, path, lines)
    readings = [(("variants", name), name) for name in recipe.variants]
    readings += [(("options", name), f"{recipe.default_variant}+{name}") for name in recipe.options]
    for place, name in readings:
        try:
            resolved = resolve(recipe, name).recipe
        except BadInput as error:
            raise BadInput(f"{path}:{line_of(place, lines)}: {error}") from error
        _check_keys(resolved, path, lines)
        _check_clips(resolved, path, lines)
        _check_batch(resolved, path, lines)
    return recipe


def load_expected(path: Path, recipe: Recipe) -> Expected:
    """The checked `expected.yaml` beside a recipe.  Raises BadInput with file and line."""
    expected, lines = load_file(path, Expected)
    if expected.recipe != recipe.name:
        raise BadInput(f"{path}:{lines[('recipe',)]}: is for recipe {expected.recipe!r}, not {recipe.name!r}")
    ids: set[str] = set()
    for i, claim in enumerate(expected.claims):
        where = f"{path}:{line_of(('claims', i), lines)}: claim {claim.id!r}"
        if claim.variant not in recipe.variants:
            raise BadInput(f"{where}: variant {claim.variant!r} is none of {', '.join(recipe.variants)}")
        if claim.split not in recipe.tasks:
            raise BadInput(f"{where}: split {claim.split!r} is none of {', '.join(recipe.tasks)}")
        rows = [measured for measured in expected.reference_rows if measured.variant == claim.variant]
        if claim.reference is None and len(rows) < 2:
            raise BadInput(f"{where}: has no reference value, and {len(rows)} reference rows; give one, or two rows")
        if claim.id in ids:
            raise BadInput(f"{where}: another claim has this id; give each its own")
        ids.add(claim.id)
    for i, row in enumerate(expected.published_rows):
        where = f"{path}:{lines[('published_rows', i)]}: row of {row.who!r}"
        if row.split not in recipe.tasks:
            raise BadInput(f"{where}: split {row.split!r} is none of {', '.join(recipe.tasks)}")
        if row.variant is not None and row.variant not in recipe.variants:
            raise BadInput(f"{where}: variant {row.variant!r} is none of {', '.join(recipe.variants)}")
    return expected


def find_recipe(name: str, root: Path | None = None) -> Path:
    """The directory of a recipe by name, or `name` itself when it is a path to one."""
    root = root or RECIPES
    as_path = Path(name)
    if (as_path / "recipe.yaml").is_file():
        return as_path.resolve()
    if (root / name / "recipe.yaml").is_file():
        return root / name
    names = sorted(path.parent.name for path in root.glob("*/recipe.yaml"))
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise BadInput(f"there is no recipe {name!r}; there are: {', '.join(names) or 'none'}{hint}")


def of_family(name: str, size: str, root: Path | None = None) -> str:
    """The recipe of a family that is of `size`; `name` itself where it is no family's."""
    for folder in all_recipes(root):
        recipe = load_recipe(folder / "recipe.yaml") if name in (folder / "recipe.yaml").read_text() else None
        if recipe is not None and recipe.family == name != recipe.name and recipe.size == size:
            return recipe.name
    return name


def all_recipes(root: Path | None = None) -> Iterator[Path]:
    """The directories of all recipes, by name."""
    return (path.parent for path in sorted((root or RECIPES).glob("*/recipe.yaml")))
