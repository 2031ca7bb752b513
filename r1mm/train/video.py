"""How Open-R1-Video trained, as a reading of the flagship recipe.

Open-R1-Video clamps the KL's log-ratio to +-11 (`Wang-Xiaodong1899/Open-R1-Video@50eb65f`, its GRPO trainer); TRL does
not, and neither do we: a token would have to be e^11 times as likely to one of policy and reference as to the other.
`r1mm fidelity` reports the largest log-ratio met.
"""

from typing import Any

from r1mm.recipe import Setting, Variant

CLAMP = 11.0  # upstream's bound of |log reference - log policy| in the KL; not applied here

_SCRIPT = "Wang-Xiaodong1899/Open-R1-Video@50eb65f:qwen-7b.sh"

# What Open-R1-Video sets otherwise than R1-V's flagship recipe; all else is R1-V's, whose trainer it took over.
OPEN_R1_VIDEO = Variant(
    description="Open-R1-Video's training, clips in both log-prob passes.",
    upstream="Wang-Xiaodong1899/Open-R1-Video@50eb65f",
    overrides={
        "factors.images_in_logprobs": Setting[Any](
            value="both", source="Wang-Xiaodong1899/Open-R1-Video#10 (clips given to the reference model, 35e2b27)"
        ),
        "prompts.train": Setting[Any](
            value="{question} Output the thinking process in <think> </think> and final answer in <answer> </answer> "
            "tags, i.e., <think> reasoning process here </think><answer> answer here </answer>. ",
            source="Wang-Xiaodong1899/Open-R1-Video@50eb65f:question template of its training (a blank at the end)",
        ),
        "sharding": Setting[Any](value="zero-3", source=f"{_SCRIPT} (scripts/zero3_offload.json, with offload)"),
        "prompts_per_step": Setting[Any](value=4, source=f"{_SCRIPT} (4 GPUs x 1 prompt x 1 accumulation step)"),
        "max_prompt_length": Setting[Any](value=8192, source=f"{_SCRIPT} (max_prompt_length)"),
        "train.beta": Setting[Any](value=0.1, source=f"{_SCRIPT} (beta)"),
        "train.num_generations": Setting[Any](value=8, source="trl==0.14.0:trl/trainer/grpo_config.py (default)"),
        "train.max_completion_length": Setting[Any](
            value=256, source="trl==0.14.0:trl/trainer/grpo_config.py (default)"
        ),
        "train.learning_rate": Setting[Any](value=1.0e-6, source=f"{_SCRIPT} (learning_rate)"),
        "train.temperature": Setting[Any](
            value=1.0, source="Wang-Xiaodong1899/Open-R1-Video@50eb65f:GRPO trainer (1 written into its code)"
        ),
        "train.top_k": Setting[Any](
            value=50, source="transformers==4.49.0:generation/configuration_utils.py (default in effect)"
        ),
    },
)
