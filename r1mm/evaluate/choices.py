"""How the letter of an option is read out of an output to a question with lettered options.

The rules are ours, for our own tasks and for `r1mm score`.  lmms-eval's tasks keep its marks (`lmms_samples.py`): the
first of the capitals A to E after closed thoughts, a guess where there is none.  How Open-R1-Video read outputs that
think was never published.  Where an output is a bare letter, as when no thoughts are asked for, all read the same.
"""

import re

from r1mm.evaluate.counting import answering_part

_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_BARE = re.compile(r"<answer>[^<]*</answer>")
_TRUTH = re.compile(r"(?:<answer>)?\s*([A-Z])[.)]?\s*(?:</answer>)?")
# At the start: B, (B), B., B: red.  Not `A man`: a letter that goes on without a mark may be a word.
_AT_START = re.compile(r"\s*[(\[]?([A-Z])(?:[.:),\]]|\s*$|\s*\n)")
# Anywhere, standing alone: `option B`; but A and I before another word are words themselves.
_ALONE = re.compile(r"(?<![A-Za-z0-9'\u2019])([B-HJ-Z]|[AI](?!\s+[a-z]))(?![A-Za-z0-9'\u2019])")


def parse_letter(completion: str) -> str | None:
    """The letter that an output answers with, or None.

    It stands at the start of what the first `<answer>` tag holds, or, in an output without one, of the output, and ends
    there or is followed by one of `.:),]` or a new line: what is right is the letter, not a word that begins with it.
    """
    tagged = _TAGGED.search(completion)
    found = _AT_START.match(tagged.group(1) if tagged else completion)
    return found.group(1) if found else None


def parse_letter_leniently(completion: str) -> str | None:
    """The letter that a benevolent reader would take an output to answer with, or None.

    What the strict rule finds stands.  Else the last capital that stands alone in the part that answers (after the last
    `<answer>`, or in the last sentence after the thoughts), articles and pronouns aside: `It is option C` is C.
    """
    strict = parse_letter(completion)
    if strict is not None:
        return strict
    letters = _ALONE.findall(answering_part(completion))
    return letters[-1] if letters else None


def is_bare_choice(completion: str) -> bool:
    """Whether an output is an answer tag and nothing else."""
    return _BARE.fullmatch(completion.strip()) is not None


def letter_of_truth(text: str) -> str | None:
    """The letter in a solution or ground truth, `<answer>B.</answer>` or `B`; None when it is not of that form."""
    found = _TRUTH.fullmatch(text.strip())
    return found.group(1) if found else None
