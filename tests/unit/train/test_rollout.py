"""Completions from vLLM inside the training process; TRL's own code runs, around the engine of `engine.py`."""

from pathlib import Path

import pytest
from trl.generation.vllm_generation import VLLMGeneration

from r1mm.errors import BadInput, StageFailed
from r1mm.mini.language import VISION_TOKENS
from r1mm.train import rollout
from r1mm.train.rollout import FreshGeneration, generation_kwargs_for, vllm_fields
from tests.unit.train.engine import TOKENS, trainer_of


@pytest.mark.usefixtures("vllm_on_cpu")
def test_completions_come_from_current_weights_and_eyes(folder: Path, tmp_path: Path) -> None:
    trainer = trainer_of(folder, tmp_path)
    trainer.train()
    engine = trainer.vllm_generation.llm
    steps = "".join(call[0] if call != "reset_encoder_cache" else "e" for call in engine.calls).split("g")[:-1]
    assert len(steps) == 4  # one generation per step
    for step in steps:  # every weight first, then both caches, then (at the split) the completions
        assert step.rstrip("re").strip("w") == ""
        assert "e" in step.lstrip("w")
        assert "r" in step.lstrip("w")
    logged = [row for row in trainer.state.log_history if "rollout/logp_error/mean" in row]
    assert len(logged) == 4
    for row in logged:
        assert 0 < row["rollout/logp_error/mean"] <= row["rollout/logp_error/max"] < 1e-4  # float32 on both sides
        assert 1 <= row["rollout/token_mult_prob_error"] < 1.0001


@pytest.mark.usefixtures("vllm_on_cpu")
def test_old_eyes_would_be_seen_and_stop_the_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FreshGeneration, "sync_weights", VLLMGeneration.sync_weights)  # TRL's, without our reset
    monkeypatch.setattr(rollout, "LARGEST_MEAN_LOGP_ERROR", float("inf"))
    trainer = trainer_of(folder, tmp_path)
    trainer.train()
    errors = [row["rollout/logp_error/mean"] for row in trainer.state.log_history if "rollout/logp_error/mean" in row]
    assert errors[0] < 1e-4  # nothing is old at the first step
    assert min(errors[1:]) > 0.001
    monkeypatch.setattr(rollout, "LARGEST_MEAN_LOGP_ERROR", min(errors[1:]) / 2)
    with pytest.raises(StageFailed, match=r"step 2: vLLM's log-probs differ .* 24 tokens"):
        trainer_of(folder, tmp_path).train()


@pytest.mark.usefixtures("vllm_on_cpu")
def test_the_engine_gets_the_settings_of_the_transformers_path(folder: Path, tmp_path: Path) -> None:
    trainer = trainer_of(folder, tmp_path, max_steps=1)
    trainer.train()
    engine = trainer.vllm_generation.llm
    assert engine.settings["logprobs_mode"] == "raw_logprobs"
    assert engine.settings["mm_processor_kwargs"] == {"size": {"shortest_edge": 112 * 112, "longest_edge": 112 * 112}}
    assert (engine.settings["max_model_len"], engine.settings["trust_remote_code"]) == (200, False)
    sampling = vars(engine.sampling)
    vision = [engine.processor.tokenizer.convert_tokens_to_ids(token) for token in VISION_TOKENS]
    assert sampling == {
        "n": 1,
        "temperature": 1.0,
        "top_k": 50,
        "top_p": 1.0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "max_tokens": TOKENS,
        "logprobs": 0,
        "logit_bias": dict.fromkeys(vision, -100.0),
    }


@pytest.mark.usefixtures("vllm_on_cpu")
def test_what_would_change_the_loss_or_the_comparison_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"vllm_importance_sampling_correction is true"):
        trainer_of(folder, tmp_path, vllm_importance_sampling_correction=True)
    with pytest.raises(BadInput, match=r"taken at temperature 0\.7 .* with vLLM it must be 1\.0"):
        trainer_of(folder, tmp_path, temperature=0.7)


def test_fields_for_each_mode() -> None:
    with pytest.raises(BadInput, match="must lie between 0 and 1, not None"):
        vllm_fields("colocate", longest=10)
    with pytest.raises(BadInput, match="server's address"):
        vllm_fields("server", longest=10)
    assert vllm_fields("server", longest=10, server="http://host:1")["vllm_server_base_url"] == "http://host:1"
    assert generation_kwargs_for("transformers", [3]) == {"suppress_tokens": [3]}
