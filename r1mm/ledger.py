"""The ledger of a recipe: every setting that upstream's code had, ours, and what follows where they differ.

`recipes/<name>/ledger.yaml` says what upstream had; ours is read from the resolved recipe, from the lock, or from the
list of TRL's fields (`ledger_fields.yaml`), so that the two cannot drift apart.  Whether a row is equal or a deviation
is worked out, never stated; a deviation that nobody gave a reason for is refused on load, and so is a reason for a
deviation that is none.
"""

import functools
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import Field, model_validator

from r1mm.errors import BadInput
from r1mm.manifest import LOCKS
from r1mm.recipe import Recipe, resolve
from r1mm.recipe_files import sft_fields
from r1mm.sourced import Source, Strict
from r1mm.training_parts import Training
from r1mm.yaml_files import Place, line_of, load_file

Scalar = str | int | float | bool | None
T = TypeVar("T")
# What a deviation does to the numbers of a run.
Effect = Literal["none", "rounding", "draws", "possible"]
EFFECTS: dict[Effect, str] = {
    "none": "cannot change a number",
    "rounding": "last digits only",
    "draws": "other random draws from the same distribution",
    "possible": "can change results",
}
Topic = Literal[
    "data",
    "prompt",
    "generation",
    "reward",
    "loss",
    "optimizer",
    "precision",
    "layout",
    "evaluation",
    "software",
    "records",
]
TOPICS: tuple[str, ...] = get_args(Topic)
FIELDS_FILE = Path(__file__).with_name("ledger_fields.yaml")
# Where a value that is not the recipe's own stands: a file of this tree or of a package.
WHERE = re.compile(r"(r1mm/[\w/.-]+\.(?:py|yaml)|[\w.-]+==[\w.+-]+:[\w/.-]+)(?: \(.+\))?", re.DOTALL)


class Deviation(Strict):
    """Why ours differs, and what that does to the numbers."""

    reason: Annotated[str, Field(min_length=12)]
    effect: Effect


class Row(Strict):
    """One setting of upstream's: `upstream`, or what `by_variant` says where upstream's code eras differ.

    `ours` is a dotted path into the recipe (`train.beta`), a package of the lock (`lock:trl`) or a TRL field that no
    recipe sets (`trl:epsilon`); what stands nowhere of these is `ours_value`, set in the file `where`, which contains
    the text `shows` if that is given.  `training`: the row is of that one alone, and left out where a variant does not
    run it.
    """

    topic: Topic
    setting: str
    upstream: Scalar
    by_variant: dict[str, Scalar] = Field(default_factory=dict)
    source: Source
    ours: str | None = None
    ours_value: Scalar = None
    where: str | None = None
    shows: str | None = None
    training: Training | None = None
    deviation: Deviation | None = None

    @model_validator(mode="after")
    def _one_of_ours(self) -> "Row":
        literal = "ours_value" in self.model_fields_set
        if (self.ours is None) == (not literal):
            raise ValueError("needs either ours (a path into the recipe) or ours_value with where, and not both")
        if literal and not (self.where and WHERE.fullmatch(self.where)):
            raise ValueError(f"ours_value needs where: 'r1mm/file.py' or 'package==version:file', has {self.where!r}")
        return self


class Ledger(Strict):
    """Upstream's settings by a short name for each."""

    recipe: str
    rows: dict[str, Row]


class Entry(Strict):
    """A row under one variant: upstream's value beside ours.  `effect` and `reason` are of deviations."""

    name: str
    topic: str
    setting: str
    upstream: Scalar
    ours: Scalar
    status: Literal["equal", "deviation"]
    effect: Effect | None
    reason: str | None
    source: str
    where: str


class LeftField(Strict):
    """A field of TRL's that r1mm leaves at its default, and why no number of a run depends on it."""

    default: Any
    why: Annotated[str, Field(min_length=8)]


class TrlFields(Strict):
    """Every field of a config class of TRL's, each in one list: set by all full recipes, by those that generate with
    vLLM, by r1mm for every run, by the layout of a run, or left at TRL's default."""

    package: str
    recipe: list[str]
    vllm: list[str]
    r1mm: dict[str, str]
    layout: dict[str, str]
    left: dict[str, LeftField]

    @model_validator(mode="after")
    def _each_once(self) -> "TrlFields":
        seen: set[str] = set()
        for names in (self.recipe, self.vllm, self.r1mm, self.layout, self.left):
            for name in names:
                if name in seen:
                    raise ValueError(f"field {name!r} stands here twice; keep one")
                seen.add(name)
        return self

    @property
    def names(self) -> set[str]:
        """All of them."""
        return {*self.recipe, *self.vllm, *self.r1mm, *self.layout, *self.left}


class SftLists(Strict):
    """What becomes of a field of `SFTConfig` where it is not what the file says of `GRPOConfig`'s."""

    recipe: list[str]
    r1mm: dict[str, str]
    left: dict[str, LeftField]


class _FieldsFile(TrlFields):
    """The content of ledger_fields.yaml: the lists of `GRPOConfig`, and what is otherwise in `SFTConfig`."""

    sft: SftLists


@functools.cache
def trl_fields(training: Training = "grpo", path: Path = FIELDS_FILE) -> TrlFields:
    """The checked lists of the fields of `GRPOConfig` or `SFTConfig`.  Raises BadInput with file and line."""
    file, _ = load_file(path, _FieldsFile)
    lists = {name: getattr(file, name) for name in TrlFields.model_fields}
    if training == "grpo":
        return TrlFields(**lists)
    own = file.sft
    shared = sft_fields() - {*own.recipe, *own.r1mm, *own.left}

    def besides(known: dict[str, T], more: dict[str, T]) -> dict[str, T]:
        return {**more, **{name: value for name, value in known.items() if name in shared}}

    return TrlFields(
        package=file.package,
        recipe=own.recipe,
        vllm=[],
        r1mm=besides(file.r1mm, own.r1mm),
        layout=besides(file.layout, {}),
        left=besides(file.left, own.left),
    )


@functools.cache
def _locked() -> dict[str, str]:
    # The lock of the CUDA image holds all that a full recipe uses; an image has its own lock alone.
    for lock in reversed(LOCKS):
        if lock.is_file():
            return dict(re.findall(r"^([\w.-]+)==([\w.+-]+)", lock.read_text(encoding="utf-8"), re.MULTILINE))
    return {}


def _in_recipe(whole: dict[str, Any], dotted: str) -> Scalar:
    found: Any = whole
    for part in dotted.split("."):
        if not isinstance(found, dict) or part not in found:
            raise KeyError(dotted)
        found = found[part]
    if isinstance(found, dict) and {"value", "source"} == found.keys():
        found = found["value"]
    if isinstance(found, list) and all(isinstance(part, str) for part in found):
        found = " + ".join(found)
    if isinstance(found, (dict, list)):
        raise KeyError(dotted)
    return found  # type: ignore[no-any-return]


def _ours(row: Row, whole: dict[str, Any]) -> tuple[Scalar, str]:
    """Our value and where it stands; KeyError when it stands nowhere."""
    if row.ours is None:
        return row.ours_value, row.where or ""
    kind, _, name = row.ours.rpartition(":")
    if kind == "lock":
        return _locked().get(name, "not in this place's lock"), "docker/locks"
    if kind == "trl":
        fields = trl_fields(row.training or "grpo")
        default: Scalar = fields.left[name].default
        return default, f"{fields.package} (default)"
    return _in_recipe(whole, row.ours), row.ours


def same(upstream: Scalar, ours: Scalar) -> bool:
    """Whether two values are one setting: numbers by value, `true` is not 1."""
    if isinstance(upstream, bool) or isinstance(ours, bool):
        return upstream is ours
    return upstream == ours


def entries(ledger: Ledger, recipe: Recipe, variant: str | None = None) -> list[Entry]:
    """Every row under one variant, `as-fixed+vllm` for an option, in the order of TOPICS.

    What an option changes deviates for the reason that the option gives.  Raises BadInput, beginning with the row's
    name, for a deviation without a reason and for a path that the recipe lacks.
    """
    resolved = resolve(recipe, variant)
    reading, *options = resolved.variant.split("+")
    optional = {path: setting for name in options for path, setting in recipe.options[name].overrides.items()}
    whole = resolved.recipe.model_dump()
    found = []
    for name, row in ledger.rows.items():
        if row.training is not None and row.training not in resolved.recipe.trainings:
            continue
        upstream = row.by_variant.get(reading, row.upstream)
        try:
            ours, where = _ours(row, whole)
        except KeyError as error:
            raise BadInput(
                f"{name}: ours: {row.ours!r} names no single value of recipe {recipe.name}; write a path such as "
                "train.beta, lock:PACKAGE, trl:FIELD (of those left at TRL's default), or ours_value with where"
            ) from error
        deviation = row.deviation
        if same(upstream, ours):
            deviation = None
        elif row.ours in optional:
            deviation = Deviation(reason=f"option: {optional[row.ours].source}", effect="possible")
        elif deviation is None:
            raise BadInput(
                f"{name}: upstream has {upstream!r} and recipe {recipe.name} under {resolved.variant} has {ours!r}; "
                "make them equal, or add deviation: {reason: ..., effect: " + " | ".join(EFFECTS) + "}"
            )
        found.append(
            Entry(
                name=name,
                topic=row.topic,
                setting=row.setting,
                upstream=upstream,
                ours=ours,
                status="deviation" if deviation else "equal",
                effect=deviation.effect if deviation else None,
                reason=deviation.reason if deviation else None,
                source=row.source,
                where=where,
            )
        )
    return sorted(found, key=lambda entry: TOPICS.index(entry.topic))


def load_ledger(path: Path, recipe: Recipe) -> Ledger:
    """The checked `ledger.yaml` of a recipe, under every variant and option.  Raises BadInput with file and line."""
    trl_fields()
    ledger, lines = load_file(path, Ledger, own=("recipe",))

    def fail(place: Place, text: str) -> BadInput:
        return BadInput(f"{path}:{line_of(place, lines)}: {text}")

    if ledger.recipe != recipe.name:
        raise fail(("recipe",), f"is for recipe {ledger.recipe!r}, not {recipe.name!r}")
    for name, row in ledger.rows.items():
        for variant in row.by_variant.keys() - recipe.variants.keys():
            raise fail(
                ("rows", name, "by_variant", variant),
                f"{name}: variant {variant!r} is none of {', '.join(recipe.variants)}; "
                "a row that another recipe's ledger gives is replaced by writing it here",
            )
    readings = [*recipe.variants, *(f"{recipe.default_variant}+{option}" for option in recipe.options)]
    deviating: set[str] = set()
    for reading in readings:
        try:
            found = entries(ledger, recipe, reading)
        except BadInput as error:
            name = str(error).partition(":")[0]
            raise fail(("rows", name), str(error)) from error
        deviating |= {entry.name for entry in found if entry.status == "deviation"}
    for name, row in ledger.rows.items():
        if row.deviation and name not in deviating:
            raise fail(("rows", name), f"{name}: gives a reason for a deviation, but is equal; remove deviation")
    return ledger


def counts(found: list[Entry]) -> dict[str, int]:
    """How many rows are equal, how many deviate, and those by what they do to numbers."""
    deviations = [entry.effect for entry in found if entry.status == "deviation"]
    return {
        "settings": len(found),
        "equal": len(found) - len(deviations),
        "deviations": len(deviations),
        **{effect: deviations.count(effect) for effect in EFFECTS},
    }
