"""Greedy generation over items with vLLM's offline engine: as the transformers back end, faster.

Same prompts, end tokens, suppressed tokens and repetition penalty; in bfloat16 on one GPU.  vLLM's kernels add in
another order, so an output may differ from that of transformers where two tokens are nearly as likely: compare a base
and a trained model within one back end only.

Untested on a GPU.
"""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from transformers import AutoConfig, GenerationConfig

from r1mm.errors import BadInput
from r1mm.evaluate.endings import completion_of, end_tokens
from r1mm.processor import load_processor, prompt_text

# vLLM's share of the GPU; the rest is for the vision tower's activations and other processes' contexts.
_MEMORY = 0.9


def check_usable() -> None:
    """BadInput where vLLM or a GPU is missing."""
    if importlib.util.find_spec("vllm") is None:
        raise BadInput(
            "evaluation with vLLM: vLLM is not installed; use the GPU image, or set evaluation.backend to transformers"
        )
    if not torch.cuda.is_available():
        raise BadInput(
            "evaluation with vLLM: no GPU is visible; run on a host with one, or set evaluation.backend to transformers"
        )


def engine_arguments(model_folder: Path, batch_size: int, longest: int | None = None) -> dict[str, Any]:
    """The settings of vLLM's engine; `longest`: tokens of prompt and answer, the model's own limit by default."""
    return {
        "model": str(model_folder),
        "dtype": "bfloat16",
        "tensor_parallel_size": 1,
        "max_num_seqs": batch_size,
        "max_model_len": longest,
        "gpu_memory_utilization": _MEMORY,
        "load_format": "safetensors",
        "trust_remote_code": False,
        "limit_mm_per_prompt": {"image": 1, "video": 0},
        # Said in `sampling_arguments`, all of it.
        "generation_config": "vllm",
        "seed": 0,
    }


def own_settings(model_folder: Path) -> GenerationConfig:
    """The checkpoint's generation_config.json, or what its config.json says where there is none."""
    try:
        return GenerationConfig.from_pretrained(model_folder)
    except OSError:
        return GenerationConfig.from_model_config(AutoConfig.from_pretrained(model_folder, trust_remote_code=False))


def sampling_arguments(
    own: GenerationConfig, ends: list[int], max_new_tokens: int, suppressed: Sequence[int]
) -> dict[str, Any]:
    """Greedy decoding as the checkpoint's `own` settings have it; `suppressed` token ids get vLLM's least bias."""
    return {
        "temperature": 0.0,
        "repetition_penalty": own.repetition_penalty or 1.0,
        "max_tokens": max_new_tokens,
        "stop_token_ids": ends,
        "logit_bias": dict.fromkeys(suppressed, -100.0),
        "detokenize": False,
    }


def generate(
    model_folder: Path,
    rows: Sequence[tuple[Image, str]],
    *,
    max_new_tokens: int,
    batch_size: int,
    suppressed: Sequence[int],
    on_done: Callable[[int, str, int], None],
    system: str | None = None,
) -> None:
    """Answer every (image, prompt text) of `rows` greedily; `on_done(index, completion, tokens)` for each, in order.

    `system`: the system turn's text.  `batch_size` items are read and submitted at a time.  A completion ends before
    its end token, which is not counted.
    Raises BadInput where vLLM or a GPU is missing.
    """
    check_usable()
    from vllm import LLM, SamplingParams

    processor = load_processor(model_folder)
    tokenizer = processor.tokenizer
    engine = LLM(**engine_arguments(model_folder, batch_size))
    own = own_settings(model_folder)
    ends = end_tokens(own, tokenizer)
    sampling = SamplingParams(**sampling_arguments(own, ends, max_new_tokens, suppressed))
    for start in range(0, len(rows), batch_size):
        prompts = [
            {"prompt": prompt_text(processor, text, system=system), "multi_modal_data": {"image": image}}
            for image, text in rows[start : start + batch_size]
        ]
        for i, answer in enumerate(engine.generate(prompts, sampling_params=sampling, use_tqdm=False)):
            on_done(start + i, *completion_of(list(answer.outputs[0].token_ids), ends, tokenizer))
