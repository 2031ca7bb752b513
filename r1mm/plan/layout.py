"""What a step has to do, whatever the machine, and how it is laid out on one."""

from dataclasses import dataclass, replace
from typing import Literal

from r1mm.errors import BadInput
from r1mm.plan.shapes import Shape
from r1mm.recipe import BASE_MODEL, TRAIN_SET, Recipe
from r1mm.sourced import Strict
from r1mm.training_parts import Sharding, Training

# bfloat16: weights in bfloat16 with float32 masters under DeepSpeed.  autocast: float32 weights, products in bfloat16.
Precision = Literal["bfloat16", "autocast", "float32"]


class Layout(Strict):
    """One optimizer step on given devices.

    `completions_per_device` is TRL's `per_device_train_batch_size`; processes x completions_per_device x accumulation
    is prompts_per_step x num_generations, exactly.  In supervised fine-tuning, which generates none, they are examples,
    and the product is examples_per_step.  `vllm_gpus` are set aside for a vLLM server; `vllm_memory` is the
    share of each training GPU's memory that vLLM takes in colocate mode.
    """

    gpus: str
    device: Literal["cpu", "cuda"]
    nodes: int
    processes: int
    completions_per_device: int
    accumulation: int
    sharding: Sharding
    offload: bool
    gradient_checkpointing: bool
    generation: Literal["none", "transformers", "vllm-colocate", "vllm-server"]
    vllm_gpus: int
    vllm_memory: float | None

    @property
    def generated(self) -> int:
        """Completions that one process makes per step; TRL generates them in one call."""
        return self.completions_per_device * self.accumulation


@dataclass(frozen=True)
class Work:
    """What one optimizer step of a training computes.  Token counts are per completion and bounds from above.

    In supervised fine-tuning an example is a completion of a group of one; `completion_tokens` are those it teaches.

    `rescored`: the policy scores vLLM's completions once more before the update, to correct for vLLM's own log-probs.
    `grouped`: the image and prompt of a group are processed, encoded and prefilled once and not once per completion.
    `images_in_logprobs`: the policy's pass before its update sees images, `images_in_reference`: the reference's does.
    `image_tokens` are a clip's where items are clips, whose `slices` (pairs of frames) the tower attends in one by one.
    `at_once`: rows that a device takes together at most, a group where it is not said.
    """

    prompts: int
    group: int
    prompt_tokens: int
    image_tokens: int
    completion_tokens: int
    precision: Precision
    reference: bool
    images_in_logprobs: bool
    images_in_reference: bool
    rescored: bool
    steps: int
    grouped: bool = True
    slices: int = 1
    at_once: int | None = None
    training: Training = "grpo"

    @property
    def rows(self) -> str:
        """What a step's rows are called."""
        return "completions" if self.training == "grpo" else "examples"

    @property
    def completions(self) -> int:
        """Of one optimizer step, on all devices."""
        return self.prompts * self.group

    @property
    def tokens(self) -> int:
        """Of one prompt with its completion, at most."""
        return self.prompt_tokens + self.completion_tokens

    def under(self, sharding: Sharding) -> "Work":
        """The work as ZeRO does it: deepspeed casts weights to bfloat16 beside float32 masters, autocast or not."""
        cast = self.precision == "autocast" and sharding != "ddp"
        return replace(self, precision="bfloat16") if cast else self


# Sizes of the images of training sets whose images all have one.  Source: Deep-Agent/R1-V#91 (187 image tokens for
# CLEVR's 480 x 320).
IMAGE_SIZES = {
    "leonardPKU/clevr_cogen_a_train": (480, 320),
    "MMInstruction/Clevr_CoGenT_TrainA_70K_Complex": (480, 320),
    "MMInstruction/Clevr_CoGenT_TrainA_R1": (480, 320),
}
# Rows of a training set whose exact number was not seen.  Source: its page, which says 37.8k.
ROWS = {"MMInstruction/Clevr_CoGenT_TrainA_R1": 37_800}
_SYSTEM_TOKENS = 120  # a system turn of upstream's length (R1's), beside a question
_TEXT_TOKENS = 96  # the longest prompt without its image: system line, question, instruction (CLEVR's have about 53)
# As much beside a clip: a question with its options, and a longer instruction (an assumption).
_CLIP_TEXT_TOKENS = 320
_FRAMES, _FRAME_PIXELS = 16, 196 * 28 * 28  # of a clip where a recipe does not say: Open-R1-Video's


def image_tokens(width: int, height: int, shape: Shape) -> int:
    """Tokens of an image that the processor leaves at its size, rounded to whole tokens: 480 x 320 gives 17 x 11 = 187.

    Raises BadInput for a size without pixels.
    """
    if width < 1 or height < 1:
        raise BadInput(f"an image of {width} x {height} has no pixels; write its size as 480x320")
    side = shape.tower.patch * shape.tower.merge
    return max(1, round(width / side)) * max(1, round(height / side))


def work_of(recipe: Recipe, shape: Shape, image: tuple[int, int] | None = None, training: Training = "grpo") -> Work:
    """The work of one step of `recipe`.  `image` is (width, height) of the training images, or of a clip's frames.

    Without it, and for a training set whose images' size is not known, an image takes the whole prompt, and a clip as
    many tokens as its frames may have.
    """
    return _tuning_of(recipe, shape, image) if training == "sft" else _grpo_of(recipe, shape, image)


def _image_of(recipe: Recipe, items: str, image: tuple[int, int] | None) -> tuple[int, int] | None:
    """Width and height of a set's images, where they are known."""
    if image is not None:
        return image
    repo = getattr(recipe.assets.get(items), "repo", None)
    return IMAGE_SIZES.get(repo) if repo else (recipe.image_size.value,) * 2 if recipe.image_size else None


def _most_tokens(recipe: Recipe, shape: Shape) -> int | None:
    """Tokens of an image at most, by the recipe's limit."""
    pixels = recipe.processor["max_pixels"].value if "max_pixels" in recipe.processor else None
    return pixels // (shape.tower.patch * shape.tower.merge) ** 2 if pixels else None


def _tuning_of(recipe: Recipe, shape: Shape, image: tuple[int, int] | None) -> Work:
    """Every example as long as the recipe lets it be, which few are."""
    examples, settings = recipe.sft_examples, {key: setting.value for key, setting in recipe.sft.items()}
    assert examples
    longest, bound = int(settings["max_length"]), _most_tokens(recipe, shape)
    size = _image_of(recipe, examples.items.value, image)
    tokens = image_tokens(*size, shape) if size else (bound or longest)
    tokens = min(tokens, bound or tokens, longest)
    before = _TEXT_TOKENS + (_SYSTEM_TOKENS if examples.system else 0)
    # Learnt are all tokens but the image's, or those of the answer.
    asked = tokens if examples.loss.value == "all" else min(tokens + before, longest)
    _, dtype = recipe.kept_in("sft")
    return Work(
        prompts=recipe.rows_of_step("sft"),
        group=1,
        prompt_tokens=asked,
        image_tokens=tokens,
        completion_tokens=longest - asked,
        precision="bfloat16" if dtype == "bfloat16" else "autocast" if settings.get("bf16") else "float32",
        reference=False,
        images_in_logprobs=True,
        images_in_reference=False,
        rescored=False,
        steps=_tuning_steps(recipe, examples.items.value),
        at_once=recipe.sft_layout.examples_per_device.value if recipe.sft_layout else recipe.rows_of_step("sft"),
        training="sft",
    )


def _tuning_steps(recipe: Recipe, items: str) -> int:
    if "max_steps" in recipe.sft:
        return int(recipe.sft["max_steps"].value)
    asset = recipe.assets.get(items)
    rows = getattr(asset, "rows", None) or ROWS.get(getattr(asset, "repo", ""))
    if rows is None:
        raise BadInput(
            f"recipe {recipe.name}: how many rows {items} has is not known, and so not how many steps "
            f"sft.num_train_epochs {recipe.sft['num_train_epochs'].value} is; write assets.{items}.rows"
        )
    return int(recipe.sft["num_train_epochs"].value) * (int(rows) // recipe.rows_of_step("sft"))


def _grpo_of(recipe: Recipe, shape: Shape, image: tuple[int, int] | None) -> Work:
    train = {key: setting.value for key, setting in recipe.train.items()}
    image = _image_of(recipe, TRAIN_SET, image)
    longest = recipe.max_prompt_length.value if recipe.max_prompt_length else None
    side, bound = shape.tower.patch * shape.tower.merge, _most_tokens(recipe, shape)
    slices = 1
    if recipe.clips:
        clips = {key: setting.value for key, setting in recipe.clips.items()}
        slices = -(-clips.get("frames", _FRAMES) // shape.tower.temporal)
        most = max(1, clips.get("max_pixels", _FRAME_PIXELS) // side**2)
        tokens = slices * (min(most, image_tokens(*image, shape)) if image else most)
        prompt = min(longest or tokens + _CLIP_TEXT_TOKENS, tokens + _CLIP_TEXT_TOKENS)
    elif image:
        tokens = image_tokens(*image, shape)
        tokens = min(tokens, bound) if bound else tokens
        prompt = min(longest or tokens + _TEXT_TOKENS, tokens + _TEXT_TOKENS)
    else:
        prompt = longest or (bound or 1024) + _TEXT_TOKENS
        tokens = min(bound or prompt, prompt)
    wide = recipe.weights_dtype is None or recipe.weights_dtype.value == "float32"
    return Work(
        prompts=recipe.grpo.prompts_per_step,
        group=train["num_generations"],
        prompt_tokens=prompt,
        image_tokens=tokens,
        completion_tokens=train.get("max_completion_length", 256),
        precision=("autocast" if train.get("bf16") else "float32") if wide else "bfloat16",
        reference=train.get("beta", 0.0) != 0,
        images_in_logprobs=recipe.grpo.factors.images_in_logprobs.value != "none",
        images_in_reference=recipe.grpo.factors.images_in_logprobs.value == "both",
        rescored=bool(train.get("use_vllm")) and bool(train.get("vllm_importance_sampling_correction", True)),
        steps=train["max_steps"],
        grouped=recipe.grouped_images.value,
        slices=slices,
    )


def base_repo(recipe: Recipe) -> str:
    """The hub repository of the recipe's base model.  Raises BadInput for a recipe that makes its own."""
    asset = recipe.assets.get(BASE_MODEL)
    if asset is None or asset.kind != "model":
        raise BadInput(f"recipe {recipe.name} makes its base model itself; give --model FOLDER with that model")
    return asset.repo


def exact_splits(completions: int, most: int) -> list[int]:
    """Numbers of processes up to `most` over which a step's completions divide without a rest."""
    return [count for count in range(1, most + 1) if completions % count == 0]
