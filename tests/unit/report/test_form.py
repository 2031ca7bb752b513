"""What a page says of the form in a gain."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from r1mm.judge.form import FormEffect, form_words
from r1mm.report.form import form_figure, sentence
from r1mm.report.page import ReportInputs, build_report
from tests.unit.report.pages import check_self_contained, words


def part(points: float, low: float, high: float) -> dict[str, Any]:
    return {"points": points, "interval": {"low": low, "high": high}}


def effect(gain: float, low: float, high: float, parsing: float) -> dict[str, Any]:
    score = {
        **{"n": 200, "parseable": 77.5, "parseable_interval": {"low": 71.2, "high": 82.7}, "answering": None},
        **{"answering_interval": None, "found": 84.0, "forced": 49.5, "forced_interval": {"low": 42.6, "high": 56.4}},
    }
    return {
        "scores": {"base-think": score, "trained-think": score | {"answering": 61.9}},
        "gain": part(gain, low, high),
        "parsing": part(parsing, parsing - 4, parsing + 4),
        "answering": part(gain - parsing, gain - parsing - 7, gain - parsing + 7),
        "forced": part(33.0, 25.3, 40.8),
    }


def test_a_gain_that_is_shown_has_its_share_of_form() -> None:
    assert form_words("set", FormEffect.model_validate(effect(34.5, 26.7, 42.3, 16.2))) == (
        "set: of +34.5 (+26.7 to +42.3) points, parsing explains +16.2 (+12.2 to +20.2), 47 % of it, and answering "
        "+18.3 (+11.3 to +25.3). With every output read by force the difference is +33.0 (+25.3 to +40.8)."
    )


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (effect(2.0, -3.0, 7.0, 1.0), "set: no gain or loss is shown, +2.0 (-3.0 to +7.0) points; parsing"),
        (effect(10.0, 2.0, 18.0, 14.0), "set: of +10.0 (+2.0 to +18.0) points, parsing explains +14.0"),  # against it
    ],
)
def test_no_share_is_said_of_what_is_not_shown_or_points_both_ways(given: dict[str, Any], says: str) -> None:
    found = form_words("set", FormEffect.model_validate(given))
    assert found.startswith(says)
    assert "%" not in found


def test_a_page_has_true_minus_signs() -> None:
    said = sentence("mmmu-val", effect(-10.0, -18.0, -2.0, -14.0))
    assert said.startswith("mmmu-val: of \u221210.0 (\u221218.0 to \u22122.0) points, parsing explains \u221214.0")


def test_a_panel_for_each_split() -> None:
    form = {"a": effect(34.5, 26.7, 42.3, 16.2), "b": effect(0.0, 0.0, 0.0, 0.0)}
    figure = form_figure(form)
    assert figure.count("<svg") == 2
    assert "of it by parsing: more answers can be read: +16.2" in figure
    assert form_figure(form) == figure


def test_the_page_has_the_part_where_the_verdict_does(made_up_run: Callable[..., ReportInputs]) -> None:
    run = made_up_run()
    light = dataclasses.replace(run, metrics=[], outputs={}, contact_sheets={})
    assert 'id="form"' not in build_report(light)
    verdict = {**run.verdict, "form": {"id": effect(34.5, 26.7, 42.3, 16.2)}}
    page = build_report(dataclasses.replace(light, verdict=verdict))
    shown = words(check_self_contained(page).text).replace("\u00a0", " ")
    assert "How much of the gain is format id: of +34.5" in shown
    assert "id: base, thinking prompt 200 77.5 % 71.2 to 82.7 – – 84.0 % 49.5 % 42.6 to 56.4" in shown  # noqa: RUF001
    assert "id: trained, thinking prompt 200 77.5 % 71.2 to 82.7 61.9 %" in shown
