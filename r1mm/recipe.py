"""The schema of a recipe directory: `recipe.yaml` (what to run) and `expected.yaml` (what was published and measured).

Every setting is a pair of `value` and `source`, so that no number stands in a recipe without its origin.  Reading
and checking the files is `recipe_files.py`.
"""

import difflib
import hashlib
import json
import re
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from r1mm.errors import BadInput

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


def values(section: dict[str, Setting[Any]]) -> dict[str, Any]:
    """A section's settings without their sources."""
    return {key: setting.value for key, setting in section.items()}


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


def digest(value: Any) -> str:
    """sha256 of a JSON value in its canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
