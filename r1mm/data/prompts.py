"""Questions and conversations, as upstream words and lays them out.  The templates around them stand in each recipe."""

from typing import Any

# Deep-Agent/R1-V@bbbbe3d: the training set's and the SuperCLEVR evaluation's wording.
QUESTIONS = {
    "train": "How many items are there in the image?",
    "evaluation": "How many different items are there in the image?",
}


def conversation(text: str) -> list[dict[str, Any]]:
    """One user turn, image first, as Deep-Agent/R1-V@bbbbe3d:src/r1-v/src/open_r1/grpo.py builds it.

    The chat template adds the default system turn.
    """
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
