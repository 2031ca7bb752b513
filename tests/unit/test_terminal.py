"""What the terminal shows of a verdict with recorded comparisons, of one that is not comparable, and of the gate."""

from pathlib import Path
from typing import Any

import pytest

from r1mm.evaluate.readings import Reading
from r1mm.expected import Expected
from r1mm.judge.verdict import judge
from r1mm.terminal import print_answer, print_comparison, print_verdict
from tests.outputs import claim, first, outputs, scored


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def verdict(**changes: Any) -> dict[str, Any]:
    claims = [
        claim("gain", "near", 34.5, 12.0, by="authors"),
        claim("accuracy", "near", 60.0, 8.0, by="third party"),
    ]
    whole: dict[str, Any] = {
        "recipe": "r", "size": "full", "variant": "v", "seed": 1, "base_seed": None,
        "outputs": {"set": outputs(96, 150)},
        "recorded": {"set": {"base-think": scored(first(90)), "trained-think": scored(first(165))}},
    }  # fmt: skip
    found = judge(Expected(recipe="r", claims=claims, reference_rows=[]), **(whole | changes))
    return found.model_dump(mode="json")


def test_recorded_comparisons_and_third_parties(capsys: pytest.CaptureFixture[str]) -> None:
    print_verdict(verdict(), Path("report.html"))
    said = capsys.readouterr().out
    assert "our outputs minus upstream's recorded ones" in said
    line = next(line for line in said.splitlines() if "base-think" in line and "45.0" in line)
    assert all(part in line for part in ("48.0", "+3.0", "194"))
    assert "[third party's; not counted]" in said


def test_a_run_that_is_not_comparable_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    print_verdict(verdict(comparable=False, why_not=["its model is another"]), Path("report.html"))
    said = capsys.readouterr().out
    assert "NOT JUDGED" in said
    assert "not comparable  the statement" in said
    assert said.count("its model is another") == 1


def test_verdicts_of_before_are_still_shown(capsys: pytest.CaptureFixture[str]) -> None:
    old = verdict()
    for key in ("recorded", "comparable", "why_not", "published_rows"):
        del old[key]
    for one in old["claims"]:
        del one["by"]
    print_verdict(old, Path("report.html"))
    assert "report.html" in capsys.readouterr().out


def test_how_much_of_a_gain_is_form(capsys: pytest.CaptureFixture[str]) -> None:
    readings = {
        condition: [Reading(f"i{k}", k < parseable, k < right, "tag", k < right) for k in range(200)]
        for condition, parseable, right in (("base-think", 100, 60), ("trained-think", 190, 152))
    }
    found = verdict(readings={"set": readings})
    print_verdict(found, Path("report.html"))
    said = capsys.readouterr().out
    assert "set: of +46.0 (" in said
    assert "points, parsing explains +31.5 (" in said
    print_comparison([found, verdict(variant="w")], Path("report.html"))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert next(line for line in lines if line[:2] == ["v", "set"])[7:9] == ["+31.5", "+14.5"]
    assert not any(cell.startswith("+") for line in lines if line[:2] == ["w", "set"] for cell in line)  # not read


def test_variants_with_their_answer(capsys: pytest.CaptureFixture[str]) -> None:
    print_comparison([verdict()], Path("report.html"), ["82.5 is [not] what it was."])
    assert "- 82.5 is [not] what it was." in capsys.readouterr().out
    print_answer(["one", "two"])
    assert capsys.readouterr().out.splitlines() == ["- one", "- two"]


def test_variants_of_several_seeds_that_are_not_comparable(capsys: pytest.CaptureFixture[str]) -> None:
    found = [verdict(seed=seed, comparable=False, why_not=["its model is another"]) for seed in (1, 2)]
    print_comparison(found, Path("report.html"))
    said = capsys.readouterr().out
    assert "r, seeds 1, 2: accuracy" in said
    assert "v, seed 2" in said
    assert said.count("not comparable: its model is another") == 1
