"""The hand-made pairs: both rewards give every completion the verdict that the table says."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from r1mm.train.rewards import is_accurate, is_the_answer

CONTENT: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("answer_pairs.yaml").read_text(encoding="utf-8"))
PAIRS: list[dict[str, str]] = CONTENT["pairs"]


@pytest.mark.parametrize("topic", sorted({pair["topic"] for pair in PAIRS}))
def test_both_verdicts_are_those_of_the_table(topic: str) -> None:
    for pair in (one for one in PAIRS if one["topic"] == topic):
        problem = CONTENT["problems"][pair["problem"]]
        solution = CONTENT["solution"].format(thoughts=problem["thoughts"], truth=pair["truth"])
        assert is_accurate(pair["completion"], solution) is (pair["upstream"] == "right"), pair
        assert is_the_answer(pair["completion"], solution, problem["text"]) is (pair["ours"] == "right"), pair


def test_the_table_is_what_it_claims_to_be() -> None:
    assert len(PAIRS) >= 100
    assert len({(pair["problem"], pair["truth"], pair["completion"]) for pair in PAIRS}) == len(PAIRS)
    assert {pair["problem"] for pair in PAIRS} == set(CONTENT["problems"])
    marks = {pair[who] for pair in PAIRS for who in ("reader", "upstream", "ours")}
    assert marks == {"right", "wrong"}
    count = Counter((pair["reader"], pair["upstream"], pair["ours"]) for pair in PAIRS)
    assert count["right", "wrong", "right"] + count["wrong", "right", "wrong"] >= 25
    # Ours never rewards a wrong answer here; the right ones that it refuses are said to be limits of it.
    assert all(pair["ours"] == "wrong" for pair in PAIRS if pair["reader"] == "wrong")
    refused = [pair for pair in PAIRS if pair["reader"] == "right" and pair["ours"] == "wrong"]
    assert all(pair["why"].startswith("a limit of ours") for pair in refused)
    assert len(refused) == 2
