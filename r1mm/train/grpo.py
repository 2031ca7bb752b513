"""GRPO as R1-V ran it, on TRL's trainer.

TRL does the algorithm.  This subclass adds what upstream's two code eras need and what a run that must be explained
needs: log-probs with or without the images, and a stop before an update that is not finite.
"""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors.torch import save
from trl import GRPOTrainer

from r1mm.clips import carry_clips
from r1mm.data.prompts import conversation
from r1mm.errors import BadInput, StageFailed
from r1mm.plan import Layout
from r1mm.processor import load_processor
from r1mm.recipe import Recipe
from r1mm.rundir import write_bytes, write_json
from r1mm.sourced import values
from r1mm.train.checkpoints import ResumesExactly, save_trained, train_resumably
from r1mm.train.grouped import GroupedImages, plain_network
from r1mm.train.images import decode_once, distinct
from r1mm.train.prompt_length import keep_within_limit
from r1mm.train.rewards import check_solutions, reward_functions
from r1mm.train.rollout import FreshRollouts
from r1mm.train.settings import grpo_config
from r1mm.vision import shorten_vision_tower

_SHOWN = {
    "rewards/accuracy_reward/mean": "accuracy",
    "rewards/letter_reward/mean": "letter",
    "rewards/answer_reward/mean": "answer",
    "rewards/format_reward/mean": "format",
    "completions/mean_length": "tokens",
    "kl": "kl",
}


class R1Trainer(ResumesExactly, FreshRollouts, GroupedImages, GRPOTrainer):
    """TRL's GRPOTrainer with the factors of log-probs, and non-finite losses refused.

    `images_in_logprobs`: `both` gives policy and reference passes the images; `policy` gives them to the policy's
    alone; `none` computes both from the text alone, image placeholders included, as Deep-Agent/R1-V@9d576c7 did
    (`model(input_ids)`).  Generation always sees the images.  `logprobs_temperature`: what logits are divided by in
    both passes, where that is not the temperature of `args`, at which completions are sampled.  `schedule_steps`: the
    length of the learning-rate schedule where it is not `max_steps`: upstream's 100 steps are the first of 8,750.
    `base`: the checkpoint that training starts from, whose processor is kept.  `longest_prompt`, in tokens: a prompt
    beyond it stops the run.
    `grouped_images`: see `GroupedImages`.  `clips`: what comes as images are clips, of a processor that takes them so.
    """

    def __init__(
        self,
        *args: Any,
        images_in_logprobs: str,
        incident_folder: Path,
        base: Path,
        logprobs_temperature: float | None = None,
        schedule_steps: int | None = None,
        longest_prompt: int | None = None,
        clips: bool = False,
        **kwargs: Any,
    ) -> None:
        sampled_at = kwargs["args"].temperature
        if logprobs_temperature is not None:
            # TRL has one temperature, which it builds into both models' heads here.
            kwargs["args"].temperature = logprobs_temperature
        super().__init__(*args, **kwargs)
        self._sample_at(sampled_at)
        if images_in_logprobs == "policy" and self.beta and self.ref_model is None:
            raise BadInput(
                "factors.images_in_logprobs is 'policy' and the reference is the policy without its adapters; give the "
                "reference a model of its own (no adapters), or set images_in_logprobs to both or none"
            )
        for network in (self.model, self.ref_model) if clips else ():
            if network is not None:
                carry_clips(plain_network(network))
        self.images_in_logprobs = images_in_logprobs
        self.incident_folder = incident_folder
        self.base = base
        self.schedule_steps = schedule_steps
        self.longest_prompt = longest_prompt

    def _sample_at(self, temperature: float) -> None:
        """Generate at `temperature` from now on, whatever the heads were built with."""
        self.args.temperature = self.temperature = temperature
        if self.use_vllm:
            self.vllm_generation.temperature = temperature
        else:
            self.generation_config.temperature = self.generation_kwargs["temperature"] = temperature

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The schedule over `schedule_steps`, of which `max_steps` are taken."""
        return super().create_scheduler(self.schedule_steps or num_training_steps, optimizer)

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        outputs: dict[str, Any] = super()._generate_and_score_completions(inputs)
        longest = int(outputs["prompt_mask"].sum(1).max())
        if self.longest_prompt is not None and longest > self.longest_prompt:
            raise StageFailed(
                f"step {self.state.global_step + 1}: a prompt has {longest} tokens, more than max_prompt_length "
                f"{self.longest_prompt}; remove such items from the training set, or raise max_prompt_length"
            )
        return outputs

    def _get_per_token_logps_and_entropies(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        blind = {"none": True, "policy": model is self.ref_model, "both": False}[self.images_in_logprobs]
        if blind:
            for key in ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids"):
                kwargs[key] = None
        return super()._get_per_token_logps_and_entropies(model, *args, **kwargs)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """TRL's loss; raises StageFailed, with the batch saved, before an update that would not be finite."""
        loss: torch.Tensor = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if not torch.isfinite(loss):
            step = self.state.global_step + 1
            path = self._save_incident(step, loss, inputs)
            raise StageFailed(
                f"step {step}: the loss is {loss.item()}; stopped before the update. The groups are in {path}; "
                "look there for advantages or log-probs that are not finite, or lower train.learning_rate"
            )
        return loss

    def _save_incident(self, step: int, loss: torch.Tensor, inputs: dict[str, Any]) -> Path:
        decode = self.processing_class.tokenizer.batch_decode
        prompts, completions = decode(inputs["prompt_ids"]), decode(inputs["completion_ids"])
        advantages = inputs["advantages"].tolist()
        references = inputs.get("ref_per_token_logps")
        # TRL has shuffled the rows; those of one prompt and image are a group.
        pixels = list(inputs["pixel_values"].split(inputs["image_grid_thw"].prod(-1).tolist()))
        if "group" in inputs:
            image_of_row = inputs["group"].tolist()
        else:
            as_bytes = (image.cpu().view(torch.uint8).numpy() for image in pixels)  # numpy knows no bfloat16
            _, image_of_row = distinct([sha256(each.tobytes()).digest() for each in as_bytes])
            pixels = [pixels[image_of_row.index(image)] for image in range(max(image_of_row) + 1)]
        rows_of_group: dict[tuple[str, int], list[int]] = {}
        for row, prompt in enumerate(prompts):
            rows_of_group.setdefault((prompt, image_of_row[row]), []).append(row)
        groups = [
            {
                "prompt": prompt,
                "image": image,
                "completions": [completions[row] for row in rows],
                "advantages": [repr(advantages[row]) for row in rows],
                "reference_logps_finite": None
                if references is None
                else torch.isfinite(references[rows]).all(dim=1).tolist(),
            }
            for (prompt, image), rows in rows_of_group.items()
        ]
        # As the model saw them: normalised pixels, the patches of one image after the other.
        images = {f"image-{number}": image.contiguous() for number, image in enumerate(pixels)}
        name = f"nonfinite-step-{step}" + (f"-rank-{self.args.process_index}" if self.args.world_size > 1 else "")
        write_bytes(self.incident_folder / f"{name}.safetensors", save(images))
        return write_json(
            self.incident_folder / f"{name}.json",
            {"step": step, "loss": repr(loss.item()), "groups": groups},
        )


def training_rows(dataset: Dataset, template: str, *, grouped: bool = True, system: str | None = None) -> Dataset:
    """A dataset in TRL's form: prompt (a conversation), image, and problem and solution as the rewards get them.

    `grouped`: see `decode_once`.
    """
    prompts = [conversation(template.format(question=problem), system=system) for problem in dataset["problem"]]
    rows = dataset.add_column("prompt", prompts)
    return decode_once(rows) if grouped else rows


def build_trainer(
    recipe: Recipe,
    *,
    model: Path,
    dataset: Dataset,
    seed: int,
    folder: Path,
    suppressed: Callable[[Any], list[int]],
    layout: Layout | None = None,
) -> R1Trainer:
    """The trainer of one run, as the recipe sets it.  `suppressed` gives the token ids that are never sampled.

    A full recipe needs its plan's `layout`; in each of its processes, as `distributed.in_processes` starts them.
    Items whose prompts are longer than the recipe's max_prompt_length are refused or dropped, as it says.  Raises
    BadInput for a dataset smaller than one step, for what is refused, and for a solution that a reward cannot take.
    """
    own = recipe.grpo
    prompts = own.prompts_per_step
    if len(dataset) < prompts:
        raise BadInput(f"the training set has {len(dataset)} items, one step needs {prompts}; give a larger set")
    processor = load_processor(model, clips=bool(recipe.clips), limits=values(recipe.processor))
    dataset = keep_within_limit(dataset, recipe, processor, folder)
    check_solutions(recipe, dataset["solution"], dataset["problem"])
    if len(dataset) < prompts:
        raise BadInput(f"{len(dataset)} training items have prompts short enough, one step needs {prompts}")
    grouped = recipe.grouped_images.value
    trainer = R1Trainer(
        model=str(model),
        reward_funcs=reward_functions(recipe),
        args=grpo_config(recipe, folder, seed, suppressed(processor.tokenizer), layout),
        train_dataset=training_rows(
            dataset,
            own.template,
            grouped=grouped and not recipe.clips,
            system=recipe.prompts.system_turn,
        ),
        processing_class=processor,
        images_in_logprobs=own.factors.images_in_logprobs.value,
        logprobs_temperature=own.factors.scored_at,
        incident_folder=folder,
        base=model,
        schedule_steps=recipe.schedule_steps.value if recipe.schedule_steps else None,
        longest_prompt=recipe.max_prompt_length.value if recipe.max_prompt_length else None,
        grouped_images=grouped,
        clips=bool(recipe.clips),
    )
    for network in (trainer.model, trainer.ref_model) if grouped else ():
        if network is not None:
            shorten_vision_tower(plain_network(network))
    return trainer


def train_grpo(trainer: R1Trainer, folder: Path, metrics: Path) -> None:
    """Train to the end; the trained policy and its processor are left in `folder`/model, a line per step in `metrics`.

    Goes on from the newest complete checkpoint in `folder`.  Raises BadInput for a damaged checkpoint, StageFailed for
    a loss, gradient or policy that is not finite.
    """
    try:
        train_resumably(trainer, folder, metrics, "GRPO", _SHOWN)
    except RuntimeError as error:
        # torch's own words when the policy's probabilities are no longer numbers, which sampling meets first.
        if "probability tensor contains" not in str(error):
            raise
        raise StageFailed(
            f"step {trainer.state.global_step + 1}: the policy's probabilities are not finite; stopped before the "
            f"update. The last checkpoint in {folder} is kept; lower train.learning_rate"
        ) from error
    save_trained(trainer, folder, trainer.base)
