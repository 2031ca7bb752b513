"""The whole chain as its users call it: real pictures, a real endpoint on loopback, a dataset that r1mm trains on."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from datasets import load_dataset

from r1mm.asset_kinds import DatasetAsset
from r1mm.chain.provenance import Provenance, read_provenance
from r1mm.cli import main
from r1mm.curate.build import FEATURES
from r1mm.data.assets import fetch_assets, load_train
from r1mm.endpoint.records import dead_letters
from r1mm.rundir import read_jsonl, write_jsonl
from tests.asking import lines
from tests.chat_server import MODEL, Chat, Fault, chatting, completion, error
from tests.loopback import Answer
from tests.small_assets import HERE, access_to, make_local, recipe_of

SECRET = "sk-planted/4f1c-0000"
COUNT = 12
Fails = Callable[[int], Answer | None]


def encoded(number: int, size: tuple[int, int] = (40, 30), kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", size, (number * 9, 90, 200)).save(buffer, format=kind)
    return buffer.getvalue()


def wrote(problem: str, answer: str) -> str:
    return f"<problem>{problem}</problem>\n<think>I count along.</think>\n<answer>{answer}</answer>"


def rewriting(prompt: str, _: int) -> Answer:
    """Item 3 comes back with another answer, item 4 with the answer told, item 5 declined; a problem is solved."""
    if "the right answer, perhaps" not in prompt.lower():
        number = int(prompt.partition("row ")[2].partition("?")[0])
        return completion(prompt, content=f"<answer>{number + 100 * (number in (6, 7))}</answer>")
    number = int(prompt.partition("row ")[2].partition("?")[0])
    told = " There: 104." if number == 4 else ""
    problem = f"The picture shows bars. Count them: how many are in row {number}?{told}"
    said = {3: wrote(problem, "9"), 5: "<problem></problem>\n<think></think>\n<answer></answer>"}
    return completion(prompt, content=said.get(number, wrote(problem, "104" if number == 4 else str(number))))


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """items.jsonl, and pictures: the one of item 8 is too small, that of item 9 none, of item 10 a BMP."""
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    images = tmp_path / "images"
    images.mkdir()
    data = {8: encoded(8, (27, 90)), 9: encoded(9)[:20], 10: encoded(10, kind="BMP"), 11: encoded(11, kind="JPEG")}
    rows = []
    for number in range(COUNT):
        (images / f"{number}.png").write_bytes(data.get(number, encoded(number)))
        answer = f"The answer is {104 if number == 4 else number}"
        rows.append({"image": f"{number}.png", "question": f"How many are in row {number}?", "answer": answer})
    write_jsonl(tmp_path / "items.jsonl", rows)
    return tmp_path


def rewrite(made: Path, chat: Chat, *more: str) -> int:
    where = ("--images", str(made / "images"), "--base-url", chat.address, "--model", MODEL)
    return main(["curate", "rewrite", str(made / "items.jsonl"), "--out", str(made / "rewrites.jsonl"), *where, *more])


def verify(made: Path, *more: str, source: str = "rewrites.jsonl") -> int:
    where = ("--images", str(made / "images"), "--out", str(made / "verified"))
    return main(["curate", "verify", str(made / source), *where, *more])


def build(made: Path, out: Path, *more: str) -> int:
    where = ("--images", str(made / "images"), "--out", str(out))
    return main(["curate", "build", str(made / "verified" / "verified.jsonl"), *where, *more])


def report_of(made: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((made / "verified" / "verify.json").read_text())["report"]
    return report


def test_items_are_rewritten_once_with_their_pictures(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with chatting(rewriting, key=SECRET) as chat:
        assert rewrite(made, chat) == 0
        assert "12 questions: 9 answered now, 0 before; 3 dead letters now" in capsys.readouterr().out
        assert rewrite(made, chat) == 0
        assert "0 answered now, 9 before; 0 dead letters now, 3 before" in capsys.readouterr().out
        assert len(chat.sent) == 9
        body = next(one for one in chat.sent if "data:image/jpeg" in str(one))
    assert (body["temperature"], body["max_tokens"]) == (0.2, 8192)
    (message,) = body["messages"]
    shown, text = message["content"]
    assert shown["image_url"]["url"].startswith("data:image/jpeg;base64,/9j/")
    assert "How many are in row 11?" in text["text"]
    assert "The answer is 11" in text["text"]
    rows = lines(made / "rewrites.jsonl")
    assert set(rows[0]) == {
        *("image", "question", "answer", "response"),
        *("key", "model", "finish_reason", "usage", "timestamp"),
    }
    letters = {row["image"]: row for row in lines(dead_letters(made / "rewrites.jsonl"))}
    assert {name: row["reason"] for name, row in letters.items()} == {
        "8.png": "small-image",
        "9.png": "image",
        "10.png": "image type",
    }
    assert "27 x 90 pixels; 28 are the least" in letters["8.png"]["body"]
    assert "image/bmp is none of image/png" in letters["10.png"]["body"]


def test_what_is_refused_says_why_and_is_kept(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with chatting(rewriting) as chat:
        rewrite(made, chat)
    capsys.readouterr()
    assert verify(made) == 0
    said = capsys.readouterr().out
    assert "upstream's published filter would have kept 8, 2 of which are refused here" in said
    assert "6 verified, 3 rejected" in said
    assert "giveaway, e.g. 4.png: 104 is in the problem and was not in the question" in said
    rejected = {row["image"]: row["reasons"] for row in lines(made / "verified" / "rejected.jsonl")}
    assert {name: list(reasons) for name, reasons in rejected.items()} == {
        "3.png": ["differs"],
        "4.png": ["giveaway"],
        "5.png": ["empty"],
    }
    found = report_of(made)
    assert (found["rows"], found["passed"], found["tried"]) == (9, 6, None)
    by_name = {one["name"]: one for one in found["reasons"]}
    assert (by_name["differs"]["rows"], by_name["differs"]["alone"], by_name["differs"]["upstream_keeps"]) == (1, 1, 1)
    assert by_name["empty"]["upstream_keeps"] == 0
    assert by_name["differs"]["examples"][0] == {
        "image": "3.png",
        "problem": "The picture shows bars. Count them: how many are in row 3?",
        "answer": "9",
        "original_answer": "The answer is 3",
        "why": "'9' instead of '3'",
    }


def test_a_model_tries_what_passed_and_what_it_never_solves_is_refused(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with chatting(rewriting) as chat:
        rewrite(made, chat)
        chat.sent.clear()
        trying = ("--attempts", "3", "--base-url", chat.address, "--model", MODEL)
        assert verify(made, *trying, "--budget-tokens", "20900", "--concurrency", "1") == 1
        assert not (made / "verified" / "verified.jsonl").exists()
        some = len(chat.sent)
        assert 0 < some < 18
        capsys.readouterr()
        assert verify(made, *trying) == 0
        assert len(chat.sent) == 18
        said = capsys.readouterr().out
        assert verify(made, *trying, "--json") == 0
        assert len(chat.sent) == 18
    found = json.loads(capsys.readouterr().out)
    assert found["tried"] == {
        **{"attempts": 3, "model": MODEL, "items": 6, "answers": 18, "right": 12},
        "solved": {"0": 2, "3": 4},
    }
    assert "12 of 18 answers right" in said
    for body in chat.sent:
        text = body["messages"][0]["content"][1]["text"]
        assert "The picture shows bars" in text
        assert "The answer is" not in text
    rejected = {row["image"]: row for row in lines(made / "verified" / "rejected.jsonl")}
    assert sorted(rejected) == ["3.png", "4.png", "5.png", "6.png", "7.png"]
    assert rejected["6.png"]["reasons"] == {"never-solved": f"{MODEL} answered 3 times, never so"}
    good = {row["image"]: row for row in lines(made / "verified" / "verified.jsonl")}
    assert (good["11.png"]["answers"], good["11.png"]["right"]) == (3, 3)


def test_attempts_that_came_to_nothing_do_not_refute_an_item(made: Path) -> None:
    def silent(prompt: str, before: int) -> Answer:
        return error(400, "no") if "step by step. Then" in prompt and "row 1?" in prompt else rewriting(prompt, before)

    with chatting(silent) as chat:
        rewrite(made, chat)
        assert verify(made, "--attempts", "1", "--base-url", chat.address, "--model", MODEL) == 0
    rejected = {row["image"]: row["reasons"] for row in lines(made / "verified" / "rejected.jsonl")}
    assert list(rejected["1.png"]) == ["not-tried"]


def test_the_dataset_is_one_that_r1mm_trains_on(made: Path, tmp_path: Path) -> None:
    with chatting(rewriting) as chat:
        rewrite(made, chat)
    verify(made)
    local = make_local(tmp_path / "assets")
    out = local / "datasets" / "owner" / "curated"
    assert build(made, out) == 0
    table = pq.read_table(out / "data" / "train-00000-of-00001.parquet")
    assert table.column_names == ["image", "problem", "solution", "original_question", "original_answer"]
    rows = {row["image"]["path"]: row for row in table.to_pylist()}
    assert rows["2.png"] == {
        "image": {"bytes": (made / "images" / "2.png").read_bytes(), "path": "2.png"},
        "problem": "The picture shows bars. Count them: how many are in row 2?",
        "solution": "<think>I count along.</think>\n\n<answer>2</answer>",
        "original_question": "How many are in row 2?",
        "original_answer": "The answer is 2",
    }
    loaded = load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.features == FEATURES
    pins: dict[str, Any] = {"repo": "owner/curated", "revision": "d" * 7, "licence": "not seen", "source": HERE}
    recipe = recipe_of(local, train=DatasetAsset(kind="dataset", rows=6, **pins))
    fetch_assets(recipe, tmp_path / "a", lambda _: None, access_to(tmp_path, local=local))
    dataset = load_train(tmp_path / "a", recipe)
    assert len(dataset) == 6
    assert dataset[0]["image"].size == (40, 30)


def test_the_order_is_the_seeds_and_the_card_tells_the_chain(made: Path, tmp_path: Path) -> None:
    with chatting(rewriting) as chat:
        rewrite(made, chat)
    verify(made)
    outs = [tmp_path / name for name in ("a", "b", "c")]
    assert build(made, outs[0]) == 0
    path = made / "verified" / "verified.jsonl"
    record, _ = read_provenance(path)
    rows = read_jsonl(path)
    write_jsonl(path, rows[::-1])
    assert build(made, outs[1]) == build(made, outs[2], "--seed", "43") == 0
    order = [pq.read_table(out / "data")["problem"].to_pylist() for out in outs]
    assert order[0] == order[1] != order[2]
    assert sorted(order[0]) == sorted(order[2])
    assert record is not None
    assert [step.step for step in record.chain()] == ["curate rewrite", "curate verify"]
    text = (outs[0] / "README.md").read_text()
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["dataset_info"][0]["splits"] == [
        {"name": "train", "num_bytes": head["dataset_info"][0]["dataset_size"], "num_examples": 6}
    ]
    for words in (
        f"| model | {MODEL} |",
        "| endpoint's host | 127.0.0.1:",
        "| prompt | r1mm's own, 1 |",
        "| temperature | 0.2 |",
        "| seed of the rows' order | 42 |",
        "| curate verify | rejected | 3 |",
        "| differs | 1 | 1 | 1 |",
        "would have kept 8, 2 of which are refused here",
        "No model tried to solve",
    ):
        assert words in text, words
    assert Provenance.model_validate_json((outs[0] / "provenance.json").read_text()).counts["rows"] == 6
    assert "| model | not seen |" not in (outs[1] / "README.md").read_text()  # the rows say it, without a record


def published(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A dataset as upstream published its own."""
    texts = ("problem", "solution", "original_question", "original_answer")
    shown = [
        {"image": {"bytes": row["image"], "path": None}} | dict(zip(texts, row["texts"], strict=True)) for row in rows
    ]
    pq.write_table(pa.Table.from_pylist(shown, FEATURES.arrow_schema), path)
    return path


def test_a_published_dataset_is_looked_at_by_the_same_rules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    question = "Question: Angle 2?\nChoices:\nA: 32°\nB: 68°\nC: 58°\nD: 34°"
    problem = question.replace("Question", "Step by step")
    solution = "<think>90 - 32 = 58, so the answer is C.</think>\n\n<answer>{}</answer>"
    rows = [
        # As EvolvingLMMs-Lab/open-r1-multimodal#9 tells of row 0: the thoughts come to C, the answer is A.
        {"image": encoded(1), "texts": (problem, solution.format("A"), question, "Answer: C")},
        {"image": encoded(2), "texts": (problem, solution.format("C"), question, "Answer: C")},
        {"image": encoded(3), "texts": (problem, "<think>No answer was given.</think>", question, "Answer: C")},
        {"image": encoded(4, (27, 27)), "texts": (problem, solution.format("C"), question, "So it is.\nEnd.")},
    ]
    path, out = published(tmp_path / "train.parquet", rows), tmp_path / "audit.jsonl"
    assert main(["curate", "audit", str(path), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "3 of 4 rows break a rule" in said
    assert "thoughts-differ, e.g. train.parquet row 0: thoughts state 'C.', the answer is A '32°'" in said
    assert [(row["row"], list(row["reasons"])) for row in lines(out)] == [
        (0, ["differs", "thoughts-differ"]),
        (2, ["form"]),
        (3, ["small-image", "unverifiable"]),
    ]
    assert lines(out)[0]["solution"] == rows[0]["texts"][1]
    pq.write_table(pa.table({"problem": ["x"]}), tmp_path / "other.parquet")
    for name, words in (("other.parquet", "lacks the column 'image'"), ("no.parquet", "no readable parquet file")):
        assert main(["curate", "audit", str(tmp_path / name), "--out", str(tmp_path / "none.jsonl")]) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "none.jsonl").exists()


ECHO = f"Bearer {SECRET}"
LEAKS: dict[str, Fault] = {
    "in the answer": lambda prompt, _: completion(prompt, content=wrote(f"{ECHO} in row?", "1")),
    "400, some": lambda prompt, before: error(400, ECHO) if "row 2?" in prompt else rewriting(prompt, before),
    "401": lambda *_: error(401, f"not this one: {ECHO}"),
}


@pytest.mark.parametrize("fault", LEAKS.values(), ids=LEAKS.keys())
def test_the_key_is_nowhere(fault: Fault, made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with chatting(fault) as chat:
        rewrite(made, chat)
        if (made / "rewrites.jsonl").exists():
            verify(made, "--attempts", "1", "--base-url", chat.address, "--model", MODEL)
        assert chat.sent
    said = capsys.readouterr()
    written = [path.read_bytes().decode(errors="replace") for path in made.rglob("*") if path.is_file()]
    for text in (said.out, said.err, *written):
        assert SECRET not in text


def test_what_cannot_be_is_one_error_with_status_2(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chat = Chat("http://127.0.0.1:9/v1")
    good = read_jsonl(made / "items.jsonl")
    row = {**good[0], "response": wrote("Row?", "0"), "key": "ab"}
    refused = {**row, "problem": "x", "solution": "<answer>1</answer>", "reasons": {"differs": "1"}}
    write_jsonl(made / "rewrites.jsonl", [{**row, "response": "no tags"}])
    write_jsonl(made / "unkeyed.jsonl", [good[0]])
    (made / "verified").mkdir()
    write_jsonl(made / "verified" / "verified.jsonl", [refused])
    (made / "other").mkdir()

    def fails(call: Callable[[], int], words: str) -> None:
        assert call() == 2
        said = capsys.readouterr()
        assert words in said.err
        assert said.err.count("r1mm: error: ") == 1

    fails(lambda: rewrite(made, chat, "--images", str(made / "other")), "other lacks 12 of the 12 pictures")
    fails(lambda: rewrite(made, chat, "--out", str(made / "items.jsonl")), "is no record of a question")
    fails(lambda: verify(made, "--attempts", "2"), "--attempts, --base-url and --model go together")
    fails(lambda: verify(made, "--base-url", "http://x/v1", "--model", "m"), "go together")
    fails(lambda: verify(made), "none of the 1 items in")
    fails(lambda: verify(made, source="unkeyed.jsonl"), "unkeyed.jsonl:1: response: Field required")
    fails(lambda: verify(made, source="verified/verified.jsonl"), "which is read; name another folder")
    fails(lambda: build(made, made / "out"), "verified.jsonl:1: was refused (differs); give verify's verified.jsonl")
    fails(lambda: build(made, made / "other", "--images", str(made / "no")), "was refused")
    fails(lambda: build(made, made / "images"), "is there already and is not written over")
    write_jsonl(made / "items.jsonl", [{**good[0], "response": "x"}])
    fails(lambda: rewrite(made, chat), "has the key response, which the answer's record would overwrite")
    write_jsonl(made / "items.jsonl", [{**good[0], "image": "../secret.png"}])
    fails(lambda: rewrite(made, chat), "it must be a path inside its folder")
    assert not (made / "out").exists()
    assert not list((made / "verified").glob("rejected*"))


def test_help_teaches_the_chain(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        ([], "r1mm curate rewrite items.jsonl --images pictures --out rewrites.jsonl --base-url"),
        (["items"], "LLaVA's form"),
        (["rewrite"], "default 0.2"),
        (["verify"], "options-lost"),
        (["audit"], "rule can reward"),
        (["build"], "multimodal-open-r1-8k-verified"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(["curate", *arguments, "--help"])
        assert stopped.value.code == 0
        assert words in capsys.readouterr().out
