"""Where an answer ends, with a real tokenizer."""

from transformers import GenerationConfig

from r1mm.evaluate.endings import completion_of, end_tokens
from r1mm.mini.datasets import PALETTE
from r1mm.mini.language import build_tokenizer


def test_the_checkpoints_end_tokens_and_the_tokenizers_both_end_an_answer() -> None:
    tokenizer = build_tokenizer(["{question}"], PALETTE)
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    assert end != pad
    assert end_tokens(GenerationConfig(), tokenizer) == [end]
    assert end_tokens(GenerationConfig(eos_token_id=pad), tokenizer) == sorted([end, pad])
    assert end_tokens(GenerationConfig(eos_token_id=[pad, end]), tokenizer) == sorted([end, pad])


def test_a_completion_is_what_comes_before_its_end() -> None:
    tokenizer = build_tokenizer(["{question}"], PALETTE)
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    said = tokenizer("<answer>\n 2\n</answer>")["input_ids"]
    text = tokenizer.decode(said)
    assert text == "<answer>\n 2\n</answer>"
    assert completion_of([*said, end, pad, *said], [end], tokenizer) == (text, len(said))
    assert completion_of([*said, pad], [pad, end], tokenizer) == (text, len(said))
    assert completion_of(said, [end], tokenizer) == (text, len(said))  # cut by the limit on its length
    assert completion_of([end, *said], [end], tokenizer) == ("", 0)
