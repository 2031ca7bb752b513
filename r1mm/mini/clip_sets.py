"""The video miniature's sets: films drawn, encoded and written as datasets of clips; the warm start's examples.

A set has the columns of open-r1-video-4k, with the clip itself beside its path.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, Features, Value

from r1mm.data.clips import write_mp4
from r1mm.data.counting import Example
from r1mm.mini.choices import (
    Asked,
    ask,
    choice_of,
    direct_answer,
    kinds_for,
    sample_asked,
    thinking_answer,
)
from r1mm.mini.datasets import Lesson, examples_of
from r1mm.mini.making import make_sets
from r1mm.mini.motion import WORLDS, draw_film
from r1mm.rundir import make_folder, write_text
from r1mm.scene_parts import FilmSet

# Two frames a second, as upstream samples: what is drawn is what is seen.
RATE = 2

FEATURES = Features(
    {
        "video": {"bytes": Value("binary"), "path": Value("string")},
        "item": Value("string"),
        **dict.fromkeys(("problem", "solution", "original_question", "original_answer"), Value("string")),
    }
)


def _make_item(job: tuple[FilmSet, int, str, int]) -> tuple[Asked, bytes]:
    settings, index, filename, size = job
    # A generator per item: the same bytes however the work is split over processes.
    rng = np.random.default_rng([settings.seed, index])
    kinds = settings.kinds
    asked = sample_asked(
        WORLDS[settings.world],
        kinds[index % len(kinds)],
        index // len(kinds),
        rng,
        solids=(settings.solids[0], settings.solids[1]),
        filename=filename,
        frames=settings.frames,
        size=size,
    )
    return asked, write_mp4(draw_film(asked["film"], size), RATE)


def render_clip_sets(sets: Mapping[str, FilmSet], frame_size: int, folder: Path, workers: int) -> None:
    """Write `<name>.parquet` (columns FEATURES) and `<name>_films.json` (a list of `Asked`) to `folder` for each set.

    Items are independent of their order and of `workers`.
    """
    make_folder(folder)

    def jobs_of(name: str, settings: FilmSet) -> list[Any]:
        return [(settings, i, f"{name}_{i:06d}.mp4", frame_size) for i in range(settings.items)]

    for name, _, made in make_sets(sets, jobs_of, _make_item, workers=workers, doing="film", unit="clip"):
        rows = [_row(asked, encoded) for asked, encoded in made]
        Dataset.from_list(rows, features=FEATURES).to_parquet(folder / f"{name}.parquet")
        write_text(folder / f"{name}_films.json", json.dumps([asked for asked, _ in made]))


def _row(asked: Asked, encoded: bytes) -> dict[str, Any]:
    choice, name = choice_of(asked), asked["film"]["scene"]["image_filename"]
    return {
        "video": {"bytes": encoded, "path": name},
        "item": name.removesuffix(".mp4"),
        "problem": choice.problem,
        "solution": choice.solution,
        "original_question": f"<video>\n{choice.problem}\nPlease answer with the letter of the right option.",
        "original_answer": f"{choice.letter}. {choice.answer}",
    }


def read_films(folder: Path, name: str) -> list[Asked]:
    """The films of a set and what was asked about them, in the order of its items."""
    films: list[Asked] = json.loads((folder / f"{name}_films.json").read_text())
    return films


def choice_examples(
    films: Sequence[Asked], templates: dict[str, str], settings: dict[str, Any], seed: int
) -> Iterator[Example]:
    """The warm start's examples in training order; templates, settings and shares as `warm_start_examples` has them.

    Whenever a film comes up it is asked anew, with other options in another order: the question that it has in its set
    is one of many.
    """
    kinds = sorted({asked["kind"] for asked in films})

    def teach(item: int, rng: np.random.Generator) -> Lesson:
        film, fitting = films[item]["film"], kinds_for(films[item], kinds)
        choice = ask(film, fitting[rng.integers(len(fitting))], rng)
        return Lesson(choice.problem, direct_answer(film, choice), thinking_answer(film, choice))

    return examples_of(teach, len(films), templates, settings, seed)
