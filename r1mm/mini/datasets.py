"""The miniature's sets: scenes sampled, rendered and written as counting datasets; the warm start's examples."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from r1mm.data.counting import Example, write_counting
from r1mm.data.prompts import QUESTIONS
from r1mm.mini.language import cut_short, direct_answer, thinking_answer
from r1mm.mini.making import make_sets
from r1mm.mini.render import encode_png, render
from r1mm.mini.scenes import CLEVR_LIKE, SUPERCLEVR_LIKE, Scene, World, sample_scene
from r1mm.rundir import write_text
from r1mm.scene_parts import SceneSet

WORLDS: dict[str, World] = {world.name: world for world in (CLEVR_LIKE, SUPERCLEVR_LIKE)}
PALETTE = tuple(CLEVR_LIKE.colors)


class Lesson(NamedTuple):
    """A question and what the two ways of answering say to it."""

    question: str
    direct: str
    thinking: str


def _make_item(job: tuple[str, int, int, str, int, int]) -> tuple[Scene, bytes]:
    world, seed, index, filename, count, size = job
    # A generator per item: the same bytes however the work is split over processes.
    scene = sample_scene(WORLDS[world], count, np.random.default_rng([seed, index]), filename)
    return scene, encode_png(render(scene, size))


def render_sets(sets: Mapping[str, SceneSet], image_size: int, folder: Path, workers: int) -> None:
    """Write `<name>.parquet` and `<name>_scenes.json` (CLEVR's scene form) to `folder` for each set.

    Every count of a set's range occurs equally often; items are independent of their order and of `workers`.
    """

    def jobs_of(name: str, settings: SceneSet) -> list[Any]:
        return [
            (settings.world, settings.seed, i, f"{name}_{i:06d}.png", count, image_size)
            for i, count in enumerate(_counts(settings))
        ]

    for name, settings, made in make_sets(sets, jobs_of, _make_item, workers=workers, doing="render", unit="img"):
        question = QUESTIONS[settings.question]
        write_counting(folder / f"{name}.parquet", [png for _, png in made], question, _counts(settings))
        write_text(folder / f"{name}_scenes.json", json.dumps({"scenes": [scene for scene, _ in made]}))


def _counts(settings: SceneSet) -> list[int]:
    fewest, most = settings.counts
    return [fewest + i % (most - fewest + 1) for i in range(settings.items)]


def read_scenes(folder: Path, name: str) -> list[Scene]:
    """The scenes of a rendered set, in the order of its items."""
    scenes: list[Scene] = json.loads((folder / f"{name}_scenes.json").read_text())["scenes"]
    return scenes


def warm_start_examples(
    scenes: list[Scene], templates: dict[str, str], settings: dict[str, Any], seed: int
) -> Iterator[Example]:
    """The warm start's examples in training order: `max_steps` x `per_device_train_batch_size` of them.

    `templates` are the recipe's train, evaluation and direct prompts.  `settings` (shares between 0 and 1):
    `direct_prompt_share` of the examples ask for a direct answer and get one.  The others ask for thinking, and get a
    direct answer with `direct_share_early`, after `switch_at` of training with `direct_share_late`; else a thinking
    answer, whose count is that of distinct colours, and of which `broken_share` break off.
    """

    def ask(item: int, rng: np.random.Generator) -> Lesson:
        colors = [thing["color"] for thing in scenes[item]["objects"]]
        question = QUESTIONS["train" if rng.random() < 0.5 else "evaluation"]
        return Lesson(question, direct_answer(len(colors)), thinking_answer(colors, PALETTE))

    return examples_of(ask, len(scenes), templates, settings, seed)


def examples_of(
    ask: Callable[[int, np.random.Generator], Lesson],
    items: int,
    templates: dict[str, str],
    settings: dict[str, Any],
    seed: int,
) -> Iterator[Example]:
    """The examples of `warm_start_examples`, of whatever `ask` asks about an item's index."""
    rng = np.random.default_rng(seed)
    total = settings["max_steps"] * settings["per_device_train_batch_size"]
    order = np.concatenate([rng.permutation(items) for _ in range(-(-total // items))])[:total]
    for position, item in enumerate(order.tolist()):
        question, direct, thinking = ask(item, rng)
        if rng.random() < settings["direct_prompt_share"]:
            yield Example(item, templates["direct"].format(question=question), direct)
            continue
        late = position >= settings["switch_at"] * total
        template = templates["train" if rng.random() < 0.5 else "evaluation"]
        if rng.random() < settings["direct_share_late" if late else "direct_share_early"]:
            response = direct
        elif rng.random() < settings["broken_share"]:
            response = cut_short(thinking, rng)
        else:
            response = thinking
        yield Example(item, template.format(question=question), response)
