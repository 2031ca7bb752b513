"""Where in an output its answer stands: rules in a stated order, from the form that prompts demand to any last words.

An answer is what comes after the thoughts: what a model thinks on the way is none.  `</think>` ends thoughts; where it
is missing an `<answer>` does; thoughts that nothing ends hold no answer.

The rules, each looked at only where those before found nothing:

1. `tag`: what each `<answer>...</answer>` holds.  A tag decides, also where it is empty.
2. `open tag`: what follows a last `<answer>` that nothing closes, or one in other letters (`<Answer>`).
3. `statement`: what `\\boxed{...}` holds, or the sentence after the last "answer is", "answer:", "correct option is".
4. `bare`: all of it, where it is one short line: `B`, `40°`, `x = 5`.
5. `last words`: the last sentence.  A number or letter in it need not be meant as the answer, so that no reward rests
   on this rule; a forced reading alone uses it (`r1mm.evaluate.readings`).
"""

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from r1mm.answers.values import boxed

Rule = Literal["tag", "open tag", "statement", "bare", "last words"]

_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_OPEN = re.compile(r"<\s*answer\s*>(?!.*<\s*answer\s*>)(.*?)(?:<\s*/\s*answer\s*>|$)", re.DOTALL | re.IGNORECASE)
_STATED = re.compile(
    r"(?:\banswer(?:\s+(?:choice|option|to\s+the\s+question))?|\b(?:correct|right|best)\s+(?:answer|option|choice|one|letter)"
    r"|\b(?:option|choice)\s+(?:that\s+is\s+)?(?:correct|right))\**\s*(?:(?:is|are|would\s+be|should\s+be|must\s+be)\b|[:=])"
    r"|\bfinal\s+answer\**(?=\s*\n)"
    r"|\b(?:choose|pick|select)\b|\u7b54\u6848(?:\u662f|\u4e3a|[:\uff1a])|\u6545\u9009|\u9009\u62e9?[:\uff1a]?(?=\s*[A-J])",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(
    r"(?<=[^A-J\s][.!?])\s+(?=\S)|(?<=[A-J][.!?])\s+(?=[A-Z][a-z])|(?<=[\u3002\uff01\uff1f])|\n+"
)
_MOST_WORDS = 12  # of a bare line: longer ones are prose, to be read for a statement


class Found(NamedTuple):
    """Where an answer was found, and its text; several where several tags hold one each."""

    rule: Rule
    texts: tuple[str, ...]


def sentences(text: str) -> list[str]:
    """The sentences and lines of a text.  `B. 40°` is one, `B. The angle ...` two."""
    return [part.strip() for part in _SENTENCE_END.split(text) if part.strip()]


def after_thoughts(completion: str) -> str | None:
    """What an output says when it has thought; None where its thoughts never end."""
    _, closed, after = completion.rpartition("</think>")
    if closed:
        return after
    if "<think>" not in completion:
        return completion
    tag = _OPEN.search(completion)
    return completion[completion.lower().index("<answer") :] if tag and "<answer" in completion.lower() else None


def statement(text: str) -> str | None:
    """The answer that a text states last: boxed, or after "the answer is"; None where it states none."""
    stated = list(_STATED.finditer(text))
    held = boxed(text)
    if held is not None and (not stated or text.rfind("boxed") > stated[-1].start()):
        return held
    for found in reversed(stated):
        parts = sentences(text[found.end() :].lstrip(" :*\n"))
        if parts:
            return parts[0]
    return None


def found_by_rule(completion: str, *, forced: bool = False) -> Iterator[Found]:
    """What each rule finds in an output, in their order.  See above.

    `forced`: an empty tag is none, of several tags the last counts, and the last words are looked at.
    """
    said = after_thoughts(completion)
    if said is None or not said.strip():
        return
    tags = tuple(_TAG.findall(said))
    if forced:
        tags = tuple(text for text in tags if text.strip())[-1:]
    if tags:
        yield Found("tag", tags)
    opened = _OPEN.search(said)
    if opened and opened.group(1).strip():
        yield Found("open tag", (opened.group(1),))
    said = re.sub(r"<\s*/?\s*answer\s*>", " ", said, flags=re.IGNORECASE)
    stated = statement(said)
    if stated is not None:
        yield Found("statement", (stated,))
    lines = [line for line in said.splitlines() if line.strip()]
    if len(lines) == 1 and len(lines[0].split()) <= _MOST_WORDS:
        yield Found("bare", (lines[0],))
    if forced and lines:
        yield Found("last words", (sentences(said)[-1],))
