import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from r1mm.endpoint.ask import Request
from r1mm.endpoint.budget import Budget, Prices, most_tokens
from r1mm.endpoint.pace import Pace, Retries
from r1mm.endpoint.records import dead_letters
from r1mm.errors import BadInput, StageFailed
from tests.asking import Ticking, ask, endpoint, lines, questions
from tests.chat_server import Fault, chatting, completion, error, in_turn, thought_of
from tests.loopback import Answer

WHOLE = completion("any")
PASSING = {
    "429": error(429, "slow down"),
    "408": error(408, "too slow"),
    "409": error(409, "in the way"),
    "500": error(500, "oh"),
    "503 without a body": Answer(503),
    "stall": replace(WHOLE, wait=60.0),
    "cut": replace(WHOLE, cut=40),
    "cut JSON": replace(WHOLE, body=WHOLE.body[:40]),
    "not JSON": Answer(body=b"<html>busy</html>", headers={"Content-Type": "text/html"}),
    "no choices": Answer(body=b'{"choices": []}'),
    "an error in a good answer": Answer(body=b'{"error": {"message": "overloaded"}}'),
    "no end": completion("any", finish_reason=None),
    "empty": completion("any", content=" \n"),
    "reset": Answer(reset=True),
    "out of resources": completion("any", finish_reason="insufficient_system_resource"),
}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "traces.jsonl"


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING.keys())
def test_what_passes_is_asked_again_and_recorded_once(fault: Answer, out: Path) -> None:
    with chatting(in_turn(fault)) as chat:
        where = endpoint(chat.address, timeout=0.15 if fault.wait else 20.0)
        found = ask(where, questions(3), out, concurrency=3)
        assert set(chat.asked.values()) == {2}
    assert (found.answered, found.dead, found.requests, found.retries) == (3, 0, 6, 3)
    rows = {row["item"]: row for row in lines(out)}
    assert len(lines(out)) == len(rows) == 3
    assert rows[1]["response"] == thought_of("Question 1")
    assert {key: rows[1][key] for key in ("model", "finish_reason", "usage")} == {
        "model": "thinker-1",
        "finish_reason": "stop",
        "usage": {"prompt_tokens": 2, "completion_tokens": len(thought_of("Question 1").split())},
    }
    assert len(rows[1]["key"]) == 64
    assert not dead_letters(out).exists()


def test_waits_grow_by_chance_and_the_server_is_believed_up_to_a_bound(out: Path) -> None:
    told = error(429, "slow down", Retry_After="7")
    date = error(503, "later", Date="Sun, 22 Nov 2026 10:00:00 GMT", Retry_After="Sun, 22 Nov 2026 10:01:30 GMT")
    for_long = error(429, "tomorrow", Retry_After="86400")
    clock = Ticking()
    with chatting(in_turn(Answer(500), Answer(500), Answer(500), told, date, for_long)) as chat:
        retries = Retries(chance=lambda: 0.5, longest_told=300.0)
        ask(endpoint(chat.address), questions(1), out, pace=Pace(clock=clock), retries=retries)
    # Half of 1, 2 and 4 s; 7 s, 90 s and at most 300 s and half of the first wait.
    assert [round(wait, 3) for wait in clock.slept] == [0.5, 1.0, 2.0, 7.5, 90.5, 300.5]


def test_a_crowded_server_holds_everybody(out: Path) -> None:
    clock, at = Ticking(), []

    def crowded(prompt: str, before: int) -> Answer | None:
        at.append(clock.time)
        return error(429, "all of you", Retry_After="30") if prompt == "Question 0" and not before else None

    with chatting(crowded) as chat:
        ask(endpoint(chat.address), questions(4), out, concurrency=1, pace=Pace(clock=clock))
        first = ask(endpoint(chat.address), questions(5), out, concurrency=2, pace=Pace(clock=clock))
    assert first.answered == 1
    assert at[0] == 100.0
    assert min(at[1:]) >= 130.0


def test_too_many_requests_are_no_dead_letter_while_others_are_answered(out: Path) -> None:
    def crowded(prompt: str, before: int) -> Answer | None:
        return error(429, "wait") if prompt == "Question 0" and before < 12 else None

    with chatting(crowded) as chat:
        found = ask(endpoint(chat.address), questions(40), out, concurrency=2)
    assert (found.answered, found.dead) == (40, 0)


def test_a_refused_question_is_a_dead_letter_until_it_is_asked_for(out: Path) -> None:
    refusing = True

    def picky(prompt: str, _: int) -> Answer | None:
        return error(400, "too long") if prompt == "Question 2" and refusing else None

    with chatting(picky) as chat:
        where = endpoint(chat.address)
        found = ask(where, questions(5), out)
        assert (found.answered, found.dead, dict(found.dead_reasons)) == (4, 1, {"HTTP 400": 1})
        (letter,) = lines(dead_letters(out))
        assert (letter["item"], letter["reason"], letter["status"], letter["attempts"]) == (2, "HTTP 400", 400, 1)
        assert "too long" in letter["body"]
        refusing = False
        again = ask(where, questions(5), out)
        assert (again.requests, again.before, again.dead_before) == (0, 4, 1)
        third = ask(where, questions(5), out, retry_dead=True)
        assert (third.requests, third.answered, third.before) == (1, 1, 4)
        fourth = ask(where, questions(5), out)
        assert (fourth.before, fourth.dead_before) == (5, 0)
    assert sorted(row["item"] for row in lines(out)) == [0, 1, 2, 3, 4]


def test_what_fails_every_time_is_a_dead_letter_with_its_last_words(out: Path) -> None:
    with chatting(lambda prompt, _: error(500, "I cannot") if prompt == "Question 0" else None) as chat:
        found = ask(endpoint(chat.address), questions(5), out, concurrency=1, retries=Retries(attempts=3))
        assert chat.asked["Question 0"] == 3
    assert (found.answered, found.retries) == (4, 2)
    (letter,) = lines(dead_letters(out))
    assert (letter["reason"], letter["attempts"]) == ("HTTP 500", 3)
    assert "I cannot" in letter["body"]


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_a_cut_trace_is_no_trace(reason: str, out: Path) -> None:
    def cuts(prompt: str, _: int) -> Answer | None:
        return completion(prompt, finish_reason=reason, content="<think>So") if prompt == "Question 1" else None

    with chatting(cuts) as chat:
        found = ask(endpoint(chat.address), questions(3), out)
        assert chat.asked["Question 1"] == 1
    assert sorted(row["item"] for row in lines(out)) == [0, 2]
    (letter,) = lines(dead_letters(out))
    assert {"finish_reason": reason, "reason": reason, "response": "<think>So", "item": 1}.items() <= letter.items()
    assert letter["usage"]["completion_tokens"] > 0
    assert found.completion_tokens == sum(row["usage"]["completion_tokens"] for row in [*lines(out), letter])


def test_where_all_are_cut_it_does_not_go_on_paying(out: Path) -> None:
    with chatting(lambda prompt, _: completion(prompt, finish_reason="length")) as chat:
        with pytest.raises(StageFailed, match=r"the first 2\d answers were all cut \(length\) at 4096 tokens"):
            ask(endpoint(chat.address), questions(60), out, concurrency=4)
        assert len(chat.sent) < 30


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"reasoning_content": "Hm.\n", "content": "4"}, "<think>Hm.\n</think>\n\n4"),
        ({"reasoning": "Hm.", "content": "4"}, "<think>Hm.</think>\n\n4"),
        ({"reasoning_content": "Hm.", "content": "<think>\nAh.\n</think>\n4"}, "<think>\nAh.\n</think>\n4"),
        ({"content": "Half a pair: \ud83d."}, "Half a pair: \ufffd."),
        ({"reasoning_content": None, "content": "A pair: \U0001f600\u2028"}, "A pair: \U0001f600\u2028"),
    ],
)
def test_thoughts_that_come_apart_are_put_back(message: dict[str, Any], text: str, out: Path) -> None:
    with chatting(lambda prompt, _: completion(prompt, **message)) as chat:
        ask(endpoint(chat.address), questions(1), out)
    assert lines(out)[0]["response"] == text


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (error(401, "who are you"), r"answers HTTP 401: who are you; a key is wanted, and a test is not set"),
        (error(402, "no money"), r"HTTP 402: no money; the account has no credit"),
        (error(403, "not you"), r"HTTP 403: not you; a key is wanted"),
        (error(404, "no such model"), r"HTTP 404: no such model; check the base URL .* name, thinker-1"),
        (error(429, "pay", code="insufficient_quota"), r"HTTP 429: pay; the account has no credit"),
        (Answer(301, headers={"Location": "https://else.where/v1"}), r"a redirection to https://else\.where/v1; check"),
        (Answer(404, b'{"detail": "Not Found"}'), r"HTTP 404: Not Found; check"),
    ],
)
def test_what_every_request_would_meet_stops_at_once(answer: Answer, words: str, out: Path, tmp_path: Path) -> None:
    with chatting(lambda *_: answer) as chat:
        with pytest.raises(BadInput, match=words):
            ask(endpoint(chat.address), questions(500), out, concurrency=4)
        assert len(chat.sent) <= 8
    assert [path.name for path in tmp_path.iterdir()] == [".traces.jsonl.lock"]


def test_a_key_that_expires_stops_and_what_was_answered_is_kept(out: Path) -> None:
    def expires(prompt: str, _: int) -> Answer | None:
        return error(401, "expired") if int(prompt.split()[1]) >= 30 else None

    with chatting(expires) as chat, pytest.raises(StageFailed, match=r"expired.*what was answered is kept"):
        ask(endpoint(chat.address, "sk-a-long-key"), questions(500), out, concurrency=4)
    assert sorted(row["item"] for row in lines(out)) == list(range(30))
    assert not dead_letters(out).exists()


def test_an_address_where_nobody_is_is_said_soon(out: Path, tmp_path: Path) -> None:
    with chatting() as chat:
        address = chat.address
    with pytest.raises(BadInput, match=r"cannot be reached \(ConnectError: .*\); check the base URL"):
        ask(endpoint(address), questions(50), out)
    assert [path.name for path in tmp_path.iterdir()] == [".traces.jsonl.lock"]


@pytest.mark.parametrize("status", [503, 400])
def test_an_outage_or_a_setting_that_no_request_may_have_makes_no_dead_letters(status: int, out: Path) -> None:
    down = True

    def outage(prompt: str, _: int) -> Answer | None:
        return error(status, "back soon") if down and int(prompt.split()[1]) >= 10 else None

    with chatting(outage) as chat:
        where = endpoint(chat.address)
        with pytest.raises(StageFailed, match=r"20 questions in a row came to nothing, .* HTTP \d+: back soon"):
            ask(where, questions(40), out, concurrency=1, retries=Retries(attempts=2))
        assert len(lines(out)) == 10
        down = False
        found = ask(where, questions(40), out, concurrency=5)
    assert (found.before, found.answered, found.dead, found.dead_before) == (10, 30, 0, 0)


def test_nothing_answered_is_no_success(out: Path) -> None:
    with (
        chatting(lambda *_: error(500, "never")) as chat,
        pytest.raises(StageFailed, match=r"none of 2 questions was answered, .*HTTP 500.*never.*traces\.dead\.jsonl"),
    ):
        ask(endpoint(chat.address), questions(2), out)
    assert len(lines(dead_letters(out))) == 2


def test_a_question_is_asked_once_and_anew_when_it_changes(out: Path) -> None:
    twice = [*questions(4), *questions(2)]
    with chatting() as chat:
        where = endpoint(chat.address)
        found = ask(where, twice, out, concurrency=1)
        assert (found.answered, found.twice, found.requests) == (4, 2, 4)
        same = ask(replace(where, max_tokens=99), twice, out)
        assert (same.before, same.twice, same.requests, same.others) == (4, 2, 0, 0)
        warm = ask(replace(where, temperature=0.6), twice, out)
        assert (warm.answered, warm.others) == (4, 4)
        assert chat.sent[-1] == {
            "model": "thinker-1",
            "messages": [{"role": "user", "content": chat.sent[-1]["messages"][0]["content"]}],
            "max_tokens": 4096,
            "temperature": 0.6,
        }
        reworded = [Request([{"role": "system", "content": "Think."}, *one.messages], one.row) for one in twice]
        assert ask(where, reworded, out).answered == 4
    keys = [row["key"] for row in lines(out)]
    assert len(set(keys)) == len(keys) == 12


def test_so_many_at_a_time_and_no_more_drawn_than_asked(out: Path) -> None:
    at_once, most, lock = 0, 0, threading.Lock()
    drawn, ahead = 0, []

    def busy(*_: object) -> None:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.01)
        with lock:
            at_once -= 1

    def drawing() -> Iterator[Request]:
        nonlocal drawn
        for one in questions(60):
            drawn += 1
            ahead.append(drawn - len(chat.sent))
            yield one

    with chatting(busy) as chat:
        assert ask(endpoint(chat.address), drawing(), out, concurrency=6).answered == 60
    assert 1 < most <= 6
    assert max(ahead) <= 6


def one_prompt() -> Fault:
    """Answers of 100 tokens to prompts of 10."""
    usage = {"prompt_tokens": 10, "completion_tokens": 100}
    return lambda prompt, _: completion(prompt, usage=usage)


def test_a_budget_is_kept_and_can_be_raised(out: Path) -> None:
    most = most_tokens(questions(1)[0].messages, 200).total
    with chatting(one_prompt()) as chat:
        where = endpoint(chat.address, max_tokens=200)
        found = ask(where, questions(50), out, concurrency=8, budget=Budget(tokens=1500))
        # The next one could take more than what is left, though it would not have.
        assert found.answered == len(lines(out)) == (1500 - most) // 110 + 1
        assert found.left == 50 - found.answered
        assert found.stopped
        for words in (
            f"the budget of 1,500 tokens leaves no room for another request, which may take {most + 1} tokens",
            f"spent: {10 * found.answered} + {100 * found.answered:,} tokens; {found.left} questions are left",
        ):
            assert words in found.stopped
        again = ask(where, questions(50), out, budget=Budget(tokens=1500))
        assert (again.requests, again.left) == (0, found.left)
        money = Budget(money=2.0)
        more = ask(where, questions(50), out, budget=money, prices=Prices(prompt=100.0, completion=500.0))
        assert more.stopped
        assert "of 2 in money" in more.stopped
        assert more.cost is not None
        assert 1.0 < more.cost <= 2.0
        whole = ask(where, questions(50), out, budget=Budget(tokens=6000))
        assert (whole.stopped, whole.left) == (None, 0)
        assert len(lines(out)) == len(chat.sent) == 50


def test_attempts_without_a_count_are_charged_what_they_may_have_taken(out: Path) -> None:
    most = most_tokens(questions(1)[0].messages, 200).total
    with chatting(in_turn(replace(WHOLE, cut=40), Answer(500))) as chat:
        found = ask(endpoint(chat.address, max_tokens=200), questions(9), out, budget=Budget(tokens=2 * most))
    assert found.stopped
    assert (found.requests, found.answered, found.unsaid_attempts, found.unsaid_tokens) == (2, 0, 2, 2 * most)
    assert f"and at most {2 * most} for 2 attempts whose answer did not come" in found.stopped


def test_a_budget_remembers_failed_attempts_of_earlier_starts(out: Path) -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 100}
    empty = completion("any", content="", usage=usage)
    most = most_tokens(questions(1)[0].messages, 200).total
    with chatting(lambda prompt, before: empty if before == 0 else one_prompt()(prompt, before)) as chat:
        where = endpoint(chat.address, max_tokens=200)
        found = ask(where, questions(4), out)
        assert (found.answered, found.prompt_tokens, found.completion_tokens) == (4, 8 * 10, 8 * 100)
        assert lines(out)[0]["failed_attempts"] == [10, 100, 0, 0, 0]
        more = ask(where, questions(5), out, budget=Budget(tokens=8 * 110 + most - 1))  # no room, by one token
        assert (more.requests, more.left) == (0, 1)
    dead = out.with_name("others.jsonl")
    with chatting(lambda prompt, _: replace(WHOLE, cut=40) if prompt.endswith("0") else None) as chat:
        where = endpoint(chat.address, max_tokens=200)
        found = ask(where, questions(3), dead, retries=Retries(attempts=2, chance=lambda: 0.5))
        assert (found.dead, found.unsaid_attempts, found.unsaid_tokens) == (1, 2, 2 * most)
        again = ask(where, questions(3), dead)
    assert (again.requests, again.unsaid_attempts, again.unsaid_tokens) == (0, 2, 2 * most)


def test_a_budget_needs_prices_and_counts(out: Path) -> None:
    with chatting(lambda prompt, _: completion(prompt, usage=None)) as chat:
        where = endpoint(chat.address)
        with pytest.raises(BadInput, match=r"a budget of 5 without prices"):
            ask(where, questions(5), out, budget=Budget(money=5.0))
        with pytest.raises(StageFailed, match=r"does not say how many tokens an answer took"):
            ask(where, questions(20), out, budget=Budget(tokens=10**6))
        found = ask(where, questions(20), out)
    assert found.answered + found.before == 20
    assert found.unsaid_attempts == found.answered
    assert lines(out)[0]["usage"] is None


def test_a_question_that_cannot_be_sent_is_one_dead_letter(out: Path) -> None:
    half = Request([{"role": "user", "content": "Half a pair: \ud83d"}], {"item": "half"})
    with chatting() as chat:
        found = ask(endpoint(chat.address), [half, *questions(3)], out)
    assert (found.answered, found.dead) == (3, 1)
    assert "not Unicode text" in lines(dead_letters(out))[0]["reason"]
    assert json.dumps(lines(dead_letters(out))[0])
