import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from r1mm.cli import main
from r1mm.errors import BadInput
from r1mm.evaluate.recorded import read_recorded, score_recorded
from r1mm.evaluate.scoring import Output, Scorer, score
from r1mm.evaluate.tasks import KnownTask, find_task
from r1mm.rundir import sha256_file, write_jsonl

SAMPLES = Path(__file__).parent / "samples"
COUNTING = KnownTask("counting-8", "counting", 8, sha256_file(SAMPLES / "counting-prompts.jsonl"))
MATH = KnownTask("math-8", "math", 8, None)


@pytest.mark.parametrize(
    ("task", "right", "unparsed", "lenient", "recovered"), [(COUNTING, 2, 5, 4, 3), (MATH, 5, 2, 6, 1)]
)
def test_samples_that_exercise_every_rule(
    task: KnownTask, right: int, unparsed: int, lenient: int, recovered: int
) -> None:
    kind = task.scorer
    found = score_recorded(SAMPLES / f"{kind}.json", task, SAMPLES / f"{kind}-prompts.jsonl")
    assert (found["n"], found["right"], found["unparsed"]) == (8, right, unparsed)
    assert (found["lenient_right"], found["recovered"]) == (lenient, recovered)
    assert found["parseable_right"] <= min(found["parseable"], found["right_by_force"]) <= found["found_by_force"] <= 8
    assert (found["missing"], found["stored_right"], found["changed"]) == (0, right, [])
    assert len(found["notes"]) == 1
    assert "items, questions and truths are those of" in found["notes"][0]


def sample(kind: Scorer) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((SAMPLES / f"{kind}.json").read_text())
    return content


def written(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_a_partial_file_is_scored_with_a_note(tmp_path: Path) -> None:
    path = written(tmp_path / "part.json", {"results": sample("counting")["results"][:5]})
    found = score_recorded(path, COUNTING)
    assert (found["n"], found["missing"], found["accuracy"]) == (5, 3, 40.0)
    assert any("were not checked: give the task's prompts file" in note for note in found["notes"])
    assert any("3 of the 8 items are missing" in note for note in found["notes"])
    unknown = score_recorded(path, replace(COUNTING, items=None))
    assert unknown["missing"] is None
    assert any("is not stated" in note for note in unknown["notes"])


def test_layouts_that_mean_the_same_are_read(tmp_path: Path) -> None:
    whole = sample("math")["results"]
    flat = [
        {"image_path": row["question"]["image_path"], "question": row["question"]["question"]}
        | {key: row[key] for key in ("ground_truth", "model_output")}
        for row in whole
    ]
    nested = [{"question": row["question"], "model_output": row["model_output"]} for row in whole]
    expected = read_recorded(SAMPLES / "math.json", "math").outputs
    for rows in (flat, nested):
        found = read_recorded(written(tmp_path / "x.json", rows), "math")  # the list alone
        assert found.outputs == expected
        assert found.stored == [None] * 8


def test_marks_that_the_file_has_are_compared(tmp_path: Path) -> None:
    content = sample("math")
    content["results"][0]["is_correct"] = False
    found = score_recorded(written(tmp_path / "x.json", content), MATH)
    assert (found["right"], found["stored_right"], found["changed"]) == (5, 4, ["0"])
    assert any("marks differ on 1 items (0)" in note for note in found["notes"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "not readable JSON"),
        ("[]", "no list `results`"),
        ('{"results": []}', "no list `results`"),
        ('{"results": [3]}', r"results\[0\] is no object"),
        ('{"results": [{"ground_truth": 1}]}', r"results\[0\] has no text question"),
        ('[{"question": "q", "image_path": "a", "model_output": "x"}]', r"results\[0\] has no ground_truth"),
        ('[{"question": "q", "image_path": "a", "model_output": "x", "ground_truth": "many"}]', "not a whole number"),
        (
            '[{"question": {"question": "q", "image_path": "a", "ground_truth": 2}, "ground_truth": 1, '
            '"model_output": "x"}]',
            "two truths, 1 and 2",
        ),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(BadInput, match=r"x\.json.*" + words):
        read_recorded(path, "counting")


def change_truth(rows: list[dict[str, Any]]) -> None:
    rows[2]["ground_truth"] = rows[2]["question"]["ground_truth"] = 9


def change_item(rows: list[dict[str, Any]]) -> None:
    rows[2]["question"]["image_path"] = "./images/other.png"


def change_question(rows: list[dict[str, Any]]) -> None:
    rows[2]["question"]["question"] = "How many cars?"


def repeat(rows: list[dict[str, Any]]) -> None:
    rows[2] = rows[1]


def add_one(rows: list[dict[str, Any]]) -> None:
    rows.append(json.loads(json.dumps(rows[0])))
    rows[-1]["question"]["image_path"] = "ninth.png"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (change_truth, "'made_002' has the truth 9, the prompts file 4"),
        (change_item, "'other' is none of the 8 items of counting-8"),
        (change_question, r"'made_002' was asked 'How many cars\?'"),
        (repeat, "holds item 'made_001' twice"),
        (add_one, "holds 9 items, counting-8 has 8"),
    ],
)
def test_a_file_of_other_items_is_refused(tmp_path: Path, change: Any, words: str) -> None:
    content = sample("counting")
    change(content["results"])
    with pytest.raises(BadInput, match=words):
        score_recorded(written(tmp_path / "x.json", content), COUNTING, SAMPLES / "counting-prompts.jsonl")


def test_another_prompts_file_is_refused(tmp_path: Path) -> None:
    prompts = tmp_path / "p.jsonl"
    prompts.write_text((SAMPLES / "counting-prompts.jsonl").read_text() + "\n{}\n")
    with pytest.raises(BadInput, match=r"p\.jsonl:9: not JSON"):
        score_recorded(SAMPLES / "counting.json", COUNTING, prompts)
    prompts.write_text("{}\n")
    with pytest.raises(BadInput, match=r"p\.jsonl:1: has no image_path"):
        score_recorded(SAMPLES / "counting.json", COUNTING, prompts)
    prompts.write_text((SAMPLES / "counting-prompts.jsonl").read_text().replace("many different", "many"))
    with pytest.raises(BadInput, match="is not the prompts file of counting-8: sha256"):
        score_recorded(SAMPLES / "counting.json", COUNTING, prompts)


def ours(item: str, completion: str, truth: int) -> Output:
    question = "How many different items are there in the image? Think."
    return score("counting", item=item, prompt=question, completion=completion, tokens=3, truth=truth)


def test_our_outputs_are_rescored_from_their_text(tmp_path: Path) -> None:
    rows = [ours("counting-8-000000", "<answer>4</answer>", 4).model_dump(), ours("made_001.png", "-", 12).model_dump()]
    rows[0]["correct"] = False  # a stored mark does not count
    path = write_jsonl(tmp_path / "o.jsonl", rows)
    found = score_recorded(path, COUNTING, SAMPLES / "counting-prompts.jsonl")  # items by name or by position
    assert (found["right"], found["stored_right"], found["changed"]) == (1, 0, ["counting-8-000000"])
    write_jsonl(path, [ours("counting-8-000009", "-", 4).model_dump()])
    with pytest.raises(BadInput, match="'counting-8-000009' is none of the 8 items"):
        score_recorded(path, COUNTING, SAMPLES / "counting-prompts.jsonl")


def test_score_as_a_user_calls_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = SAMPLES / "counting.json"
    assert main(["score", "superclevr-200", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["task"], found["n"], found["missing"], found["right"]) == ("superclevr-200", 8, 192, 2)
    assert main(["score", "superclevr-200", str(path)]) == 0
    told = capsys.readouterr().out
    assert "right 2, accuracy 25.0, unparsed 5, lenient_right 4" in told
    assert "note: 192 of the 200 items are missing" in told
    assert main(["score", "superclevr-200", str(path), "--prompts", str(SAMPLES / "counting-prompts.jsonl")]) == 2
    assert "is not the prompts file of superclevr-200" in capsys.readouterr().err
    assert main(["score", "superclever-200", str(path)]) == 2
    assert "did you mean 'superclevr-200'" in capsys.readouterr().err
    assert main(["score", "superclevr-200", str(tmp_path / "none.json")]) == 2


_SHARED = os.environ.get("R1MM_SHARED")
UPSTREAM = (Path(_SHARED) if _SHARED else Path(__file__).resolve().parents[4] / "shared") / "upstream"
LOGS = {
    "counting_results_superclevr_200_qwen2vl_2b_instruct_legacy.json": (96, 45, 99, 13),
    "counting_results_superclevr_200_qwen2vl_2b_instruct_grpo100_legacy.json": (165, 0, 165, 0),
}


@pytest.mark.parametrize("name", LOGS)
def test_upstreams_own_logs_give_upstreams_own_numbers(name: str) -> None:
    if not (UPSTREAM / name).is_file():
        pytest.skip("upstream's recorded outputs are not at hand (they are not part of this repository)")
    right, unparsed, lenient, recovered = LOGS[name]
    prompts = UPSTREAM / "superclevr_test200_counting_problems.jsonl"
    found = score_recorded(UPSTREAM / name, find_task("superclevr-200"), prompts)
    assert (found["n"], found["missing"], found["right"], found["unparsed"]) == (200, 0, right, unparsed)
    assert (found["lenient_right"], found["recovered"]) == (lenient, recovered)
    assert (found["stored_right"], found["changed"]) == (right, [])


def test_what_upstreams_math_rule_can_see_of_the_geoqa_truths() -> None:
    path = UPSTREAM / "geoqa_test_prompts.jsonl"
    if not path.is_file():
        pytest.skip("upstream's prompts are not at hand (they are not part of this repository)")
    rows = [json.loads(line) for line in path.read_text().splitlines()]

    def right(form: str) -> tuple[int, int]:
        outputs = [
            score(
                "math",
                item="",
                prompt="",
                completion=form.format(row["ground_truth"]),
                tokens=0,
                truth=row["ground_truth"],
            )
            for row in rows
        ]
        return sum(output.correct for output in outputs), sum(output.lenient for output in outputs)

    assert len(rows) == 754
    assert right("It is {}") == (737, 737)  # 17 truths are read as nothing
    assert right("<answer>{}</answer>") == (61, 737)  # a number that touches a tag is not seen
