from io import BytesIO
from pathlib import Path

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


def test_each_image_object_is_processed_once_with_the_same_output(processor: Qwen2VLProcessor, tmp_path: Path) -> None:
    a, b = picture(0), picture(1)
    prompts = [conversation("<answer>")] * 4
    texts = [processor.apply_chat_template(prompt, add_generation_prompt=True) for prompt in prompts]
    images = [[a], [b], [a], [a]]
    expected = processor(text=texts, images=images, padding=True, return_tensors="pt")
    given: list[int] = []
    process = processor._process_images
    processor._process_images = lambda images, **kwargs: (given.append(len(images)), process(images, **kwargs))[1]
    process_once(processor)
    # As TRL asks: once without tensors for generation, once with them for the log-probs.
    for again in (processor(text=texts, images=images), processor(text=texts, images=images, return_tensors="pt")):
        assert torch.equal(again["pixel_values"], expected["pixel_values"])
        assert torch.equal(again["image_grid_thw"], expected["image_grid_thw"])
        assert np.array_equal(np.array(again["input_ids"]), expected["input_ids"])
    assert given == [2]
    other = processor(text=texts[:1], images=[[b]], return_tensors="pt")
    assert torch.equal(other["pixel_values"], expected["pixel_values"][16:32])
    assert given == [2, 1]
    processor.save_pretrained(tmp_path)
    assert type(AutoProcessor.from_pretrained(tmp_path)) is Qwen2VLProcessor
