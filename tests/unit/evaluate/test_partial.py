import json
from pathlib import Path

import pytest

from r1mm.errors import BadInput
from r1mm.evaluate.partial import Answer, Asked, PartialAnswers

ASKED = [Asked(f"item-{i}", "How many?") for i in range(5)]
BATCHES = [[3, 0], [1, 4], [2]]
ANSWERS = {i: Answer(f"<think>\n{i}\n</think> ünï", i) for i in range(5)}


def finished(path: Path) -> bytes:
    answers = PartialAnswers(path, ASKED, BATCHES)
    for batch in answers.open_batches:
        answers.add({i: ANSWERS[i] for i in batch})
    assert answers.answers == ANSWERS
    return path.read_bytes()


def test_wherever_a_kill_cuts_the_file_it_goes_on_to_the_same_end(tmp_path: Path) -> None:
    whole = finished(tmp_path / "whole.jsonl")
    ends = [place + 1 for place, byte in enumerate(whole) if byte == ord("\n")]
    cuts = tmp_path / "cut.jsonl"
    near = {place for end in (0, *ends) for place in (end - 30, end - 1, end, end + 1)}
    for cut in sorted(place for place in near if 0 <= place <= len(whole)):
        cuts.write_bytes(whole[:cut])
        left = PartialAnswers(cuts, ASKED, BATCHES).open_batches
        complete = sum(end <= cut for end in ends)
        assert left == BATCHES[{0: 0, 1: 0, 2: 1, 3: 1, 4: 2, 5: 3}[complete] :], cut
        assert finished(cuts) == whole, cut


def test_an_answer_is_on_disk_when_add_returns(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "down" / "p.jsonl"
    answers = PartialAnswers(path, ASKED, BATCHES)
    assert not path.exists()
    answers.add({i: ANSWERS[i] for i in BATCHES[0]})
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["index"] for row in rows] == [3, 0]
    assert rows[0] == {
        **{"index": 3, "item": "item-3", "prompt": "How many?"},
        **{"completion": ANSWERS[3].completion, "tokens": 3},
    }


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            '{"index": 0, "item": "other", "prompt": "How many?", "completion": "x", "tokens": 1}',
            "answers item 'other'",
        ),
        ('{"index": 0, "item": "item-0", "prompt": "Why?", "completion": "x", "tokens": 1}', "answers item 'item-0'"),
        ('{"index": 9, "item": "item-9", "prompt": "How many?", "completion": "x", "tokens": 1}', "ask at 9"),
        ('{"index": 0}', "is damaged"),
        ("[]", "is damaged"),
        ("\0\0\0\0", "is damaged"),
    ],
)
def test_what_no_kill_leaves_is_refused_and_kept(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(BadInput, match=rf"p\.jsonl:1: .*{words}.*delete .*p\.jsonl to evaluate from the start"):
        PartialAnswers(path, ASKED, BATCHES)
    assert path.read_text() == line + "\n"
