"""R1-V's two rewards, Open-R1-Video's and one of ours, each 0 or 1 per completion, summed by the trainer.

Source of R1-V's: Deep-Agent/R1-V@bbbbe3d:src/r1-v/src/open_r1/grpo.py, and @9d576c7 for the February format match; its
accuracy is open-r1-multimodal's too (EvolvingLMMs-Lab/open-r1-multimodal@232b7ba:src/open_r1/grpo.py), whose code of
c26e521 has a format match of its own.  Of the letter's: Wang-Xiaodong1899/Open-R1-Video@2679e08:src/open_r1/grpo.py.
Ours, `answer`, also reads the problem, for its options (`r1mm.answers`).
"""

import functools
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from r1mm.answers.judging import judge_completion, truth_of
from r1mm.answers.values import equal, read
from r1mm.data.prompts import THOUGHT_THEN_ANSWER
from r1mm.recipe import FormatMatch, Recipe

Reward = Callable[..., list[float]]

_ANSWER = re.compile(r"<answer>(.*?)</answer>")  # without DOTALL, as upstream: an answer over several lines is not seen
_ANSWER_OVER_LINES = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)

_BARE = r"<answer>.*?</answer>"
_LINE = r"^<think>.*?</think><answer>.*?</answer>$"


def matches_format(text: str, match: FormatMatch) -> bool:
    """Whether a completion has the demanded form.

    `prefix`: `re.match` without DOTALL (033f53c to 9d576c7, when 82.5 was published): thoughts over several lines never
    match.  `line`: `re.match` without DOTALL of a pattern that ends with the text and has nothing between the tags
    (EvolvingLMMs-Lab/open-r1-multimodal@c26e521): the whole completion is one line, a last line break aside.  `start`:
    `re.match` with DOTALL, whatever follows the answer (Open-R1-Video).  `full`: `re.fullmatch` with
    DOTALL (from 9cd640a, 2025-02-08).  `bare`: the answer tag and nothing else, for runs that are not to think (our
    choice; upstream has no such reward).
    """
    if match == "bare":
        return re.fullmatch(_BARE, text.strip(), re.DOTALL) is not None
    if match == "line":
        return re.match(_LINE, text) is not None
    if match == "prefix":
        return re.match(THOUGHT_THEN_ANSWER, text) is not None
    if match == "start":
        return re.match(THOUGHT_THEN_ANSWER, text, re.DOTALL) is not None
    return re.fullmatch(THOUGHT_THEN_ANSWER, text, re.DOTALL) is not None


@functools.lru_cache(maxsize=65536)
def _symbolically_equal(completion: str, solution: str) -> bool:
    # Upstream parses the whole completion, not the answer tag, and passes it as the gold side (a known weakness, #38).
    # As upstream, what math-verify cannot read or work out in its time is not equal, and the strings decide: a policy
    # samples digits of other scripts, `0/0` or towers of exponents sooner or later.
    return equal(read(completion), read(solution))


def is_accurate(completion: str, solution: str) -> bool:
    """Upstream's accuracy: math-verify over the whole completion, else string equality of the `<answer>` contents."""
    truth = _ANSWER.search(solution)
    given = _ANSWER.search(completion)
    # Either way is enough; upstream asks math-verify first, which takes a thousand times as long.
    if (given.group(1) if given else completion).strip() == (truth.group(1) if truth else solution).strip():
        return True
    return _symbolically_equal(completion, solution)


def gives_letter(completion: str, solution: str) -> bool:
    """Open-R1-Video's accuracy: math-verify over the whole completion, else the first characters are the same.

    They are those of what the first `<answer>` tags hold, blanks around it aside, over any number of lines: `B`, `B.`
    and `Blue` all give `B.`.  A completion without the tag, or with nothing in it, gives no letter.
    """
    truth = _ANSWER_OVER_LINES.search(solution)
    given = _ANSWER_OVER_LINES.search(completion)
    letter = (truth.group(1) if truth else solution).strip()[:1]
    if given and letter and given.group(1).strip()[:1] == letter:
        return True
    return _symbolically_equal(completion, solution)


def is_the_answer(completion: str, solution: str, problem: str) -> bool:
    """Whether a completion gives the answer, by its option's letter, by its text or by its value.

    Ours.  What counts is the answer after the thoughts, in the tag where there is one, not what math-verify finds in
    the whole; `r1mm.answers.judging` has the rules.  Raises BadInput for a solution that holds no answer.
    """
    return judge_completion(completion, solution, problem).right


def check_solutions(recipe: Recipe, solutions: Iterable[str], problems: Iterable[str]) -> None:
    """Raise BadInput, before the first step, for a solution that a reward of the recipe could not take."""
    if "answer" in recipe.rewards.value:
        for solution, problem in zip(solutions, problems, strict=True):
            truth_of(solution, problem)


def _texts(completions: Sequence[Sequence[dict[str, Any]]]) -> list[str]:
    return [turns[0]["content"] for turns in completions]


def accuracy_reward(completions: Sequence[Sequence[dict[str, Any]]], solution: Sequence[str], **_: Any) -> list[float]:
    """1.0 where a completion gives the solution, else 0.0, in TRL's form of a reward function."""
    return [float(is_accurate(text, truth)) for text, truth in zip(_texts(completions), solution, strict=True)]


def letter_reward(completions: Sequence[Sequence[dict[str, Any]]], solution: Sequence[str], **_: Any) -> list[float]:
    """1.0 where a completion gives the letter of the right option, else 0.0, in TRL's form of a reward function."""
    return [float(gives_letter(text, truth)) for text, truth in zip(_texts(completions), solution, strict=True)]


def answer_reward(
    completions: Sequence[Sequence[dict[str, Any]]], solution: Sequence[str], problem: Sequence[str], **_: Any
) -> list[float]:
    """1.0 where a completion gives the answer by our rules, else 0.0, in TRL's form of a reward function.

    TRL hands over every column of the training set: `problem` is the question as the dataset has it, with its options.
    """
    rows = zip(_texts(completions), solution, problem, strict=True)
    return [float(is_the_answer(text, truth, question)) for text, truth, question in rows]


def format_reward_for(match: FormatMatch) -> Reward:
    """The format reward of one code era, in TRL's form of a reward function."""

    def format_reward(completions: Sequence[Sequence[dict[str, Any]]], **_: Any) -> list[float]:
        return [float(matches_format(text, match)) for text in _texts(completions)]

    return format_reward


def reward_functions(recipe: Recipe) -> list[Reward]:
    """The rewards that a recipe counts, in its order, in TRL's form."""
    known: dict[str, Reward] = {
        "accuracy": accuracy_reward,
        "letter": letter_reward,
        "answer": answer_reward,
        "format": format_reward_for(recipe.grpo.factors.format_match.value),
    }
    return [known[name] for name in recipe.rewards.value]
