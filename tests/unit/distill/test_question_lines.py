import json
import random
import tracemalloc
from pathlib import Path

import pytest

from r1mm.distill.question_lines import question_lines
from r1mm.errors import BadInput, StageFailed
from tests.asking import lines, scene_questions


def test_lines_come_in_their_order(tmp_path: Path) -> None:
    path = scene_questions(tmp_path / "q.jsonl", 5)
    path.write_text(path.read_text() + "\n")  # an empty line is none
    questions = question_lines(path)
    assert len(questions) == 5
    assert list(questions) == list(questions) == lines(path)


def test_the_first_so_many_are_upstreams(tmp_path: Path) -> None:
    path = scene_questions(tmp_path / "q.jsonl", 500)
    rows = lines(path)
    random.seed(1234)
    random.shuffle(rows)
    assert list(question_lines(path, 100)) == rows[:100]
    assert list(question_lines(path, 10**6)) == rows
    assert list(question_lines(path, 100, 1)) != rows[:100]


GOOD = {"img_filename": "a.png", "q": "How many?", "a": 3, "description": "A thing", "kind": "x"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "has no questions"),
        (json.dumps([GOOD]), r"is one JSON list, as upstream writes it; make it lines: jq -c '\.\[\]' "),
        (json.dumps([GOOD], indent=1), "is one JSON list"),
        (json.dumps(GOOD) + "\n{oops\n", r"q\.jsonl:2: not JSON: .*\(line '\{oops'\)"),
        (json.dumps(GOOD) + "\n3\n", r"q\.jsonl:2: not an object: '3'"),
        (json.dumps({**GOOD, "q": None}), r"q\.jsonl:1: q: Input should be a valid string; it is None: a line holds"),
        (json.dumps({**GOOD, "a": 2.5}), r"q\.jsonl:1: a: .*; it is 2\.5: a line holds"),
        (json.dumps({**GOOD, "answer": ""}), r"q\.jsonl:1: has the key answer, which .* is it a file of answers\?"),
    ],
)
def test_a_line_that_is_no_question_is_named(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(content)
    with pytest.raises(BadInput, match=words):
        question_lines(path, taken=("answer",))


def test_a_file_that_is_not_there_or_changes(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"q\.jsonl cannot be read \(No such file"):
        question_lines(tmp_path / "q.jsonl")
    with pytest.raises(BadInput, match="cannot be read"):
        question_lines(tmp_path)
    questions = question_lines(scene_questions(tmp_path / "q.jsonl", 5))
    (tmp_path / "q.jsonl").write_text("x" * 500)
    with pytest.raises(StageFailed, match=r"has changed since it was read"):
        list(questions)


def test_a_file_is_not_held(tmp_path: Path) -> None:
    path = scene_questions(tmp_path / "q.jsonl", 3000)
    tracemalloc.start()
    for _ in question_lines(path, 2900):
        pass
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < path.stat().st_size / 3
