"""Where an answer ends, for every back end."""

from collections.abc import Collection, Sequence
from typing import Any

from transformers import GenerationConfig


def end_tokens(own: GenerationConfig, tokenizer: Any) -> list[int]:
    """The token ids at which an answer ends: those of the checkpoint's `own` settings and the tokenizer's."""
    ids = own.eos_token_id if isinstance(own.eos_token_id, list) else [own.eos_token_id]
    return sorted({int(token) for token in (*ids, tokenizer.eos_token_id) if token is not None})


def completion_of(ids: Sequence[int], ends: Collection[int], tokenizer: Any) -> tuple[str, int]:
    """The text before the first of `ends` in generated token `ids`, and the number of its tokens."""
    length = next((place for place, token in enumerate(ids) if token in ends), len(ids))
    return tokenizer.decode(ids[:length], skip_special_tokens=True), length
