import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from transformers import (
    GenerationConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from r1mm.data.counting import FEATURES
from r1mm.errors import BadInput
from r1mm.evaluate.generate import batches_by_length, evaluate_task, evaluation_device
from r1mm.evaluate.scoring import Output
from r1mm.evaluate.transformers_backend import load_model, model_type
from r1mm.mini.datasets import PALETTE
from r1mm.mini.language import CHAT_TEMPLATE, build_tokenizer
from r1mm.mini.model import build_model, save
from r1mm.processor import load_processor, prompt_lengths, prompt_text

TEMPLATE = "{question} Answer in <answer> </answer> tags."
SIZES = [(56, 56), (140, 84), (56, 56), (84, 140), (112, 112), (56, 84), (28, 56)]  # width, height in pixels
SETTINGS = {"max_new_tokens": 6, "batch_size": 2}
MODEL = {
    **{"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2},
    **{"num_key_value_heads": 1, "rope_theta": 10000.0, "vision_embed_dim": 32, "vision_depth": 2},
    **{"vision_num_heads": 2, "vision_mlp_ratio": 2},
}


def processor_for_any_size() -> Qwen2VLProcessor:
    return Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(min_pixels=28 * 28, max_pixels=28 * 28 * 64),
        tokenizer=build_tokenizer([TEMPLATE], PALETTE),
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=CHAT_TEMPLATE,
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qwen2-vl")
    processor = processor_for_any_size()
    save(loud(build_model(MODEL, processor.tokenizer, seed=1)), processor, folder)
    return folder


def loud(model: Any) -> Any:
    """A random model whose answers depend on what it sees: fresh weights are so small that all answers are one."""
    with torch.no_grad():
        for weights in model.parameters():
            if weights.dim() > 1:
                weights.mul_(6)
    return model


@pytest.fixture(scope="module")
def qwen25(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Qwen2.5-VL with the text model of the tiny Qwen2-VL's size."""
    folder = tmp_path_factory.mktemp("qwen2.5-vl")
    known = json.loads((checkpoint / "config.json").read_text())
    tower = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 32}
    config = Qwen2_5_VLConfig(
        text_config={key: value for key, value in known["text_config"].items() if key not in ("model_type", "dtype")},
        vision_config={**tower, "window_size": 56, "fullatt_block_indexes": [1]},
        **{key: known[key] for key in known if key.endswith("token_id")},
    )
    torch.manual_seed(2)
    model = Qwen2_5_VLForConditionalGeneration(config)
    end, pad = known["text_config"]["eos_token_id"], known["text_config"]["pad_token_id"]
    model.generation_config = GenerationConfig(eos_token_id=[end, pad], pad_token_id=pad, repetition_penalty=1.3)
    save(loud(model), processor_for_any_size(), folder)
    return folder


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    rng = np.random.default_rng(0)
    images = []
    for width, height in SIZES:
        buffer = BytesIO()
        Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(buffer, "png")
        images.append({"bytes": buffer.getvalue(), "path": None})
    problems = ["How many items are there in the image?"] * len(SIZES)
    problems[4] = "How many red and blue items are there, and how many cyan ones, in the image?"
    solutions = [f"<answer> {i} </answer>" for i in range(len(SIZES))]
    return Dataset.from_dict({"image": images, "problem": problems, "solution": solutions}, features=FEATURES)


def evaluate(folder: Path, dataset: Any, partial: Path, **changes: Any) -> list[Output]:
    call: dict[str, Any] = {
        **{"model_folder": folder, "dataset": dataset, "scorer": "counting", "split": "odd", "template": TEMPLATE},
        **{"settings": SETTINGS, "suppressed": [3, 4, 5, 6, 7], "partial": partial, "title": "test", "device": "cpu"},
    }
    return evaluate_task(**{**call, **changes})


def test_outputs_stand_in_the_order_of_the_items(checkpoint: Path, dataset: Dataset, tmp_path: Path) -> None:
    outputs = evaluate(checkpoint, dataset, tmp_path / "p.jsonl")
    assert [output.item for output in outputs] == [f"odd-{i:06d}" for i in range(len(SIZES))]
    assert [output.truth for output in outputs] == list(range(len(SIZES)))
    assert outputs[4].prompt.startswith("How many red and blue items")
    assert all(output.tokens <= 6 for output in outputs)
    assert len({output.completion for output in outputs}) >= 3
    # Batches are made by length, and padding does not change an answer: one by one gives the same.
    order = [json.loads(line)["index"] for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert order != sorted(order)
    alone = evaluate(checkpoint, dataset, tmp_path / "alone.jsonl", settings={**SETTINGS, "batch_size": 1})
    assert alone == outputs
    named = evaluate(checkpoint, dataset.add_column("item", [f"{i}.png" for i in range(7)]), tmp_path / "named.jsonl")
    assert [output.item for output in named] == [f"{i}.png" for i in range(7)]
    assert [output.completion for output in named] == [output.completion for output in outputs]


def test_a_killed_evaluation_goes_on_to_the_same_end(checkpoint: Path, dataset: Dataset, tmp_path: Path) -> None:
    whole = evaluate(checkpoint, dataset, tmp_path / "whole.jsonl")
    content = (tmp_path / "whole.jsonl").read_bytes()
    for share in (0.0, 0.3, 0.55, 0.9, 1.0):
        cut = tmp_path / f"cut-{share}.jsonl"
        cut.write_bytes(content[: int(share * len(content))])
        assert evaluate(checkpoint, dataset, cut) == whole
        assert cut.read_bytes() == content
    # With every answer at hand no model is needed: one that cannot be loaded does not matter.
    weights = (checkpoint / "model.safetensors").read_bytes()
    try:
        (checkpoint / "model.safetensors").write_bytes(b"")
        assert evaluate(checkpoint, dataset, tmp_path / "whole.jsonl") == whole
    finally:
        (checkpoint / "model.safetensors").write_bytes(weights)


def test_another_dataset_does_not_go_on_from_this_ones_answers(
    checkpoint: Path, dataset: Dataset, tmp_path: Path
) -> None:
    evaluate(checkpoint, dataset, tmp_path / "p.jsonl")
    with pytest.raises(BadInput, match="which this evaluation does not ask"):
        evaluate(checkpoint, dataset, tmp_path / "p.jsonl", template="{question} Think.")


def test_qwen25_checkpoints_are_evaluated(qwen25: Path, dataset: Dataset, tmp_path: Path) -> None:
    outputs = evaluate(qwen25, dataset, tmp_path / "p.jsonl", scorer="math")
    assert [output.truth for output in outputs] == [str(i) for i in range(len(SIZES))]
    assert len({output.completion for output in outputs}) >= 3
    assert (
        evaluate(qwen25, dataset, tmp_path / "alone.jsonl", scorer="math", settings={**SETTINGS, "batch_size": 1})
        == outputs
    )
    # The checkpoint's own repetition penalty holds, as in upstream's scripts: without it the answers differ.
    known = json.loads((qwen25 / "generation_config.json").read_text())
    assert known["repetition_penalty"] == 1.3
    (qwen25 / "generation_config.json").write_text(json.dumps({**known, "repetition_penalty": 1.0}))
    load_model.__globals__["_loaded"].cache_clear()
    plain = evaluate(qwen25, dataset, tmp_path / "plain.jsonl", scorer="math")
    assert [o.completion for o in plain] != [o.completion for o in outputs]


def test_suppressed_tokens_are_not_produced(checkpoint: Path, dataset: Dataset, tmp_path: Path) -> None:
    free = evaluate(checkpoint, dataset, tmp_path / "free.jsonl", suppressed=[])
    assert any("First" in output.completion for output in free)
    tokenizer = load_processor(checkpoint).tokenizer
    first = tokenizer.convert_tokens_to_ids("First")
    assert tokenizer.decode([first]) == "First"
    bound = evaluate(checkpoint, dataset, tmp_path / "bound.jsonl", suppressed=[first])
    assert not any("First" in output.completion for output in bound)


def test_batches_by_length() -> None:
    assert batches_by_length([5, 5, 5, 5, 5], 2) == [[0, 1], [2, 3], [4]]  # equals keep their order
    assert batches_by_length([1, 9, 2, 9, 3], 2) == [[1, 3], [4, 2], [0]]
    lengths = np.random.default_rng(0).integers(1, 500, 1000).tolist()
    batches = batches_by_length(lengths, 8)
    assert sorted(i for batch in batches for i in batch) == list(range(1000))
    assert {len(batch) for batch in batches} == {8}

    def padding(all_of: list[list[int]]) -> int:
        return sum(max(lengths[i] for i in batch) - lengths[j] for batch in all_of for j in batch)

    in_order = [list(range(start, start + 8)) for start in range(0, 1000, 8)]
    assert padding(batches) < padding(in_order) / 10


def test_prompt_lengths_are_the_processors(checkpoint: Path, dataset: Dataset) -> None:
    processor = load_processor(checkpoint)
    prompts = list(dataset["problem"])
    real = [
        len(processor(text=[prompt_text(processor, prompt)], images=[[image]])["input_ids"][0])
        for prompt, image in zip(prompts, dataset["image"], strict=True)
    ]
    assert prompt_lengths(processor, prompts, SIZES) == real
    assert len(set(real)) > 3


def test_a_system_turn_stands_before_the_question_in_the_place_of_the_templates_own(
    checkpoint: Path, dataset: Dataset, tmp_path: Path
) -> None:
    processor = load_processor(checkpoint)
    plain, asked = (prompt_text(processor, "How many?", system=system) for system in (None, "Think first."))
    (own,) = [part for part in plain.split("<|im_end|>") if "<|im_start|>system" in part]
    assert asked == plain.replace(own, "<|im_start|>system\nThink first.")
    prompts, system = list(dataset["problem"]), "Think first. " * 3
    real = [
        len(processor(text=[prompt_text(processor, prompt, system=system)], images=[[image]])["input_ids"][0])
        for prompt, image in zip(prompts, dataset["image"], strict=True)
    ]
    assert prompt_lengths(processor, prompts, SIZES, system=system) == real
    without = evaluate(checkpoint, dataset, tmp_path / "without.jsonl")
    within = evaluate(checkpoint, dataset, tmp_path / "with.jsonl", system=system)
    assert [one.prompt for one in within] == [one.prompt for one in without]
    assert [one.completion for one in within] != [one.completion for one in without]


def test_on_a_cpu_bfloat16_becomes_float32_and_it_says_so(
    checkpoint: Path, dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = evaluate(checkpoint, dataset, tmp_path / "a.jsonl")
    assert "float32" not in capsys.readouterr().err
    assert evaluate(checkpoint, dataset, tmp_path / "b.jsonl", settings={**SETTINGS, "dtype": "bfloat16"}) == plain
    assert "evaluation.dtype is bfloat16; on this CPU float32 is used instead" in capsys.readouterr().err
    assert evaluation_device(miniature=True) == "cpu"


def test_what_cannot_be_evaluated_is_refused(checkpoint: Path, dataset: Dataset, tmp_path: Path) -> None:
    def refused(words: str, folder: Path = checkpoint, data: Any = dataset, **changes: Any) -> None:
        with pytest.raises(BadInput, match=words):
            evaluate(folder, data, tmp_path / "p.jsonl", **changes)
        assert not (tmp_path / "p.jsonl").exists()

    refused("backend is 'vlm'; it is transformers or vllm", settings={**SETTINGS, "backend": "vlm"})
    refused("task odd has no items", data=dataset.select([]))
    refused("config.json cannot be read", folder=tmp_path)
    broken = dataset.map(lambda row: {**row, "solution": "many"})
    refused("odd item odd-000000: the truth 'many' is not a whole number", data=broken)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    refused("model of type 'llama'; r1mm evaluates qwen2_vl and qwen2_5_vl", folder=tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_vl"}')
    refused("holds no weights", folder=tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    refused(r"only pickled weights \(pytorch_model.bin\), which are refused", folder=tmp_path)
    assert model_type(checkpoint) == "qwen2_vl"


@pytest.mark.gpu
def test_on_a_gpu_bfloat16_is_used(checkpoint: Path, dataset: Dataset, tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    model, _ = load_model(checkpoint, "bfloat16", "cuda")
    assert {weights.dtype for weights in model.parameters()} == {torch.bfloat16}
    outputs = evaluate(
        checkpoint, dataset, tmp_path / "p.jsonl", settings={**SETTINGS, "dtype": "bfloat16"}, device="cuda"
    )
    assert len(outputs) == len(SIZES)
    assert evaluation_device(miniature=False) == "cuda"
