"""vLLM's place in training, without a GPU: TRL's own code runs, and only its engine object is a stand-in.

The stand-in answers with transformers, takes weights as TRL sends them, and keeps the vision tower's output per image
as vLLM does.
"""

import os
from copy import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image
from transformers import AutoProcessor, Qwen2VLForConditionalGeneration
from trl import GRPOConfig, GRPOTrainer

from r1mm.data.counting import load_counting
from r1mm.mini.language import VISION_TOKENS
from r1mm.train.grpo import training_rows
from r1mm.train.rollout import FreshRollouts, generation_kwargs_for, vllm_fields

PROMPT = (
    "{question}  Output the thinking process in <think> </think> and final answer (number) in <answer> </answer> tags."
)
TOKENS = 6
SET_BY_TRL = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


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


def lengths(completions: list[Any], **_: Any) -> list[float]:
    """A reward that differs within a group, so that there is a gradient."""
    return [float(len(completion[0]["content"])) for completion in completions]


def trainer_of(
    folder: Path, output: Path, kind: type[Any] = Trainer, own: dict[str, Any] | None = None, **changes: Any
) -> Any:
    """A trainer of `kind`, with arguments of its `own`, around the engine; `changes` of TRL's settings."""
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
    trainer = kind(
        model=str(folder / "base"),
        reward_funcs=[lengths],
        args=GRPOConfig(output_dir=str(output), model_init_kwargs={"dtype": "float32"}, **fields),
        train_dataset=training_rows(load_counting(folder / "train.parquet"), PROMPT),
        processing_class=processor,
        **(own or {}),
    )
    for key in SET_BY_TRL:  # or the next trainer of this process would take itself for one of several
        os.environ.pop(key, None)
    return trainer
