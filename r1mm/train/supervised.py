"""Supervised training on (image, prompt, response) examples in a given order: the miniature's warm start.

Not upstream's SFT recipe: it makes the tiny stand-in for a pretrained checkpoint.
"""

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, Image
from torch.utils.data import Sampler, SequentialSampler
from torchvision.io import ImageReadMode, decode_image
from transformers import (
    Qwen2VLForConditionalGeneration,
    Qwen2VLProcessor,
    TrainingArguments,
)

from r1mm.clips import clip_pixels
from r1mm.data.counting import Example
from r1mm.processor import prompt_text
from r1mm.train.checkpoints import ResumesExactly, train_resumably
from r1mm.train.examples import IGNORED, padded
from r1mm.train.settings import run_fields
from r1mm.vision import shorten_vision_tower


def _decoded(encoded: dict[str, Any]) -> torch.Tensor:
    """An image as (3, height, width), uint8, the processor's own form."""
    return decode_image(torch.frombuffer(bytearray(encoded["bytes"]), dtype=torch.uint8), ImageReadMode.RGB)


def _decoded_images(dataset: Dataset) -> list[torch.Tensor]:
    """All images, decoded once, ahead of time, on all cores; no epoch decodes them again."""
    encoded = dataset.cast_column("image", Image(decode=False))["image"][:]
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return list(pool.map(_decoded, encoded))


def _decoded_clips(dataset: Dataset) -> list[Any]:
    """All clips, none still being decoded: other threads at work have been seen to change the last bit of a sum."""
    clips: list[Any] = dataset["image"][:]
    for clip in clips:
        clip.frames  # noqa: B018 (waits)
    return clips


class _Collator:
    """Examples to model inputs: prompts as the chat template writes them, loss on the responses alone.

    All images, or clips, of a miniature have one size, so a prompt's ids, placeholders included, are made once.
    """

    def __init__(self, processor: Qwen2VLProcessor, pictures: Sequence[Any], clips: bool) -> None:
        self.processor, self.pictures, self.clips = processor, pictures, clips
        self.prompt_ids = functools.cache(self._prompt_ids)
        self.response_ids = functools.cache(self._response_ids)

    def _prompt_ids(self, prompt: str) -> list[int]:
        text = prompt_text(self.processor, prompt)
        ids: list[int] = self.processor(text=[text], images=[self.pictures[0]])["input_ids"][0]
        return ids

    def _response_ids(self, response: str) -> list[int]:
        tokenizer = self.processor.tokenizer
        return [*tokenizer(response)["input_ids"], tokenizer.eos_token_id]

    def __call__(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        processor = self.processor
        placeholder = processor.video_token_id if self.clips else processor.image_token_id
        pairs = [(self.prompt_ids(e.prompt), self.response_ids(e.response)) for e in examples]
        rows = [(prompt + response, [IGNORED] * len(prompt) + response) for prompt, response in pairs]
        pictures = [self.pictures[example.item] for example in examples]
        pixels = (
            clip_pixels(processor, pictures) if self.clips else processor.image_processor(pictures, return_tensors="pt")
        )
        return {**padded(rows, processor.tokenizer.pad_token_id, placeholder), **pixels}


class _WeightedTrainer(ResumesExactly):
    """transformers' Trainer over examples in their given order, with a weight per target token."""

    def __init__(self, *args: Any, token_weights: torch.Tensor, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.token_weights = token_weights

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return SequentialSampler(self.train_dataset)

    def compute_loss(
        self, model: Any, inputs: dict[str, torch.Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Weighted mean cross entropy over the response tokens; logits are computed for those alone."""
        labels = inputs.pop("labels")[:, 1:]
        hidden = model.model(**inputs).last_hidden_state[:, :-1]  # (B, T - 1, hidden)
        answered = labels != IGNORED
        targets = labels[answered]
        losses = torch.nn.functional.cross_entropy(model.lm_head(hidden[answered]), targets, reduction="none")
        weights = self.token_weights[targets]
        return (losses * weights).sum() / weights.sum()


def supervised_config(settings: dict[str, Any], output_dir: Path, seed: int) -> TrainingArguments:
    """transformers' settings, from those of `settings` that are fields of TrainingArguments."""
    fields = {key: value for key, value in settings.items() if key in TrainingArguments.__dataclass_fields__}
    return TrainingArguments(**fields, **run_fields(output_dir, seed, cpu=True), remove_unused_columns=False)


def train_supervised(
    model: Qwen2VLForConditionalGeneration,
    processor: Qwen2VLProcessor,
    dataset: Dataset,
    examples: Sequence[Example],
    *,
    settings: dict[str, Any],
    heavy_words: Sequence[str],
    seed: int,
    folder: Path,
    clips: bool = False,
) -> None:
    """Train `model` in place on `examples` over `dataset`'s images; goes on from the newest complete checkpoint.

    `clips`: the images are clips, and `model` and `processor` take them so.

    `settings`: fields of TrainingArguments, and `answer_weight`, the weight of each of `heavy_words` in the loss.
    """
    weights = torch.ones(len(processor.tokenizer))
    weights[processor.tokenizer.convert_tokens_to_ids(list(heavy_words))] = settings["answer_weight"]
    shorten_vision_tower(model)
    trainer = _WeightedTrainer(
        model=model,
        args=supervised_config(settings, folder, seed),
        train_dataset=list(examples),
        data_collator=_Collator(processor, (_decoded_clips if clips else _decoded_images)(dataset), clips),
        token_weights=weights,
    )
    train_resumably(trainer, folder, folder / "metrics.jsonl", "warm start", {"loss": "loss"})
