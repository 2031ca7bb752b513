"""The schema of a recipe directory: `recipe.yaml` (what to run) and `expected.yaml` (what was published and measured).

Every setting is a pair of `value` and `source`, so that no number stands in a recipe without its origin.  Files are
checked whole when they are read; an error names the file, the line, the value seen and what to write instead.
This module does not import torch or TRL: `r1mm --help` and `r1mm recipes` stay quick.
"""

import ast
import difflib
import functools
import hashlib
import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from r1mm.errors import BadInput

RECIPES = Path(__file__).resolve().parent.parent / "recipes"

STAGES = ("assets", "warm-start", "base-evaluation", "grpo", "evaluation", "verdict", "report")
StageName = Literal["assets", "warm-start", "base-evaluation", "grpo", "evaluation", "verdict", "report"]

# The conditions under which a model is evaluated, and the sets it is evaluated on.
Condition = Literal["base-think", "base-direct", "trained-think"]
CONDITIONS: tuple[Condition, ...] = ("base-think", "base-direct", "trained-think")

SOURCE_FORMS = (
    "'owner/repository@commit:file', 'owner/repository#issue', 'package==version:file', 'arXiv:number', "
    "or 'our choice: reason'"
)
_SOURCE = re.compile(
    r"our choice: \S.{8,}"
    r"|[\w.-]+/[\w.-]+@[0-9a-f]{7,40}:\S.*"
    r"|[\w.-]+/[\w.-]+#\d+.*"
    r"|[\w.-]+==[\w.+-]+:\S.*"
    r"|arXiv:\d{4}\.\d{4,5}.*",
    re.DOTALL,
)


def _check_source(text: str) -> str:
    if not _SOURCE.fullmatch(text):
        raise ValueError(f"{text!r} names no source; write {SOURCE_FORMS}")
    return text


Source = Annotated[str, AfterValidator(_check_source)]
T = TypeVar("T")


class Strict(BaseModel):
    """A part of a recipe: unknown keys are refused, values are not coerced, and nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Setting(Strict, Generic[T]):
    """One value and where it is from."""

    value: T
    source: Source


class SceneSet(Strict):
    """A set of rendered scenes: `items` images with `counts` = [fewest, most] objects each."""

    world: Literal["clevr-like", "superclevr-like"]
    items: Annotated[int, Field(gt=0)]
    counts: Annotated[list[int], Field(min_length=2, max_length=2)]
    question: Literal["train", "evaluation"]
    seed: int
    source: Source

    @model_validator(mode="after")
    def _ordered(self) -> "SceneSet":
        if not 1 <= self.counts[0] <= self.counts[1] <= 10:
            raise ValueError(f"counts {self.counts} must be [fewest, most] with 1 <= fewest <= most <= 10")
        return self


class Prompts(Strict):
    """Templates with one `{question}` field each, kept to the blank as upstream has them."""

    train: Setting[str]
    evaluation: Setting[str]
    direct: Setting[str]

    @model_validator(mode="after")
    def _has_field(self) -> "Prompts":
        for name in ("train", "evaluation", "direct"):
            text = getattr(self, name).value
            if text.count("{question}") != 1:
                raise ValueError(f"template {name} {text!r} must hold {{question}} exactly once")
        return self


class Factors(Strict):
    """What differs between upstream's code eras, one factor each."""

    format_match: Setting[Literal["prefix", "full"]]
    images_in_logprobs: Setting[Literal["none", "both"]]


class Variant(Strict):
    """One reading of upstream: overrides by dotted path (`train.beta`, `factors.format_match`)."""

    description: str
    upstream: str
    overrides: dict[str, Setting[Any]]


class Recipe(Strict):
    """A published result to reproduce, or its miniature."""

    name: str
    title: str
    size: Literal["miniature", "full"]
    upstream: str
    default_variant: str
    stages: list[StageName]
    devices: Annotated[int, Field(gt=0)]
    threads: Setting[int]
    base_seed: Setting[int] | None = None
    scenes: dict[str, SceneSet]
    image_size: Setting[int]
    model: dict[str, Setting[Any]]
    warm_start: dict[str, Setting[Any]]
    prompts: Prompts
    factors: Factors
    prompts_per_step: Setting[int]
    train: dict[str, Setting[Any]]
    evaluation: dict[str, Setting[Any]]
    variants: dict[str, Variant]

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        if self.default_variant not in self.variants:
            raise ValueError(f"default_variant {self.default_variant!r} is none of {', '.join(self.variants)}")
        if list(self.stages) != [stage for stage in STAGES if stage in self.stages]:
            raise ValueError(f"stages {self.stages} must keep the order {', '.join(STAGES)}")
        return self

    def sections(self, names: tuple[str, ...]) -> dict[str, Any]:
        """The named top-level parts as plain JSON values, for hashing into a stage's inputs."""
        whole = self.model_dump(mode="json")
        return {name: whole[name] for name in names}


class Resolved(Strict):
    """A recipe with one variant's overrides applied."""

    recipe: Recipe
    variant: str
    overridden: list[str]


Metric = Literal["accuracy", "gain", "format", "direct", "length_ratio"]


class Claim(Strict):
    """One statement with its number, how it is tested, and the margin fixed before the run.

    `near`: the value lies within `margin` of `reference` (two one-sided tests); without a `reference`, of the mean of
    the variant's reference rows.  `at_least`, `at_most`: the value is on that side of `reference`, by a one-sided test.
    """

    id: str
    variant: str
    statement: str
    metric: Metric
    split: str
    test: Literal["near", "at_least", "at_most"]
    reference: float | None = None
    margin: Annotated[float, Field(ge=0)] = 0.0
    source: Source

    @model_validator(mode="after")
    def _complete(self) -> "Claim":
        if self.test != "near" and self.reference is None:
            raise ValueError(f"claim {self.id!r} tests {self.test} and needs a reference value")
        if self.test == "near" and self.margin <= 0:
            raise ValueError(f"claim {self.id!r} tests near and needs a margin above 0; margin is {self.margin}")
        return self


class Measured(Strict):
    """What one condition gave on one split: `right` of `n` items, and the shares and mean length of its outputs."""

    n: Annotated[int, Field(gt=0)]
    right: Annotated[int, Field(ge=0)]
    unparsed: Annotated[int, Field(ge=0)]
    format: Annotated[int, Field(ge=0)]
    direct: Annotated[int, Field(ge=0)]
    mean_tokens: Annotated[float, Field(ge=0)]


class ReferenceRow(Strict):
    """One raw measurement by somebody: results by split, then by condition."""

    who: str
    variant: str
    seed: int
    hardware: str
    code: str
    source: Source
    results: dict[str, dict[Condition, Measured]]


class Expected(Strict):
    """What was published and measured, in the manner of MLPerf's reference convergence points: raw rows."""

    recipe: str
    claims: list[Claim]
    reference_rows: list[ReferenceRow]


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads `1e-4` as a string; hyper-parameters are written so, and mean the number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d[\d_]*)(\.[\d_]*)?([eE][-+]?\d+)|[-+]?\d[\d_]*\.[\d_]*|[-+]?\.(inf|Inf)|\.(nan|NaN)"),
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


def _line_of(place: Place, lines: dict[Place, int]) -> int:
    while place and place not in lines:
        place = place[:-1]
    return lines.get(place, 1)


def _explain(error: ValidationError, path: Path, lines: dict[Place, int], model: type[BaseModel]) -> str:
    out = []
    for item in error.errors():
        place = tuple(item["loc"])
        where = f"{path}:{_line_of(place, lines)}: {'.'.join(map(str, place)) or 'file'}"
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


def _load(path: Path, model: type[M]) -> tuple[M, dict[Place, int]]:
    content, lines = read_yaml(path)
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
_OURS = {"output_dir", "seed", "data_seed", "logging_steps", "report_to", "trust_remote_code", "push_to_hub"}


def _check_train(recipe: Recipe, path: Path, lines: dict[Place, int]) -> None:
    def fail(key: str, text: str) -> None:
        raise BadInput(f"{path}:{_line_of(('train', key), lines)}: train.{key}: {text}")

    fields = grpo_fields()
    for key in recipe.train:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            fail(key, f"is not a field of TRL's GRPOConfig (value {recipe.train[key].value!r}){hint}")
        if key in _OURS:
            fail(key, f"is set by r1mm for every run (value {recipe.train[key].value!r}); remove it")
    for key in ("num_generations", "per_device_train_batch_size", "gradient_accumulation_steps", "max_steps"):
        value = recipe.train[key].value if key in recipe.train else None
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            fail(key, f"must be a whole number from 1 on, is {value!r}")
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
    recipe, lines = _load(path, Recipe)
    if recipe.name != path.parent.name:
        raise BadInput(f"{path}:{lines[('name',)]}: name {recipe.name!r} is not its directory's, {path.parent.name!r}")
    _check_train(recipe, path, lines)
    for name in recipe.variants:
        try:
            resolve(recipe, name)
        except BadInput as error:
            raise BadInput(f"{path}:{lines[('variants', name)]}: {error}") from error
    return recipe


def resolve(recipe: Recipe, variant: str | None = None) -> Resolved:
    """`recipe` under one variant (the recipe's default when None)."""
    variant = variant or recipe.default_variant
    if variant not in recipe.variants:
        near = difflib.get_close_matches(variant, recipe.variants, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise BadInput(f"recipe {recipe.name} has no variant {variant!r}; it has {', '.join(recipe.variants)}{hint}")
    whole = recipe.model_dump()
    overrides = recipe.variants[variant].overrides
    for dotted, setting in overrides.items():
        *parents, last = dotted.split(".")
        target: Any = whole
        for part in parents:
            target = target.get(part) if isinstance(target, dict) else None
        if not isinstance(target, dict) or (last not in target and parents != ["train"]):
            raise BadInput(f"variant {variant} overrides {dotted!r}, which the recipe does not have")
        target[last] = setting.model_dump()
    try:
        changed = Recipe.model_validate(whole)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BadInput(f"variant {variant}: {where}: {first['msg']} (value {first['input']!r})") from error
    return Resolved(recipe=changed, variant=variant, overridden=list(overrides))


def load_expected(path: Path, recipe: Recipe) -> Expected:
    """The checked `expected.yaml` beside a recipe.  Raises BadInput with file and line."""
    expected, lines = _load(path, Expected)
    if expected.recipe != recipe.name:
        raise BadInput(f"{path}:{lines[('recipe',)]}: is for recipe {expected.recipe!r}, not {recipe.name!r}")
    for i, claim in enumerate(expected.claims):
        where = f"{path}:{_line_of(('claims', i), lines)}: claim {claim.id!r}"
        if claim.variant not in recipe.variants:
            raise BadInput(f"{where}: variant {claim.variant!r} is none of {', '.join(recipe.variants)}")
        if claim.split not in recipe.scenes:
            raise BadInput(f"{where}: split {claim.split!r} is none of {', '.join(recipe.scenes)}")
        rows = [row for row in expected.reference_rows if row.variant == claim.variant]
        if claim.reference is None and len(rows) < 2:
            raise BadInput(f"{where}: has no reference value, and {len(rows)} reference rows; give one, or two rows")
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


def all_recipes(root: Path | None = None) -> Iterator[Path]:
    """The directories of all recipes, by name."""
    return (path.parent for path in sorted((root or RECIPES).glob("*/recipe.yaml")))


def digest(value: Any) -> str:
    """sha256 of a JSON value in its canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
