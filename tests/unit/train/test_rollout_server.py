"""Completions from a vLLM server: TRL's client against a real HTTP server."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from accelerate import Accelerator
from transformers import AutoProcessor
from trl.distributed import DistributedBackend
from trl.generation.vllm_client import VLLMClient

from r1mm.errors import BadInput, StageFailed
from r1mm.train.rollout import FreshGeneration, engine_settings


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
