"""Reading recipes: every error names the file, the line, the value seen and what to write instead.

This module does not import torch or TRL, so that `r1mm recipes` stays quick and a bad recipe is refused at once.
"""

import ast
import difflib
import functools
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from r1mm.errors import BadInput
from r1mm.expected import Expected
from r1mm.recipe import Recipe, resolve
from r1mm.sourced import SOURCE_FORMS, Setting

RECIPES = Path(__file__).resolve().parent.parent / "recipes"


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML 1.1 reads `1e-4` as a string; hyper-parameters are written so, and mean the number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    # To the end: `0.14.0` is no number.
    re.compile(r"([-+]?(\d[\d_]*)(\.[\d_]*)?([eE][-+]?\d+)|[-+]?\d[\d_]*\.[\d_]*|[-+]?\.(inf|Inf)|\.(nan|NaN))$"),
    list("-+0123456789."),
)
Place = tuple[str | int, ...]


def _build(loader: _Loader, node: yaml.Node, place: Place, lines: dict[Place, int], path: Path) -> Any:
    lines[place] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(loader.construct_object(key_node))
            line = key_node.start_mark.line + 1
            if key in mapping:
                raise BadInput(f"{path}:{line}: key {key!r} stands here twice; keep one")
            mapping[key] = _build(loader, value_node, (*place, key), lines, path)
            lines[(*place, key)] = line
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_build(loader, item, (*place, i), lines, path) for i, item in enumerate(node.value)]
    return loader.construct_object(node)


def read_yaml(path: Path) -> tuple[Any, dict[Place, int]]:
    """A YAML file's content, and the line of every key and item by its place."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from error
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        lines: dict[Place, int] = {}
        content = _build(loader, node, (), lines, path) if node else None
    except yaml.YAMLError as error:
        raise BadInput(f"{path} is not YAML: {error}") from error
    return content, lines


def line_of(place: Place, lines: dict[Place, int]) -> int:
    """The line of a place, or of the nearest part around it that stands in the file."""
    while place and place not in lines:
        place = place[:-1]
    return lines.get(place, 1)


def _explain(error: ValidationError, path: Path, lines: dict[Place, int], model: type[BaseModel]) -> str:
    out = []
    for item in error.errors():
        place = tuple(item["loc"])
        where = f"{path}:{line_of(place, lines)}: {'.'.join(map(str, place)) or 'file'}"
        seen = repr(item["input"])
        seen = seen if len(seen) <= 80 else seen[:77] + "..."
        if item["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(place[-1]), model.model_fields, n=1) if len(place) == 1 else []
            hint = f"; did you mean {near[0]!r}?" if near else "; remove it or correct its name"
            out.append(f"{where}: unknown key (value {seen}){hint}")
        elif item["type"] == "missing" and place[-1] == "source":
            out.append(f"{where}: has no source (value {seen}); add source: {SOURCE_FORMS}")
        elif item["type"] == "missing":
            out.append(f"{where}: is missing; add it")
        elif len(place) > 1 and item["type"] == "model_type":
            out.append(f"{where}: is {seen}, without a source; write {{value: {seen}, source: ...}}")
        else:
            out.append(f"{where}: {item['msg'].removeprefix('Value error, ')} (value {seen})")
    return "\n".join(out)


M = TypeVar("M", bound=BaseModel)


def _merged(base: Any, changes: Any, place: Place = ()) -> Any:
    """`base` with `changes` on top, mapping by mapping; what has a source (a setting, an asset) is replaced whole.

    `key: null` takes the key away; KeyError with its place where `base` has no such key.
    """
    if not (isinstance(base, dict) and isinstance(changes, dict)) or "source" in changes:
        return changes
    merged = dict(base)
    for key, change in changes.items():
        if change is not None:
            merged[key] = _merged(base.get(key), change, (*place, key))
        elif key in base:
            del merged[key]
        else:
            raise KeyError((*place, key))
    return merged


def _extended(path: Path, content: Any, lines: dict[Place, int], own: tuple[str, ...]) -> Any:
    """A file's content on top of that of the recipe that it `extends`: the same file in a sibling directory.

    The keys in `own` are never taken over.
    """
    if not isinstance(content, dict) or "extends" not in content:
        return content
    where = f"{path}:{lines[('extends',)]}: extends {content['extends']!r}"
    parent = path.parent.parent / str(content["extends"]) / path.name
    if not parent.is_file():
        raise BadInput(f"{where}, but there is no {parent}")
    base, _ = read_yaml(parent)
    if not isinstance(base, dict) or "extends" in base:
        raise BadInput(f"{where}, and {parent} itself extends a recipe; extend that one")
    changes = {key: content[key] for key in content if key != "extends"}
    try:
        return _merged({key: base[key] for key in base if key not in own}, changes)
    except KeyError as error:
        place = error.args[0]
        raise BadInput(
            f"{path}:{line_of(place, lines)}: {'.'.join(map(str, place))}: null takes away what {content['extends']} "
            "does not have; remove the line"
        ) from error


# What a recipe never takes from the one that it extends: the readings of another result.
_OWN = ("name", "variants", "options")


def load_file(path: Path, model: type[M], own: tuple[str, ...] = ()) -> tuple[M, dict[Place, int]]:
    """A YAML file in the form of `model`, on top of the one it extends, and the lines of what stands in it itself.

    Raises BadInput with file and line.
    """
    content, lines = read_yaml(path)
    content = _extended(path, content, lines, own)
    try:
        return model.model_validate(content), lines
    except ValidationError as error:
        raise BadInput(_explain(error, path, lines, model)) from error


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


def grpo_fields() -> frozenset[str]:
    """Every field that TRL's `GRPOConfig` takes."""
    return config_fields(
        "trl", "trainer/grpo_config.py:GRPOConfig", "trainer/base_config.py:_BaseConfig"
    ) | config_fields("transformers", "training_args.py:TrainingArguments")


# Set by r1mm itself for every run; a recipe that set them would be overruled without notice.
OURS = frozenset(
    {
        *("output_dir", "seed", "data_seed", "use_cpu", "save_strategy", "trust_remote_code", "push_to_hub"),
        *("logging_steps", "logging_nan_inf_filter", "report_to", "disable_tqdm", "dataloader_pin_memory"),
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
_EVALUATOR = frozenset({"frames", "min_pixels", "max_pixels"})  # of tasks that lmms-eval asks: of a clip, of a frame
_UPSTREAM_LAYOUT = frozenset({"offload", "gradient_checkpointing"})
_CLIPS = frozenset({"fps", "frames", "min_pixels", "max_pixels", "undecodable"})
_WARM_START = frozenset(
    {
        *("max_steps", "per_device_train_batch_size", "answer_weight", "direct_prompt_share", "direct_share_early"),
        *("direct_share_late", "switch_at", "broken_share"),
    }
)


def _check_keys(recipe: Recipe, path: Path, lines: dict[Place, int]) -> None:
    """The sections whose keys are settings: none unknown, none missing, none that r1mm sets itself."""
    training = config_fields("transformers", "training_args.py:TrainingArguments")

    def miniature(names: frozenset[str]) -> frozenset[str]:
        return names if recipe.miniature else frozenset()

    sections: tuple[tuple[str, dict[str, Setting[Any]], frozenset[str], frozenset[str], str], ...] = (
        ("model", recipe.model, _MODEL | _INITIAL, miniature(_MODEL), "setting of the tiny model"),
        ("warm_start", recipe.warm_start, _WARM_START | training, miniature(_WARM_START), "setting of the warm start"),
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
        for key in sorted(_EVALUATOR | {"dtype"}):
            if key not in recipe.evaluation:
                fail(("evaluation",), f"must have {key} for lmms-eval's task {name}", list(recipe.evaluation))
        for kind in ("evaluation", "direct"):
            template = getattr(recipe.prompts, kind).value
            if "{question}\n" not in template:
                fail(("prompts", kind), "must have a line break after {question}, as lmms-eval asks", template)
    rewards = recipe.rewards.value
    if not rewards or len(set(rewards)) < len(rewards):
        fail(("rewards",), "must name one reward or more, each once", rewards)
    elif len({"accuracy", "letter", "answer"} & set(rewards)) > 1:
        which = "accuracy, or letter for questions with options, or answer by our reading"
        fail(("rewards",), f"must not count the answer twice: {which}", rewards)


def _check_batch(recipe: Recipe, path: Path, lines: dict[Place, int]) -> None:
    def fail(key: str, text: str) -> None:
        raise BadInput(f"{path}:{line_of(('train', key), lines)}: train.{key}: {text}")

    whole = ("num_generations", "max_steps")
    layout = ("per_device_train_batch_size", "gradient_accumulation_steps")
    if not recipe.miniature:
        # A full recipe says what a step is; how it is laid out on the GPUs at hand is its plan's.
        for key in (*layout, "deepspeed", "gradient_checkpointing"):
            if key in recipe.train:
                fail(
                    key,
                    "is for the plan to choose (r1mm plan); a full recipe sets prompts_per_step and num_generations",
                )
    for key in (*whole, *(layout if recipe.miniature else ())):
        value = recipe.train[key].value if key in recipe.train else None
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            fail(key, f"must be a whole number from 1 on, is {value!r}")
    if not recipe.miniature:
        return
    prompts, group = recipe.prompts_per_step.value, recipe.train["num_generations"].value
    per_device = recipe.train["per_device_train_batch_size"].value
    accumulation = recipe.train["gradient_accumulation_steps"].value
    batch = recipe.devices * per_device * accumulation
    if batch != prompts * group:
        fail(
            "per_device_train_batch_size",
            f"{recipe.devices} devices x {per_device} completions x {accumulation} accumulation = {batch} completions "
            f"per step, but prompts_per_step {prompts} x num_generations {group} = {prompts * group}; "
            "TRL counts completions here, upstream counted prompts",
        )


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
