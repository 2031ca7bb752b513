"""The parts of a recipe about its trainings: which there are, what only one of them reads, and fine-tuning's own.

What GRPO reads stands in recipe.py.
"""

from typing import Literal, get_args

from pydantic import model_validator

from r1mm.sourced import Setting, Strict

# The stages that train, in their order; each starts from the model that the one before it leaves.
Training = Literal["sft", "grpo"]
TRAININGS: tuple[Training, ...] = get_args(Training)
# The parts of a recipe that only one training reads, and those of them that only a full recipe has.
PARTS: dict[Training, tuple[str, ...]] = {
    "sft": ("sft", "sft_examples", "examples_per_step", "sft_layout"),
    "grpo": (
        *("train", "factors", "prompts_per_step"),
        *("max_prompt_length", "schedule_steps", "weights_dtype", "sharding"),
    ),
}
# Of GRPO too, but not missed where a recipe says nothing.
GRPO_DEFAULTS = ("rewards", "grouped_images", "over_long")
OF_FULL = ("sft_layout", "max_prompt_length", "schedule_steps", "weights_dtype", "sharding")
Sharding = Literal["ddp", "zero-2", "zero-3"]
WeightsDtype = Literal["float32", "bfloat16"]


def once(name: str, setting: Setting[str] | None, *fields: str) -> None:
    """Raise ValueError where a template does not hold each of `fields`, in braces, exactly once."""
    for field in fields if setting else ():
        if setting and setting.value.count(f"{{{field}}}") != 1:
            raise ValueError(f"template {name} {setting.value!r} must hold {{{field}}} exactly once")


class SftExamples(Strict):
    """How a row with thinking, problem, solution and image becomes an example of supervised fine-tuning.

    `items` names the set.  In the user's turn the `image` stands first or last, beside `prompt` (a template with
    {question}); the assistant's turn is `response` (a template with {thinking} and {solution}); `system` is the system
    turn, the chat template's own where there is none.  `open_turn`: another turn of the assistant is opened after that.
    `loss`: of all tokens but padding and image, or of the answer's alone, with the token that ends it.  `too_long`:
    what becomes of an example of more than `sft.max_length` tokens; none is ever cut.
    """

    items: Setting[str]
    image: Setting[Literal["first", "last"]]
    prompt: Setting[str]
    response: Setting[str]
    system: Setting[str] | None = None
    open_turn: Setting[bool]
    loss: Setting[Literal["all", "answer"]]
    too_long: Setting[Literal["stop", "skip"]]

    @model_validator(mode="after")
    def _has_fields(self) -> "SftExamples":
        once("prompt", self.prompt, "question")
        once("response", self.response, "thinking", "solution")
        return self


class SftLayout(Strict):
    """How upstream laid its supervised fine-tuning out; a plan keeps what it can of it."""

    sharding: Setting[Sharding]
    weights_dtype: Setting[WeightsDtype]
    examples_per_device: Setting[int]
    gradient_checkpointing: Setting[bool]
