"""Shares of a recipe's distillation that are none are refused when it is loaded."""

from typing import Any

import pytest
from pydantic import ValidationError

from r1mm.distill_parts import Distill, Habits

HABITS: dict[str, Any] = {
    "mistakes": {"forgets": 0.2},
    "rechecks": 0.1,
    "concludes": 0.5,
    "endings": {"labelled": 0.5, "bold": 0.5},
    "obeys": 0.3,
}


def test_shares_are_taken() -> None:
    assert Habits.model_validate(HABITS).endings == {"labelled": 0.5, "bold": 0.5}


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"mistakes": {"lies": 0.1}}, "Input should be 'forgets'"),
        ({"mistakes": {"forgets": 0.7, "guesses": 0.4}}, "mistakes sum to 1.1"),
        ({"endings": {"labelled": 0.5}}, "endings sum to 0.5"),
        ({"endings": {"labelled": 1.5, "bold": -0.5}}, "less than or equal to 1"),
        ({"rechecks": 1.2}, "less than or equal to 1"),
        ({"obeys": -0.1}, "greater than or equal to 0"),
    ],
)
def test_habits_that_are_none_are_refused(changed: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        Habits.model_validate(HABITS | changed)


def test_kinds_of_questions_sum_to_one() -> None:
    parts = {
        **{"scenes": "train", "per_picture": 2, "seed": 1, "prompt": "v2", "reasoner": HABITS, "max_tokens": 200},
        **{"rules": "upstream", "problem": "upstream", "kinds": {"count": 0.5, "more": 0.4}},
    }
    with pytest.raises(ValidationError, match=r"kinds sum to 0\.9"):
        Distill.model_validate(
            {key: {"value": value, "source": "our choice: for a test"} for key, value in parts.items()}
        )
