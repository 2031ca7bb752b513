import json
from pathlib import Path
from typing import Any

import pytest

from r1mm.chain.provenance import Provenance, host_of, read_provenance, without_credentials
from r1mm.cli import main
from r1mm.distill.filter import filter_responses
from r1mm.distill.truth import Traces, Truth
from r1mm.errors import BadInput
from r1mm.rundir import read_jsonl
from tests.unit.distill.clevr_files import response, write_lines, write_scenes

THINK = "<think>\nI count **3** red things and **2** blue ones.\n</think>\n\n"
GOOD = response(f"{THINK}**The answer is: ** 5", img_filename="good.png", timestamp="2025-02-05T10:00:00")
ROWS = [
    GOOD,
    response(f"{THINK}**The answer is: ** 4"),
    response("I would have to think."),
    # Right by the number that upstream picks, another by what was answered.
    response(f"{THINK}I come to \\boxed{{5}}", a="3"),
    response(f"{THINK}**The answer is: ** 5", finish_reason="length"),
    response(f"{THINK}**Answer:** Yes", a="yes"),
    response(f"{THINK}\\boxed{{5}}", a=5),
]


def run(tmp_path: Path, rows: list[dict[str, Any]], *arguments: str) -> int:
    path = write_lines(tmp_path / "responses.jsonl", rows)
    return main(["distill", "filter", str(path), "--out", str(tmp_path / "out"), *arguments])


def test_upstreams_files_are_written_as_upstream_wrote_them(tmp_path: Path) -> None:
    assert run(tmp_path, ROWS) == 0
    lines = (tmp_path / "responses.jsonl").read_text().splitlines(keepends=True)
    assert (tmp_path / "out" / "valid_pairs.jsonl").read_text() == "".join(lines[i] for i in (0, 3, 4, 5))
    assert read_jsonl(tmp_path / "out" / "invalid_pairs.jsonl") == [
        {**ROWS[1], "error": "mismatch", "parsed_answer": "4"},
        {**ROWS[2], "error": "unparseable"},
        {**ROWS[6], "error": "mismatch", "parsed_answer": "3"},
    ]


def test_strict_rules_keep_others_and_say_why_not(tmp_path: Path) -> None:
    assert run(tmp_path, ROWS, "--rules", "strict") == 0
    assert read_jsonl(tmp_path / "out" / "valid_pairs.jsonl") == [ROWS[i] for i in (0, 5, 6)]
    invalid = read_jsonl(tmp_path / "out" / "invalid_pairs.jsonl")
    assert [(row["error"], row.get("parsed_answer"), row.get("reason")) for row in invalid] == [
        ("mismatch", "4", None),
        ("unparseable", None, "not one thinking block"),
        ("mismatch", "5", None),
        ("unparseable", None, "cut short"),
    ]


def test_every_pattern_and_the_agreement_are_counted_whichever_decides(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reports = []
    for rules in ("upstream", "strict"):
        assert run(tmp_path, ROWS, "--rules", rules, "--json") == 0
        reports.append(json.loads(capsys.readouterr().out))
        saved = json.loads((tmp_path / "out" / "filter.json").read_text())
        assert saved["report"] == {key: value for key, value in reports[-1].items() if key != "out"}
        assert saved["counts"]["records"] == 7
    assert reports[0]["patterns"] == reports[1]["patterns"]
    assert reports[0]["agreement"] == reports[1]["agreement"]
    decided = {
        rules: {
            one["name"]: (one["valid"], one["mismatch"], one["unparseable"])
            for one in found
            if any(one[key] for key in ("valid", "mismatch", "unparseable"))
        }
        for rules, found in reports[0]["patterns"].items()
    }
    assert decided == {
        "upstream": {
            "bold-the-answer-is": (2, 1, 0),
            "bold-answer": (1, 0, 0),
            "bold-number": (1, 1, 0),
            "no think tags": (0, 0, 1),
        },
        "strict": {
            "boxed": (1, 1, 0),
            "labelled": (2, 1, 0),
            "cut short": (0, 0, 1),
            "not one thinking block": (0, 0, 1),
        },
    }
    agreement = reports[0]["agreement"]
    assert [agreement[key] for key in ("both", "upstream_only", "strict_only", "neither")] == [2, 2, 1, 2]
    assert agreement["same_answer"] == 3
    assert {(one["passes"], one["upstream"], one["strict"], one["records"]) for one in agreement["disagreements"]} == {
        ("upstream", "bold-number", "boxed", 1),
        ("upstream", "bold-the-answer-is", "cut short", 1),
        ("strict", "bold-number", "boxed", 1),
    }
    assert reports[0]["traces"] is None


def test_the_table_names_what_decided(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, ROWS) == 0
    text = capsys.readouterr().out
    for words in ("upstream rules (decides)", "strict rules (beside it)", "bold-the-answer-is", "passes strict"):
        assert words in text
    assert "so-plain" not in text  # it decided nothing
    assert "4 valid, 3 not (upstream rules)" in text


def told(text: str, a: str, answered: str | None, sound: bool) -> dict[str, Any]:
    return response(THINK + text, a, truth={"answered": answered, "sound": sound})


def test_wrong_traces_that_pass_are_counted_by_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        told("**The answer is: ** 5", "5", "5", True),  # good, and passed by both
        told("**The answer is: ** 5", "5", "5", False),  # right by luck
        told("I come to \\boxed{5}", "3", "5", True),  # answered wrong; upstream picks the bold 3
        told("I come to \\boxed{5}", "5", "5", True),  # good, and lost by upstream
        told("**The answer is: ** 4", "5", "4", False),  # wrong, and not passed
        told("", "3", None, False),  # never came to an answer
        response(f"{THINK}**The answer is: ** 5"),  # nothing is known of it
    ]
    assert run(tmp_path, rows, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["with_truth"], report["good"], report["records"]) == (6, 2, 7)
    upstream = {one["name"]: one["traces"] for one in report["patterns"]["upstream"]}
    none = {"picked": 0, "unsound": 0, "lost": 0}
    assert upstream["bold-the-answer-is"] == {
        **none,
        "passed": 2,
        "good": 1,
        "unsound": 1,
        "precision": 0.5,
        "recall": 0.5,
    }
    assert upstream["bold-number"] == {
        **none,
        "passed": 2,
        "good": 0,
        "picked": 2,
        "lost": 1,
        "precision": 0,
        "recall": 0,
    }
    assert upstream["boxed"]["precision"] is None
    assert report["traces"]["upstream"]["precision"] == 0.25
    assert report["traces"]["strict"] == {
        **none,
        "passed": 3,
        "good": 2,
        "unsound": 1,
        "precision": pytest.approx(2 / 3),
        "recall": 1,
    }
    assert run(tmp_path, rows) == 0
    text = capsys.readouterr().out
    assert "6 records say what the reasoner did; 2 of them are good: sound, and right. 3 wrong traces pass." in text
    assert "25.0%" in text


def test_a_truth_is_compared_as_answers_are() -> None:
    traces = Traces()
    traces.count(Truth(answered="Yes ", sound=True), "yes", "yes")
    traces.count(Truth(answered=5, sound=True), "5", "5")
    assert (traces.passed, traces.good, traces.wrong) == (2, 2, 0)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "responses.jsonl has no lines; give the responses"),
        (
            [GOOD, {"q": "?", "r1_response": ""}],
            "responses.jsonl:2: a: Field required; it is nothing: a line holds img_filename",
        ),
        (
            [GOOD, {"a": "3", "error": "429"}],
            "responses.jsonl:2: a request that failed (429); give the file of responses",
        ),
        ([{**GOOD, "a": True}], "responses.jsonl:1: a: Input should be a valid string; it is True"),
        ([{**GOOD, "truth": {"answered": "5"}}], "responses.jsonl:1: truth.sound: Field required"),
        ([response("5"), response(None), response(f"{THINK}so 7")], "none of the 3 responses in"),
    ],
)
def test_records_that_are_none_are_named_and_nothing_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: list[dict[str, Any]], words: str
) -> None:
    assert run(tmp_path, rows) == 2
    assert words in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


def test_an_old_result_outlives_a_failed_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, ROWS) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert run(tmp_path, [*ROWS, {}]) == 2
    out = tmp_path / "out"
    assert main(["distill", "filter", str(out / "valid_pairs.jsonl"), "--out", str(out), "--rules", "strict"]) == 2
    assert "valid_pairs.jsonl, which is read; name another folder" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_the_record_takes_up_the_step_before(tmp_path: Path) -> None:
    scenes, questions = write_scenes(tmp_path)
    pairs = tmp_path / "questions.jsonl"
    places = ("--scenes", str(scenes), "--questions", str(questions), "--out", str(pairs))
    assert main(["distill", "questions", *places]) == 0
    rows = [{**row, "r1_response": f"{THINK}**The answer is: ** {row['a']}"} for row in read_jsonl(pairs)]
    write_lines(pairs, rows)  # as a step that answers in place would; the record no longer fits
    filter_responses(pairs, tmp_path / "out", "upstream")
    record, found = read_provenance(tmp_path / "out" / "valid_pairs.jsonl")
    assert record is not None
    assert record.outputs["valid_pairs.jsonl"] == found
    assert [step.step for step in record.chain()] == ["distill filter"]
    (tmp_path / "out" / "filter.json").write_text("{}")
    with pytest.raises(BadInput, match=r"filter\.json is damaged"):
        read_provenance(tmp_path / "out" / "valid_pairs.jsonl")


def test_a_record_holds_no_credentials() -> None:
    address = "https://user:secret@host.example:8443/v1?api_key=secret#x"
    assert without_credentials({"a": [f"asked {address} twice"]}) == {"a": ["asked https://host.example:8443/v1 twice"]}
    assert host_of(address) == "host.example:8443"
    assert host_of("https://api.siliconflow.cn/v1") == "api.siliconflow.cn"
    assert host_of("host.example/v1") == "host.example"
    record = Provenance(step="query", settings={}, inputs={}, outputs={}, counts={}, before={"step": 3})
    with pytest.raises(BadInput, match="what came before query is damaged"):
        record.chain()
