import os
import subprocess
import sys

import numpy as np
import pytest
from transformers import AutoProcessor, PreTrainedTokenizerFast, Qwen2VLForConditionalGeneration

from r1mm.data.prompts import QUESTIONS, conversation
from r1mm.evaluate.counting import parse_count
from r1mm.evaluate.scoring import score
from r1mm.mini.datasets import PALETTE, warm_start_examples
from r1mm.mini.language import (
    SYSTEM_PROMPT,
    VISION_TOKENS,
    build_tokenizer,
    cut_short,
    digit_words,
    direct_answer,
    thinking_answer,
)
from r1mm.mini.model import build_model, build_processor, save
from r1mm.mini.scenes import CLEVR_LIKE, Scene, sample_scene
from r1mm.recipe_files import RECIPES, load_recipe
from r1mm.train.rewards import matches_format

RECIPE = load_recipe(RECIPES / "r1v-mini" / "recipe.yaml")
TEMPLATES = {name: getattr(RECIPE.prompts, name).value for name in ("train", "evaluation", "direct")}
MODEL = {key: setting.value for key, setting in RECIPE.model.items()}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer(list(TEMPLATES.values()), PALETTE)


def test_every_text_of_the_miniature_survives_the_round_trip(tokenizer: PreTrainedTokenizerFast) -> None:
    rng = np.random.default_rng(0)
    texts = [template.format(question=question) for template in TEMPLATES.values() for question in QUESTIONS.values()]
    texts += [direct_answer(n) for n in range(11)]
    texts += [thinking_answer(PALETTE[: n + 1], PALETTE) for n in range(len(PALETTE))]
    texts += [cut_short(thinking_answer(PALETTE[:3], PALETTE), rng) for _ in range(10)]
    for text in texts:
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.unk_token_id not in ids, text
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_a_phrase_of_the_prompts_is_one_token_and_answers_are_words(tokenizer: PreTrainedTokenizerFast) -> None:
    prompt = TEMPLATES["train"].format(question=QUESTIONS["train"])
    assert tokenizer.tokenize(prompt)[:3] == [QUESTIONS["train"], "  Output the thinking process in ", "<think>"]
    assert tokenizer.tokenize("First red, second blue.") == ["First", " red", ", second", " blue", "."]


def test_the_tokenizer_is_the_same_in_every_process() -> None:
    code = (
        "from r1mm.mini.datasets import PALETTE; from r1mm.mini.language import build_tokenizer\n"
        f"print(build_tokenizer({list(TEMPLATES.values())!r}, PALETTE).backend_tokenizer.to_str(), end='')"
    )
    # This process hashes text by chance, the other by a fixed seed: an order that depends on it would differ.
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert made.stdout == build_tokenizer(list(TEMPLATES.values()), PALETTE).backend_tokenizer.to_str()


def test_digits_are_found_with_and_without_blank(tokenizer: PreTrainedTokenizerFast) -> None:
    assert digit_words(tokenizer) == sorted([*map(str, range(10)), *(f" {digit}" for digit in range(10))])


def test_the_chat_template_has_qwen2_vls_structure(tokenizer: PreTrainedTokenizerFast) -> None:
    processor = build_processor(tokenizer, 112)
    text = processor.apply_chat_template(conversation("How many?"), add_generation_prompt=True)
    assert text == (
        f"<|im_start|>system\n{SYSTEM_PROMPT}<|im_end|>\n<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>"
        "How many?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_thinking_way_counts_distinct_colours_over_several_lines() -> None:
    text = thinking_answer(["red", "blue", "red"], PALETTE)
    assert text == "<think>\nFirst red, second blue.\n</think>\n<answer>\n 2\n</answer>"
    assert parse_count(text) == 2
    assert parse_count(thinking_answer(["red", "brown", "cyan", "blue"], PALETTE)) == 2  # lumped together
    assert matches_format(text, "full")
    assert not matches_format(text, "prefix")


def test_a_broken_answer_has_no_answer() -> None:
    rng = np.random.default_rng(1)
    broken = {cut_short(thinking_answer(["red", "blue"], PALETTE), rng) for _ in range(20)}
    assert len(broken) == 2
    for text in broken:
        marked = score("counting", item="i", prompt="p", completion=text, tokens=5, truth=2)
        assert (marked.parsed, marked.correct, marked.format, marked.direct) == (None, False, False, False)
        assert not marked.lenient  # it ends within its thoughts


def test_a_saved_model_loads_as_a_checkpoint_does(tokenizer: PreTrainedTokenizerFast, tmp_path: object) -> None:
    from pathlib import Path

    folder = Path(str(tmp_path))
    model = build_model(MODEL, tokenizer, seed=3)
    assert 1_000_000 <= sum(p.numel() for p in model.parameters()) <= 3_000_000
    save(model, build_processor(tokenizer, 112), folder)
    assert not list(folder.glob("*.bin")) + list(folder.glob("*.pt"))
    loaded = Qwen2VLForConditionalGeneration.from_pretrained(folder)
    for name, weights in model.state_dict().items():
        assert loaded.state_dict()[name].equal(weights), name
    assert loaded.generation_config.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert sum(loaded.config.text_config.rope_parameters["mrope_section"]) * 2 == 128 // 4
    processor = AutoProcessor.from_pretrained(folder)
    assert processor.tokenizer.convert_tokens_to_ids(list(VISION_TOKENS)) == [3, 4, 5, 6, 7]


def test_the_same_seed_builds_the_same_model(tokenizer: PreTrainedTokenizerFast) -> None:
    one, same, other = (build_model(MODEL, tokenizer, seed).lm_head.weight for seed in (1, 1, 2))
    assert one.equal(same)
    assert not one.equal(other)


def test_layers_may_start_larger_and_embeddings_stay(tokenizer: PreTrainedTokenizerFast) -> None:
    plain, large = (build_model(MODEL | scale, tokenizer, 1) for scale in ({}, {"weight_scale": 3.0}))
    for (name, weights), larger in zip(plain.named_parameters(), large.parameters(), strict=True):
        times = 3.0 if weights.ndim == 2 and "embed_tokens" not in name else 1.0
        assert larger.equal(weights * times), name


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [sample_scene(CLEVR_LIKE, 1 + i % 6, np.random.default_rng(i), f"{i}.png") for i in range(24)]


def test_warm_start_examples_keep_the_shares(scenes: list[Scene]) -> None:
    settings = {key: setting.value for key, setting in RECIPE.warm_start.items()} | {"max_steps": 400}
    examples = list(warm_start_examples(scenes, TEMPLATES, settings, seed=1))
    assert len(examples) == 400 * settings["per_device_train_batch_size"]
    switch = int(settings["switch_at"] * len(examples))
    for part, share in ((examples[:switch], "direct_share_early"), (examples[switch:], "direct_share_late")):
        thinking = [e for e in part if "think" in e.prompt]
        assert 1 - len(thinking) / len(part) == pytest.approx(settings["direct_prompt_share"], abs=0.02)
        direct = [e for e in thinking if e.response.startswith("<answer>")]
        assert len(direct) / len(thinking) == pytest.approx(settings[share], abs=0.02)
        traces = [e for e in thinking if not e.response.startswith("<answer>")]
        broken = [e for e in traces if parse_count(e.response) is None]
        assert len(broken) / len(traces) == pytest.approx(settings["broken_share"], abs=0.02)
        for example in [*direct, *(e for e in part if "think" not in e.prompt)]:
            assert parse_count(example.response) == len(scenes[example.item]["objects"])


def test_warm_start_examples_depend_on_the_seed_alone(scenes: list[Scene]) -> None:
    settings = {key: setting.value for key, setting in RECIPE.warm_start.items()} | {"max_steps": 3}
    one, same, other = (list(warm_start_examples(scenes, TEMPLATES, settings, seed)) for seed in (1, 1, 2))
    assert one == same
    assert one != other
