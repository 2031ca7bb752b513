"""The schema of `expected.yaml`: what was published and measured, and what is claimed of it, in the manner of MLPerf's
reference convergence points: raw rows, with the margins that were fixed before the run."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from r1mm.recipe import Condition, Source, Strict

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
