"""The base gate: what passes, what stops, and what it tells the user."""

import pytest

from r1mm.errors import BadInput
from r1mm.expected import Claim, Expected, PublishedRow
from r1mm.judge.gate import CHECK, GAIN_IS_OURS, GateResult, base_gate
from tests.outputs import SOURCE, Scored, claim, first, scored

GATE = claim("base_accuracy", "near", 48.0, 8.0, gate=True, by="authors")
THIRD = PublishedRow(who="a user", by="third party", condition="base-think", split="set", accuracy=42.5, source=SOURCE)


def gate(
    right: int, recorded: list[Scored] | None = None, n: int = 200, claims: tuple[Claim, ...] = (GATE,)
) -> GateResult:
    expected = Expected(recipe="r", claims=list(claims), reference_rows=[], published_rows=[THIRD])
    given = None if recorded is None else {"set": recorded}
    return base_gate(expected, "v", {"set": scored(first(right, n))}, given)


@pytest.mark.parametrize(
    ("right", "paired", "state"),
    [
        (96, True, "passes"),  # the same answers
        (90, True, "passes"),
        (85, True, "unclear"),  # 42.5: 5.5 points less, and 8 is not refused
        (85, False, "unclear"),
        (96, False, "passes"),
        (60, True, "stops"),
        (60, False, "stops"),
        (158, True, "stops"),  # 79: direct answers
        (158, False, "stops"),
    ],
)
def test_it_stops_only_what_is_shown_to_lie_outside(right: int, paired: bool, state: str) -> None:
    found = gate(right, scored(first(96)) if paired else None)
    assert found.state == state
    assert found.passes == (state != "stops")
    assert (CHECK in found.words) == (state != "passes")
    assert found.words[-1] == GAIN_IS_OURS
    assert found.checks[0].paired == paired
    assert f"base accuracy {right / 2:.1f} %" in found.words[0]


def test_pairing_tells_more_than_two_shares() -> None:
    paired, alone = gate(90, scored(first(96))).checks[0], gate(90).checks[0]
    assert paired.interval.high - paired.interval.low < 0.5 * (alone.interval.high - alone.interval.low)
    assert "194 of 200 answers the same" in gate(90, scored(first(96))).words[0]


def test_few_items_are_a_warning() -> None:
    found = gate(2, n=8)
    assert (found.state, found.passes) == ("unclear", True)
    assert "goes on, with this warning" in found.words[0]


def test_third_parties_are_named() -> None:
    assert any("a user got 42.5" in words and "within our 95 % interval" in words for words in gate(85).words)
    assert any("outside our 95 % interval" in words for words in gate(158).words)


def test_nothing_to_judge_passes_and_says_so() -> None:
    assert gate(96, claims=()).state == "not judged"
    found = base_gate(
        Expected(recipe="r", claims=[GATE], reference_rows=[]),
        "v",
        {"set": scored(first(10))},
        why_not=["another model"],
    )
    assert (found.passes, found.state, found.words) == (True, "not judged", ["base gate not judged: another model"])


def test_wrong_input_is_refused() -> None:
    with pytest.raises(BadInput, match="gate 'base_accuracy-near-v' needs split 'set', .* evaluated on other"):
        base_gate(Expected(recipe="r", claims=[GATE], reference_rows=[]), "v", {"other": scored(first(10))})
    with pytest.raises(BadInput, match=r"item 'i150' is not among the 150 recorded items"):
        gate(96, scored(first(96, 150)))
    with pytest.raises(ValueError, match="a gate is judged before training"):
        claim("accuracy", "near", 48.0, 8.0, gate=True)
