"""Completions from vLLM in training, through TRL's own integration, held to what the transformers path would give.

TRL starts the engine (colocate) or talks to one (server), sends it the weights before each step's completions, and
generates.  What it leaves open is done here:

- Stale images.  vLLM keeps the vision tower's output per image, under a key that knows nothing of the weights; TRL
  1.16 resets the prefix cache after a weight sync and not this one (huggingface/trl#7198, vllm-project/vllm#44910).
  With a trained tower an image that comes back is then seen with old eyes, and nothing says so.  `FreshGeneration`
  empties it after every sync.  vLLM's third cache, of preprocessed images, holds pixels, which no weight changes.
- One error to watch.  Generator and trainer compute the same log-probs by different kernels.  Upstream, and so our
  loss, corrects nothing for that (`vllm_importance_sampling_correction: false`; TRL's default multiplies the loss by
  a masked ratio).  The error is measured every step instead, and a run whose error is large stops.
- Same settings.  Image sizes, suppressed tokens and the definition of a log-prob are those of the transformers path.

Untested on a GPU.  What a CPU can show is tested: the order of calls, the settings, and that vLLM 0.30.0 has what is
called here.  The test marked `gpu` (a perturbed tower changes the log-probs after our sync, and not after TRL's) has
passed on vLLM 0.30.0 built for CPUs, with that build's packing of linear weights switched off: it takes no new weights.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from trl.generation import vllm_generation
from trl.generation.vllm_generation import VLLMGeneration

from r1mm.errors import BadInput, StageFailed

# Mean over a step's tokens of |trainer's log-prob - vLLM's|, in nats.  NVIDIA-NeMo/RL's nightly runs in bfloat16 hold
# the mean of exp(|difference|) below 1.1, and ln 1.1 = 0.095; a mean of the differences themselves cannot be carried
# over the bound by a few rare tokens.  Wrong or old weights are far above it.
LARGEST_MEAN_LOGP_ERROR = 0.1

# vLLM caps a bias here.  With logits within +-30 the token keeps less than exp(-40) of the probability.
_NEVER = -100.0


def generation_kwargs_for(backend: Literal["transformers", "vllm"], suppressed: list[int]) -> dict[str, Any]:
    """TRL's `generation_kwargs` under which the token ids `suppressed` are never sampled.

    transformers has a setting for that; vLLM refuses its name and takes a bias on the logits.
    """
    if backend == "transformers":
        return {"suppress_tokens": suppressed}
    return {"logit_bias": dict.fromkeys(suppressed, _NEVER)}


def vllm_fields(
    mode: Literal["colocate", "server"], *, longest: int, memory: float | None = None, server: str | None = None
) -> dict[str, Any]:
    """The fields of TRL's GRPOConfig that turn vLLM on; all others are as for transformers.

    `longest`: tokens of the longest prompt, image included, plus the longest completion.  `memory`: vLLM's share of
    each training GPU (colocate).  `server`: its address (server), for example http://127.0.0.1:8000.  Raises BadInput
    where the one that the mode needs is missing.
    """
    fields = {
        "use_vllm": True,
        "vllm_mode": mode,
        # Deep-Agent/R1-V@8fe656f:src/r1-v/src/open_r1/trainer/vllm_grpo_trainer.py has no such factor in its loss.
        "vllm_importance_sampling_correction": False,
    }
    if mode == "colocate":
        if memory is None or not 0 < memory < 1:
            raise BadInput(f"vLLM's share of a training GPU's memory must lie between 0 and 1, not {memory}")
        return {**fields, "vllm_gpu_memory_utilization": memory, "vllm_max_model_length": longest}
    if server is None:
        raise BadInput("vLLM in server mode needs the server's address; start one (`server_command`) and give it")
    return {**fields, "vllm_server_base_url": server}


def image_limits(processor: Any) -> dict[str, dict[str, int]]:
    """The sizes in pixels between which a Qwen2-VL processor resizes, as vLLM's `mm_processor_kwargs`."""
    size = processor.image_processor.size
    return {"size": {edge: size[edge] for edge in ("shortest_edge", "longest_edge")}}


def engine_settings(processor: Any) -> dict[str, Any]:
    """What every vLLM engine that generates for training is built with, beside TRL's own settings.

    `raw_logprobs` are those of the model at temperature 1, as the trainer computes them; TRL asks for
    `processed_logprobs`, which are taken among the `top_k` tokens and would differ by that alone.  A processor's limits
    never reach the engine otherwise, and an image of another size has another number of tokens.
    """
    return {"logprobs_mode": "raw_logprobs", "mm_processor_kwargs": image_limits(processor)}


def server_command(model: str, processor: Any, *, longest: int, gpus: int, memory: float, address: str) -> list[str]:
    """The command line of a vLLM server for training, to be run with VLLM_SERVER_DEV_MODE=1 in its environment.

    `longest` as in `vllm_fields`; `gpus` share one copy of the model; `address` as host:port.  The routes that take
    weights and reset caches are vLLM's development routes, and anyone who reaches the port can use them: `address`
    belongs on a private network.
    """
    host, _, port = address.rpartition(":")
    ours = engine_settings(processor)
    return [
        *("vllm", "serve", model, "--host", host, "--port", port),
        *("--tensor-parallel-size", str(gpus), "--gpu-memory-utilization", str(memory)),
        *("--max-model-len", str(longest), "--load-format", "safetensors"),
        *("--logprobs-mode", ours["logprobs_mode"]),
        *("--mm-processor-kwargs", json.dumps(ours["mm_processor_kwargs"])),
        # What TRL needs: prompts of token ids with images, and its way of sending weights.
        *("--enable-scale-out", "--weight-transfer-config", json.dumps({"backend": "nccl"})),
    ]


class FreshGeneration(VLLMGeneration):
    """TRL's generation with vLLM; nothing that was computed with old weights outlives a weight sync."""

    def sync_weights(self) -> None:
        """Send the weights, then empty every cache that was filled with the old ones.

        Raises StageFailed when a cache could not be emptied.
        """
        super().sync_weights()
        if self.mode == "colocate":
            engine = self.llm.llm_engine
            engine.reset_encoder_cache()
            # TRL has asked for this too, but does not look at the answer.
            emptied = engine.reset_prefix_cache()
        elif self.accelerator.is_main_process:
            self.reset_server("reset_encoder_cache")
            answer = self.reset_server("reset_prefix_cache")
            emptied = answer.json()["success"]
        else:
            return
        if not emptied:
            raise StageFailed(
                "vLLM kept its prefix cache after a weight sync, so completions would mix old weights and new; "
                "requests were still running: let nothing but this run use the engine, and start the stage again"
            )

    def reset_server(self, route: str) -> Any:
        """Empty one of the server's caches; its answer.  Raises StageFailed when the server does not do it."""
        # Not through the client's own `_post`, which reads an answer that this route leaves empty.
        answer = self.vllm_client.session.post(f"{self.vllm_client.base_url}/{route}")
        if answer.status_code != 200:
            raise StageFailed(
                f"the vLLM server at {self.vllm_client.base_url} answers {answer.status_code} to /{route}, so images "
                "would be seen with old weights; start it with VLLM_SERVER_DEV_MODE=1, vLLM 0.30.0"
            )
        return answer

    def check_server(self, processor: Any) -> None:
        """Whether the server was started as `server_command` says; BadInput naming the flag that differs."""
        self.reset_server("reset_encoder_cache")
        found = self.vllm_client.get_server_info()["model_config"]
        limits = (found.get("multimodal_config") or {}).get("mm_processor_kwargs")
        seen = {"logprobs_mode": found["logprobs_mode"], "mm_processor_kwargs": limits}
        for key, wanted in engine_settings(processor).items():
            if seen[key] != wanted:
                flag = "--" + key.replace("_", "-")
                text = wanted if isinstance(wanted, str) else json.dumps(wanted)
                raise BadInput(f"the vLLM server runs with {flag} {seen[key]!r}; start it with {flag} '{text}'")


@contextmanager
def _engine_built_with(settings: dict[str, Any]) -> Iterator[None]:
    """While this lasts, the engine that TRL builds gets `settings` too: TRL has no field for them."""
    build = getattr(vllm_generation, "LLM", None)
    if build is None:  # without vLLM, TRL says so itself
        yield
        return
    vllm_generation.LLM = lambda **theirs: build(**{**theirs, **settings})
    try:
        yield
    finally:
        vllm_generation.LLM = build


class FreshRollouts:
    """For GRPOTrainer's subclasses, left of it: vLLM's completions come from the current weights, or the run stops.

    Without `use_vllm` it does nothing.  Metrics of a step, in nats over its first micro-batch on every process:
    `rollout/logp_error/mean` and `/max` of |trainer's log-prob - vLLM's|; `rollout/token_mult_prob_error`, the mean of
    its exponential, under the name that NVIDIA-NeMo/RL has for it.
    """

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        settings = kwargs["args"]
        self._watched_step = -1
        if not settings.use_vllm:
            super().__init__(*args, **kwargs)
            return
        if settings.vllm_importance_sampling_correction:
            raise BadInput(
                "train.vllm_importance_sampling_correction is true (TRL's default), which upstream's loss does not "
                "have; set it to false: the error that it would correct is watched instead"
            )
        if settings.temperature != 1.0:  # of the log-probs: see `R1Trainer`
            raise BadInput(
                f"log-probs are to be taken at temperature {settings.temperature} (train.temperature, where "
                "factors.logprobs_temperature does not say another); with vLLM it must be 1.0, upstream's, at which "
                "vLLM's log-probs and the trainer's are the same quantity"
            )
        processor = kwargs["processing_class"]
        with _engine_built_with(engine_settings(processor)):
            super().__init__(*args, **kwargs)
        generation = self.vllm_generation
        generation.__class__ = FreshGeneration
        if generation.mode == "server" and generation.accelerator.is_main_process:
            generation.check_server(processor)

    def _compute_loss(self: Any, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        sampled = inputs.get("sampling_per_token_logps")
        step = self.state.global_step
        # Once a step, before its update, and only on completions of this step's weights.
        if sampled is not None and self.model.training and self._watched_step != step == self._last_loaded_step:
            self._watched_step = step
            self._watch(self._logps_as_generated(inputs), sampled, inputs["completion_mask"])
        loss: torch.Tensor = super()._compute_loss(model, inputs)  # type: ignore[misc]
        return loss

    def _logps_as_generated(self: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """The policy's log-probs of a micro-batch, (B, T), with the images, which vLLM saw whatever the loss sees."""
        # By name, not by super(): a subclass may hold images back from the loss.
        images = ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids")
        with torch.no_grad():
            logps, _, _ = super()._get_per_token_logps_and_entropies(  # type: ignore[misc]
                self.model,
                torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1),
                torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1),
                inputs["completion_ids"].size(1),
                **{key: inputs.get(key) for key in images},
            )
        found: torch.Tensor = logps
        return found

    def _watch(self: Any, ours: torch.Tensor, theirs: torch.Tensor, mask: torch.Tensor) -> None:
        """Log the difference of two (B, T) tensors of log-probs over all processes; StageFailed above the bound."""
        error = (ours.float() - theirs.float()).abs()
        # vLLM gives NaN for what it could not score; with no token left, the mean is NaN, and that stops the run too.
        error = error[mask.bool() & ~torch.isnan(error)]
        sums = torch.stack([error.sum(), error.exp().sum(), torch.tensor(float(error.numel()), device=error.device)])
        total, multiplied, count = self.accelerator.gather(sums[None]).sum(0).tolist()
        largest = self.accelerator.gather(error.max()[None] if error.numel() else sums[:1]).max().item()
        mean = total / count if count else float("nan")
        metrics = self._metrics["train"]
        metrics["rollout/logp_error/mean"].append(mean)
        metrics["rollout/logp_error/max"].append(largest)
        metrics["rollout/token_mult_prob_error"].append(multiplied / count if count else float("nan"))
        if not mean <= LARGEST_MEAN_LOGP_ERROR:
            raise StageFailed(
                f"step {self.state.global_step + 1}: vLLM's log-probs differ from the trainer's by {mean:.3f} nats in "
                f"the mean (largest {largest:.3f}, {count:.0f} tokens), above {LARGEST_MEAN_LOGP_ERROR}: it does not "
                "sample from the policy that is trained. Stopped before the update. See that both have the same "
                "checkpoint, precision and image sizes, or train without vLLM (leave the option `vllm` out)"
            )
