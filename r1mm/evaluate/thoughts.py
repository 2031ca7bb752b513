"""Where in an output its answer stands: in its tag, or after its thoughts."""

import re

_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


def without_thoughts(text: str) -> str:
    """The text without its thoughts: each `<think>...</think>`, and what stands before a lone `</think>`.

    Thoughts that never end stay, as lmms-eval leaves them (lmms-eval==0.7.3:api/reasoning.py).
    """
    while "<think>" in text and "</think>" in text:
        start = text.find("<think>")
        end = text.find("</think>", start)
        if end == -1:
            break
        text = text[:start] + text[end + len("</think>") :]
    if "</think>" in text and "<think>" not in text:
        text = text.rpartition("</think>")[2]
    return text.strip()


def tagged_answer(text: str) -> str | None:
    """What the first answer tag holds, or None; lmms-eval==0.7.3:tasks/mmmu/utils.py looks there too."""
    found = _TAGGED.search(text)
    return found.group(1).strip() if found else None


def never_ends_thinking(text: str) -> bool:
    """Whether an output breaks off within its thoughts, so that nothing in it is meant as the answer."""
    return "<think>" in text and "</think>" not in text
