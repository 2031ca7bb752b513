"""A model that reads what no rule does, behind a server on loopback."""

import json
from pathlib import Path
from typing import Any

import pytest

from r1mm.cli import main
from r1mm.endpoint.budget import Budget
from r1mm.errors import StageFailed
from r1mm.evaluate.asked import Asked
from r1mm.evaluate.judge_model import ANSWER, ask_model, said
from r1mm.evaluate.readings import Ask, readings_of
from r1mm.evaluate.scoring import Output, score
from r1mm.rundir import write_jsonl
from tests.asking import ask, endpoint, lines
from tests.chat_server import MODEL, chatting, completion
from tests.loopback import Answer

ASKED = Asked(kind="letter", options=("shortage", "surplus"))
TEXTS = {
    "read-by-rule": "B",
    "told": "There are 1,300 units more than anybody would buy at that price.",
    "wrong": "Nobody can say that there is enough of it, at that price or at another.",
    "silent": "I cannot see a table in this picture.",
}
REPLIES = {"told": "<think>more than bought</think>\n**B**", "wrong": "shortage", "silent": "NONE."}


def outputs() -> list[Output]:
    question = "At a price of $790, is there a shortage or a surplus?\nA. shortage\nB. surplus"
    return [
        score("mathvista", item=item, prompt=question, completion=text, tokens=1, truth="B", asked=ASKED)
        for item, text in TEXTS.items()
    ]


def asking(address: str, path: Path, tokens: int, **changes: Any) -> Ask:
    where = endpoint(address, temperature=0.0, **changes)
    limits = {"budget": Budget(tokens=tokens), "answer": ANSWER}
    return ask_model(where, path, lambda requests: ask(where, requests, path, **limits))


def reply(prompt: str, _: int) -> Answer | None:
    item = next(item for item in REPLIES if TEXTS[item] in prompt)
    return completion(prompt, content=REPLIES[item], usage={"prompt_tokens": 800, "completion_tokens": 64})


def test_what_no_rule_reads_is_asked_once_and_judged_like_any_answer(tmp_path: Path) -> None:
    with chatting(reply) as chat:
        judge = asking(chat.address, tmp_path / "read.jsonl", 100_000)
        readings = readings_of("mathvista", outputs(), ask=judge)
        again = readings_of("mathvista", outputs(), ask=judge)
    assert again == readings
    assert [reading.forced for reading in readings] == ["bare", "asked", "asked", None]
    assert [reading.forced_right for reading in readings] == [True, True, False, False]
    assert sum(chat.asked.values()) == 3  # not the one that a rule reads, and none twice
    prompts = list(chat.asked)
    assert all("B. surplus" in prompt and "NONE" in prompt for prompt in prompts)
    assert {row["item"] for row in lines(tmp_path / "read.jsonl")} == set(REPLIES)


def test_it_stops_at_its_budget_and_keeps_what_it_has(tmp_path: Path) -> None:
    with chatting(reply) as chat:
        judge = asking(chat.address, tmp_path / "read.jsonl", 2000, max_tokens=64)
        with pytest.raises(StageFailed, match=r"the budget of 2,000 tokens leaves no room"):
            readings_of("mathvista", outputs(), ask=judge)
    assert 1 <= len(lines(tmp_path / "read.jsonl")) < 3


@pytest.mark.parametrize(
    ("text", "answer"),
    [("B", "B"), (" **14** \n", "14"), ("<think>A?</think> B", "B"), ("<think>A?", None), ("none", None), ("", None)],
)
def test_what_a_reply_says(text: str, answer: str | None) -> None:
    assert said(text) == answer


def test_score_says_how_many_a_model_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded = [score("counting", item=f"{i}", prompt="How many?", completion=text, tokens=1, truth=3)
                for i, text in enumerate(("<answer>3</answer>", "quite a few"))]  # fmt: skip
    path = write_jsonl(tmp_path / "outputs.jsonl", (output.model_dump() for output in recorded))
    command = ["score", "superclevr-200", str(path), "--json"]
    with chatting(lambda prompt, _: completion(prompt, content="3")) as chat:
        judge = ["--judge", str(tmp_path / "read.jsonl"), "--base-url", chat.address, "--model", MODEL]
        assert main([*command, *judge, "--budget-tokens", "100000"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["right"], found["found_by_force"], found["right_by_force"], found["read_by_model"]) == (1, 2, 2, 1)
    assert main(command) == 0
    assert "read_by_model" not in json.loads(capsys.readouterr().out)
    assert main([*command, *judge]) == 2
    assert "--judge needs --base-url, --model and a limit" in capsys.readouterr().err
    assert main([*command, *judge[2:]]) == 2
    assert "say --judge JUDGED too" in capsys.readouterr().err
