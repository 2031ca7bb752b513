"""vLLM's place in training, without a GPU: TRL's own code runs, and only its engine object is a stand-in.

The stand-in answers with transformers, takes weights as TRL sends them, and keeps the vision tower's output per image
as vLLM does.  What needs vLLM itself skips where it is not installed, what needs a GPU is marked `gpu`.
"""

import argparse
import json
import os
import threading
from copy import copy
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from transformers import AutoProcessor, Qwen2VLForConditionalGeneration
from trl import GRPOConfig, GRPOTrainer
from trl.distributed import DistributedBackend
from trl.generation import vllm_generation
from trl.generation.vllm_client import VLLMClient
from trl.generation.vllm_generation import VLLMGeneration

from r1mm.data.counting import load_counting, write_counting
from r1mm.data.prompts import QUESTIONS
from r1mm.errors import BadInput, StageFailed
from r1mm.mini.datasets import PALETTE
from r1mm.mini.language import VISION_TOKENS, build_tokenizer
from r1mm.mini.model import build_model, build_processor, save
from r1mm.mini.render import encode_png
from r1mm.recipe_files import load_recipe
from r1mm.train import rollout
from r1mm.train.grpo import training_rows
from r1mm.train.rollout import (
    FreshGeneration,
    FreshRollouts,
    engine_settings,
    generation_kwargs_for,
    server_command,
    vllm_fields,
)
from tests.tiny import tiny_recipe

PROMPT = (
    "{question}  Output the thinking process in <think> </think> and final answer (number) in <answer> </answer> tags."
)
TOKENS = 6
SET_BY_TRL = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model and two noisy pictures, which come back at every step."""
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


class Engine:
    """As much of vLLM's engine as TRL touches in the training process, on a CPU."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.calls: list[str] = []
        self.network = Qwen2VLForConditionalGeneration.from_pretrained(settings["model"]).eval()
        self.llm_engine = self.model_executor = self.driver_worker = self.model_runner = self.model = self
        self.seen: dict[bytes, Any] = {}
        self.processor = AutoProcessor.from_pretrained(settings["model"])
        self.random = torch.Generator().manual_seed(0)
        tower = self.network.model.visual
        encode = tower.forward

        def encode_once(pixels: torch.Tensor, **kwargs: Any) -> Any:
            key = pixels.numpy().tobytes()
            if key not in self.seen:
                self.seen[key] = encode(pixels, **kwargs)
            return copy(self.seen[key])  # the caller writes to it

        tower.forward = encode_once

    def load_weights(self, weights: list[tuple[str, torch.Tensor]]) -> None:
        self.calls.append("weights")
        for name, value in weights:
            self.network.get_parameter(name).data.copy_(value)

    def reset_prefix_cache(self) -> bool:
        self.calls.append("reset_prefix_cache")
        return True

    def reset_encoder_cache(self) -> None:
        self.calls.append("reset_encoder_cache")
        self.seen.clear()

    def generate(self, prompts: list[dict[str, Any]], sampling_params: Any, use_tqdm: bool) -> list[Any]:
        self.calls.append("generate")
        self.sampling = sampling_params
        return [self.answer(row["prompt_token_ids"], row["multi_modal_data"]["image"]) for row in prompts]

    @torch.no_grad()
    def answer(self, prompt: list[int], image: Image.Image) -> Any:
        tokenizer = self.processor.tokenizer
        words = [i for i in range(len(tokenizer)) if i not in tokenizer.all_special_ids]
        picked = torch.randint(len(words), (TOKENS,), generator=self.random).tolist()
        ids = [words[i] for i in picked]
        whole = torch.tensor([[*prompt, *ids]])
        pixels = self.processor.image_processor(image, return_tensors="pt")
        kinds = (whole == self.processor.image_token_id).long()
        logits = self.network(
            input_ids=whole, attention_mask=torch.ones_like(whole), mm_token_type_ids=kinds, **pixels
        ).logits[0, len(prompt) - 1 : -1]
        logps = logits.log_softmax(-1)
        scored = [{token: SimpleNamespace(rank=1, logprob=logps[t, token].item())} for t, token in enumerate(ids)]
        return SimpleNamespace(prompt_token_ids=prompt, outputs=[SimpleNamespace(token_ids=ids, logprobs=scored)])


class Trainer(FreshRollouts, GRPOTrainer):
    """Nothing beside what is tested."""


@pytest.fixture
def vllm_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_generation, "is_vllm_available", lambda: True)
    monkeypatch.setattr(vllm_generation, "LLM", Engine, raising=False)
    monkeypatch.setattr(vllm_generation, "SamplingParams", SimpleNamespace, raising=False)
    for key in SET_BY_TRL:
        monkeypatch.setenv(key, "0")  # so that it is put back afterwards
        monkeypatch.delenv(key)


def lengths(completions: list[Any], **_: Any) -> list[float]:
    """A reward that differs within a group, so that there is a gradient."""
    return [float(len(completion[0]["content"])) for completion in completions]


def trainer_of(folder: Path, output: Path, **changes: Any) -> Trainer:
    processor = AutoProcessor.from_pretrained(folder / "base", padding_side="left")
    suppressed = processor.tokenizer.convert_tokens_to_ids(list(VISION_TOKENS))
    fields: dict[str, Any] = {
        **vllm_fields("colocate", longest=200, memory=0.5),
        "generation_kwargs": generation_kwargs_for("vllm", suppressed),
        "top_k": 50,
        "max_completion_length": TOKENS,
        "num_generations": 2,
        "per_device_train_batch_size": 4,
        "learning_rate": 3e-3,
        "lr_scheduler_type": "constant",
        "max_steps": 4,
        "save_strategy": "no",
        "logging_steps": 1,
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "bf16": False,
        "beta": 0.0,
        "loss_type": "grpo",
        **changes,
    }
    trainer = Trainer(
        model=str(folder / "base"),
        reward_funcs=[lengths],
        args=GRPOConfig(output_dir=str(output), model_init_kwargs={"dtype": "float32"}, **fields),
        train_dataset=training_rows(load_counting(folder / "train.parquet"), PROMPT),
        processing_class=processor,
    )
    for key in SET_BY_TRL:  # or the next trainer of this process would take itself for one of several
        os.environ.pop(key, None)
    return trainer


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
    with pytest.raises(BadInput, match=r"train.temperature is 0\.7; with vLLM it must be 1\.0"):
        trainer_of(folder, tmp_path, temperature=0.7)


def test_fields_for_each_mode() -> None:
    with pytest.raises(BadInput, match="must lie between 0 and 1, not None"):
        vllm_fields("colocate", longest=10)
    with pytest.raises(BadInput, match="server's address"):
        vllm_fields("server", longest=10)
    assert vllm_fields("server", longest=10, server="http://host:1")["vllm_server_base_url"] == "http://host:1"
    assert generation_kwargs_for("transformers", [3]) == {"suppress_tokens": [3]}


# ---- server mode: TRL's client against a real HTTP server


class Server:
    """Answers what vLLM's routes answer, and remembers the order in which they were called."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.status = 200
        self.emptied = True
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.calls.append(self.path)
                body = json.dumps({"success": outer.emptied}).encode() if self.path == "/reset_prefix_cache" else b""
                self.send_response(outer.status if self.path == "/reset_encoder_cache" else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


class Client(VLLMClient):
    """TRL's client; its weights travel between GPUs, so here they are only counted."""

    def __init__(self, server: Server) -> None:
        self.session = httpx2.Client()
        self.base_url = f"http://127.0.0.1:{server.http.server_port}"
        self.server = server
        self.info: dict[str, Any] = {}

    def update_named_params(self, metadata: list[Any], named_params: Any) -> None:
        assert len(list(named_params)) == len(metadata)
        self.server.calls.append("weights")

    def get_server_info(self) -> dict[str, Any]:
        return self.info


@pytest.fixture
def served() -> Any:
    server = Server()
    generation = FreshGeneration.__new__(FreshGeneration)
    generation.mode = "server"
    generation.enable_sleep_mode = False
    generation.model = torch.nn.Linear(2, 2)
    generation.accelerator = Accelerator(cpu=True)
    generation._dist = DistributedBackend(generation.accelerator)
    generation._weight_metadata = None
    generation.vllm_client = Client(server)
    yield generation, server
    server.http.shutdown()
    server.http.server_close()


def test_a_server_empties_its_caches_after_the_weights(served: Any) -> None:
    generation, server = served
    generation.sync_weights()
    generation.sync_weights()
    after = "|".join(server.calls).split("weights")[1:]
    assert len(after) == 2
    assert all("/reset_encoder_cache" in calls and "/reset_prefix_cache" in calls for calls in after)


def test_a_server_that_cannot_empty_them_stops_the_run(served: Any) -> None:
    generation, server = served
    server.emptied = False
    with pytest.raises(StageFailed, match="kept its prefix cache"):
        generation.sync_weights()
    server.status = 404
    with pytest.raises(StageFailed, match=r"answers 404 to /reset_encoder_cache.*VLLM_SERVER_DEV_MODE=1"):
        generation.sync_weights()


def test_a_server_with_other_settings_is_refused(served: Any, folder: Path) -> None:
    generation, _ = served
    processor = AutoProcessor.from_pretrained(folder / "base")
    wanted = engine_settings(processor)
    right = {
        "logprobs_mode": wanted["logprobs_mode"],
        "multimodal_config": {"mm_processor_kwargs": wanted["mm_processor_kwargs"]},
    }
    generation.vllm_client.info = {"model_config": right}
    generation.check_server(processor)
    generation.vllm_client.info = {"model_config": {**right, "logprobs_mode": "processed_logprobs"}}
    with pytest.raises(BadInput, match="--logprobs-mode 'processed_logprobs'; start it with --logprobs-mode 'raw_"):
        generation.check_server(processor)
    generation.vllm_client.info = {"model_config": {**right, "multimodal_config": None}}
    with pytest.raises(BadInput, match=r"--mm-processor-kwargs None; .*'{\"size\": {\"shortest_edge\": 12544"):
        generation.check_server(processor)


# ---- vLLM 0.30.0 as installed; importing it takes half a minute on two cores


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


# ---- on a GPU


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
