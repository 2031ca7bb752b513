"""The figures are valid, self-contained SVG whose text can be read, and they draw what they are given."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any

import pytest

from r1mm.report import figures
from r1mm.report.page import ReportInputs

MadeUp = Callable[..., ReportInputs]
SVG = "{http://www.w3.org/2000/svg}"


def panels(markup: str) -> list[ET.Element]:
    return list(ET.fromstring(f"<all>{markup}</all>"))


def texts(panel: ET.Element) -> str:
    return " | ".join(element.text or "" for element in panel.iter(f"{SVG}text"))


TUNING = [{"step": step, "loss": 3.0 / step, "mean_token_accuracy": 1 - 0.5 / step} for step in range(1, 30)]


@pytest.fixture(scope="module")
def run(made_up_run: MadeUp) -> ReportInputs:
    return made_up_run()


def draw_all(run: ReportInputs) -> dict[str, str]:
    verdict: Any = run.verdict
    return {
        "bars": figures.accuracy_bars(verdict["scores"]),
        "curves": figures.training_curves(run.metrics),
        "compared": figures.comparison_curves({"a": run.metrics, "b": run.metrics}),
        "tuned": figures.training_curves(TUNING, "sft"),
        "tuned side by side": figures.comparison_curves({"a": TUNING}, training="sft"),
        "strip": figures.reference_strip(
            verdict["scores"], verdict["comparisons"], verdict["reference_rows"], "as-published"
        ),
    }


@pytest.fixture(scope="module")
def drawn(run: ReportInputs) -> dict[str, str]:
    return draw_all(run)


def test_each_figure_is_svg_with_a_description_unique_ids_and_no_address(drawn: dict[str, str]) -> None:
    together = "".join(drawn.values())
    for panel in panels(together):
        assert panel.tag == f"{SVG}svg"
        assert panel.attrib["role"] == "img"
        assert len(panel.attrib["aria-label"]) > 20
    ids = re.findall(r' id="([^"]*)"', together)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="|url\()#([^")]*)', together)) == set(ids)
    assert "http" not in together.replace('xmlns="http://www.w3.org/2000/svg"', "")


def test_paints_are_css_variables_and_text_is_text(drawn: dict[str, str]) -> None:
    for name, markup in drawn.items():
        assert not re.search(r"#0101\d\d", markup)
        assert "#000000" not in markup  # a paint that would vanish on the dark page
        compared = name in ("compared", "tuned side by side")
        series = "var(--series-control, #c26a00)" if compared else "var(--series-trained, #0072b2)"
        assert series in markup
        assert "var(--font, sans-serif)" in markup
        assert "DejaVu" not in markup


def test_the_same_numbers_give_the_same_bytes(run: ReportInputs, drawn: dict[str, str]) -> None:
    assert draw_all(run) == drawn


def test_bars_show_every_accuracy_and_say_what_is_missing() -> None:
    row = {"n": 200, "accuracy": 82.5, "interval": {"low": 76.6, "high": 87.1}}
    one, two = panels(figures.accuracy_bars({"id": {"trained-think": row}, "ood": {"base-direct": row}}))
    assert "82.5" in texts(one)
    assert texts(one).count("not measured") == 2
    assert "ood, 200 items" in texts(two)
    assert "82.5" in two.attrib["aria-label"]


def test_a_split_with_a_hostile_name_stays_text() -> None:
    (panel,) = panels(figures.accuracy_bars({'<b a="$x$">': {}}))
    assert '<b a="$x$">' in texts(panel)


def test_curves_of_no_metrics_are_empty_and_a_missing_metric_is_said() -> None:
    assert figures.training_curves([]) == ""
    assert figures.comparison_curves({"a": []}) == ""
    shown = panels(figures.training_curves([{"step": 1, "kl": 0.1}, {"step": 2, "kl": float("nan")}]))
    assert ["not recorded" in texts(panel) for panel in shown] == [True, True, True, False]


def test_the_rewards_drawn_are_those_that_were_counted() -> None:
    letter = [{"step": step, "rewards/letter_reward/mean": 0.5, "kl": 0.1} for step in (1, 2)]
    for shown in (figures.training_curves(letter), figures.comparison_curves({"a": letter})):
        first, *others = panels(shown)
        assert "Letter reward (share of completions)" in texts(first)
        assert len(others) == 2


def test_fine_tuning_is_drawn_by_its_loss_and_accuracy() -> None:
    loss, accuracy = panels(figures.training_curves(TUNING, "sft"))
    assert "Loss (nats per token)" in texts(loss)
    assert "from 3 to 0.103 over 29 steps" in loss.attrib["aria-label"]
    assert "Token accuracy (share of tokens)" in texts(accuracy)
    assert figures.training_curves([], "sft") == figures.comparison_curves({"a": []}, training="sft") == ""


def test_smoothing_looks_back_only() -> None:
    assert figures.smoothed([0, 0, 3, 3], 2) == [0, 0, 1.5, 3]
    assert figures.smoothed([1, 2], 1) == [1, 2]


def test_line_styles_tell_the_two_factors_apart() -> None:
    factors = {f"{match} {images}": (match, images) for match in ("prefix", "full") for images in ("none", "both")}
    styles = figures.line_styles(factors, factors)
    assert len(set(styles.values())) == 4
    assert styles["prefix none"].paint == styles["prefix both"].paint
    assert styles["prefix none"].dash == styles["full none"].dash != ()


def test_reference_strip_draws_one_dot_per_seed() -> None:
    def row(seed: int, right: int) -> dict[str, Any]:
        return {"who": "somebody", "variant": "v", "seed": seed, "results": {"id": {
            "base-think": {"n": 100, "right": 40}, "trained-think": {"n": 100, "right": right}}}}  # fmt: skip

    accuracy, gain = panels(figures.reference_strip({"id": {}}, {}, [row(1, 70), row(2, 75)], "v"))
    assert "v: somebody: 70.0, 75.0" in accuracy.attrib["aria-label"]
    assert "v: somebody: 30.0, 35.0" in gain.attrib["aria-label"]
    assert "this run (v): not measured" in gain.attrib["aria-label"]
    assert figures.reference_strip({"id": {}}, {}, [], "v") == ""
