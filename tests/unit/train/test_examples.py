"""Examples of supervised fine-tuning, token by token: upstream's, which learn all, and ours, which learn the answer."""

from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Image, Value
from PIL import Image as Picture

from r1mm.data.images import decode_lazily
from r1mm.errors import BadInput
from r1mm.mini.language import CHAT_TEMPLATE, SYSTEM_PROMPT, tokenizer_of
from r1mm.mini.model import build_processor
from r1mm.mini.render import encode_png
from r1mm.sourced import Setting
from r1mm.train.examples import ExampleCollator, encode, example_lengths, too_long, write_example
from r1mm.training_parts import SftExamples

SYSTEM, QUESTION = "Think before you answer.", "How many items are there in the image?"
ROWS = [
    {"thinking": "<think>\nred, blue.\n</think>", "problem": QUESTION, "solution": "<answer> 3 </answer>"},
    {"thinking": "<think>\nred.\n</think>", "problem": QUESTION, "solution": "<answer> 1 </answer>"},
]


def settings(**changes: Any) -> SftExamples:
    values = {
        "items": "train",
        "image": "last",
        "prompt": "{question}",
        "response": "{thinking}\n\n{solution}",
        "system": SYSTEM,
        "open_turn": True,
        "loss": "all",
        "too_long": "stop",
        **changes,
    }
    return SftExamples.model_validate(
        {
            key: {"value": value, "source": "our choice: for a test"}
            for key, value in values.items()
            if value is not None
        }
    )


UPSTREAM = settings()
OURS = settings(image="first", prompt="{question} Think.", system=None, open_turn=False, loss="answer")


@pytest.fixture(scope="module")
def processor() -> Any:
    texts = [row["thinking"] + "\n\n" + row["solution"] for row in ROWS] + [f"{QUESTION} Think.", SYSTEM]
    return build_processor(tokenizer_of({SYSTEM, QUESTION}, texts), 56)  # an image is 4 tokens


def picture(shade: int) -> np.ndarray[Any, Any]:
    return np.full((56, 56, 3), shade, dtype=np.uint8)


def batch_of(settings: SftExamples, processor: Any) -> dict[str, Any]:
    rows = [{**row, "image": Picture.fromarray(picture(60 * i))} for i, row in enumerate(ROWS)]
    return ExampleCollator(settings, processor)(rows)


def learnt(batch: dict[str, Any], row: int, processor: Any) -> list[str]:
    """The tokens of a row that are learnt, each checked to be the label of its own place."""
    ids, labels = batch["input_ids"][row], batch["labels"][row]
    places = (labels != -100).nonzero().flatten()
    assert labels[places].equal(ids[places])
    assert (batch["attention_mask"][row, places] == 1).all()
    return list(processor.tokenizer.convert_ids_to_tokens(ids[places].tolist()))


IMAGE = ["<|vision_start|>", *["<|image_pad|>"] * 4, "<|vision_end|>"]
ANSWER = [
    *("<think>", "\n", "red", ", blue", ".", "\n", "</think>", "\n", "\n", "<answer>", " 3", " ", "</answer>"),
    "<|im_end|>",
]


def test_upstreams_example_token_by_token(processor: Any) -> None:
    batch = batch_of(UPSTREAM, processor)
    before = [
        *("<|im_start|>", "system", "\n", SYSTEM, "<|im_end|>", "\n"),
        *("<|im_start|>", "user", "\n", QUESTION, *IMAGE, "<|im_end|>", "\n"),
        *("<|im_start|>", "assistant", "\n"),
    ]
    after = ["\n", "<|im_start|>", "assistant", "\n"]
    whole = [*before, *ANSWER, *after]
    assert processor.tokenizer.convert_ids_to_tokens(batch["input_ids"][0].tolist()) == whole
    # All but the image's own tokens: the prompt, and the turn that is opened after the answer, are learnt too.
    assert learnt(batch, 0, processor) == [token for token in whole if token != "<|image_pad|>"]
    # The second is shorter, and padded behind.
    assert batch["attention_mask"][1].tolist() == [1] * (len(whole) - 1) + [0]
    assert batch["input_ids"][1, -1] == processor.tokenizer.pad_token_id
    assert batch["labels"][1, -1] == -100
    assert batch["mm_token_type_ids"].sum().item() == 8
    assert batch["pixel_values"].shape[0] == 2 * 16


def test_our_example_token_by_token(processor: Any) -> None:
    batch = batch_of(OURS, processor)
    before = [
        *("<|im_start|>", "system", "\n", SYSTEM_PROMPT, "<|im_end|>", "\n"),
        *("<|im_start|>", "user", "\n", *IMAGE, QUESTION, " Think", ".", "<|im_end|>", "\n"),
        *("<|im_start|>", "assistant", "\n"),
    ]
    whole = [*before, *ANSWER, "\n"]
    assert processor.tokenizer.convert_ids_to_tokens(batch["input_ids"][0].tolist()) == whole
    assert learnt(batch, 0, processor) == ANSWER
    assert learnt(batch, 1, processor)[-3:] == [" ", "</answer>", "<|im_end|>"]


@pytest.mark.parametrize("made", [UPSTREAM, OURS], ids=["upstream", "ours"])
def test_the_ids_are_those_of_the_processor(processor: Any, made: SftExamples) -> None:
    texts = [write_example(made, processor, row).text for row in ROWS]
    images = [[Picture.fromarray(picture(60 * i))] for i in range(2)]
    whole = processor(text=texts, images=images, return_tensors="pt", padding=True, padding_side="right")
    batch = batch_of(made, processor)
    for name in ("input_ids", "attention_mask", "pixel_values", "image_grid_thw"):
        assert torch.equal(whole[name], batch[name]), name


def test_a_token_that_reaches_into_the_answer_is_not_the_answers(processor: Any) -> None:
    # The template ends in a line break; an answer that begins with one may share a token with it.
    made = settings(loss="answer", response="\n{thinking}{solution}")
    written = write_example(made, processor, ROWS[0])
    assert written.text[written.start : written.end].startswith("\n<think>")
    early = type(written)(written.text, written.start + 1, written.end, written.place)
    taught = [sum(label != -100 for label in encode(each, 4, made, processor)[1]) for each in (written, early)]
    assert taught[0] == taught[1] + 1


def dataset(rows: list[dict[str, str]]) -> Dataset:
    kinds = {name: Value("string") for name in ("thinking", "problem", "solution", "item")}
    columns = [
        {**row, "image": {"bytes": encode_png(picture(i)), "path": None}, "item": f"train-{i}"}
        for i, row in enumerate(rows)
    ]
    return decode_lazily(Dataset.from_list(columns, features=Features({**kinds, "image": Image()})))


def test_lengths_are_known_without_a_pixel(processor: Any) -> None:
    lengths = example_lengths(dataset(ROWS), UPSTREAM, processor)
    assert lengths == batch_of(UPSTREAM, processor)["attention_mask"].sum(1).tolist()


def test_long_examples_are_refused_or_left_out_and_never_cut() -> None:
    with pytest.raises(
        BadInput, match=r"2 of 3 examples have more than sft.max_length 20 tokens, the longest 30 \(row 2"
    ):
        too_long([10, 21, 30], 20, "stop")
    assert too_long([10, 21, 30], 20, "skip") == [1, 2]
    assert too_long([10, 21, 30], 30, "stop") == []
    with pytest.raises(BadInput, match="all 2 examples have more than"):
        too_long([10, 21], 5, "skip")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"thinking": " "}, "row train-0 has no thinking to learn from"),
        ({"problem": "What is <|image_pad|>?"}, "holds '<|image_pad|>' itself"),
    ],
)
def test_a_row_that_teaches_nothing_is_refused(processor: Any, changes: dict[str, str], words: str) -> None:
    with pytest.raises(BadInput, match=words.replace("|", r"\|").replace("?", r"\?")):
        example_lengths(dataset([{**ROWS[0], **changes}]), UPSTREAM, processor)


def test_a_template_that_writes_answers_otherwise_is_refused(processor: Any) -> None:
    other = build_processor(processor.tokenizer, 56)
    other.chat_template = CHAT_TEMPLATE.replace("{{ '<|im_end|>\\n' }}", "{{ '\\n' }}")
    with pytest.raises(BadInput, match="does not write an answer as it asks for one"):
        write_example(UPSTREAM, other, ROWS[0])


def test_templates_must_hold_their_fields() -> None:
    with pytest.raises(ValueError, match=r"template response .* must hold \{solution\} exactly once"):
        settings(response="{thinking}")
    with pytest.raises(ValueError, match=r"template prompt .* must hold \{question\} exactly once"):
        settings(prompt="Count.")
    assert UPSTREAM.system == Setting(value=SYSTEM, source="our choice: for a test")
