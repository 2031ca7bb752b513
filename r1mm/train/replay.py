"""Recorded rollouts through our trainer: one step's loss and gradient, for `fidelity.py` to hold against upstream's.

Nothing is generated: prompts, completions, rewards and pixels are the fixture's, handed to TRL through its own hooks
(`rollout_func`, a reward function, the processor).  Masks, advantages, reference log-probs, loss and gradient are then
what they are in training: the same trainer class, the settings of the recipe's variant for an upstream commit, the
vision tower shortened.  What differs from training: float32 on the CPU, one batch, no clipping of the gradient
(upstream's was recorded before clipping); beta and group size are the fixture's, where upstream took them from the
command line.
"""

import json
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import BatchFeature, Qwen2VLProcessor
from trl import GRPOConfig
from trl.trainer.utils import pad

from r1mm.data.prompts import conversation
from r1mm.errors import BadInput
from r1mm.processor import load_processor
from r1mm.recipe import Recipe, resolve
from r1mm.recipe_files import RECIPES, load_recipe
from r1mm.sourced import values
from r1mm.train.fixture import Fixture, RecordedPrompt
from r1mm.train.grpo import R1Trainer
from r1mm.train.settings import run_fields
from r1mm.vision import shorten_vision_tower

_RECIPES = ("r1v-clevr-2b", "video-7b", "mm8k-2b")  # one of each upstream


@dataclass(frozen=True)
class Reading:
    """How we train what an upstream commit trained: a recipe under one variant."""

    name: str
    recipe: Recipe


@dataclass(frozen=True)
class Replayed:
    """What our trainer made of a fixture's rollouts.  `gradients` of all parameters, by their names in transformers 5.

    `kl` is upstream's figure, the mean over sequences of their token means; `kl_over_tokens` is TRL's, over all tokens
    at once; both None where beta is 0 and there is no reference.
    """

    loss: float
    kl: float | None
    kl_over_tokens: float | None
    largest_log_ratio: float | None
    gradients: dict[str, torch.Tensor]


def reading_of(upstream: str) -> Reading:
    """The reading of `owner/repository@commit`.  BadInput, naming those known, where there is none."""
    repository, _, commit = upstream.partition("@")
    known = []
    for folder in _RECIPES:
        recipe = load_recipe(RECIPES / folder / "recipe.yaml")
        for name, variant in recipe.variants.items():
            known_repository, known_commit = variant.upstream.split("@")
            if repository == known_repository and commit.startswith(known_commit):
                return Reading(f"{recipe.name}/{name}", resolve(recipe, name).recipe)
            known.append(f"{variant.upstream} ({recipe.name}/{name})")
    raise BadInput(f"upstream {upstream} is none that a recipe follows; those are {', '.join(known)}")


class RecordedProcessor(Qwen2VLProcessor):
    """Qwen2-VL's processor whose call gives a RecordedPrompt's own tokens and pixels, in place of its image's."""

    def __call__(self, images: Sequence[Sequence[RecordedPrompt]], **_: Any) -> BatchFeature:
        """`images`, one RecordedPrompt per row; as the library's, padded on the left."""
        prompts = [prompt for row in images for prompt in row]
        ids = pad([prompt.prompt_ids for prompt in prompts], self.tokenizer.pad_token_id, padding_side="left")
        mask = pad([torch.ones_like(prompt.prompt_ids) for prompt in prompts], 0, padding_side="left")
        types = {"image": (self.image_token_id, 1), "video": (self.video_token_id, 2)}
        token, number = types[prompts[0].kind]
        return BatchFeature(
            {
                "input_ids": ids,
                "attention_mask": mask,
                "mm_token_type_ids": (ids == token) * mask * number,
                "pixel_values": torch.cat([prompt.pixels for prompt in prompts]),
                "image_grid_thw": torch.cat([prompt.grid for prompt in prompts]),
            }
        )


def replay(fixture: Fixture, reading: Reading, folder: Path, *, grouped: bool = True) -> Replayed:
    """One step's loss and gradient of our trainer over the fixture's rollouts.  `folder` takes scratch files."""
    trainer = _trainer(fixture, reading, folder, grouped)
    passes: list[torch.Tensor] = []
    log_probs = trainer._get_per_token_logps_and_entropies

    def remembered(*args: Any, **kwargs: Any) -> Any:
        made = log_probs(*args, **kwargs)
        passes.append(made[0].detach())
        return made

    setattr(trainer, "_get_per_token_logps_and_entropies", remembered)  # noqa: B010 (a method, to mypy)
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    rows = next(iter(trainer.get_train_dataloader()))
    batch = trainer._prepare_inputs(rows)
    loss = trainer.compute_loss(trainer.model, batch)
    trainer.accelerator.backward(loss)
    reference, mask = batch.get("ref_per_token_logps"), batch["completion_mask"]
    kl = largest = None
    if reference is not None:
        ratio = reference - passes[-1]
        per_token = (torch.exp(ratio) - ratio - 1) * mask
        kl = (per_token.sum(1) / mask.sum(1)).mean().item()
        largest = (ratio * mask).abs().max().item()
    return Replayed(
        loss=loss.item(),
        kl=kl,
        kl_over_tokens=next(iter(trainer._metrics["train"]["kl"]), None),
        largest_log_ratio=largest,
        gradients={
            name: torch.zeros_like(weights) if weights.grad is None else weights.grad
            for name, weights in trainer.model.named_parameters()
        },
    )


def _trainer(fixture: Fixture, reading: Reading, folder: Path, grouped: bool) -> R1Trainer:
    recipe, group, count = reading.recipe, fixture.group, len(fixture.prompts)
    base = loadable(fixture.base, folder / "base")
    processor = fixture_processor(base)
    processor.__class__ = RecordedProcessor
    # What the layout, the fixture or this check decides; all else of the recipe's `train:` stands.
    fields = values(recipe.train) | {
        "bf16": False,
        "beta": fixture.meta.beta,
        "num_generations": group,
        "per_device_train_batch_size": count * group,
        "gradient_accumulation_steps": 1,
    }
    fields.pop("generation_kwargs", None)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="You are using 'rollout_func'")
        trainer = R1Trainer(
            model=str(base),
            reward_funcs=[recorded_reward],
            args=GRPOConfig(
                **fields,
                **run_fields(folder, 0, cpu=True),
                model_init_kwargs={"dtype": "float32"},
            ),
            train_dataset=_rows(fixture),
            processing_class=processor,
            rollout_func=_rollout,
            images_in_logprobs=recipe.grpo.factors.images_in_logprobs.value,
            logprobs_temperature=recipe.grpo.factors.scored_at,
            incident_folder=folder,
            base=base,
            grouped_images=grouped,
            clips=fixture.kind == "video",
        )
    _take_policy(trainer, fixture.folder / "policy")
    for network in (trainer.model, trainer.ref_model):
        if network is not None and grouped:
            shorten_vision_tower(network)
    return trainer


def fixture_processor(base: Path) -> Any:
    """The processor of a fixture's reference policy.  BadInput where it is no Qwen2-VL's."""
    try:
        processor = load_processor(base)
    except (OSError, ValueError) as error:
        raise BadInput(f"{base}: the processor cannot be loaded: {error}") from error
    if not isinstance(processor, Qwen2VLProcessor):
        raise BadInput(f"{base}: the processor is a {type(processor).__name__}, fixtures are of Qwen2-VL")
    return processor


def loadable(base: Path, folder: Path) -> Path:
    """`base` as transformers 5 takes it: 4.49's trainers write `use_cache: null`, which 5 refuses."""
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    if "use_cache" not in config or config["use_cache"] is not None:
        return base
    if folder.is_dir():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    for path in base.iterdir():
        (folder / path.name).symlink_to(path.resolve())
    (folder / "config.json").unlink()
    del config["use_cache"]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def _take_policy(trainer: R1Trainer, folder: Path) -> None:
    """Give the trainer's policy, so far the reference, the fixture's weights; its config is the reference's."""
    try:
        policy, report = type(trainer.model).from_pretrained(
            folder,
            config=trainer.model.config,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise BadInput(f"{folder}: the policy's weights cannot be loaded: {error}") from error
    faults = {name: sorted(map(str, found)) for name, found in report.items() if found}
    if faults:
        raise BadInput(f"{folder}: the weights are not those of the reference policy's architecture: {faults}")
    trainer.model.load_state_dict(policy.state_dict(), strict=True)


def _rows(fixture: Fixture) -> Dataset:
    """One row per prompt.  The image of a row is the RecordedPrompt itself: what TRL carries along with its prompt."""

    def with_images(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return {**columns, "image": [fixture.prompts[number] for number in columns["number"]]}

    prompts = [conversation("recorded") for _ in fixture.prompts]
    rows = Dataset.from_dict({"prompt": prompts, "number": list(range(len(prompts)))})
    return rows.with_transform(with_images)


def _rollout(prompts: list[list[dict[str, Any]]], trainer: R1Trainer) -> dict[str, Any]:
    """TRL's `rollout_func`: the recorded completions, up to their end token, and their rewards; in order per prompt."""
    made: dict[str, Any] = {"prompt_ids": [], "completion_ids": [], "logprobs": None, "recorded": []}
    taken: Counter[int] = Counter()
    for prompt in prompts:
        recorded: RecordedPrompt = next(part["image"] for part in prompt[-1]["content"] if part["type"] == "image")
        number = taken[id(recorded)]
        taken[id(recorded)] += 1
        made["prompt_ids"].append(recorded.prompt_ids.tolist())
        completion = recorded.completion_ids[number].tolist()
        end = trainer.processing_class.tokenizer.eos_token_id
        made["completion_ids"].append(completion[: completion.index(end) + 1] if end in completion else completion)
        made["recorded"].append(recorded.rewards[number].item())
    return made


def recorded_reward(recorded: list[float], **_: Any) -> list[float]:
    """The fixture's rewards, in TRL's form of a reward function."""
    return recorded
