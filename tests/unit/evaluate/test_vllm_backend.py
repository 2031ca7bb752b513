"""What evaluation hands to vLLM; the engine itself needs a GPU."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import GenerationConfig, Qwen2VLConfig

from r1mm.errors import BadInput
from r1mm.evaluate import vllm_backend
from r1mm.evaluate.endings import end_tokens
from r1mm.evaluate.vllm_backend import engine_arguments, generate, own_settings, sampling_arguments


def test_without_vllm_or_a_gpu_it_says_so_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> None:
        generate(
            tmp_path,
            [],
            max_new_tokens=1,
            batch_size=1,
            suppressed=[],
            on_done=lambda index, text, tokens: None,
        )

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match="vLLM is not installed.*set evaluation.backend to transformers"):
        run()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace(name=name))
    monkeypatch.setattr(vllm_backend.torch.cuda, "is_available", lambda: False)
    with pytest.raises(BadInput, match="no GPU is visible"):
        run()


def test_answers_end_and_repeat_as_the_checkpoint_says(tmp_path: Path) -> None:
    tokenizer = SimpleNamespace(eos_token_id=7)
    GenerationConfig(eos_token_id=[7, 5], repetition_penalty=1.05).save_pretrained(tmp_path)
    own = own_settings(tmp_path)
    ends = end_tokens(own, tokenizer)
    assert ends == [5, 7]
    settings = sampling_arguments(own, ends, 256, [3, 4])
    assert settings == {
        "temperature": 0.0,
        "repetition_penalty": 1.05,
        "max_tokens": 256,
        "stop_token_ids": [5, 7],
        "logit_bias": {3: -100.0, 4: -100.0},
        "detokenize": False,
    }
    assert end_tokens(GenerationConfig(), tokenizer) == [7]
    if importlib.util.find_spec("vllm"):
        from vllm import SamplingParams

        assert SamplingParams(**settings).stop_token_ids == [5, 7]


def test_a_checkpoint_without_generation_settings_has_its_config(tmp_path: Path) -> None:
    Qwen2VLConfig(text_config={"eos_token_id": 9}).save_pretrained(tmp_path)
    own = own_settings(tmp_path)
    assert end_tokens(own, SimpleNamespace(eos_token_id=7)) == [7, 9]
    assert sampling_arguments(own, [7], 1, [])["repetition_penalty"] == 1.0


def test_the_engine_takes_safetensors_in_bfloat16_and_no_foreign_code(tmp_path: Path) -> None:
    settings = engine_arguments(tmp_path, 64)
    assert (settings["dtype"], settings["load_format"], settings["trust_remote_code"]) == (
        "bfloat16",
        "safetensors",
        False,
    )
