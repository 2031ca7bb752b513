"""`r1mm distill query` as its users call it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from r1mm.chain.provenance import Provenance, provenance_path, read_provenance, write_provenance
from r1mm.cli import main
from r1mm.endpoint.records import dead_letters
from r1mm.rundir import stamp
from tests.asking import lines, scene_questions
from tests.chat_server import MODEL, Chat, Fault, chatting, completion, error, in_turn, thought_of
from tests.loopback import Answer
from tests.unit.distill.test_prompts import V1

SECRET = "sk-planted/4f1c-0000"


@pytest.fixture(autouse=True)
def _the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    return scene_questions(tmp_path / "questions.jsonl", 6)


def query(asked: Path, chat: Chat | str, *more: str) -> int:
    address = chat if isinstance(chat, str) else chat.address
    out = str(asked.with_name("traces.jsonl"))
    return main(["distill", "query", str(asked), "--out", out, "--base-url", address, "--model", MODEL, *more])


def test_every_question_comes_back_with_its_answer(asked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with chatting(key=SECRET) as chat:
        assert query(asked, chat) == 0
        said = capsys.readouterr()
        assert "6 questions: 6 answered now, 0 before; 0 dead letters" in said.out
        assert f"asking {MODEL} at {chat.address} with the key in OPENAI_API_KEY" in said.err
        assert query(asked, chat, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["questions"], found["before"], found["requests"], found["stopped"]) == (6, 6, 0, None)
    rows = {row["img_filename"]: row for row in lines(asked.with_name("traces.jsonl"))}
    assert len(rows) == len(chat.sent) == 6
    for question in lines(asked):
        row = rows[question["img_filename"]]
        assert question.items() <= row.items()
        assert set(row) - set(question) == {"r1_response", "key", "model", "finish_reason", "usage", "timestamp"}
    assert chat.sent[0].keys() == {"model", "messages", "max_tokens"}
    (message,) = chat.sent[0]["messages"]
    assert message["content"].endswith("'**The answer is: **' followed by your answer\n")
    assert thought_of(message["content"]) in {row["r1_response"] for row in rows.values()}


def test_the_next_step_finds_a_record_of_this_one(asked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    earlier = Provenance(step="earlier", settings={}, inputs={}, outputs={asked.name: stamp(asked)}, counts={})
    write_provenance(provenance_path(asked), earlier)
    traces = asked.with_name("traces.jsonl")
    with chatting(lambda prompt, _: error(400, "no") if "thing, 3" in prompt else None) as chat:
        assert query(asked, chat, "--temperature", "0.6") == 0
    record, found = read_provenance(traces)
    assert record is not None
    assert (record.step, record.inputs, record.outputs) == (
        "distill query",
        {"questions": stamp(asked)},
        {"traces.jsonl": found},
    )
    assert {"base_url": chat.address, "model": MODEL, "temperature": 0.6, "prompt": "v2"}.items() <= (
        record.settings.items()
    )
    assert (record.counts["questions"], record.counts["answered"], record.counts["dead letters"]) == (6, 5, 1)
    assert [step.step for step in record.chain()] == ["earlier", "distill query"]
    traces.write_bytes(traces.read_bytes() + b"\n")  # by somebody else
    assert read_provenance(traces)[0] is None
    assert "answered now" in capsys.readouterr().out


def test_what_is_asked_is_chosen(asked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked.write_text(json.dumps({**lines(asked)[0], "description": "A red cube"}) + "\n")
    system = asked.with_name("system.txt")
    system.write_text("Think first.\n")
    options = ("--system", str(system), "--prompt", "v1", "--temperature", "0.6", "--max-tokens", "77")
    with chatting() as chat:
        assert query(asked, chat, *options, "--first", "1", "--rpm", "6000", "--tpm", "1e6") == 0
        assert chat.sent == [
            {
                "model": MODEL,
                "messages": [{"role": "system", "content": "Think first."}, {"role": "user", "content": V1}],
                "max_tokens": 77,
                "temperature": 0.6,
            }
        ]
        assert query(asked, chat) == 0
        assert "1 records answer no question of this file as it is asked now" in capsys.readouterr().out


def test_dead_letters_are_said_and_asked_again(asked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut = True

    def cuts(prompt: str, _: int) -> Answer | None:
        return completion(prompt, finish_reason="length") if cut and "thing, 3" in prompt else None

    with chatting(cuts) as chat:
        assert query(asked, chat) == 0
        said = capsys.readouterr().out
        assert "5 answered now, 0 before; 1 dead letters now" in said
        assert "traces.dead.jsonl: length 1\n  --retry-dead asks them again (those that were cut: with a larger" in said
        (letter,) = lines(dead_letters(asked.with_name("traces.jsonl")))
        assert (letter["img_filename"], letter["reason"]) == ("3.png", "length")
        cut = False
        assert query(asked, chat, "--retry-dead", "--max-tokens", "8192") == 0
    assert "1 answered now, 5 before; 0 dead letters now, 0 before" in capsys.readouterr().out


def test_a_budget_ends_it_with_status_1_and_a_larger_one_goes_on(
    asked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with chatting() as chat:
        prices = ("--price-in", "4", "--price-out", "16", "--concurrency", "1", "--max-tokens", "100")
        assert query(asked, chat, *prices, "--budget", "0.004") == 1
        said = capsys.readouterr()
        assert 0 < len(chat.sent) < 6
        assert said.err.count("r1mm: failed: the budget of 0.004 in money leaves no room") == 1
        assert f"{6 - len(chat.sent)} questions are left: give a larger budget and start the same command" in said.err
        assert query(asked, chat, *prices, "--budget", "1") == 0
        assert "0 left" in capsys.readouterr().out
    assert len(chat.sent) == len(lines(asked.with_name("traces.jsonl"))) == 6


def test_what_cannot_be_is_one_error_with_status_2(asked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = "http://127.0.0.1:9/v1"
    empty = asked.with_name("empty.txt")
    empty.write_text("\n")
    for more, words in (
        (("--api-key-env", "NOT_SET"), "NOT_SET holds no API key"),
        (("--api-key-file", str(empty)), "empty.txt holds no API key"),
        (("--system", str(empty)), "empty.txt is empty; leave --system away"),
        (("--system", "nowhere.txt"), "--system nowhere.txt cannot be read"),
        (("--out", str(asked.parent)), "is a folder; choose another place with --out"),
        (("--out", str(asked)), "questions.jsonl:1: is no record of a question that was asked"),
        (("--budget", "5"), "a budget of 5 without prices cannot be kept"),
        (("--base-url", "localhost:1/v1"), "'localhost:1/v1' is no base URL"),
        ((), "http://127.0.0.1:9/v1 cannot be reached (ConnectError"),
    ):
        assert query(asked, nowhere, *more) == 2
        said = capsys.readouterr()
        assert words in said.err
        assert said.err.count("r1mm: error: ") == 1
        assert said.out == ""
    assert not asked.with_name("traces.jsonl").exists()
    for arguments in (["--rpm", "0"], ["--timeout", "-1"], ["--first", "0"], ["--budget", "much"]):
        with pytest.raises(SystemExit) as stopped:
            query(asked, nowhere, *arguments)
        assert stopped.value.code == 2


def test_help_teaches_the_chain(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["distill"], ["distill", "query"]):
        with pytest.raises(SystemExit) as stopped:
            main([*arguments, "--help"])
        assert stopped.value.code == 0
        assert "r1mm distill query questions.jsonl --out traces.jsonl --base-url" in capsys.readouterr().out


ECHO = f"Bearer {SECRET}"
ECHOED = completion("any", content=f"<think>\nI was told {ECHO}\n</think>\n4")
LEAKS: dict[str, Fault] = {
    "success": lambda *_: None,
    "in the answer": lambda *_: ECHOED,
    "in a cut answer": lambda prompt, _: completion(prompt, content=ECHO, finish_reason="length"),
    "in the model's name": lambda prompt, _: completion(prompt, model=ECHO),
    "in how an answer ends": lambda prompt, _: completion(prompt, finish_reason=ECHO),
    "401": lambda *_: error(401, f"not this one: {ECHO}"),
    "400, all": lambda *_: error(400, f"headers: {ECHO}"),
    "400, one": lambda prompt, _: error(400, ECHO) if "thing, 3" in prompt else None,
    "500, one": lambda prompt, _: error(500, f"{'x' * 990} {ECHO}") if "thing, 3" in prompt else None,
    "escaped": lambda *_: Answer(500, json.dumps({"error": ECHO}).replace("/", "\\/").encode()),
    "redirection": lambda *_: Answer(302, headers={"Location": f"http://127.0.0.1:9/?key={SECRET}"}),
    "not JSON": lambda prompt, _: Answer(body=f"<p>{ECHO}".encode()) if "thing, 3" in prompt else None,
    "cut": in_turn(replace(ECHOED, cut=150)),
    "reset": in_turn(Answer(reset=True)),
}


@pytest.mark.parametrize("fault", LEAKS.values(), ids=LEAKS.keys())
def test_the_key_is_nowhere(
    fault: Fault, asked: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("r1mm.endpoint.pace.Retries.wait", lambda *_: 0.0)
    with chatting(fault) as chat:
        query(asked, chat, "--json")
        assert chat.sent
    said = capsys.readouterr()
    written = [path.read_text() for path in asked.parent.rglob("*") if path.is_file()]
    for text in (said.out, said.err, *written):
        for form in (SECRET, SECRET.replace("/", "\\/"), SECRET[:12]):
            assert form not in text


def test_the_key_travels_in_its_header_alone(asked: Path) -> None:
    with chatting(key=SECRET) as chat:
        file = asked.with_name("key.txt")
        file.write_text(f"{SECRET}\n")
        assert query(asked, chat, "--api-key-file", str(file)) == 0
    assert len(chat.sent) == 6
    assert SECRET not in json.dumps(chat.sent)
