"""What the tests of completions from vLLM share; the imports stay inside, for the tests that need none of them."""

from pathlib import Path
from types import SimpleNamespace

import pytest


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model and two noisy pictures, which come back at every step."""
    import numpy as np

    from r1mm.data.counting import write_counting
    from r1mm.data.prompts import QUESTIONS
    from r1mm.mini.datasets import PALETTE
    from r1mm.mini.language import build_tokenizer
    from r1mm.mini.model import build_model, build_processor, save
    from r1mm.mini.render import encode_png
    from r1mm.recipe_files import load_recipe
    from tests.tiny import tiny_recipe

    place = tmp_path_factory.mktemp("rollout")
    recipe = load_recipe(tiny_recipe(place) / "recipe.yaml")
    tokenizer = build_tokenizer([recipe.prompts.train.value], PALETTE)
    # Heads of 64, which vLLM's kernels have.
    settings = {key: setting.value for key, setting in recipe.model.items()} | {"num_attention_heads": 2}
    settings |= {"num_key_value_heads": 1, "vision_num_heads": 2}
    save(build_model(settings, tokenizer, 0), build_processor(tokenizer, 112), place / "base")
    rng = np.random.default_rng(0)
    pngs = [encode_png(rng.integers(0, 256, (112, 112, 3), dtype=np.uint8)) for _ in range(2)]
    write_counting(place / "train.parquet", pngs, QUESTIONS["train"], [1, 2])
    return place


@pytest.fixture
def vllm_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from trl.generation import vllm_generation

    from tests.unit.train.engine import SET_BY_TRL, Engine

    monkeypatch.setattr(vllm_generation, "is_vllm_available", lambda: True)
    monkeypatch.setattr(vllm_generation, "LLM", Engine, raising=False)
    monkeypatch.setattr(vllm_generation, "SamplingParams", SimpleNamespace, raising=False)
    for key in SET_BY_TRL:
        monkeypatch.setenv(key, "0")  # so that it is put back afterwards
        monkeypatch.delenv(key)
