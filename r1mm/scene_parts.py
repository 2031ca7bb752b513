"""The sets that a miniature makes for itself: the schema of a recipe's `scenes`."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from r1mm.sourced import Source, Strict


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


class FilmSet(Strict):
    """A set of rendered films: `items` clips of `frames` frames and of `solids` = [fewest, most] solids each.

    They are asked about `kinds` in turn.
    """

    world: Literal["clevr-like", "superclevr-like"]
    items: Annotated[int, Field(gt=0)]
    kinds: Annotated[list[Literal["color", "direction", "count"]], Field(min_length=1)]
    solids: Annotated[list[int], Field(min_length=2, max_length=2)]
    frames: Annotated[int, Field(ge=2, multiple_of=2)]  # Qwen2-VL's tower takes them in pairs
    seed: int
    source: Source

    @model_validator(mode="after")
    def _can_be_asked(self) -> "FilmSet":
        if not 1 <= self.solids[0] <= self.solids[1] <= 4:
            raise ValueError(f"solids {self.solids} must be [fewest, most] with 1 <= fewest <= most <= 4")
        if "count" in self.kinds and self.solids[1] < 3:
            raise ValueError(f"solids {self.solids}: the kind count asks for up to 3 movers; write 3 or 4 as most")
        return self


class DrawingSet(Strict):
    """A set of plane drawings and charts on one kind of sheet, `items` of them, asked about `kinds` in turn."""

    sheet: Literal["paper", "poster"]
    items: Annotated[int, Field(gt=0)]
    kinds: Annotated[
        list[Literal["area", "angle", "other-angle", "shaded", "highest", "difference"]], Field(min_length=1)
    ]
    seed: int
    source: Source


def _made_of(given: Any) -> str:
    """Which kind of set is meant, by the keys that only it has, so that a slip in one is told of that kind alone."""
    keys = set(given) if isinstance(given, dict) else set(type(given).model_fields)
    if keys & {"frames", "solids"}:
        return "films"
    return "drawings" if "sheet" in keys or ("kinds" in keys and "world" not in keys) else "pictures"


MadeSet = Annotated[
    Annotated[SceneSet, Tag("pictures")] | Annotated[FilmSet, Tag("films")] | Annotated[DrawingSet, Tag("drawings")],
    Discriminator(_made_of),
]
