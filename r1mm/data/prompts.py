"""Questions, conversations and the form of an answer, as upstream has them.

The templates around the questions stand in each recipe.
"""

from typing import Any

# Deep-Agent/R1-V@bbbbe3d: the training set's and the SuperCLEVR evaluation's wording.
QUESTIONS = {
    "train": "How many items are there in the image?",
    "evaluation": "How many different items are there in the image?",
}

# Deep-Agent/R1-V@bbbbe3d:src/r1-v/src/open_r1/grpo.py: what the format reward looks for.  Whether thoughts may have
# several lines is for who matches to say (re.DOTALL), and is one of the recipes' factors.
THOUGHT_THEN_ANSWER = r"<think>.*?</think>\s*<answer>.*?</answer>"


def conversation(text: str, *, shown: bool = True, system: str | None = None) -> list[dict[str, Any]]:
    """One user turn, image first, as Deep-Agent/R1-V@bbbbe3d:src/r1-v/src/open_r1/grpo.py builds it.

    Not `shown`: the text alone.  The chat template adds the default system turn.  With a `system` text that turn holds
    it, as EvolvingLMMs-Lab/open-r1-multimodal@c26e521:src/open_r1/grpo.py has it.
    """
    content = [{"type": "image"}, {"type": "text", "text": text}]
    turns = [{"role": "user", "content": content if shown else content[1:]}]
    if system is None:
        return turns
    return [{"role": "system", "content": [{"type": "text", "text": system}]}, *turns]
