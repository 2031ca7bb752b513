"""The page that sets variants side by side: their cells, what it warns of and refuses, what it says of the factors."""

import dataclasses
from typing import Any

import pytest

from r1mm.errors import BadInput
from r1mm.report import words as shown_as
from r1mm.report.comparison import ComparisonInputs, build_comparison, factor_reading
from r1mm.report.page import ReportInputs
from tests.unit.report.pages import Reader, check_self_contained, with_few_figures, words


def test_the_comparison_shows_each_variant_in_its_cell(runs: list[ReportInputs], comparison: str) -> None:
    for run in runs:
        factors = run.resolved["recipe"]["factors"]
        match, images = factors["format_match"]["value"], factors["images_in_logprobs"]["value"]
        start = comparison.index(f'<div class="cell {match} {images}">')
        cell = comparison[start : comparison.index("</div>", start)]
        assert run.resolved["variant"] in cell
        for split in ("id", "ood"):
            assert shown_as.percent(run.verdict["scores"][split]["trained-think"]["accuracy"]) in cell
            assert shown_as.signed(run.verdict["comparisons"][split]["gain"]["points"]) in cell
    shown = words(Reader(comparison).text)
    assert "In these runs format_match switched the format; images_in_logprobs left it as it was." in shown
    assert "say nothing about the full-size model" in shown


def test_the_comparison_warns_when_the_base_models_differ(runs: list[ReportInputs]) -> None:
    runs = [with_few_figures(run) for run in runs]
    verdict: Any = {**runs[0].verdict, "scores": {"id": {"base-think": {"n": 10, "right": 1, "accuracy": 10.0}}}}
    text = build_comparison(ComparisonInputs([dataclasses.replace(runs[0], verdict=verdict), *runs[1:]]))
    assert "The base scores differ between the runs" in text


def test_the_comparison_refuses_what_cannot_be_compared(runs: list[ReportInputs]) -> None:
    with pytest.raises(BadInput, match="no run to compare"):
        build_comparison(ComparisonInputs([]))
    with pytest.raises(BadInput, match="two runs have"):
        build_comparison(ComparisonInputs([runs[0], runs[0]]))
    other = dataclasses.replace(runs[1], verdict={**runs[1].verdict, "recipe": "another"})
    with pytest.raises(BadInput, match="several recipes, another, mini-r1v"):
        build_comparison(ComparisonInputs([runs[0], other]))


@pytest.mark.parametrize(
    ("prefix_none", "prefix_both", "full_none", "full_both", "said"),
    [
        (1, 2, 99, 98, "format_match switched the format; images"),
        (2, 99, 1, 98, "images_in_logprobs switched the format; format_match"),
        (97, 99, 95, 98, "neither factor switched"),
        (2, 2, 3, 98, "act together"),
        (10, 12, 45, 40, "middling size"),
        (2, None, 3, 98, "Not all four variants"),
    ],
)
def test_the_reading_follows_the_numbers(
    prefix_none: float, prefix_both: float | None, full_none: float, full_both: float, said: str
) -> None:
    shares = {
        ("prefix", "none"): prefix_none, ("prefix", "both"): prefix_both,
        ("full", "none"): full_none, ("full", "both"): full_both,
    }  # fmt: skip
    assert said in " ".join(factor_reading(shares))


def test_variants_that_are_no_crossing_of_the_factors_are_told_by_what_they_are(runs: list[ReportInputs]) -> None:
    run = with_few_figures(runs[0])
    variants = {
        name: {"description": f"It is {name}.", "overrides": {"factors.format_match": {"value": match}}}
        for name, match in (("one", "line"), ("other", "full"))
    }
    recipe = {**run.resolved["recipe"], "variants": variants}
    form = {
        "id": {part: {"points": 12.25, "interval": {"low": 9.0, "high": 15.0}} for part in ("parsing", "answering")}
    }
    told = [
        dataclasses.replace(
            run, resolved={**run.resolved, "recipe": recipe, "variant": name},
            verdict={**run.verdict, "variant": name, "form": form},
        )
        for name in variants
    ]  # fmt: skip
    shown = words(check_self_contained(build_comparison(ComparisonInputs(told))).text)
    for said in ("It is one.", "It is other.", "of it by parsing", "of it by answering", "+12.2"):
        assert said in shown
    assert "What the numbers say" not in shown
