"""The pages of a full recipe: published numbers beside ours, recorded outputs, assets, plan, deviations."""

import dataclasses
import re
from typing import Any

import pytest

from r1mm.evaluate.scoring import score
from r1mm.ledger import counts
from r1mm.recipe_files import RECIPES
from r1mm.report import words as shown_as
from r1mm.report.collect import ledger_of
from r1mm.report.comparison import ComparisonInputs, build_comparison
from r1mm.report.figures import line_styles
from r1mm.report.page import ReportInputs, build_report
from r1mm.report.rows import shown_lines
from r1mm.report.sections import layout_line, lenient_rows, shown_plans, why_not
from tests.unit.report import full
from tests.unit.report.test_page import check_self_contained, words

VARIANTS = tuple(full.TRAINED)


@pytest.fixture(scope="module")
def run() -> ReportInputs:
    return full.inputs()


@pytest.fixture(scope="module")
def report(run: ReportInputs) -> str:
    return build_report(run)


@pytest.fixture(scope="module")
def shown(report: str) -> str:
    return words(check_self_contained(report).text).replace("\u00a0", " ")


@pytest.fixture(scope="module")
def answer() -> dict[str, Any]:
    return full.seeds_answer(("as-published", "as-fixed"))


@pytest.fixture(scope="module")
def comparison(answer: dict[str, Any]) -> str:
    return build_comparison(ComparisonInputs([full.inputs(variant) for variant in VARIANTS], answer))


def bare(run: ReportInputs, **changes: Any) -> ReportInputs:
    """The run without what takes time to draw."""
    verdict = {**run.verdict, "scores": {}, "published_rows": [], "claims": []}
    return dataclasses.replace(
        run, **{"metrics": [], "outputs": {}, "contact_sheets": {}, "verdict": verdict} | changes
    )


def test_a_run_that_is_not_comparable_says_why_at_the_top_and_another_nothing(shown: str, report: str) -> None:
    refused = build_report(full.inputs(refused=tuple(full.WHY_NOT)))
    head = refused[: refused.index("<nav")]
    for reason in full.WHY_NOT:
        assert f"not comparable: {reason}" in head
    assert refused.count(">not comparable</span>") == len(full.inputs().verdict["claims"])
    assert "this run, as-fixed, not comparable: 75.0" in refused
    assert "not comparable" not in report
    assert "not comparable" not in shown
    assert why_not([{"comparable": False}]) == ["the verdict gives no reason"]
    assert why_not([{}, {"comparable": True, "why_not": []}]) == []


def test_every_published_row_stands_beside_ours_with_its_source(run: ReportInputs, report: str, shown: str) -> None:
    published = full.expected().published_rows
    lines = shown_lines([run.verdict])
    assert list(lines) == ["superclevr-200", "cogent-vala", "cogent-valb"]
    assert sum(not line.this_run for rows in lines.values() for line in rows) == len(published) > 10
    assert all(sum(line.this_run for line in rows) == 3 for rows in lines.values())
    for row in published:
        assert words(row.who) in shown
        assert words(row.source) in shown
    authors = next(line for line in lines["superclevr-200"] if line.who == "R1-V, log" and line.accuracy == 82.5)
    assert authors.interval is not None
    assert shown_as.span(authors.interval) == "76.6 to 87.1"
    assert "76.6 to 87.1" in shown
    unknown = next(line for line in lines["superclevr-200"] if line.who == "a user of #112")
    assert (unknown.n, unknown.interval, unknown.detail) == (None, None, "after 100 steps")
    groups = [line.group for line in lines["superclevr-200"]]
    assert groups == sorted(groups, key=("base-think", "base-direct", "trained-think", "other").index)
    # A figure for each split on which something was published.
    assert re.findall(r'aria-label="Accuracy on (\S+)\. R1-V', report) == ["superclevr-200", "cogent-valb"]
    assert "a user of #95, after 400 steps: 83.5" in report


def test_recorded_outputs_are_compared_item_by_item(run: ReportInputs, shown: str) -> None:
    recorded = run.verdict["recorded"]["superclevr-200"]
    assert {row["theirs_right"] for row in recorded.values()} == {96, 165}
    section = shown[shown.index("Against upstream") : shown.index("Strict and lenient")]
    for row in recorded.values():
        for text in (
            shown_as.signed(row["points"]),
            shown_as.span(row["interval"], True),
            shown_as.p_value(row["p"]),
            shown_as.share(row["same_answer"], row["n"]).replace("\u00a0", " "),
        ):
            assert text in section


def test_strict_and_lenient_scores_are_both_shown(run: ReportInputs, shown: str) -> None:
    found = {(row.split, row.condition): row for row in lenient_rows(run.outputs)}
    for split, by in run.verdict["scores"].items():
        for condition, scored in by.items():
            assert found[split, condition].strict == scored["accuracy"]
            assert found[split, condition].strict_interval == pytest.approx(scored["interval"])
    base = found["superclevr-200", "base-think"]
    assert (base.strict, base.lenient) == (47.0, 53.0)  # 12 name the right number outside of the tag
    assert "47.0 % 40.2 to 53.9 53.0 % 46.1 to 59.8 +6.0" in shown
    assert lenient_rows({"s": {"base-think": [{"correct": True}], "base-direct": []}}) == []
    assert "lmms-eval" not in shown


def test_the_page_says_how_much_of_a_gain_is_form(run: ReportInputs, report: str, shown: str) -> None:
    assert report.count('id="form"') == 1
    assert report.count("what the gain is made of") == len(run.verdict["form"]) == 3
    section = shown[shown.index("How much of the gain is format") : shown.index("Against upstream")]
    for effect in run.verdict["form"].values():
        assert effect["parsing"]["points"] + effect["answering"]["points"] == pytest.approx(effect["gain"]["points"])
        for part in ("gain", "parsing", "answering", "forced"):
            assert shown_as.signed(effect[part]["points"]) in section
            assert shown_as.span(effect[part]["interval"], True) in section
    base = run.verdict["form"]["superclevr-200"]["scores"]["base-think"]
    assert (base["parseable"], base["forced"]) == (94.0, 53.0)  # 12 name the right number outside of the tag
    assert "94.0 % 89.8 to 96.5 50.0 %" in section


def test_what_lmms_eval_asked_is_also_scored_as_its_older_version_read(run: ReportInputs) -> None:
    texts = ["<think>Blue moves.</think><answer>C</answer>", "C", "<think>red\n\nC</think>C"]
    rows = [score("choice", item=t, prompt="?", completion=t, tokens=3, truth="C").model_dump() for t in texts]
    (row,) = lenient_rows({"s": {"base-think": rows}}, ["s"])
    assert (row.strict, row.older, row.drawn) == (pytest.approx(200 / 3), pytest.approx(100 / 3), 1)
    resolved = {"recipe": {**run.resolved["recipe"], "tasks": {"s": {"lmms": "longvideobench_val_v"}}}}
    verdict = {**run.verdict, "published_rows": [], "claims": []}
    page = build_report(bare(run, resolved=resolved, outputs={"s": {"base-think": rows}}, verdict=verdict))
    text = words(check_self_contained(page).text).replace("\u00a0", " ")
    assert "the first of A to E before the first blank line, thoughts included" in text
    assert re.search(r"Drawn by it s: \S.* 33\.3 % 1 ", text)


def test_assets_show_identity_licence_and_verification(run: ReportInputs, shown: str) -> None:
    for name, asset in full.recipe().assets.items():
        assert name in shown
        assert words(asset.licence) in shown
    assert shown.count("✓ verified") == len(full.recipe().assets)
    assert "cd" * 20 in shown
    refused = bare(run, manifest={**run.manifest, "fetched": full.fetched(full.WHY_NOT)})
    text = words(check_self_contained(build_report(refused)).text)
    assert text.count("✗ not verified") == 1
    assert full.WHY_NOT[0] in text


def test_the_plan_stands_beside_what_was_measured(run: ReportInputs, shown: str) -> None:
    plan = run.manifest["plan"]
    (found,) = shown_plans(run.manifest, {"grpo": run.metrics})
    assert found.line == layout_line(plan)
    assert found.line.startswith(
        "1xH100-80G: 1 process x 8 completions x 16 accumulation = 128 completions a step; ZeRO-3"
    )
    assert max(found.totals) == pytest.approx(plan["peak"], abs=0.05)  # parts are rounded
    times = {row.what: row for row in found.times}
    assert times["training"].measured == 2345.6
    assert times["training"].estimate == pytest.approx(3600 * plan["hours"])
    assert times["one training step, mean"].measured == pytest.approx(21.0, abs=0.1)
    assert times["one training step, mean"].estimate == plan["step_seconds"]["total"]
    paid = times["training, cost at the plan's price"]
    assert paid.measured == pytest.approx(3.0 * 2345.6 / 3600)
    assert {"stage assets", "stage base-evaluation", "stage evaluation"} <= times.keys()
    assert found.line in shown
    assert "39 min 6 s" in shown
    for text in (*plan["assumptions"], *(row["reason"] for row in plan["deviations"])):
        assert words(text) in shown
    assert shown_plans({}, {}) == []


def test_deviations_carry_their_reasons_those_that_can_change_results_first(run: ReportInputs, shown: str) -> None:
    number = counts(list(run.ledger))
    assert f"Of {number['settings']} settings that upstream's code had, {number['equal']} are equal here" in shown
    weighty = [entry for entry in run.ledger if entry.effect == "possible"]
    assert weighty
    for entry in run.ledger:
        if entry.reason:
            assert words(entry.reason) in shown
    first = shown.index("Deviations that can change results")
    assert all(first < shown.index(words(str(entry.reason)), first) < shown.index("The other dev") for entry in weighty)
    assert ledger_of(RECIPES / "r1v-mini", "as-fixed") == []


def test_what_does_not_apply_is_not_there(run: ReportInputs, report: str) -> None:
    for part in ("warm-start", "Warm start", "Reference rows", "no warm start"):
        assert part not in report
    assert 'id="images"' in report
    thin = build_report(bare(run, manifest={}, ledger=()))
    check_self_contained(thin)
    for part in ('id="images"', 'id="assets"', 'id="plan"', "recorded outputs", "Strict and lenient"):
        assert part not in thin
    assert "No ledger was found" in thin


def test_hostile_words_are_text(run: ReportInputs) -> None:
    hostile = '"><script>x</script>'
    manifest = {**run.manifest, "fetched": {hostile: {"licence": hostile, "identity": {hostile: hostile}}}}
    rows = [{**row, "who": hostile, "note": hostile} for row in run.verdict["published_rows"][:1]]
    verdict = {**run.verdict, "published_rows": rows, "claims": [], "comparable": False, "why_not": [hostile]}
    text = build_report(bare(run, manifest=manifest, verdict=verdict))
    check_self_contained(text)
    assert "<script" not in text


def test_the_same_inputs_give_the_same_bytes(report: str) -> None:
    assert build_report(full.inputs()) == report


def test_the_comparison_shows_the_answer_three_splits_and_one_base(comparison: str, answer: dict[str, Any]) -> None:
    text = words(check_self_contained(comparison).text)
    for sentence in answer["answer"]:
        assert words(sentence) in text
    for verdict in answer["verdicts"]:
        assert verdict["headline"] in text
    assert comparison.count("The base model that every variant starts") == 1
    for variant in VARIANTS:
        # Each variant after training, and the base model's two conditions once, among the published numbers.
        assert text.count(f"this run, {variant} ours") == len(full.recipe().tasks)
    assert text.count("this run ours") == 2 * len(full.recipe().tasks)
    assert "not comparable" not in text


def test_the_comparison_of_runs_that_are_not_comparable_says_so(run: ReportInputs) -> None:
    other = bare(run, verdict={**bare(run).verdict, "comparable": False, "why_not": ["its model is another"]})
    text = build_comparison(ComparisonInputs([other]))
    assert "not comparable: its model is another" in text[: text.index("<nav")]
    assert 'id="answer"' not in text


def test_variants_that_differ_in_other_settings_stand_beside_each_other(run: ReportInputs) -> None:
    variants = {"as-fixed": {"overrides": {}}, "as-scripted": {"overrides": {"train.max_steps": {"value": 1004}}}}
    recipe = {**run.resolved["recipe"], "variants": variants}
    runs = [
        bare(run, resolved={**run.resolved, "recipe": recipe}, verdict={**bare(run).verdict, "variant": name})
        for name in variants
    ]
    text = build_comparison(ComparisonInputs(runs))
    check_self_contained(text)
    assert text.count('<div class="cell') == 2
    assert "Two factors" not in text
    assert "Two by two" not in text
    styles = line_styles(variants, dict.fromkeys(variants, ("full", "both")))
    assert styles["as-fixed"] != styles["as-scripted"]


def test_a_task_of_mathematics_has_its_own_answers(run: ReportInputs) -> None:
    made = score("math", item="i", prompt="?", completion="<answer>140°</answer>", tokens=4, truth="140°").model_dump()
    outputs = {"geoqa-754": {"base-think": [made], "trained-think": [made]}}
    text = build_report(bare(run, outputs=outputs))
    assert "the right answer is 140°" in text
