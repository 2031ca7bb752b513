"""The schema of `expected.yaml`: what was published and measured, and what is claimed of it, in the manner of MLPerf's
reference convergence points: raw rows, with the margins that were fixed before the run."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from r1mm.recipe import Condition
from r1mm.sourced import Source, Strict

# Of the trained model, asked to think: the share of right answers, of outputs that think, of bare answers; its gain
# over the base model, and its mean length over the base model's.  Of the base model: the share of right answers when
# asked to think, and when asked for a direct answer; trained_minus_direct sets the trained model against the latter.
# Of the gain, read with and without form (judge/form.py): what parsing explains, more outputs having an answer in form,
# and answering, more of those being right.
Metric = Literal[
    "accuracy",
    "gain",
    "format",
    "direct",
    "length_ratio",
    "base_accuracy",
    "base_direct",
    "trained_minus_direct",
    "parsing",
    "answering",
]
BASE_METRICS: tuple[Metric, ...] = ("base_accuracy", "base_direct")
By = Literal["authors", "third party", "us"]


class Claim(Strict):
    """One statement with its number, how it is tested, and the margin fixed before the run.

    `near`: the value lies within `margin` of `reference` (two one-sided tests); without a `reference`, of the mean of
    the variant's reference rows.  `at_least`, `at_most`: the value is on that side of `reference`, by a one-sided test.

    `by`: who says so.  What third parties say is judged and shown, and left out of the run's outcome: a run that agrees
    with those who could not reproduce a result does not reproduce it.  `counted`: false for a number
    whose prompt or items nobody states; it too is judged, shown and left out.  `gate`: judged after the base
    evaluation, before time is spent on training; only a claim about the base model can be one.
    """

    id: str
    variant: str
    statement: str
    metric: Metric
    split: str
    test: Literal["near", "at_least", "at_most"]
    reference: float | None = None
    margin: Annotated[float, Field(ge=0)] = 0.0
    by: By = "us"
    gate: bool = False
    counted: bool = True
    source: Source

    @model_validator(mode="after")
    def _complete(self) -> "Claim":
        if self.test != "near" and self.reference is None:
            raise ValueError(f"claim {self.id!r} tests {self.test} and needs a reference value")
        if self.test == "near" and self.margin <= 0:
            raise ValueError(f"claim {self.id!r} tests near and needs a margin above 0; margin is {self.margin}")
        if self.gate and not (self.metric == "base_accuracy" and self.test == "near" and self.reference is not None):
            raise ValueError(
                f"claim {self.id!r} is a gate on {self.metric} ({self.test}); a gate is judged before training: write "
                "metric: base_accuracy, test: near, and a reference"
            )
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


class PublishedRow(Strict):
    """A number that somebody published, of which no outputs are at hand: a score, right of n where that is known.

    `condition` says what was measured: one of ours, or a supervised or another `model`.  `era`: the code that it was
    got with (a commit, a date, a command), as far as is known; `variant`: the variant of this recipe that means the
    same.
    """

    who: str
    by: Literal["authors", "third party"]
    condition: Condition | Literal["fine-tuned", "other model"]
    split: str
    model: str | None = None
    right: Annotated[int, Field(ge=0)] | None = None
    n: Annotated[int, Field(gt=0)] | None = None
    accuracy: Annotated[float, Field(ge=0, le=100)] | None = None
    steps: Annotated[int, Field(ge=0)] | None = None
    variant: str | None = None
    era: str | None = None
    hardware: str | None = None
    note: str | None = None
    source: Source

    @model_validator(mode="after")
    def _says_a_number(self) -> "PublishedRow":
        if (self.right is None) == (self.accuracy is None):
            raise ValueError(
                f"row of {self.who!r} has right {self.right} and accuracy {self.accuracy}; give exactly one of the two"
            )
        if self.right is not None and (self.n is None or self.right > self.n):
            raise ValueError(f"row of {self.who!r} has {self.right} right of {self.n} items; give n >= right")
        return self

    @property
    def percent(self) -> float:
        """The score in percent."""
        if self.accuracy is not None:
            return self.accuracy
        assert self.right is not None
        assert self.n is not None
        return 100 * self.right / self.n


class Line(Strict):
    """One line of the table in which published and measured rows stand together; accuracy in percent."""

    who: str
    by: By
    condition: str
    split: str
    accuracy: float
    right: int | None
    n: int | None
    code: str
    hardware: str
    note: str
    source: Source


class Expected(Strict):
    """What was published and measured, in the manner of MLPerf's reference convergence points: raw rows.

    `variant_names`: how the answer in words calls each variant.
    """

    recipe: str
    claims: list[Claim]
    reference_rows: list[ReferenceRow]
    published_rows: Annotated[list[PublishedRow], Field(default_factory=list)]
    variant_names: Annotated[dict[str, str], Field(default_factory=dict)]

    def name_of(self, variant: str) -> str:
        """How the answer in words calls a variant."""
        return self.variant_names.get(variant, f"variant {variant}")

    def lines(self, split: str) -> list[Line]:
        """Published, third-party and our own measured rows of one split in one table, in that order."""
        found = []
        for row in sorted(self.published_rows, key=lambda row: row.by):
            if row.split == split:
                condition = f"{row.condition} ({row.model})" if row.model else row.condition
                after = f" after {row.steps} steps" if row.steps is not None else ""
                found.append(
                    Line(
                        who=row.who,
                        by=row.by,
                        condition=condition + after,
                        split=split,
                        accuracy=row.percent,
                        right=row.right,
                        n=row.n,
                        code=row.era or "not known",
                        hardware=row.hardware or "not known",
                        note=row.note or "",
                        source=row.source,
                    )
                )
        for measured in self.reference_rows:
            for name, cell in measured.results.get(split, {}).items():
                found.append(
                    Line(
                        who=measured.who,
                        by="us",
                        condition=name,
                        split=split,
                        accuracy=100 * cell.right / cell.n,
                        right=cell.right,
                        n=cell.n,
                        code=f"{measured.variant}, seed {measured.seed}",
                        hardware=measured.hardware,
                        note="",
                        source=measured.source,
                    )
                )
        return found
