"""The sets of the miniature of open-r1-multimodal: drawings and questions in its dataset's columns; the warm start's
examples."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, Features, Image, Value

from r1mm.data.counting import Example
from r1mm.mini.datasets import Lesson, examples_of
from r1mm.mini.drawings import SHEETS, draw
from r1mm.mini.making import make_sets
from r1mm.mini.plane import QUESTIONS, Asked, fits, sample_asked, solve, tagged, thinking_answer
from r1mm.mini.render import encode_png
from r1mm.rundir import make_folder, write_text
from r1mm.scene_parts import DrawingSet

# The columns of lmms-lab/multimodal-open-r1-8k-verified.
FEATURES = Features(
    {
        "image": Image(),
        **dict.fromkeys(("problem", "solution", "original_question", "original_answer"), Value("string")),
    }
)


def _make_item(job: tuple[DrawingSet, int, int]) -> tuple[Asked, bytes]:
    settings, index, size = job
    # A generator per item: the same bytes however the work is split over processes.
    rng = np.random.default_rng([settings.seed, index])
    kinds = settings.kinds
    asked = sample_asked(SHEETS[settings.sheet], kinds[index % len(kinds)], index // len(kinds), rng)
    return asked, encode_png(draw(asked["drawing"], size))


def render_drawings(sets: Mapping[str, DrawingSet], image_size: int, folder: Path, workers: int) -> None:
    """Write `<name>.parquet` (columns FEATURES) and `<name>_drawings.json` (a list of `Asked`) to `folder` by set.

    Items are independent of their order and of `workers`.
    """
    make_folder(folder)

    def jobs_of(_: str, settings: DrawingSet) -> list[Any]:
        return [(settings, i, image_size) for i in range(settings.items)]

    for name, _, made in make_sets(sets, jobs_of, _make_item, workers=workers, doing="draw", unit="img"):
        rows = [_row(asked, png) for asked, png in made]
        Dataset.from_list(rows, features=FEATURES).to_parquet(folder / f"{name}.parquet")
        write_text(folder / f"{name}_drawings.json", json.dumps([asked for asked, _ in made]))


def _row(asked: Asked, png: bytes) -> dict[str, Any]:
    seen, question = solve(asked["drawing"], asked["kind"]), QUESTIONS[asked["kind"]]
    return {
        "image": {"bytes": png, "path": None},
        "problem": question,
        "solution": f"<think>{seen.thought}.</think>\n\n{tagged(seen.answer)}",
        "original_question": question,
        "original_answer": seen.answer,
    }


def read_drawings(folder: Path, name: str) -> list[Asked]:
    """The drawings of a set and what was asked about them, in the order of its items."""
    drawings: list[Asked] = json.loads((folder / f"{name}_drawings.json").read_text())
    return drawings


def drawing_examples(
    drawings: Sequence[Asked], templates: dict[str, str], settings: dict[str, Any], seed: int
) -> Iterator[Example]:
    """The warm start's examples in training order; templates, settings and shares as `warm_start_examples` has them.

    Whenever a drawing comes up it is asked for any kind of question that fits it and that the set has.
    """
    kinds = sorted({asked["kind"] for asked in drawings})

    def teach(item: int, rng: np.random.Generator) -> Lesson:
        drawing = drawings[item]["drawing"]
        fitting = [kind for kind in kinds if fits(drawing, kind)]
        kind = fitting[int(rng.integers(len(fitting)))]
        direct = tagged(solve(drawing, kind).answer)
        return Lesson(QUESTIONS[kind], direct, thinking_answer(drawing, kind, settings, rng))

    return examples_of(teach, len(drawings), templates, settings, seed)
