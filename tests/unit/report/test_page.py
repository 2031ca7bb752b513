"""The pages are well-formed, self-contained, honest about what is missing, and the same for the same inputs."""

import dataclasses
import html
import io
import random
from collections import Counter
from typing import Any

import pytest
from PIL import Image

from r1mm.report import page
from r1mm.report import words as shown_as
from r1mm.report.comparison import ComparisonInputs, build_comparison
from r1mm.report.page import ReportInputs, build_report
from tests.unit.report.pages import VARIANTS, MadeUp, Reader, check_self_contained, with_few_figures, words


@pytest.fixture(scope="module")
def report(run: ReportInputs) -> str:
    return build_report(run)


def test_the_report_is_well_formed_self_contained_and_light(report: str) -> None:
    check_self_contained(report)
    assert len(report.encode()) < 1_500_000


def test_the_comparison_is_well_formed_self_contained_and_light(comparison: str) -> None:
    check_self_contained(comparison)
    assert len(comparison.encode()) < 1_500_000


def test_the_report_says_every_claim_with_its_words_value_and_outcome(run: ReportInputs, report: str) -> None:
    shown = words(Reader(report).text)
    assert run.verdict["headline"] in shown
    for claim in run.verdict["claims"]:
        assert claim["statement"] in shown
        assert claim["words"] in shown
        assert claim["outcome"] in shown
        assert shown_as.quantity(claim["value"], claim["unit"]).replace("\u00a0", " ") in shown


def test_the_parts_of_the_report_stand_in_order(report: str) -> None:
    parts = ["claims", "accuracy", "training", "samples", "references", "images", "warm-start", "settings", "manifest"]
    places = [report.index(f'<section id="{part}">') for part in [*parts, "again"]]
    assert places == sorted(places)
    shown = Reader(report).text
    for command in (
        "r1mm reproduce mini-r1v --variant as-published --seed 0",
        "r1mm verdict runs/mini-r1v/as-published-seed0",
        "r1mm report runs/mini-r1v/as-published-seed0",
    ):
        assert command in shown


DISTILLED: dict[str, Any] = {
    "rules": "strict",
    "steps": {
        "questions": 2000,
        "for a number": 1100,
        "asked": 1900,
        "answered": 1850,
        "passed": 1234,
        "examples": 1230,
    },
    "mistakes": {"forgets": {"made": 20, "passed": 1}, "none": {"made": 80, "passed": 71}},
    "filter": {
        "records": 1850,
        "good": 1400,
        "traces": {
            name: {"passed": n, "good": n - 3, "picked": 1, "unsound": 2, "lost": 9, "precision": 0.875, "recall": 0.5}
            for name, n in (("upstream", 24), ("strict", 20))
        },
        "patterns": {
            name: [
                {
                    "name": f"{name}-{kind}",
                    "group": "labelled",
                    "valid": n,
                    "mismatch": 0,
                    "unparseable": 0,
                    "traces": {},
                }
                for kind, n in (("bold", 4), ("never", 0))
            ]
            for name in ("upstream", "strict")
        },
    },
}


def test_both_pages_show_what_distillation_let_through(run: ReportInputs, runs: list[ReportInputs]) -> None:
    pages = [
        build_report(dataclasses.replace(run, distilled=DISTILLED)),
        build_comparison(ComparisonInputs([dataclasses.replace(one, distilled=DISTILLED) for one in runs])),
    ]
    for text in pages:
        told = words(Reader(text).text)
        assert "What distillation let through" in told
        assert "1900 questions about described scenes were put to a scripted reasoner" in told
        assert "asked, with the count of all" in text
        assert "forgets one: 1 of 20" in text
        assert "strict20 17 1 2 9 87.5 %" in told
        assert told.index("strict20") < told.index("upstream24")
        assert "strict-bold" in told
        assert "strict-never" not in told  # it decided nothing
    assert "What distillation let through" not in build_report(run)


def test_a_miniature_says_what_it_is_no_evidence_for_and_a_full_run_does_not(run: ReportInputs, report: str) -> None:
    assert "it is no evidence about the full-size model" in report
    full = dataclasses.replace(run, metrics=[], verdict={**run.verdict, "size": "full", "reference_rows": []})
    assert "miniature:" not in build_report(full)


def test_every_setting_is_shown_with_its_source_and_the_variants_are_marked(run: ReportInputs, report: str) -> None:
    sections = page.shown_settings(run.resolved)
    shown = words(Reader(report).text)
    for rows in sections.values():
        for row in rows:
            assert row.path in shown
            assert words(row.value) in shown
            assert row.source in shown
    marked = {row.path for rows in sections.values() for row in rows if row.overridden}
    assert marked == {"factors.format_match", "factors.images_in_logprobs"}
    assert shown.count("set by the variant") >= 2
    paths = {row.path for rows in sections.values() for row in rows}
    assert {"train.beta", "warm_start.slip_rate", "scenes.ood", "threads"} <= paths


def with_completion(run: ReportInputs, text: str) -> ReportInputs:
    changed: Any = {
        split: {condition: [{**row, "completion": text} for row in rows] for condition, rows in by.items()}
        for split, by in run.outputs.items()
    }
    return dataclasses.replace(with_few_figures(run), outputs=changed)


def test_hostile_completions_are_text(run: ReportInputs, runs: list[ReportInputs]) -> None:
    hostile = "\n  </pre><script>alert(1)</script>\"'&amp;\x00\x1b[31m\r\ud800 {{ 7 * 7 }}\n"
    for text in (
        build_report(with_completion(run, hostile)),
        build_comparison(ComparisonInputs([with_completion(one, hostile) for one in runs])),
    ):
        text.encode("utf-8")
        assert "<script" not in text
        assert "\x00" not in text
        read = check_self_contained(text)
        assert "\n  </pre><script>alert(1)</script>\"'&amp;␀␛[31m␍? {{ 7 * 7 }}\n" in read.text


def test_hostile_words_anywhere_are_text(run: ReportInputs) -> None:
    def poisoned(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: poisoned(child) for key, child in value.items()}
        if isinstance(value, list):
            return [poisoned(child) for child in value]
        return value + '"><script>x</script>' if isinstance(value, str) else value

    resolved, manifest, verdict = poisoned(run.resolved), poisoned(run.manifest), poisoned(run.verdict)
    text = build_report(dataclasses.replace(run, resolved=resolved, manifest=manifest, verdict=verdict))
    check_self_contained(text)
    assert html.escape("<script>x", quote=False) in text


def test_the_same_inputs_give_the_same_bytes(report: str, comparison: str, made_up_run: MadeUp) -> None:
    assert build_report(made_up_run()) == report
    again = [made_up_run(variant) for variant in reversed(VARIANTS)]
    assert build_comparison(ComparisonInputs(again)) == comparison  # nor does the order of the runs matter


TUNING = [{"step": step, "loss": 3.0 / step, "mean_token_accuracy": 1 - 0.5 / step} for step in range(1, 30)]


def trained_by(run: ReportInputs, variant: str, *stages: str) -> ReportInputs:
    """A run that was trained by `stages`, and has what they leave."""
    stages = ("assets", "warm-start", "base-evaluation", *stages, "evaluation", "verdict", "report")
    recipe = {**run.resolved["recipe"], "stages": list(stages)}
    if "grpo" not in stages:
        recipe["factors"] = None
    return dataclasses.replace(
        run,
        resolved={**run.resolved, "recipe": recipe, "variant": variant},
        verdict={**run.verdict, "variant": variant},
        metrics=run.metrics if "grpo" in stages else [],
        tuning=TUNING if "sft" in stages else [],
    )


def test_a_page_says_how_the_model_was_trained(run: ReportInputs) -> None:
    both = words(check_self_contained(build_report(trained_by(run, "both", "sft", "grpo"))).text)
    assert "Trained bysupervised fine-tuning, then GRPO" in both
    assert both.index("Over the tokens that a step's examples teach") < both.index("Rewards are means over")
    assert "Token accuracy" in both
    alone = words(check_self_contained(build_report(trained_by(run, "alone", "sft"))).text)
    assert "Trained bysupervised fine-tuning" in alone
    for absent in ("then GRPO", "Rewards are means", "KL to the starting model"):
        assert absent not in alone
    usual = words(check_self_contained(build_report(run)).text)
    assert "Trained byGRPO" in usual
    assert "Token accuracy" not in usual
    kept = {"rewards": {"value": ["accuracy"], "source": "arXiv:2501.12948"}}
    for stages, said in ((["sft"], set()), (["grpo"], {"rewards"})):
        settings = page.shown_settings({"recipe": {"stages": stages, **kept}})
        assert {one.path for rows in settings.values() for one in rows} - {"stages"} == said  # what no stage reads


def test_variants_of_different_trainings_stand_side_by_side(run: ReportInputs) -> None:
    runs = [trained_by(run, "both", "sft", "grpo"), trained_by(run, "alone", "sft"), trained_by(run, "rl", "grpo")]
    shown = words(check_self_contained(build_comparison(ComparisonInputs(runs))).text)
    for said in ("alone (supervised fine-tuning)", "rl (GRPO)", "supervised fine-tuning, then GRPO", "Token accuracy"):
        assert said in shown
    for absent in ("format_match", "images_in_logprobs", "What the numbers say"):
        assert absent not in shown  # a table of GRPO's factors has no place for the others


def test_an_empty_run_gives_a_page_that_says_so() -> None:
    empty = ReportInputs(resolved={}, manifest={}, metrics=[], outputs={}, verdict={})
    shown = words(check_self_contained(build_report(empty)).text)
    for said in (
        "not judged", "No verdict was written", "states no claim", "No scores", "No training metrics", "No items with",
        "no reference rows", "No contact sheets", "no warm start", "was not found beside it", "No manifest",
    ):  # fmt: skip
        assert said in shown
    shown = words(check_self_contained(build_comparison(ComparisonInputs([empty]))).text)
    assert "Not all four variants" in shown
    assert shown.count("not run") == 4
    assert "No item was found" in shown


def test_missing_parts_leave_the_rest(run: ReportInputs) -> None:
    verdict = {**run.verdict, "claims": [], "reference_rows": [], "comparisons": {}}
    thin = dataclasses.replace(run, verdict=verdict, metrics=[], image_of=None, contact_sheets={})
    shown = words(check_self_contained(build_report(thin)).text)
    assert "states no claim" in shown
    assert "No paired comparison" in shown
    assert "Image not at hand" in shown
    assert shown_as.percent(run.verdict["scores"]["ood"]["trained-think"]["accuracy"]).replace("\u00a0", " ") in shown


def test_claims_that_could_not_be_judged_show_dashes(run: ReportInputs) -> None:
    claim: dict[str, Any] = {"id": "c", "statement": "S.", "value": None, "interval": None}
    claim |= {"reference": None, "margin": None, "outcome": "not judged", "words": "No outputs."}
    verdict = {**run.verdict, "claims": [claim], "reference_rows": []}
    shown = check_self_contained(build_report(dataclasses.replace(run, verdict=verdict, metrics=[]))).text
    assert "No outputs." in shown
    assert "None" not in shown


def test_samples_mix_the_kinds_are_ordered_and_do_not_depend_on_file_order(run: ReportInputs) -> None:
    samples = page.choose_samples(run)
    assert Counter(s.kind for s in samples) == {"fixed": 3, "still wrong": 2, "broken": 2, "still right": 1}
    for sample in samples:
        answers = dict(sample.answers)
        before, after = answers["base, thinking prompt"], answers["trained, thinking prompt"]
        assert before["item"] == after["item"] == sample.item
        assert (before["correct"], after["correct"]) == (
            sample.kind in ("broken", "still right"), sample.kind in ("fixed", "still right")
        )  # fmt: skip
    shuffled: Any = {
        split: {condition: random.Random(1).sample(list(rows), len(rows)) for condition, rows in by.items()}
        for split, by in run.outputs.items()
    }
    assert page.choose_samples(dataclasses.replace(run, outputs=shuffled)) == samples


def test_a_kind_without_items_leaves_its_turns_to_the_others(run: ReportInputs) -> None:
    all_fixed: Any = {
        "id": {
            "base-think": [{**row, "correct": False} for row in run.outputs["id"]["base-think"]],
            "trained-think": [{**row, "correct": True} for row in run.outputs["id"]["trained-think"]],
        }
    }
    samples = page.choose_samples(dataclasses.replace(run, outputs=all_fixed))
    assert [sample.kind for sample in samples] == ["fixed"] * 8
    assert len({sample.item for sample in samples}) == 8


def test_no_sample_is_of_a_control_that_was_not_shown_its_item(run: ReportInputs) -> None:
    recipe = {**run.resolved["recipe"], "tasks": {"ood": {"blind": True}}}
    samples = page.choose_samples(dataclasses.replace(run, resolved={**run.resolved, "recipe": recipe}))
    assert {sample.split for sample in samples} == {"id"}


def test_a_heavy_image_is_drawn_smaller() -> None:
    noise = Image.frombytes("RGB", (800, 600), random.Random(0).randbytes(800 * 600 * 3))
    out = io.BytesIO()
    noise.save(out, "PNG")
    uri = shown_as.data_uri(out.getvalue(), page.IMAGE_BYTES, page.IMAGE_SIDE)
    assert uri.startswith("data:image/jpeg;base64,")
    assert len(uri) < 300_000


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (shown_as.percent(82.5), "82.5\u00a0%"),
        (shown_as.percent(None), shown_as.ABSENT),
        (shown_as.number(-3.14, 1), "\u22123.1"),
        (shown_as.signed(-0.04), "0.0"),
        (shown_as.signed(12.34), "+12.3"),
        (shown_as.share(3, 200), "1.5\u00a0%"),
        (shown_as.share(1, 0), shown_as.ABSENT),
        (shown_as.span({"low": 1, "high": 2.2}), "1.0 to 2.2"),
        (shown_as.span(None), shown_as.ABSENT),
        (shown_as.span({"low": 1}), shown_as.ABSENT),
        (shown_as.span({"low": -1, "high": 2}, True), "\u22121.0 to +2.0"),
        (shown_as.p_value(1e-9), "< 0.001"),
        (shown_as.p_value(0.0421), "0.042"),
        (shown_as.duration(402.5), "6 min 42 s"),
        (shown_as.duration(7261), "2 h 1 min"),
        (shown_as.quantity(0.5, "ratio"), "0.50 ratio"),
        (shown_as.quantity(float("nan"), "points"), shown_as.ABSENT),
    ],
)
def test_numbers_read_well(shown: str, expected: str) -> None:
    assert shown == expected


def test_a_claim_says_which_interval_it_shows(report: str) -> None:
    shown = words(Reader(report).text)
    assert "\u22123.1 to +6.9 90 %, of the difference" in shown
    assert "0.0 to 2.8 90 %, of the value" in shown
    assert "Standard errors: items 2.26, seeds 1.40, reference 0.81." in shown
