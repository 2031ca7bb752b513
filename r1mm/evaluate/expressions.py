"""How the answer to a geometry problem is read out of an output and compared with the truth, by math-verify.

Source of the strict rule: Deep-Agent/R1-V@bbbbe3d:src/eval/test_qwen2vl_geoqa.py: math-verify reads the whole output
and the truth with its defaults, the output stands on the gold side, and what cannot be read is wrong.  The lenient rule
is ours.

Two properties of the strict rule, the same in math-verify 0.5.2 (upstream's pin) and 0.9.0, were found on the 754
prompts.  It does not see a number that touches a tag: a bare `<answer>140°</answer>` is wrong, for all but 61 of the
truths, so that outputs without thoughts cannot score under it.  And 17 of the truths (`√{3}`) are read as nothing, so
that no output is right there.  Of others only the first number is read (`8√{3}` as 8).
"""

import re
from typing import Any

from r1mm.answers.values import equal, read

_BARE = re.compile(r"<answer>[^<]*</answer>")
_TAGS = re.compile(r"</?(?:think|answer)>")
_SOLUTION = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


def _text_of(found: tuple[Any, ...]) -> str | None:
    return str(found[0]) if found else None


def _without_tags(completion: str) -> str:
    _, tag, after = completion.rpartition("<answer>")
    part = after.partition("</answer>")[0] if tag else completion
    return _TAGS.sub(" ", part).strip()


def parse_expression(completion: str) -> str | None:
    """What math-verify reads out of the whole output, as text; None when it reads nothing."""
    return _text_of(read(completion))


def parse_expression_leniently(completion: str) -> str | None:
    """What it reads out of the answer alone: the last `<answer>` without its tags, or the whole output without any."""
    return _text_of(read(_without_tags(completion)))


def is_right(completion: str, truth: str) -> bool:
    """Upstream's rule: math-verify on the whole output."""
    return equal(read(completion), read(truth))


def is_right_leniently(completion: str, truth: str) -> bool:
    """Right by upstream's rule, or when the answer is read alone, its tags taken away."""
    return is_right(completion, truth) or equal(read(_without_tags(completion)), read(truth))


def is_bare_answer(completion: str) -> bool:
    """Whether an output is an answer tag and nothing else."""
    return _BARE.fullmatch(completion.strip()) is not None


def expression_of_truth(text: str) -> str | None:
    """The truth in a solution, `<answer> 140° </answer>` or `140°`; None when there is none."""
    found = _SOLUTION.search(text)
    return (found.group(1) if found else text).strip() or None
