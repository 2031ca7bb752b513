"""That vLLM 0.30.0, as installed, has what training calls; importing it takes half a minute on two cores.

What needs vLLM skips where it is not installed, what needs a GPU is marked `gpu`.
"""

import argparse
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoProcessor
from trl.generation.vllm_generation import VLLMGeneration

from r1mm.mini.language import VISION_TOKENS
from r1mm.train import rollout
from r1mm.train.rollout import FreshGeneration, engine_settings, generation_kwargs_for, server_command
from tests.unit.train.engine import trainer_of


@pytest.fixture(scope="module")
def vllm() -> Any:
    return pytest.importorskip("vllm", reason="vLLM is not installed (it is in the GPU image alone)")


def test_vllm_has_the_calls_and_both_halves_of_its_cache_are_emptied(vllm: Any) -> None:
    from vllm.v1.core.encoder_cache_manager import EncoderCacheManager
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.engine.core import EngineCore
    from vllm.v1.engine.core_client import InprocClient
    from vllm.v1.engine.llm_engine import LLMEngine
    from vllm.v1.worker.gpu.mm.encoder_cache import EncoderCache

    assert vllm.__version__ == "0.30.0"
    assert callable(LLMEngine.reset_prefix_cache)
    # The real chain of calls, each object made without the constructor that wants a GPU.
    scheduler = Scheduler.__new__(Scheduler)
    scheduler.encoder_cache_manager = EncoderCacheManager(cache_size=10)
    scheduler.encoder_cache_manager.cached["image"] = set()
    scheduler.has_unfinished_requests = lambda: False
    tensors = EncoderCache()
    tensors.encoder_outputs["image"] = torch.zeros(1)
    core = EngineCore.__new__(EngineCore)
    core.scheduler, core.model_executor = scheduler, tensors
    client = InprocClient.__new__(InprocClient)
    client.engine_core = core
    engine = LLMEngine.__new__(LLMEngine)
    engine.engine_core = client
    engine.reset_encoder_cache()
    assert not scheduler.encoder_cache_manager.cached
    assert not tensors.encoder_outputs


def test_vllms_server_has_the_route_and_takes_our_command(
    vllm: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastapi import FastAPI
    from fastapi.testclient import TestClient
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.entrypoints.serve.dev.cache.api_router import attach_router
    from vllm.platforms.cpu import CpuPlatform

    emptied: list[str] = []

    async def reset_encoder_cache() -> None:
        emptied.append("encoder")

    app = FastAPI()
    app.state.engine_client = SimpleNamespace(reset_encoder_cache=reset_encoder_cache)
    attach_router(app)
    answer = TestClient(app).post("/reset_encoder_cache")
    assert (answer.status_code, answer.content, emptied) == (200, b"", ["encoder"])

    processor = AutoProcessor.from_pretrained(folder / "base")
    command = server_command("model", processor, longest=512, gpus=2, memory=0.9, address="10.0.0.1:8000")
    # Its parser asks for the device, and finds none without a GPU.
    monkeypatch.setattr(vllm.platforms, "_current_platform", CpuPlatform())
    parser = argparse.ArgumentParser()
    ServeSubcommand().subparser_init(parser.add_subparsers())
    known = parser.parse_args(command[1:])
    assert (known.host, known.port, known.tensor_parallel_size) == ("10.0.0.1", 8000, 2)
    assert known.logprobs_mode == "raw_logprobs"
    assert known.mm_processor_kwargs == engine_settings(processor)["mm_processor_kwargs"]


def test_vllm_takes_our_sampling_settings(vllm: Any) -> None:
    taken = vllm.SamplingParams(n=1, top_k=50, max_tokens=8, **generation_kwargs_for("vllm", [5, 7]))
    assert taken.logit_bias == {5: -100.0, 7: -100.0}
    with pytest.raises(TypeError, match="suppress_tokens"):
        vllm.SamplingParams(**generation_kwargs_for("transformers", [5]))


@pytest.mark.gpu
def test_a_changed_tower_changes_vllms_log_probs(vllm: Any, folder: Path, tmp_path: Path) -> None:
    """The whole way with the real engine: equal log-probs, a perturbed tower, a sync, other and again equal ones."""
    if vllm.platforms.current_platform.is_unspecified():
        pytest.skip("vLLM finds no GPU")
    on_gpu = torch.cuda.is_available()  # else a build of vLLM for CPUs
    trainer = trainer_of(folder, tmp_path, use_cpu=not on_gpu, bf16=on_gpu)
    generation = trainer.vllm_generation
    vision = trainer.processing_class.tokenizer.convert_tokens_to_ids(list(VISION_TOKENS))

    def sampled() -> dict[str, Any]:
        inputs: dict[str, Any] = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
        assert not torch.isin(
            inputs["completion_ids"], torch.tensor(vision, device=inputs["completion_ids"].device)
        ).any()
        return inputs

    def scores(sync: Any) -> torch.Tensor:
        """vLLM's log-probs of one fixed prompt's next tokens, greedy, after `sync`."""
        sync(generation)
        inputs = trainer.processing_class(
            text=[trainer.processing_class.apply_chat_template(row["prompt"], add_generation_prompt=True)],
            images=[[row["image"]]],
        )
        _, _, logps, _ = generation.generate(inputs["input_ids"], [[row["image"]]], num_generations=1)
        return torch.tensor([value[0] for value in logps[0]])

    row = trainer.train_dataset[0]
    generation.temperature = 0.0
    before = scores(FreshGeneration.sync_weights)
    torch.manual_seed(0)
    for weight in trainer.model.model.visual.parameters():
        weight.data.add_(torch.randn_like(weight) * 0.5 * weight.std())
    stale = scores(VLLMGeneration.sync_weights)
    fresh = scores(FreshGeneration.sync_weights)
    assert torch.allclose(before[0], stale[0], atol=1e-6)  # why the reset is there
    assert (before[0] - fresh[0]).abs() > 1e-3
    generation.temperature = 1.0
    trainer.create_optimizer_and_scheduler(num_training_steps=4)
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    inputs = sampled()
    ours = trainer._logps_as_generated(inputs)
    error = (ours - inputs["sampling_per_token_logps"]).abs()[inputs["completion_mask"].bool()].mean()
    assert error < rollout.LARGEST_MEAN_LOGP_ERROR
