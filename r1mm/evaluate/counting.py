"""How a number is read out of an output of a counting task.

Source of the strict rule: Deep-Agent/R1-V@bbbbe3d:src/eval/test_qwen2vl_counting_superclevr.py: the first match of the
pattern decides, an output without a match is wrong.  The lenient rule is ours.
"""

import re

from r1mm.answers.values import NUMBER_WORDS

_ANSWER = re.compile(r"<answer>\s*(\d+)\s*</answer>")
_BARE = re.compile(r"<answer>\s*\d+\s*</answer>")
_TRUTH = re.compile(r"(?:<answer>)?\s*(\d+)\s*(?:</answer>)?")

# Whole numbers that stand alone: no part of a decimal, of a negative number, or of a word with letters.
_DIGITS = re.compile(r"(?<![A-Za-z0-9_.-])\d+(?![A-Za-z0-9_]|\.\d)")
_WORD = re.compile(rf"(?<![A-Za-z0-9_-])({'|'.join(NUMBER_WORDS)})(?![A-Za-z0-9_-])", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[\u3002\uff01\uff1f])\s*|\n+")  # Qwen's full stops too


def parse_count(completion: str) -> int | None:
    """The number that an output answers with, or None: what the first `<answer> digits </answer>` holds."""
    found = _ANSWER.search(completion)
    return int(found.group(1)) if found else None


def is_bare_count(completion: str) -> bool:
    """Whether an output is an answer tag with a number and nothing else."""
    return _BARE.fullmatch(completion.strip()) is not None


def count_of_truth(text: str) -> int | None:
    """The number in a solution or ground truth, `<answer> 3 </answer>` or `3`; None when it is not of that form."""
    found = _TRUTH.fullmatch(text.strip())
    return int(found.group(1)) if found else None


def answering_part(completion: str) -> str:
    """The part of an output that gives its answer, as `parse_count_leniently` says; "" when there is none."""
    _, tag, after = completion.rpartition("<answer>")
    if tag:
        return after.partition("</answer>")[0]
    _, closed, after = completion.rpartition("</think>")
    if "<think>" in completion and not closed:
        return ""
    sentences = [part for part in _SENTENCE_END.split(after if closed else completion) if part.strip()]
    return sentences[-1] if sentences else ""


def parse_count_leniently(completion: str) -> int | None:
    """The number that a benevolent reader would take an output to answer with, or None.

    1. What the strict rule finds stands: the lenient rule only adds to it.
    2. Else the answering part is looked at: what follows the last `<answer>`, up to `</answer>` or the end; in an
       output without that tag the last sentence, or last line, after its thoughts.  An output that ends within its
       thoughts (`<think>` never closed) has none: a number from there is a step, not an answer.
    3. The last whole number in digits in that part counts, `C. 6` is 6; without any, the last number word from zero to
       twenty.  Decimals, negative numbers, ordinals (`7th`) and compounds (`twenty-one`) are no counts.
    """
    strict = parse_count(completion)
    if strict is not None:
        return strict
    part = answering_part(completion)
    digits = _DIGITS.findall(part)
    if digits:
        return int(digits[-1])
    words = _WORD.findall(part)
    return NUMBER_WORDS.index(words[-1].lower()) if words else None
