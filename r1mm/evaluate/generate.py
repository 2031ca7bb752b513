"""Greedy generation over a counting dataset."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoProcessor, GenerationConfig, Qwen2VLForConditionalGeneration

from r1mm.data.counting import solution_count
from r1mm.data.prompts import conversation
from r1mm.evaluate.counting import Output, score
from r1mm.progress import progress_bar
from r1mm.vision import shorten_vision_tower


def load_model(folder: Path) -> tuple[Qwen2VLForConditionalGeneration, Any]:
    """The model (in evaluation mode) and processor of a checkpoint folder; safetensors only."""
    model = Qwen2VLForConditionalGeneration.from_pretrained(folder, use_safetensors=True, trust_remote_code=False)
    shorten_vision_tower(model)
    return model.eval(), AutoProcessor.from_pretrained(folder, padding_side="left")


def _batches(dataset: Dataset, size: int) -> Iterator[tuple[int, dict[str, list[Any]]]]:
    for start in range(0, len(dataset), size):
        yield start, dataset[start : start + size]


def generate_outputs(
    model: Qwen2VLForConditionalGeneration,
    processor: Any,
    dataset: Dataset,
    *,
    split: str,
    template: str,
    max_new_tokens: int,
    batch_size: int,
    suppressed: list[int],
    title: str,
) -> list[Output]:
    """Answers every item of `dataset` greedily and scores it; outputs stand in the order of the items.

    `template` wraps the item's question; `suppressed` token ids are never produced, as in training.
    """
    tokenizer = processor.tokenizer
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        suppress_tokens=suppressed,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    outputs: list[Output] = []
    with progress_bar(total=len(dataset), desc=title, unit="item") as bar, torch.inference_mode():
        for start, rows in _batches(dataset, batch_size):
            prompts = [template.format(question=question) for question in rows["problem"]]
            texts = [
                processor.apply_chat_template(conversation(prompt), add_generation_prompt=True) for prompt in prompts
            ]
            inputs = processor(
                text=texts, images=[[image] for image in rows["image"]], padding=True, return_tensors="pt"
            ).to(model.device)
            generated = model.generate(**inputs, generation_config=config)[:, inputs["input_ids"].shape[1] :]
            for i, ids in enumerate(generated.tolist()):
                kept = ids[: ids.index(tokenizer.eos_token_id)] if tokenizer.eos_token_id in ids else ids
                outputs.append(
                    score(
                        item=f"{split}-{start + i:06d}",
                        prompt=prompts[i],
                        completion=tokenizer.decode(kept),
                        tokens=len(kept),
                        truth=solution_count(rows["solution"][i], f"{split} item {start + i}"),
                    )
                )
            bar.update(len(prompts))
    return outputs
