from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, Qwen2VLProcessor

from r1mm.data.counting import load_counting, write_counting
from r1mm.data.prompts import conversation
from r1mm.mini.datasets import PALETTE
from r1mm.mini.language import build_tokenizer
from r1mm.mini.model import build_processor
from r1mm.train.images import decode_once, process_once

SIZE = 56


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8))


@pytest.fixture
def processor() -> Qwen2VLProcessor:
    return build_processor(build_tokenizer(["{question} <answer>"], PALETTE), SIZE)


def test_copies_in_a_batch_are_one_object_and_rows_stay_as_they_are(tmp_path: Path) -> None:
    pngs = []
    for seed in range(3):
        stream = BytesIO()
        picture(seed).save(stream, "PNG")
        pngs.append(stream.getvalue())
    write_counting(tmp_path / "a" / "x.parquet", pngs, "How many?", [1, 2, 3])
    plain = load_counting(tmp_path / "a" / "x.parquet")
    rows = decode_once(plain).__getitems__([2, 0, 2])
    assert rows[0]["image"] is rows[2]["image"]
    for row, index in zip(rows, (2, 0, 2), strict=True):
        assert np.array_equal(np.array(row["image"]), np.array(plain[index]["image"]))
        assert {key: row[key] for key in ("problem", "solution")} == {
            key: plain[index][key] for key in ("problem", "solution")
        }
    assert "image" not in decode_once(plain).select_columns(["solution"])[0]


def test_rows_of_one_prompt_and_image_are_made_once_and_come_for_every_row(
    processor: Qwen2VLProcessor, tmp_path: Path
) -> None:
    a, b = picture(0), picture(1)
    texts = [processor.apply_chat_template(conversation(text), add_generation_prompt=True) for text in ("", "<answer>")]
    # Rows 0, 2 and 3 are a group; row 1 shows another image, row 4 asks something else of the same one.
    rows = [(texts[1], a), (texts[1], b), (texts[1], a), (texts[1], a), (texts[0], a)]
    asked = {"text": [text for text, _ in rows], "images": [[image] for _, image in rows]}
    expected = processor(**asked, padding=True, return_tensors="pt")
    given: list[int] = []
    own = type(processor)

    class Counting(own):  # type: ignore[misc, valid-type]
        def _process_images(self, images: Any, **kwargs: Any) -> Any:
            given.append(sum(len(row) for row in images))
            return super()._process_images(images, **kwargs)

    processor.__class__ = Counting
    process_once(processor)
    process_once(processor)  # a second trainer with the same processor
    # As TRL asks: once without tensors for generation, once with them for the log-probs.
    lists = processor(**asked)
    tensors = processor(**asked, padding=True, return_tensors="pt")
    assert given == [3]
    assert processor.group_of_row == [0, 1, 0, 0, 2]
    for name in ("input_ids", "attention_mask", "mm_token_type_ids"):
        assert torch.equal(tensors[name], expected[name])
        unpadded = [
            row[mask.bool()].tolist() for row, mask in zip(expected[name], expected["attention_mask"], strict=True)
        ]
        assert [list(row) for row in lists[name]] == unpadded
    patches = expected["pixel_values"].split(16)
    for made in (lists, tensors):
        assert torch.equal(made["pixel_values"], torch.cat([patches[0], patches[1], patches[4]]))
        assert torch.equal(made["image_grid_thw"], expected["image_grid_thw"][:3])
    other = processor(text=texts[:1], images=[[b]], return_tensors="pt")
    assert torch.equal(other["pixel_values"], patches[1])
    assert given == [3, 1]


def test_equal_conversations_are_rendered_once(processor: Qwen2VLProcessor) -> None:
    turns = [conversation(text) for text in ("a", "b", "a")]
    alone = [processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False) for turn in turns]
    rendered: list[str] = []
    own = type(processor)

    class Counting(own):  # type: ignore[misc, valid-type]
        def apply_chat_template(self, conversation: Any, *args: Any, **kwargs: Any) -> Any:
            rendered.append("many" if isinstance(conversation[0], list) else "one")
            return super().apply_chat_template(conversation, *args, **kwargs)

    processor.__class__ = Counting
    process_once(processor)
    assert [processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False) for turn in turns] == alone
    assert rendered == ["one", "one"]
    assert processor.apply_chat_template(turns[0], add_generation_prompt=False, tokenize=False) != alone[0]


def test_what_is_saved_is_the_processors_own(processor: Qwen2VLProcessor, tmp_path: Path) -> None:
    processor.save_pretrained(tmp_path / "before")
    process_once(processor)
    text = processor.apply_chat_template(conversation("<answer>"), add_generation_prompt=True, tokenize=False)
    processor(text=[text], images=[[picture(0)]], return_tensors="pt")
    processor.save_pretrained(tmp_path / "after")
    assert type(AutoProcessor.from_pretrained(tmp_path / "after")) is Qwen2VLProcessor
    for path in (tmp_path / "before").iterdir():
        assert path.read_bytes() == (tmp_path / "after" / path.name).read_bytes()
