"""Drawings and charts: what is asked of them, worked out by hand; both ways of answering; their pictures and sets."""

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from r1mm.answers.judging import judge_completion
from r1mm.data.counting import load_questions
from r1mm.mini.drawings import PAPER, POSTER, SHEETS, Drawing, Look, draw, sample_drawing
from r1mm.mini.plane import (
    FAULTS,
    FIGURE_OF,
    KINDS,
    QUESTIONS,
    SLIPS,
    Kind,
    answer_words,
    build_plane_tokenizer,
    fits,
    in_a_sentence,
    sample_asked,
    slip,
    solve,
    tagged,
    thinking_answer,
)
from r1mm.mini.plane_sets import drawing_examples, read_drawings, render_drawings
from r1mm.scene_parts import DrawingSet
from r1mm.train.rewards import is_accurate, matches_format

SIZE = 112
TEMPLATES = {name: "{question}\n" + name + " <think> </think> <answer> </answer>" for name in ("train", "evaluation")}
TEMPLATES["direct"] = "{question}\nAnswer in <answer> </answer> tags."
SHARES = {
    **{"direct_prompt_share": 0.2, "direct_share_early": 0.8, "direct_share_late": 0.2, "switch_at": 0.5},
    **{"broken_share": 0.0, "fault_share": 0.6, "slip_share": 0.6, "line_share": 0.3},
}


def drawing_set(sheet: str, items: int, seed: int, kinds: tuple[Kind, ...] = KINDS) -> DrawingSet:
    made = {"sheet": sheet, "items": items, "kinds": [*kinds], "seed": seed}
    return DrawingSet.model_validate(made | {"source": "our choice: a set for tests"})


SETS = {"train": drawing_set("paper", 24, 1), "ood": drawing_set("poster", 12, 2, ("area", "highest"))}


def drawing_of(kind: Kind, *numbers: int) -> Drawing:
    return sample_drawing(PAPER, FIGURE_OF[kind], numbers, np.random.default_rng(0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("run") / "stages" / "assets"
    render_drawings(SETS, SIZE, made, workers=2)
    return made


@pytest.mark.parametrize(
    ("kind", "numbers", "answer", "slipped"),
    [
        ("area", (3, 4), "12", None),
        ("angle", (120,), "120°", None),
        ("other-angle", (45,), "135°", "45°"),
        ("shaded", (6, 2), "1/3", None),
        ("shaded", (4, 3), "3/4", None),
        ("highest", (2, 5, 1, 3), "B", None),
        ("difference", (2, 5, 1, 3), "4", "5"),
    ],
)
def test_answers_by_hand(kind: Kind, numbers: tuple[int, ...], answer: str, slipped: str | None) -> None:
    drawing = drawing_of(kind, *numbers)
    assert solve(drawing, kind).answer == answer
    if slipped is None:
        with pytest.raises(ValueError, match="has no last step to leave out"):
            slip(drawing, kind)
    else:
        assert slip(drawing, kind).answer == slipped


def test_a_question_does_not_tell_its_answer() -> None:
    rng = np.random.default_rng(0)
    for kind in KINDS:
        asked = [sample_asked(PAPER, kind, number, rng) for number in range(280)]
        counts = Counter(solve(one["drawing"], kind).answer for one in asked)
        assert max(counts.values()) - min(counts.values()) <= 1, (kind, counts)
        assert all(fits(one["drawing"], kind) for one in asked)
        # What a slip gives is never right: leaving the last step out is a mistake each time.
        assert kind not in SLIPS or all(
            slip(d, kind).answer != solve(d, kind).answer for d in (a["drawing"] for a in asked)
        )
        if FIGURE_OF[kind] == "bars":  # the highest bar is one alone
            assert all(one["drawing"]["numbers"].count(max(one["drawing"]["numbers"])) == 1 for one in asked)


def test_both_weaknesses_are_built_in_apart_and_as_often_as_said() -> None:
    rng = np.random.default_rng(0)
    found: dict[Kind, list[tuple[bool, bool]]] = defaultdict(list)
    for kind in KINDS:
        for number in range(400):
            drawing = sample_asked(PAPER, kind, number, rng)["drawing"]
            text = thinking_answer(drawing, kind, SHARES, rng)
            right_thought = solve(drawing, kind).thought in text
            found[kind].append((matches_format(text, "full"), right_thought))
    for kind, marks in found.items():
        in_form, right = (sum(one) / len(marks) for one in zip(*marks, strict=True))
        assert in_form == pytest.approx(0.4 if kind in FAULTS else 1.0, abs=0.08)
        assert right == pytest.approx(0.4 if kind in SLIPS else 1.0, abs=0.08)
        # Of those in form as many are right as of the others.
        both = sum(form and right for form, right in marks) / len(marks)
        assert both == pytest.approx(in_form * right, abs=0.06)
    assert len(FAULTS) == len(KINDS) / 2
    assert sum(kind in FAULTS for kind in SLIPS) / len(FAULTS) == sum(kind not in FAULTS for kind in SLIPS) / 3


def test_every_form_is_what_its_name_says() -> None:
    drawing, shares = drawing_of("angle", 60), dict.fromkeys(("fault_share", "slip_share", "line_share"), 0.0)
    rng = np.random.default_rng(0)
    in_form = thinking_answer(drawing, "angle", shares, rng)
    assert in_form == "<think>\nThe rays open to 60°.\n</think>\n<answer>60°</answer>"
    assert matches_format(in_form, "full")
    assert not matches_format(in_form, "prefix")
    on_one_line = thinking_answer(drawing, "angle", shares | {"line_share": 1.0}, rng)
    assert matches_format(on_one_line, "line")
    sentence = thinking_answer(drawing, "angle", shares | {"fault_share": 1.0}, rng)
    assert sentence == "<think>\nThe rays open to 60°.\n</think>\nThe answer is 60°."
    bars = drawing_of("difference", 1, 2, 3, 6)
    assert thinking_answer(bars, "difference", shares | {"fault_share": 1.0}, rng) == "<think>\nFrom 1 up to 6 are 5."


def test_the_tokenizer_has_all_that_is_said_to_the_blank() -> None:
    tokenizer, rng = build_plane_tokenizer([*TEMPLATES.values()]), np.random.default_rng(0)
    longest = 0
    for number in range(600):
        kind = KINDS[number % len(KINDS)]
        drawing = sample_asked(POSTER, kind, number // len(KINDS), rng)["drawing"]
        said = (thinking_answer(drawing, kind, SHARES, rng), tagged(solve(drawing, kind).answer))
        for text in (*said, *(template.format(question=QUESTIONS[kind]) for template in TEMPLATES.values())):
            ids = tokenizer(text)["input_ids"]
            assert tokenizer.unk_token_id not in ids
            assert tokenizer.decode(ids) == text
        longest = max(longest, len(tokenizer(said[0])["input_ids"]))
        _, answer, _ = tokenizer(said[1])["input_ids"]
        # In a sentence and in the tag the answer is one and the same token, so that both are learned as well.
        sentence = tokenizer(in_a_sentence(solve(drawing, kind)))["input_ids"]
        assert (sentence[-2], tokenizer.decode([answer])) == (answer, solve(drawing, kind).answer)
        assert tokenizer.decode([answer]) in answer_words()  # and is weighted in training
    assert longest <= 15  # the recipe's limit of 20 cuts none


@pytest.mark.parametrize("sheet", SHEETS)
def test_a_picture_shows_its_numbers(sheet: str) -> None:
    # What is filled is as large as the numbers say; lines take or give a little.
    look = Look(ground=[255, 255, 255], ink=[255, 255, 255], fills=[[0, 0, 0]] * 4, line=SHEETS[sheet].line[0])

    def filled(kind: Kind, *numbers: int) -> float:
        drawing = drawing_of(kind, *numbers) | {"look": look, "places": [0.5] * 5}
        return float((draw(drawing, SIZE) < 128).all(axis=2).mean())

    assert filled("area", 4, 3) / filled("area", 2, 1) == pytest.approx(6, rel=0.15)
    assert filled("angle", 120) / filled("angle", 60) == pytest.approx(2, rel=0.15)
    assert filled("shaded", 6, 5) / filled("shaded", 6, 1) == pytest.approx(5, rel=0.15)
    assert filled("highest", 6, 6, 6, 6) / filled("highest", 2, 2, 2, 2) == pytest.approx(3, rel=0.15)


def test_what_cannot_be_drawn_is_refused() -> None:
    for kind, numbers in (("area", (5, 1)), ("angle", (20,)), ("shaded", (5, 2)), ("highest", (1, 2, 3, 7))):
        with pytest.raises(ValueError, match=rf"a {FIGURE_OF[kind]} of \[.*\] cannot be drawn"):
            drawing_of(kind, *numbers)


@pytest.mark.parametrize("name", SETS)
def test_a_set_has_the_columns_of_the_real_one_and_solutions_that_every_reward_takes(folder: Path, name: str) -> None:
    rows, drawings = load_questions(folder / f"{name}.parquet"), read_drawings(folder, name)
    assert len(rows) == len(drawings) == SETS[name].items
    for i, (row, asked) in enumerate(zip(rows, drawings, strict=True)):
        kind, seen = asked["kind"], solve(asked["drawing"], asked["kind"])
        assert kind == SETS[name].kinds[i % len(SETS[name].kinds)]
        assert (row["problem"], row["original_question"]) == (QUESTIONS[kind], QUESTIONS[kind])
        assert row["original_answer"] == seen.answer
        assert (np.asarray(row["image"]) == draw(asked["drawing"], SIZE)).all()
        completion = f"<think>\n{seen.thought}.\n</think>\n{tagged(seen.answer)}"
        assert judge_completion(completion, row["solution"], row["problem"]).right
        assert is_accurate(completion, row["solution"])


def test_sets_do_not_depend_on_the_number_of_workers(folder: Path, tmp_path: Path) -> None:
    render_drawings({"train": SETS["train"]}, SIZE, tmp_path, workers=1)
    assert (tmp_path / "train_drawings.json").read_bytes() == (folder / "train_drawings.json").read_bytes()
    mine, theirs = (
        Dataset.from_parquet(str(f / "train.parquet"), cache_dir=str(tmp_path / "c")) for f in (tmp_path, folder)
    )
    assert mine.to_dict() == theirs.to_dict()


def test_the_warm_start_asks_a_drawing_for_all_that_fits(folder: Path) -> None:
    drawings = read_drawings(folder, "train")
    settings = SHARES | {"max_steps": 30, "per_device_train_batch_size": 16}
    examples = list(drawing_examples(drawings, TEMPLATES, settings, seed=1))
    assert len(examples) == 480
    assert examples == list(drawing_examples(drawings, TEMPLATES, settings, seed=1))
    asked = defaultdict(set)
    for example in examples:
        (kind,) = (kind for kind in KINDS if example.prompt.startswith(QUESTIONS[kind]))
        assert FIGURE_OF[kind] == drawings[example.item]["drawing"]["figure"]
        asked[example.item].add(kind)
        if example.prompt == TEMPLATES["direct"].format(question=QUESTIONS[kind]):
            assert example.response == tagged(solve(drawings[example.item]["drawing"], kind).answer)
    for item, kinds in asked.items():
        assert kinds == {kind for kind in KINDS if fits(drawings[item]["drawing"], kind)}
    assert not fits(drawing_of("angle", 90), "other-angle")  # it would be answered by what is seen first
