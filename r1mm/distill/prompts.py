"""How a question about a described scene is put to a language model that cannot see.

Source of the texts: Deep-Agent/R1-V@bbbbe3d:src/distill_r1/query_r1.py (format_query).  Its set was made with v2.

Upstream sends a system prompt too, which tells the model that it is DeepSeek-R1 and how to behave (R1_SYS_PROMPT in
prompt.py beside it).  Here there is none by default, our choice: DeepSeek advises to give R1 no system prompt
(deepseek-ai/DeepSeek-R1, README, Usage Recommendations).
"""

from collections.abc import Callable, Mapping

_TASK = "Answer the question according to scene description.\n\n"
_INSTRUCTIONS = (
    "\nInstructions:\n"
    "1. Carefully analyze the scene description\n"
    "2. Provide your reasoning if necessary\n"
    "3. For the final answer, start a new line with '**The answer is: **' followed by your answer\n"
)


def prompt_v1(description: str, question: str) -> str:
    """Task, description, question."""
    return f"{_TASK}{description}\nQuestion:\n{question}"


def prompt_v2(description: str, question: str) -> str:
    """The same, and how to mark the answer."""
    return prompt_v1(description, question) + _INSTRUCTIONS


PROMPTS: Mapping[str, Callable[[str, str], str]] = {"v1": prompt_v1, "v2": prompt_v2}


def messages_of(prompt: str, system: str | None = None) -> list[dict[str, str]]:
    """A conversation that has yet to be answered."""
    user = {"role": "user", "content": prompt}
    return [user] if system is None else [{"role": "system", "content": system}, user]
