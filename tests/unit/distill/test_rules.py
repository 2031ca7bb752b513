"""What upstream's rules and the strict ones take for the answer of a response."""

import re

import pytest

from r1mm.distill.patterns import CONCLUSION, UPSTREAM
from r1mm.distill.rules import (
    CUT,
    DIFFERENT,
    EMPTY_BLOCK,
    NO_PATTERN,
    NO_STATEMENT,
    NO_TAGS,
    NOT_AT_THE_END,
    NOT_ONE_BLOCK,
    Decision,
    by_strict,
    by_upstream,
)

THINK = "<think>\nI look at the list.\n</think>\n\n"


@pytest.mark.parametrize(
    ("said", "answer", "by"),
    [
        ("Therefore, the answer is **5**", "5", "so-bold"),
        ("Thus **No**.", "no", "so-bold"),
        ("So, the answer is YES", "yes", "so-plain"),
        ("the answer is ** 12 **", "12", "the-answer-is-bold"),
        ("Final answer **7**", "7", "final-answer-bold"),
        ("**The answer is: ** 4", "4", "bold-the-answer-is"),
        ("**Answer:** Yes", "yes", "bold-answer"),
        ("**Answer**: 6", "6", "bold-answer-then-colon"),
        ("**Answer:** There are 8", "8", "bold-answer-there-are"),
        ("**Final Count:** 3 cubes", "3", "bold-final-count"),
        ("**Total:** 9", "9", "bold-total"),
        ("The answer is: 2", "2", "plain-the-answer-is"),
        ("Answer: no", "no", "plain-answer"),
        ("It should be 4.", "4", "should-be"),
        ("**5**", "5", "bold-number"),
        ("**5 spheres**", "5", "bold-number-of-things"),
        ("**5 big red things**", "5", "bold-number-and-words"),
        (r"$\boxed{5}$", "5", "boxed-in-dollars"),
        (r"\boxed{5}", "5", "boxed"),
        ("There are 5 objects.", "5", "there-are"),
    ],
)
def test_each_pattern_of_upstreams_decides_a_response(said: str, answer: str, by: str) -> None:
    assert by_upstream(THINK + said) == Decision(answer, by)


def test_all_of_upstreams_patterns_but_one_can_decide() -> None:
    longer = next(pattern for pattern in UPSTREAM if pattern.name == "bold-final-count-things")
    shorter = UPSTREAM[UPSTREAM.index(longer) - 1]
    assert longer.expression.startswith(shorter.expression)  # so that this one never comes to its turn
    assert len(UPSTREAM) == 20
    assert [pattern.group for pattern in UPSTREAM].count(CONCLUSION) == 4


def test_the_last_line_comes_before_the_pattern() -> None:
    assert by_upstream(f"{THINK}So **3**\nor the answer is **4**\n").by == "the-answer-is-bold"
    # The third line from the end is still looked at for a conclusion, the fourth is not.
    assert by_upstream(f"{THINK}so 3\n\n") == Decision("3", "so-plain")
    assert by_upstream(f"{THINK}so 3\n\n\n") == Decision(None, NO_PATTERN)


@pytest.mark.parametrize(
    ("response", "upstream", "strict"),
    [
        # A number on the way: in bold, before a final that upstream has no pattern for.
        (
            "<think>\nThere are **3** red cubes and two blue ones.\n</think>\nIn all that makes\n\n\\boxed{5}\n",
            Decision("3", "bold-number"),
            Decision("5", "boxed"),
        ),
        # "so 2" among the last lines, of a count that goes on.
        (
            f"{THINK}The cubes are red, so 2 of them count.\n**The answer is: ** 5 things",
            Decision("2", "so-plain"),
            Decision("5", "labelled"),
        ),
        # And "so" at the end of another word.
        (
            f"{THINK}There is also 1 sphere.\n\n**The answer is: ** 5",
            Decision("1", "so-plain"),
            Decision("5", "labelled"),
        ),
        # A thought that is corrected later.
        (
            "<think>\nThen it should be 4. Wait, one is hidden: five.\n</think>\n\nI count **5** things.",
            Decision("4", "should-be"),
            Decision("5", "bold"),
        ),
        # Bold counts of parts, with the whole in words.
        (
            f"{THINK}**2** cubes and **3** spheres\nso there are five.",
            Decision("2", "bold-number"),
            Decision(None, NO_STATEMENT),
        ),
        # The answer to the first question of two.
        (
            f"{THINK}**Answer:** 3\nNo, with the hidden ones:\n**Answer:** 5",
            Decision("3", "bold-answer"),
            Decision(None, DIFFERENT),
        ),
        # Tags that are only spoken of: no thought, and yet upstream takes it.
        (
            "I was told to use <think> and </think>.\n**Answer:** 5",
            Decision("5", "bold-answer"),
            Decision(None, NOT_ONE_BLOCK),
        ),
        # A thought without an end, closed by a mention.
        ("<think>\nso 4 </think> <think>", Decision("4", "so-plain"), Decision(None, NOT_ONE_BLOCK)),
        ("<think>\n\n</think>\n**Answer:** 5", Decision("5", "bold-answer"), Decision(None, EMPTY_BLOCK)),
        ("**Answer:** 5", Decision(None, NO_TAGS), Decision(None, NOT_ONE_BLOCK)),
        # Upstream's boxed patterns know numbers alone.
        (f"{THINK}\\[\\boxed{{\\text{{No}}}}\\]", Decision(None, NO_PATTERN), Decision("no", "boxed")),
        # "no" that denies nothing.
        (f"{THINK}Thus no cube is left out: **5**", Decision("no", "so-plain"), Decision("5", "bold")),
        (f"{THINK}Therefore no. **The answer is: no**", Decision("no", "so-plain"), Decision("no", "labelled")),
    ],
)
def test_where_upstream_picks_a_number_and_what_is_strict_about_it(
    response: str, upstream: Decision, strict: Decision
) -> None:
    assert by_upstream(response) == upstream
    assert by_strict(response) == strict


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("**The answer is: ** 5", "5"),
        ("**The answer is: 5**\n\nThe list has two cubes and three spheres.", "5"),
        ("**The answer is: **\n\n12", "12"),
        ("**Final Answer**\n\\boxed{0}", "0"),
        ("The answer is $\\boxed{5}$, as shown above.\nLet me know if more is wanted.", "5"),
        ("The **answer** is **yes**.", "yes"),
        ("**Answer:** There are 6 cubes", "6"),
        ("Final count: 4", "4"),
        ("2 + 3 = **5 things**", "5"),
        ("The answer is 5.\nSo the answer is 5.", "5"),
        ("The answer is 5 because there are 2 + 3.\nThe list names no other.", NOT_AT_THE_END),
        ("The answer is no more than 5.", NO_STATEMENT),
        ("The answer is 3.5", NO_STATEMENT),
        ("The answer is not known", NO_STATEMENT),
        ("Both **2** and **3** are there", DIFFERENT),
        ("\\boxed{4}\nOr rather, the answer is 5", DIFFERENT),
        ("**cubes:** 2 **spheres:**", NO_STATEMENT),  # bold on both sides, and not bold
        ("There are 5 cubes.", NO_STATEMENT),
        ("", NO_STATEMENT),
    ],
)
def test_a_strict_answer_is_stated_once_at_the_end(said: str, found: str) -> None:
    decision = by_strict(THINK + said, "stop")
    assert found == (decision.answer or decision.by)


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_a_response_that_was_cut_is_not_strict(reason: str) -> None:
    assert by_strict(f"{THINK}**Answer:** 5", reason) == Decision(None, CUT)
    assert by_upstream(f"{THINK}**Answer:** 5", reason).answer == "5"


def test_thoughts_are_never_looked_at_by_the_strict_rules() -> None:
    thoughts = "\n".join(f"**The answer is: ** {number}, so **{number}**, \\boxed{{{number}}}" for number in range(9))
    assert by_strict(f"<think>{thoughts}</think>\n**Answer:** 9") == Decision("9", "labelled")


def test_long_responses_take_no_long_time() -> None:
    """Repetitions, which are what a reasoning model falls into, of what patterns are made of."""
    for piece in ("** ", "answer is: ", "so, ", "**5 things ", "\\boxed{", " ", "\n"):
        text = THINK + piece * (20_000 // len(piece))
        by_upstream(text)
        by_strict(text)


def test_names_are_unique() -> None:
    names = [pattern.name for pattern in UPSTREAM]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z-]+", name) for name in names)
