import json
from pathlib import Path

import pytest

from r1mm.errors import BadInput
from r1mm.evaluate.counting import parse_count, read_outputs, rescore, score
from r1mm.rundir import write_jsonl


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("<answer>4</answer>", 4),
        ("<think>\n x\n </think>\n<answer>\n    12\n    </answer>", 12),
        ("<answer>3</answer> <answer>4</answer>", 3),  # the first match decides
        ("<answer>four</answer>", None),
        ("<answer>4", None),
        ("4", None),
    ],
)
def test_the_first_answer_tag_with_a_number_decides(text: str, count: int | None) -> None:
    assert parse_count(text) == count


def test_marks_of_an_output() -> None:
    thinking = score("a", "p", "<think>\nx\n</think>\n<answer>\n 3\n</answer>", 12, 3)
    assert (thinking.correct, thinking.format, thinking.direct) == (True, True, False)
    bare = score("a", "p", "<answer>2</answer>", 3, 3)
    assert (bare.parsed, bare.correct, bare.format, bare.direct) == (2, False, False, True)


def test_our_outputs_are_rescored_from_their_text(tmp_path: Path) -> None:
    rows = [score("a", "p", "<answer>2</answer>", 3, 2).model_dump(), score("b", "p", "none", 1, 2).model_dump()]
    rows[0]["correct"] = False  # a stored mark does not count
    path = write_jsonl(tmp_path / "o.jsonl", rows)
    assert [o.correct for o in rescore(path)] == [True, False]


def test_upstreams_json_is_scored(tmp_path: Path) -> None:
    rows = [
        {
            "question": {"image_path": "/x/images/a.png", "question": "How many?", "ground_truth": 4},
            "ground_truth": 4,
            "model_output": "<answer>4</answer>",
            "extracted_answer": 4,
        }
    ]
    path = tmp_path / "log.json"
    path.write_text(json.dumps({"accuracy": 100.0, "results": rows}))
    (output,) = rescore(path)
    assert (output.item, output.correct, output.direct) == ("a.png", True, True)


@pytest.mark.parametrize("content", ["", "[]", '{"results": []}', '{"results": [{"ground_truth": 1}]}'])
def test_other_files_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(BadInput, match=r"x\.json"):
        rescore(path)


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "o.jsonl", [score("a", "p", "x", 1, 1).model_dump(), {"item": "b"}])
    with pytest.raises(BadInput, match=r"o\.jsonl:2: prompt: Field required"):
        read_outputs(path)


UPSTREAM = Path(__file__).resolve().parents[4] / "shared" / "upstream"
LOGS = {
    "counting_results_superclevr_200_qwen2vl_2b_instruct_legacy.json": (96, 45),
    "counting_results_superclevr_200_qwen2vl_2b_instruct_grpo100_legacy.json": (165, 0),
}


@pytest.mark.parametrize("name", LOGS)
def test_upstreams_own_logs_give_upstreams_own_numbers(name: str) -> None:
    if not (UPSTREAM / name).is_file():
        pytest.skip("upstream's recorded outputs are not at hand (they are not part of this repository)")
    outputs = rescore(UPSTREAM / name)
    right, unparsed = LOGS[name]
    assert (len(outputs), sum(o.correct for o in outputs)) == (200, right)
    assert sum(o.parsed is None for o in outputs) == unparsed
