"""The schema of `recipe.yaml`: what to run.  (`expected.py`: what was published and measured.)

Every setting is a pair of `value` and `source`, so that no number is without its origin.  `recipe_files.py` reads it.
"""

import difflib
import hashlib
import json
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, get_args

from pydantic import Field, ValidationError, model_validator

from r1mm.asset_kinds import Asset
from r1mm.distill_parts import Distill
from r1mm.errors import BadInput
from r1mm.scene_parts import DrawingSet, FilmSet, MadeSet, SceneSet
from r1mm.sourced import Setting, Sparse, Strict
from r1mm.task_parts import CONDITIONS as CONDITIONS  # of a recipe as much as of its tasks
from r1mm.task_parts import Condition as Condition
from r1mm.task_parts import Task
from r1mm.training_parts import (
    OF_FULL,
    PARTS,
    TRAININGS,
    SftExamples,
    SftLayout,
    Sharding,
    Training,
    WeightsDtype,
    once,
)

StageName = Literal[
    "assets", "warm-start", "distill", "base-evaluation", "base-gate", "sft", "grpo", "evaluation", "verdict", "report"
]
STAGES: tuple[StageName, ...] = get_args(StageName)
TRAIN_SET = "train"  # the name of the scene set or asset that a recipe trains on
BASE_MODEL = "model"  # the name of the asset that a full recipe starts from


class Prompts(Sparse):
    """Templates with one `{question}` field each, kept to the blank as upstream has them.  `train` is GRPO's.

    `system`: the system turn before `train` and `evaluation`; `direct` never has it.  Without it, or where its value is
    null, the chat template's own stands there.
    """

    LATER: ClassVar[frozenset[str]] = frozenset({"system"})

    train: Setting[str] | None = None
    evaluation: Setting[str]
    direct: Setting[str]
    system: Setting[str | None] | None = None

    @model_validator(mode="after")
    def _has_field(self) -> "Prompts":
        for name in ("train", "evaluation", "direct"):
            once(name, getattr(self, name), "question")
        return self

    @property
    def system_turn(self) -> str | None:
        """The text of the system turn; None for the chat template's own."""
        return self.system.value if self.system else None


# What each means: train/rewards.py, matches_format.
FormatMatch = Literal["prefix", "line", "start", "full", "bare"]


class Factors(Sparse):
    """What differs between upstream's code eras, one factor each; `bare` demands an answer without thoughts.

    `images_in_logprobs`: whose passes see images or clips; `policy`: the policy's do and the reference's do not.
    `logprobs_temperature`: what logits are divided by in both passes; without it TRL divides by `train.temperature`,
    at which completions are sampled.
    """

    LATER: ClassVar[frozenset[str]] = frozenset({"logprobs_temperature"})

    format_match: Setting[FormatMatch]
    images_in_logprobs: Setting[Literal["none", "policy", "both"]]
    logprobs_temperature: Setting[Annotated[float, Field(gt=0)]] | None = None

    @property
    def scored_at(self) -> float | None:
        """The temperature of log-probs; None for that of the sampling."""
        return self.logprobs_temperature.value if self.logprobs_temperature else None


# What a completion earns: the right answer, by upstream's reading of the whole (accuracy), by the letter of an option,
# or by our reading of what it answers, as letter, text or value (answer); the form of its text.
Reward = Literal["accuracy", "letter", "answer", "format"]


class Variant(Strict):
    """One reading of upstream: overrides by dotted path (`train.beta`, `factors.format_match`)."""

    description: str
    upstream: str
    overrides: dict[str, Setting[Any]]


class Grpo(NamedTuple):
    """What only GRPO reads: the factors, the prompts of a step, and the template around their questions."""

    factors: Factors
    prompts_per_step: int
    template: str


class Recipe(Sparse):
    """A published result to reproduce, or its miniature."""

    LATER: ClassVar[frozenset[str]] = frozenset({"over_long"})

    name: str
    family: str
    title: str
    size: Literal["miniature", "full"]
    upstream: str
    default_variant: str
    stages: list[StageName]
    devices: Annotated[int, Field(gt=0)]
    threads: Setting[int]
    tasks: dict[str, Task]
    prompts: Prompts
    evaluation: dict[str, Setting[Any]]
    variants: dict[str, Variant]
    # Which of its stages train, for a recipe whose variants differ in that; all of them where it does not say.
    training: Setting[list[Training]] | None = None
    # Of GRPO.
    factors: Factors | None = None
    prompts_per_step: Setting[int] | None = None
    train: dict[str, Setting[Any]] = Field(default={})
    # Of supervised fine-tuning.
    sft: dict[str, Setting[Any]] = Field(default={})
    sft_examples: SftExamples | None = None
    examples_per_step: Setting[int] | None = None
    # Of a miniature, which makes its data and its base model.
    base_seed: Setting[int] | None = None
    scenes: dict[str, MadeSet] = Field(default={})
    image_size: Setting[int] | None = None
    model: dict[str, Setting[Any]] = Field(default={})
    warm_start: dict[str, Setting[Any]] = Field(default={})
    distill: Distill | None = None
    # Of a full recipe, which fetches them.  A plan lays its batch out on the GPUs at hand, `hardware` is upstream's.
    assets: dict[str, Asset] = Field(default={})
    hardware: Setting[str] | None = None
    processor: dict[str, Setting[int]] = Field(default={})
    max_prompt_length: Setting[int] | None = None
    # What becomes of a training item whose prompt is longer; it is never cut.  Without it: refuse.
    over_long: Setting[Literal["refuse", "drop"]] | None = None
    schedule_steps: Setting[int] | None = None
    weights_dtype: Setting[WeightsDtype] | None = None
    sharding: Setting[Sharding] | None = None
    sft_layout: SftLayout | None = None
    upstream_layout: dict[str, Setting[bool]] = Field(
        default={}
    )  # offload, gradient_checkpointing: where upstream had them on
    # Off is TRL as it is, G times the work on images for the same numbers.
    grouped_images: Setting[bool] = Setting[bool](
        value=True, source="our choice: an image is encoded once per group; loss and gradient are TRL's to rounding"
    )
    options: dict[str, Variant] = Field(default={})
    # Where items are clips: how frames are taken, and what becomes of one that cannot be decoded (stop, skip).
    clips: dict[str, Setting[Any]] = Field(default={})
    rewards: Setting[list[Reward]] = Setting[list[Reward]](
        value=["accuracy", "format"], source="Deep-Agent/R1-V@bbbbe3d:src/r1-v/src/open_r1/grpo.py (both, summed)"
    )

    def template(self, task: str, kind: Literal["evaluation", "direct"]) -> str:
        """What a task's questions are asked with: its own prompt, else the recipe's."""
        text: str = (getattr(self.tasks[task].prompts, kind, None) or getattr(self.prompts, kind)).value
        return text

    @property
    def drawings(self) -> bool:
        """Whether this miniature is of drawings and charts."""
        return any(isinstance(made, DrawingSet) for made in self.scenes.values())

    @property
    def miniature(self) -> bool:
        """Whether this is a recipe at CPU size, whose numbers are never compared with published ones."""
        return self.size == "miniature"

    @model_validator(mode="after")
    def _of_its_size(self) -> "Recipe":
        of_size = {
            "miniature": ("base_seed", "scenes", "image_size", "model", "warm_start"),
            "full": ("assets", "hardware", "processor"),
        }
        if any(isinstance(made, FilmSet) != bool(self.clips) for made in self.scenes.values()):
            raise ValueError("scenes are films where `clips` says how they are read, and pictures where it does not")
        if self.drawings and not all(isinstance(made, DrawingSet) for made in self.scenes.values()):
            raise ValueError("scenes are drawings or pictures of solids, not both")
        unfit = next((name for name, task in self.tasks.items() if self.drawings and task.scorer != "answer"), None)
        if unfit is not None:
            raise ValueError(
                f"task {unfit} has the scorer {self.tasks[unfit].scorer}; questions about drawings are answered by "
                "numbers, degrees, fractions and letters, which the scorer answer reads"
            )
        if self.over_long is not None and (self.miniature or self.clips or "grpo" not in self.stages):
            raise ValueError(
                "over_long is for GRPO of a full recipe of images; clips are bounded by `clips`, miniatures small"
            )
        if self.miniature and self.prompts.system is not None:
            raise ValueError("prompts.system is not for a miniature, whose tiny model is taught no system turn")
        if bool(self.distill) != ("distill" in self.stages) or (self.distill and not self.miniature):
            raise ValueError("distill is for a miniature recipe with the stage distill, and for no other")
        if self.distill and not isinstance(self.scenes.get(self.distill.scenes.value), SceneSet):
            raise ValueError(f"distill.scenes names {self.distill.scenes.value!r}, which is no set of pictures")
        for size, keys in of_size.items():
            for key in keys:
                if bool(getattr(self, key)) != (size == self.size):
                    fault = "is missing from" if size == self.size else "is not for"
                    raise ValueError(f"{key} {fault} a {self.size} recipe")
        return self

    @model_validator(mode="after")
    def _one_temperature(self) -> "Recipe":
        sampled = self.train["temperature"].value if "temperature" in self.train else 1.0
        if sampled != 1.0 and self.factors and self.factors.logprobs_temperature is None:
            raise ValueError(
                f"train.temperature is {sampled}, by which TRL divides the logits of log-probs too and upstream's "
                "trainers did not; say which it is: factors.logprobs_temperature"
            )
        return self

    @model_validator(mode="after")
    def _of_its_trainings(self) -> "Recipe":
        for training, parts in PARTS.items():
            for key in parts:
                runs, there = training in self.stages, bool(getattr(self, key))
                if there and self.miniature and key in OF_FULL:
                    raise ValueError(f"{key} is not for a miniature recipe")
                if runs and not there and not (self.miniature and key in OF_FULL):
                    raise ValueError(f"{key} is missing from a recipe with the stage {training}")
                # Where `training` chooses, a variant leaves a stage out, and the recipe speaks of all.
                if there and not runs and self.training is None:
                    raise ValueError(f"{key} is not for a recipe without the stage {training}")
        if self.clips and "sft" in self.stages:
            raise ValueError("the stage sft is for pictures, and this recipe has clips; leave one of the two out")
        if self.prompts.train is None and {"warm-start", "grpo"} & {*self.stages}:
            raise ValueError("prompts.train is missing from a recipe with the stage grpo or warm-start")
        chosen = self.training.value if self.training else []
        if self.training and (not chosen or chosen != [stage for stage in self.trainings if stage in chosen]):
            raise ValueError(f"training {chosen} must name one or more of {', '.join(self.trainings)}, in this order")
        return self

    @property
    def trainings(self) -> list[Training]:
        """Its stages that train."""
        return [stage for stage in TRAININGS if stage in self.stages]

    @property
    def grpo(self) -> Grpo:
        """What only GRPO reads, of a recipe that runs it."""
        assert self.factors
        assert self.prompts_per_step
        assert self.prompts.train
        return Grpo(self.factors, self.prompts_per_step.value, self.prompts.train.value)

    def settings_of(self, training: Training) -> dict[str, Setting[Any]]:
        """The settings of one of its trainings, in TRL's names."""
        return self.sft if training == "sft" else self.train

    def rows_of_step(self, training: Training) -> int:
        """The sequences that one optimizer step of a training learns from: examples, or completions."""
        if training == "grpo":
            return self.grpo.prompts_per_step * int(self.train["num_generations"].value)
        assert self.examples_per_step
        return self.examples_per_step.value

    def kept_in(self, training: Training) -> tuple[Sharding | None, WeightsDtype | None]:
        """How a full recipe shards a training, and in what type it holds the weights; None where it says nothing."""
        if training == "sft":
            own = self.sft_layout
            return (own.sharding.value, own.weights_dtype.value) if own else (None, None)
        sharding, dtype = self.sharding, self.weights_dtype
        return sharding.value if sharding else None, dtype.value if dtype else None

    @model_validator(mode="after")
    def _names_hold(self) -> "Recipe":
        known = {**self.scenes, **self.assets}
        if self.sft_examples and not self.miniature:
            items = self.sft_examples.items.value
            if items not in self.assets or self.assets[items].kind != "dataset":
                raise ValueError(f"sft_examples.items names {items!r}, which is no asset of kind dataset")
        for name, task in self.tasks.items():
            for other in (task.items, *([task.images] if task.images else []), *task.recorded.values()):
                if other not in known:
                    raise ValueError(f"task {name} names {other!r}, which is none of {', '.join(known)}")
        for needed in (TRAIN_SET, *(() if self.miniature else (BASE_MODEL,))):
            if needed not in known:
                raise ValueError(f"there is no {needed!r} among {', '.join(known)}")
        refers = {"archive": ("items", "file"), "videos": ("items", "clips"), "clips": ("videos", "videos")}
        for name, asset in self.assets.items():
            if asset.kind in refers:
                field, kind = refers[asset.kind]
                other = getattr(asset, field)
                if other not in self.assets or self.assets[other].kind != kind:
                    there = [known for known, one in self.assets.items() if one.kind == kind]
                    raise ValueError(f"asset {name} names {other!r}, which is no {kind} asset ({', '.join(there)})")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        if self.default_variant not in self.variants:
            raise ValueError(f"default_variant {self.default_variant!r} is none of {', '.join(self.variants)}")
        if list(self.stages) != [stage for stage in STAGES if stage in self.stages]:
            raise ValueError(f"stages {self.stages} must keep the order {', '.join(STAGES)}")
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        # To training's processes: pydantic gives Setting[int] no name by which pickle could find it.
        return Recipe.model_validate, (self.model_dump(),)

    def sections(self, names: tuple[str, ...]) -> dict[str, Any]:
        """The named top-level parts as plain JSON values, for hashing into a stage's inputs; see `Sparse`."""
        whole = self.model_dump(mode="json")
        return {name: whole[name] for name in names if name in whole}


class Resolved(Strict):
    """A recipe with one variant's overrides applied, and those of options: variant `as-fixed+no-think` has one."""

    recipe: Recipe
    variant: str
    overridden: list[str]


def _named(what: str, name: str, known: dict[str, Variant], recipe: str) -> Variant:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise BadInput(f"recipe {recipe} has no {what} {name!r}; it has {', '.join(known) or 'none'}{hint}")
    return known[name]


def _without(recipe: Recipe, left_out: list[Training]) -> Recipe:
    """`recipe` without some of its trainings, and without what only they read."""
    empty = {key: Recipe.model_fields[key].get_default() for training in left_out for key in PARTS[training]}
    stages = [stage for stage in recipe.stages if stage not in left_out]
    return recipe.model_copy(update={**empty, "stages": stages})


def resolve(recipe: Recipe, variant: str | None = None) -> Resolved:
    """`recipe` under one variant (the recipe's default when None), with options after it: `as-fixed+no-think`.

    Stages that train and that the variant does not run are left out.
    """
    variant = variant or recipe.default_variant
    reading, *options = variant.split("+")
    overrides = dict(_named("variant", reading, recipe.variants, recipe.name).overrides)
    for option in options:
        overrides |= _named("option", option, recipe.options, recipe.name).overrides
    if len(set(options)) < len(options):
        raise BadInput(f"variant {variant!r} names an option twice; name each once")
    whole = recipe.model_dump()
    for dotted, setting in overrides.items():
        *parents, last = dotted.split(".")
        target: Any = whole
        for part in parents:
            target = target.get(part) if isinstance(target, dict) else None
        if not isinstance(target, dict) or (last not in target and parents not in (["train"], ["sft"])):
            raise BadInput(f"variant {variant} overrides {dotted!r}, which the recipe does not have")
        target[last] = setting.model_dump()
    try:
        changed = Recipe.model_validate(whole)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BadInput(f"variant {variant}: {where}: {first['msg']} (value {first['input']!r})") from error
    if changed.training:
        changed = _without(changed, [stage for stage in changed.trainings if stage not in changed.training.value])
    return Resolved(recipe=changed, variant=variant, overridden=list(overrides))


def digest(value: Any) -> str:
    """sha256 of a JSON value in its canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
