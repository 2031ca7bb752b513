"""Greedy generation with transformers: Qwen2-VL and Qwen2.5-VL checkpoints, on a CPU or a GPU."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, GenerationConfig

from r1mm.clips import carry_clips
from r1mm.errors import BadInput, StageFailed
from r1mm.evaluate.endings import completion_of, end_tokens
from r1mm.plan.shapes import MODEL_TYPES, config_of_folder
from r1mm.processor import load_processor, prompt_text
from r1mm.vision import shorten_vision_tower


def model_type(folder: Path) -> str:
    """The architecture of a checkpoint folder.

    BadInput when it is none of ours, and when its weights are not safetensors: pickled weights can run any code.
    """
    found = str(config_of_folder(folder).get("model_type"))
    if found not in MODEL_TYPES:
        raise BadInput(f"{folder} holds a model of type {found!r}; r1mm evaluates {' and '.join(MODEL_TYPES)}")
    if not any(folder.glob("*.safetensors")):
        pickled = [path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern)]
        seen = f"only pickled weights ({', '.join(sorted(pickled))}), which are refused" if pickled else "no weights"
        raise BadInput(f"{folder} holds {seen}; give a checkpoint saved as safetensors")
    return found


@functools.lru_cache(maxsize=1)
def _loaded(folder: Path, dtype: str, device: str, clips: bool, written: int) -> tuple[Any, Any]:
    """One model is kept from one task to the next; `written` tells a folder from itself before it was rewritten."""
    kind = model_type(folder)
    model = AutoModelForImageTextToText.from_pretrained(
        folder, dtype=getattr(torch, dtype), use_safetensors=True, trust_remote_code=False
    )
    if kind == "qwen2_vl":  # Qwen2.5-VL's tower attends in windows and is left as it is
        shorten_vision_tower(model)
    if clips:
        carry_clips(model)
    return model.eval().to(device), load_processor(folder, clips=clips)


def load_model(folder: Path, dtype: str = "float32", device: str = "cpu", *, clips: bool = False) -> tuple[Any, Any]:
    """The model (in evaluation mode, `dtype` weights, on `device`) and processor of a checkpoint folder.

    `clips`: both take clips where images are given.
    """
    model_type(folder)
    return _loaded(folder, dtype, device, clips, max(path.stat().st_mtime_ns for path in folder.glob("*.safetensors")))


def generate(
    model_folder: Path,
    rows: Sequence[tuple[Any, str]],
    *,
    max_new_tokens: int,
    batch_size: int,
    suppressed: list[int],
    on_done: Callable[[int, str, int], None],
    dtype: str = "float32",
    device: str = "cpu",
    clips: bool = False,
    system: str | None = None,
) -> None:
    """Answers every (image, prompt) of `rows` greedily, `batch_size` at a time; `on_done(row, completion, tokens)`.

    Rows are done in their order, those of a batch together.  Images are clips where `clips` says so, and None in all
    rows where the questions are to be answered without.  `system`: the system turn's text, the template's own without.
    `suppressed` token ids are never produced, as in training.
    What else the checkpoint's generation_config sets for greedy decoding, such as a repetition penalty, holds as it
    does in upstream's scripts.  Raises StageFailed when the device's memory is too small for a batch.
    """
    model, processor = load_model(model_folder, dtype, device, clips=clips)
    tokenizer = processor.tokenizer
    ends = end_tokens(model.generation_config, tokenizer)
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        suppress_tokens=suppressed or None,
        eos_token_id=ends,
        pad_token_id=tokenizer.pad_token_id,
    )
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        texts = [prompt_text(processor, prompt, shown=image is not None, system=system) for image, prompt in batch]
        images = [[image] for image, _ in batch if image is not None] or None
        inputs = processor(text=texts, images=images, padding=True, return_tensors="pt").to(model.device)
        try:
            with torch.inference_mode():
                generated = model.generate(**inputs, generation_config=config)
        except torch.OutOfMemoryError as error:
            raise StageFailed(
                f"a batch of {len(batch)} prompts does not fit this device's memory; lower evaluation.batch_size"
            ) from error
        for i, ids in enumerate(generated[:, inputs["input_ids"].shape[1] :].tolist()):
            on_done(start + i, *completion_of(ids, ends, tokenizer))
