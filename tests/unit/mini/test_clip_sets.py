"""Sets of clips are written as open-r1-video-4k has them, from real mp4 files that a decoder reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from r1mm.data.clips import Sampling, decode_clip, frame_indices
from r1mm.mini.choices import KINDS, LETTERS, choice_of
from r1mm.mini.clip_sets import RATE, choice_examples, read_films, render_clip_sets
from r1mm.mini.motion import FRAME_SIZE, FRAMES, draw_film
from r1mm.scene_parts import FilmSet


def film_set(world: str, items: int, kinds: list[str], solids: list[int], seed: int) -> FilmSet:
    made = {"world": world, "items": items, "kinds": kinds, "solids": solids, "frames": FRAMES, "seed": seed}
    return FilmSet.model_validate(made | {"source": "our choice: a set for tests"})


SETS = {
    "train": film_set("clevr-like", 12, [*KINDS], [2, 4], seed=1),
    "ood": film_set("superclevr-like", 6, ["color"], [3, 4], seed=2),
}
TEMPLATES = {name: "{question}\n" + name for name in ("train", "evaluation", "direct")}
SHARES = {
    "direct_prompt_share": 0.2,
    "direct_share_early": 0.8,
    "direct_share_late": 0.2,
    "switch_at": 0.5,
    "broken_share": 0.1,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("clips")
    render_clip_sets(SETS, FRAME_SIZE, made, workers=2)
    return made


def rows_of(folder: Path, name: str) -> Dataset:
    return Dataset.from_parquet(str(folder / f"{name}.parquet"), cache_dir=str(folder / "cache"))


@pytest.mark.parametrize("name", SETS)
def test_a_set_has_a_clip_a_question_and_its_letter_per_item(folder: Path, name: str) -> None:
    rows, films = rows_of(folder, name), read_films(folder, name)
    assert len(rows) == len(films) == SETS[name].items
    assert len(set(rows["item"])) == len(rows)
    for i, (row, asked) in enumerate(zip(rows, films, strict=True)):
        choice = choice_of(asked)
        assert choice.kind == SETS[name].kinds[i % len(SETS[name].kinds)]
        assert (row["problem"], row["solution"]) == (choice.problem, choice.solution)
        assert row["original_answer"] == f"{choice.letter}. {choice.answer}"
        assert choice.problem in row["original_question"]
        assert SETS[name].solids[0] <= len(asked["film"]["scene"]["objects"]) <= SETS[name].solids[1]


def test_the_clip_shows_the_film_frame_by_frame(folder: Path) -> None:
    # Upstream's sampling at the miniature's size: two frames a second are all frames, and none is resized.
    sampling = Sampling(frames=FRAMES, min_pixels=FRAME_SIZE**2, max_pixels=FRAME_SIZE**2)
    assert frame_indices(FRAMES, RATE, sampling) == list(range(FRAMES))
    for row, asked in zip(rows_of(folder, "ood"), read_films(folder, "ood"), strict=True):
        decoded = decode_clip(row["video"], row["item"], sampling).frames.permute(0, 2, 3, 1).numpy()
        drawn = draw_film(asked["film"])
        assert decoded.shape == drawn.shape == (FRAMES, FRAME_SIZE, FRAME_SIZE, 3)
        # A lossy codec: off by a few of 255 on average; and it moves from frame to frame.
        assert np.abs(decoded.astype(int) - drawn).mean() < 4
        assert np.abs(np.diff(decoded.astype(int), axis=0)).max(axis=(1, 2, 3)).min() > 40


def test_sets_do_not_depend_on_the_number_of_workers(folder: Path, tmp_path: Path) -> None:
    render_clip_sets({"train": SETS["train"]}, FRAME_SIZE, tmp_path, workers=1)
    assert (tmp_path / "train_films.json").read_bytes() == (folder / "train_films.json").read_bytes()
    assert [row["video"] for row in rows_of(tmp_path, "train")] == [row["video"] for row in rows_of(folder, "train")]


def test_warm_start_examples_ask_anew_and_keep_the_shares(folder: Path) -> None:
    films = read_films(folder, "train")
    settings = SHARES | {"max_steps": 50, "per_device_train_batch_size": 60}
    examples = list(choice_examples(films, TEMPLATES, settings, seed=1))
    assert examples == list(choice_examples(films, TEMPLATES, settings, seed=1))
    assert len(examples) == 3000
    asking_to_think = [e for e in examples if not e.prompt.endswith("direct")]
    assert 1 - len(asking_to_think) / 3000 == pytest.approx(0.2, abs=0.02)
    for part, share in ((examples[:1500], 0.8), (examples[1500:], 0.2)):
        thinking = [e for e in part if not e.prompt.endswith("direct")]
        direct = [e for e in thinking if not e.response.startswith("<think>")]
        assert len(direct) / len(thinking) == pytest.approx(share, abs=0.04)
    for e in examples:
        if e.prompt.endswith("direct"):  # an option of the question, and over all of them each letter
            assert e.response.partition("<answer>")[2].removesuffix("</answer>") in e.prompt.split("\n")[1:5]
    assert {e.response.partition("<answer>")[2][0] for e in examples if e.prompt.endswith("direct")} == set(LETTERS)
    for item in (0, 1):  # made for colour and for direction: asked for either, each time with other options
        prompts = {e.prompt for e in examples if e.item == item}
        assert len(prompts) > 60
        assert {prompt.split("\n")[0] for prompt in prompts} == {
            "What colour is the solid that moves?",
            "In which direction does the solid move?",
        }
