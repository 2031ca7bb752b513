"""`r1mm distill query` as it is killed, stopped, and asked of a real model's server."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from r1mm.distill.prompts import prompt_v2
from r1mm.endpoint.records import dead_letters
from r1mm.mini.language import tokenizer_of
from r1mm.mini.model import build_model, build_processor, save
from tests.asking import lines, scene_questions
from tests.chat_server import MODEL, Chat, chatting, completion, error
from tests.command import failed, r1mm, start
from tests.lmms_assets import TINY
from tests.loopback import Answer

pytestmark = [pytest.mark.timeout(900), pytest.mark.whole]
SECRET = "sk-planted/4f1c-0000"
QUESTIONS = 300


def command(asked: Path, address: str, *more: object) -> list[object]:
    where = ["--out", asked.with_name("traces.jsonl"), "--base-url", address]
    return ["distill", "query", asked, *where, "--model", MODEL, *more]


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    return scene_questions(tmp_path / "questions.jsonl", QUESTIONS)


@contextmanager
def slow_and_faulty() -> Iterator[Chat]:
    """A server that takes its time, and fails every fifth request, in one of four ways."""
    chance = random.Random(1)
    ways = [
        error(500, "oh"),
        error(429, "slow down", Retry_After="0"),
        replace(completion("any"), cut=40),
        Answer(reset=True),
    ]

    def fault(_: str, __: int) -> Answer | None:
        time.sleep(0.1)
        return chance.choice(ways) if chance.random() < 0.2 else None

    with chatting(fault, key=SECRET) as chat:
        yield chat


def under_way(process: "subprocess.Popen[str]", chat: Chat, wanted: int) -> None:
    """Return when so many requests have come."""
    while len(chat.sent) < wanted:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def test_killed_again_and_again_it_loses_and_doubles_nothing(asked: Path) -> None:
    with slow_and_faulty() as chat:
        for kill in range(1, 4):
            process = start(*command(asked, chat.address), OPENAI_API_KEY=SECRET)
            under_way(process, chat, 70 * kill)
            process.kill()
            process.communicate()
        kept = len(lines(asked.with_name("traces.jsonl")))
        ended = r1mm(*command(asked, chat.address, "--json"), OPENAI_API_KEY=SECRET)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    rows = lines(asked.with_name("traces.jsonl"))
    assert 0 < kept == found["before"]
    assert kept + found["answered"] == len(rows) == QUESTIONS
    assert {row["img_filename"] for row in rows} == {row["img_filename"] for row in lines(asked)}
    # Done again is at most what was under way at each of three kills.
    assert sum(chat.answered.values()) <= QUESTIONS + 3 * 10


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_it_says_so_and_goes_on(asked: Path, number: signal.Signals, status: int) -> None:
    with slow_and_faulty() as chat:
        process = start(*command(asked, chat.address), OPENAI_API_KEY=SECRET)
        under_way(process, chat, 60)
        os.killpg(process.pid, number)
        said, errors = process.communicate(timeout=30)
        assert process.returncode == status
        assert "Traceback" not in errors
        assert errors.endswith("r1mm: stopped; the same command goes on from here\n")
        assert said == ""
        kept = lines(asked.with_name("traces.jsonl"))
        assert kept
        ended = r1mm(*command(asked, chat.address, "--json"), OPENAI_API_KEY=SECRET)
    assert json.loads(ended.stdout)["before"] == len(kept)
    assert len(lines(asked.with_name("traces.jsonl"))) == QUESTIONS


def test_two_at_once_are_one_too_many_and_no_log_has_the_key(asked: Path) -> None:
    with slow_and_faulty() as chat:
        process = start(*command(asked, chat.address), OPENAI_API_KEY=SECRET, OPENAI_LOG="debug")
        under_way(process, chat, 20)
        second = r1mm(*command(asked, chat.address), OPENAI_API_KEY=SECRET)
        assert second.returncode == 2
        assert "traces.jsonl is in use by process" in second.stderr
        said, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "DEBUG" in errors
    for text in (said, errors, *(path.read_text() for path in asked.parent.iterdir())):
        assert SECRET not in text


SCENES = {
    f"{color}-{count}": (count, "\n".join([f"A {color} cube"] * count)) for color in ("red", "blue") for count in (1, 2)
}


def thought(count: int) -> str:
    return f"<think>\nI count {count}.\n</think>\n\n**The answer is: ** {count}"


def make_counter(folder: Path) -> Path:
    """A tiny Qwen2-VL that has learned what to say of SCENES, and a file of questions about them beside it."""
    pairs = [(prompt_v2(description, "How many?"), thought(count)) for count, description in SCENES.values()]
    tokenizer = tokenizer_of((), [text for pair in pairs for text in pair])
    processor, model = build_processor(tokenizer, 56), build_model(TINY, tokenizer, seed=1).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    examples = []
    for prompt, said in pairs:
        message = [{"role": "user", "content": [{"type": "text", "text": prompt}]}]
        opening = processor.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
        ids = tokenizer(opening + said + "<|im_end|>", return_tensors="pt")["input_ids"]
        labels = ids.clone()
        labels[:, : -len(tokenizer(said + "<|im_end|>")["input_ids"])] = -100
        examples.append((ids, labels))
    losses, threads = [1.0] * len(examples), torch.get_num_threads()
    torch.set_num_threads(1)  # several wait for each other longer than they work
    for step in range(400):
        ids, labels = examples[step % len(examples)]
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses[step % len(examples)] = loss.item()
    torch.set_num_threads(threads)
    assert max(losses) < 0.05, losses
    save(model.eval(), processor, folder / "model")
    rows = (
        {"img_filename": f"{name}.png", "q": "How many?", "a": count, "description": description}
        for name, (count, description) in SCENES.items()
    )
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The model behind `transformers serve`, which may not look for anything at the hub."""
    folder = make_counter(tmp_path_factory.mktemp("served"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hub"), "OMP_NUM_THREADS": "1"}
    serve = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder / "model"), "--device", "cpu"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*serve, "--host", "127.0.0.1", "--port", str(port)], env=offline, stdout=log, stderr=log
        )
    try:
        for _ in range(1200):
            assert process.poll() is None, (folder / "log").read_text()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                    break
            except OSError:
                time.sleep(0.1)
        yield folder, f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(timeout=30)


def ask_it(
    served: tuple[Path, str], name: str, *more: object, model: str | None = None
) -> subprocess.CompletedProcess[str]:
    folder, address = served
    options = ["--out", folder / name, "--base-url", address, "--model", model or folder / "model"]
    return r1mm("distill", "query", folder / "questions.jsonl", *options, "--temperature", "0", *more, "--json")


def test_a_real_models_thoughts_become_traces(served: tuple[Path, str]) -> None:
    result = ask_it(served, "traces.jsonl", "--max-tokens", "64")
    assert result.returncode == 0, result.stderr
    rows = {row["img_filename"]: row for row in lines(served[0] / "traces.jsonl")}
    assert len(rows) == len(SCENES)
    for name, (count, _) in SCENES.items():
        row = rows[f"{name}.png"]
        # The server gives thoughts apart, without the white space around them.
        assert row["r1_response"] == f"<think>I count {count}.</think>\n\n**The answer is: ** {count}"
        assert row["finish_reason"] == "stop"
        assert row["usage"]["completion_tokens"] > 8
    found = json.loads(result.stdout)
    assert found["served_by"] == {f"{served[0] / 'model'}@main": 4}
    assert found["completion_tokens"] == sum(row["usage"]["completion_tokens"] for row in rows.values())


def test_a_real_answer_that_is_cut_is_no_trace(served: tuple[Path, str]) -> None:
    result = ask_it(served, "cut.jsonl", "--max-tokens", "8")
    assert json.loads(result.stdout)["dead_reasons"] == {"length": 4}
    assert not (served[0] / "cut.jsonl").exists()
    assert all(row["usage"]["completion_tokens"] == 8 for row in lines(dead_letters(served[0] / "cut.jsonl")))
    again = ask_it(served, "cut.jsonl", "--max-tokens", "64", "--retry-dead")
    assert json.loads(again.stdout)["answered"] == 4


def test_a_model_that_the_server_does_not_have(served: tuple[Path, str]) -> None:
    failed(ask_it(served, "other.jsonl", model="other"), "none of 4 questions was answered", "Server is pinned to")
