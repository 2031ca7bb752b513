import io
import json
import random
import signal
from pathlib import Path
from typing import Any

import PIL.Image
import pyarrow.parquet as pq
import pytest
import yaml
from datasets import load_dataset

from r1mm.asset_kinds import DatasetAsset
from r1mm.chain import parquet
from r1mm.chain.pictures import look_at
from r1mm.chain.provenance import Provenance, provenance_path, read_provenance, write_provenance
from r1mm.cli import main
from r1mm.data.assets import fetch_assets, load_task, load_train
from r1mm.data.load import check_rows
from r1mm.distill.build import ValidationSource, build_dataset, write_split
from r1mm.distill.questions import COUNT_ALL
from r1mm.distill.rows import features_of, thinking_of, train_rows
from r1mm.errors import BadInput
from r1mm.rundir import read_jsonl, sha256_file, stamp
from r1mm.task_parts import Task
from tests.small_assets import HERE, access_to, make_local, recipe_of
from tests.unit.distill.clevr_files import LICENCE, write_lines, write_scenes

SIDE = 120  # of a picture of noise: about 43 kB
MODEL, ENDPOINT = "deepseek-ai/DeepSeek-R1", "https://user:planted-secret@api.example/v1?key=planted-secret"


def noise(number: int) -> bytes:
    pixels = PIL.Image.frombytes("RGB", (SIDE, SIDE), random.Random(number).randbytes(3 * SIDE * SIDE))
    buffer = io.BytesIO()
    pixels.save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chain up to the filter: pictures, questions.jsonl, responses.jsonl, filtered/."""
    folder = tmp_path_factory.mktemp("chain")
    scenes, questions = write_scenes(folder)
    out = folder / "questions.jsonl"
    places = ("--scenes", str(scenes), "--questions", str(questions), "--out", str(out))
    assert main(["distill", "questions", *places]) == 0
    images = folder / "images"
    images.mkdir()
    for number in range(12):
        # The second picture is the first under another name.
        (images / f"CLEVR_trainA_{number:06d}.png").write_bytes(noise(max(1, number)))
    rows = []
    for number, row in enumerate(read_jsonl(out)):
        thought = f"\nThe scene description lists things in the described scene, {number}.\n" if number else "\n\n"
        said = f"<think>{thought}</think>\n\n**The answer is: ** {row['a'] if number % 9 else 99}"
        rows.append({**row, "r1_response": said, "model": MODEL, "endpoint": ENDPOINT})
    write_lines(folder / "responses.jsonl", rows)
    assert main(["distill", "filter", str(folder / "responses.jsonl"), "--out", str(folder / "filtered")]) == 0
    return folder


def build(made: Path, out: Path, *arguments: str) -> int:
    places = (str(made / "filtered" / "valid_pairs.jsonl"), "--images", str(made / "images"), "--out", str(out))
    return main(["distill", "build", *places, *arguments])


def with_validation(made: Path, items: int = 6) -> list[str]:
    questions, images = str(made / "questions.jsonl"), str(made / "images")
    return [
        *("--val-a", questions, "--val-a-images", images, "--val-b", questions, "--val-b-images", images),
        *("--val-items", str(items)),
    ]


def columns(out: Path, split: str = "train") -> list[dict[str, Any]]:
    return [row for path in sorted((out / "data").glob(f"{split}-*")) for row in pq.read_table(path).to_pylist()]


def before_upstream(thinking: str) -> str:
    return thinking.replace("The image lists", "The scene description lists")


def test_a_row_is_upstreams(made: Path, tmp_path: Path) -> None:
    assert build(made, tmp_path / "out") == 0
    valid = read_jsonl(made / "filtered" / "valid_pairs.jsonl")
    rows = columns(tmp_path / "out")
    assert list(rows[0]) == ["thinking", "problem", "solution", "image"]
    expected = {
        (
            "<think>" + row["r1_response"].split("<think>")[1].split("</think>")[0] + "</think>",
            row["q"],
            f"<answer> {row['a']} </answer>",
            row["img_filename"],
        )
        for row in valid
    }
    assert {
        (before_upstream(row["thinking"]), row["problem"], row["solution"], row["image"]["path"]) for row in rows
    } == expected
    assert len(rows) == len(valid)
    assert not any("scene description" in row["thinking"] for row in rows)
    assert any("described scene" in row["thinking"] for row in rows)  # as upstream leaves it
    assert COUNT_ALL in {row["problem"] for row in rows}
    for row in rows:
        assert row["image"]["bytes"] == (made / "images" / row["image"]["path"]).read_bytes()


def test_what_counts_as_thinking() -> None:
    assert thinking_of("a<think>b</think>c<think>d</think>") == "<think>b</think>"
    assert thinking_of("</think><think>b</think>") == "<think>b</think>"
    assert thinking_of("</think><think>b") is None
    assert thinking_of("b") is None


def test_half_a_surrogate_pair_comes_through_every_step(made: Path, tmp_path: Path) -> None:
    row = {**PAIR, "r1_response": "<think>\n\ud83d and \ud83d\ude00\n</think>\n**Answer:** 3"}
    responses = tmp_path / "responses.jsonl"
    responses.write_text(json.dumps(row) + "\n")
    assert main(["distill", "filter", str(responses), "--out", str(tmp_path / "out")]) == 0
    build_dataset(tmp_path / "out" / "valid_pairs.jsonl", made / "images", tmp_path / "dataset")
    assert columns(tmp_path / "dataset")[0]["thinking"] == "<think>\n\ufffd and \U0001f600\n</think>"


def test_our_words_ask_about_the_image(made: Path, tmp_path: Path) -> None:
    assert build(made, tmp_path / "out", "--problem", "ours") == 0
    problems = {row["problem"] for row in columns(tmp_path / "out")}
    assert "How many items are there in the image?" in problems
    assert COUNT_ALL not in problems


def test_a_picture_is_stored_once_for_all_its_rows(made: Path, tmp_path: Path) -> None:
    valid, images = made / "filtered" / "valid_pairs.jsonl", made / "images"
    rows = train_rows(valid, 1234)
    pictures = look_at(sorted({row.picture for row in rows.rows}), images, "valid")
    sizes = {}
    for dictionary in (True, False):
        folder = tmp_path / str(dictionary)
        folder.mkdir()
        written = write_split("train", rows, pictures, folder, 1234, "upstream", dictionary=dictionary)
        sizes[dictionary] = sum((folder / name).stat().st_size for name in written.files)
        assert pq.read_table(folder / written.files[0]).num_rows == written.rows == len(rows.rows)
    different = {picture.sha256: picture.bytes for picture in pictures.values()}
    assert len(different) == len(pictures) - 1  # one has two names
    assert written.picture_bytes == sum(different.values())
    assert written.picture_bytes < sizes[True] < 1.05 * written.picture_bytes
    assert written.picture_bytes_per_row < sizes[False] < 1.05 * written.picture_bytes_per_row
    assert sizes[False] > 2 * sizes[True]


def test_a_large_split_has_numbered_shards(made: Path, tmp_path: Path) -> None:
    rows = train_rows(made / "filtered" / "valid_pairs.jsonl", 1)
    pictures = look_at(sorted({row.picture for row in rows.rows}), made / "images", "valid")
    written = write_split("train", rows, pictures, tmp_path, 1, "upstream", shard_bytes=1)
    # All pictures fit into one group of rows, and a group is not parted.
    assert written.files == ["train-00000-of-00001.parquet"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "GROUP_BYTES", 100_000)
        written = write_split("train", rows, pictures, tmp_path, 1, "upstream", shard_bytes=1)
    count = len(written.files)
    assert count > 2
    assert written.files == [f"train-{i:05d}-of-{count:05d}.parquet" for i in range(count)]
    assert check_rows([tmp_path / name for name in written.files], "it") == len(rows.rows)


def test_the_same_input_makes_the_same_bytes_in_whatever_order_it_came(made: Path, tmp_path: Path) -> None:
    valid, images = made / "filtered" / "valid_pairs.jsonl", made / "images"
    other = write_lines(tmp_path / "valid_pairs.jsonl", read_jsonl(valid)[::-1])
    outs = [tmp_path / name for name in ("a", "b", "c")]
    for path, out, seed in zip((valid, other, valid), outs, (1, 1, 2), strict=True):
        build_dataset(path, images, out, seed=seed)
    first, second, third = (sha256_file(next((out / "data").iterdir())) for out in outs)
    assert first == second != third


def test_validation_splits_are_samples_without_thoughts(made: Path, tmp_path: Path) -> None:
    assert build(made, tmp_path / "out", *with_validation(made)) == 0
    asked = {(row["img_filename"], row["q"]): row["a"] for row in read_jsonl(made / "questions.jsonl")}
    for split in ("valA", "valB"):
        rows = columns(tmp_path / "out", split)
        assert list(rows[0]) == ["problem", "solution", "image"]
        assert len(rows) == 6
        for row in rows:
            assert row["solution"] == f"<answer> {asked[row['image']['path'], row['problem']]} </answer>"
    smaller = build_dataset(
        made / "filtered" / "valid_pairs.jsonl",
        made / "images",
        tmp_path / "smaller",
        validation={"valA": ValidationSource(made / "questions.jsonl", made / "images")},
        validation_items=3,
    )
    fewer = {(row["image"]["path"], row["problem"]) for row in columns(tmp_path / "smaller", "valA")}
    assert fewer < {(row["image"]["path"], row["problem"]) for row in columns(tmp_path / "out", "valA")}
    assert smaller.counts["valA rows"] == 3
    everything = build_dataset(
        made / "filtered" / "valid_pairs.jsonl",
        made / "images",
        tmp_path / "all",
        validation={"valA": ValidationSource(made / "questions.jsonl", made / "images")},
    )
    assert everything.counts["valA rows"] == len(asked)


def test_datasets_own_loader_reads_every_split(made: Path, tmp_path: Path) -> None:
    assert build(made, tmp_path / "out", *with_validation(made)) == 0
    for config, split in (("default", "train"), ("valA", "valA"), ("valB", "valB")):
        loaded = load_dataset(str(tmp_path / "out"), config, split=split, cache_dir=str(tmp_path / "cache"))
        assert loaded.features == features_of(split)
        assert loaded[0]["image"].size == (SIDE, SIDE)
        assert loaded[0]["solution"].startswith("<answer> ")


def test_it_is_an_asset_of_r1mm(made: Path, tmp_path: Path) -> None:
    local = make_local(tmp_path / "assets")
    assert build(made, local / "datasets" / "owner" / "distilled", *with_validation(made)) == 0
    pins: dict[str, Any] = {"repo": "owner/distilled", "revision": "d" * 7, "licence": "CC-BY-4.0", "source": HERE}
    rows = len(read_jsonl(made / "filtered" / "valid_pairs.jsonl"))
    recipe = recipe_of(
        local,
        train=DatasetAsset(kind="dataset", rows=rows, **pins),
        held=DatasetAsset(kind="dataset", split="valA", rows=6, **pins),
    ).model_copy(update={"tasks": {"val-a": Task(scorer="math", items="held", source=HERE)}})
    fetch_assets(recipe, tmp_path / "a", lambda _: None, access_to(tmp_path, local=local))
    dataset = load_train(tmp_path / "a", recipe)
    assert dataset.column_names == ["image", "problem", "solution", "item"]
    assert len(dataset) == rows
    assert dataset[0]["image"].size == (SIDE, SIDE)
    assert len(load_task(tmp_path / "a", recipe, "val-a")) == 6


def test_the_card_tells_the_whole_chain_and_no_secret(made: Path, tmp_path: Path) -> None:
    assert build(made, tmp_path / "out", *with_validation(made)) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    _, front, text = card.split("---\n", 2)
    found = yaml.safe_load(front)
    assert found["license"] == "cc-by-4.0"
    assert [one["config_name"] for one in found["configs"]] == ["default", "valA", "valB"]
    assert found["dataset_info"][0]["splits"][0]["num_examples"] == 29
    # The chain is cut where the responses begin: who asked the model has left no record.
    record = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert [record["step"], record["before"]["step"], record["before"]["before"]] == [
        "distill build",
        "distill filter",
        None,
    ]
    for words in (
        f"| model | {MODEL} |",
        "| endpoint's host | api.example |",
        "| filter's rules | upstream |",
        "| questions: source | not seen |",
        "| distill filter | valid | 29 |",
        "| bold-the-answer-is | labelled | 29 | 4 | 0 |",
        '| "described scene" | 29 |',
        f"CLEVR's files name theirs: {LICENCE}.",
        sha256_file(made / "filtered" / "valid_pairs.jsonl"),
        "CLEVR_trainA_000000.png = CLEVR_trainA_000001.png",
        "| valA | ",
    ):
        assert words in text, words
    for path in (tmp_path / "out").rglob("*"):
        assert not path.is_file() or b"planted-secret" not in path.read_bytes()
        assert not path.is_file() or str(tmp_path).encode() not in path.read_bytes()


def test_a_whole_chain_of_records_names_the_questions_source(made: Path, tmp_path: Path) -> None:
    before, asked = read_provenance(made / "questions.jsonl")
    unsaid = ("model", "endpoint")  # a record of the step tells as much
    rows = [
        {key: value for key, value in row.items() if key not in unsaid} for row in read_jsonl(made / "responses.jsonl")
    ]
    responses = write_lines(tmp_path / "responses.jsonl", rows)
    assert before is not None
    query = Provenance(
        step="distill query",
        settings={"base_url": ENDPOINT, "model": MODEL},
        inputs={"questions": asked},
        outputs={responses.name: stamp(responses)},
        counts={"answered": 33},
        before=before.model_dump(mode="json"),
    )
    write_provenance(provenance_path(responses), query)
    assert main(["distill", "filter", str(responses), "--out", str(tmp_path / "filtered"), "--rules", "strict"]) == 0
    valid = tmp_path / "filtered" / "valid_pairs.jsonl"
    assert main(["distill", "build", str(valid), "--images", str(made / "images"), "--out", str(tmp_path / "out")]) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    for words in (
        f"scenes: sha256 {sha256_file(made / 'scenes.json')}",
        "| questions: split | trainA |",
        "| questions: seed of all orders | 1234 |",
        "| distill query | answered | 33 |",
        f"| model | {MODEL} |",
        "| endpoint's host | api.example |",
        "| filter's rules | strict |",
        "license: cc-by-4.0",
    ):
        assert words in card, words
    assert "planted-secret" not in (tmp_path / "out" / "provenance.json").read_text()


PAIR = {"img_filename": "CLEVR_trainA_000003.png", "q": "How many?", "a": "3", "r1_response": "<think>\na\n</think>\n3"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"img_filename": "none.png"}, "images lacks 1 of the 1 pictures that "),
        ({"img_filename": "../images/CLEVR_trainA_000003.png"}, "it must be a path inside its folder"),
        ({"img_filename": "broken.png"}, "broken.png: its image does not decode"),
        ({"img_filename": "text.png"}, "text.png: its image is none of PNG"),
        ({"error": "mismatch"}, "valid_pairs.jsonl:1: the filter did not pass this record (error: mismatch)"),
        ({"r1_response": "no thoughts"}, "has no response with a thinking block"),
        ({"q": ""}, "valid_pairs.jsonl:1: q: String should have at least 1 character"),
        (
            {"a": None},
            "valid_pairs.jsonl:1: a: Input should be a valid string; it is None: a line holds img_filename, q",
        ),
    ],
)
def test_a_row_that_cannot_be_one_is_named_and_nothing_is_left(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], words: str
) -> None:
    images = made / "images"
    (images / "broken.png").write_bytes(noise(1)[:-3000])
    (images / "text.png").write_bytes(b"no picture")
    valid = write_lines(tmp_path / "valid_pairs.jsonl", [{**PAIR, **change}])
    out = tmp_path / "made" / "out"
    assert main(["distill", "build", str(valid), "--images", str(images), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("r1mm: error: ") == 1
    assert not out.parent.exists()


def test_thoughts_without_an_end_are_left_out_and_counted(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [PAIR, {**PAIR, "q": "Again?", "r1_response": "</think> **3** <think>"}]
    valid = write_lines(tmp_path / "valid_pairs.jsonl", rows)
    assert main(["distill", "build", str(valid), "--images", str(made / "images"), "--out", str(tmp_path / "out")]) == 0
    assert "left out: 1 responses whose thinking block is not closed" in capsys.readouterr().out
    assert len(columns(tmp_path / "out")) == 1
    assert "Of the pictures: not seen." in (tmp_path / "out" / "README.md").read_text()


def test_what_cannot_be_built_is_refused(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    questions = str(made / "questions.jsonl")
    for out, arguments, words in (
        ("full", [], "full is there already and is not written over; name another folder"),
        ("out", ["--val-a", questions], "--val-a and --val-a-images go together"),
        ("out", ["--val-b-images", "x"], "--val-b and --val-b-images go together"),
        ("out", with_validation(made, 0), "--val-items is 0; give 1 or more"),
    ):
        assert build(made, tmp_path / out, *arguments) == 2
        assert words in capsys.readouterr().err
    assert main(["distill", "build", str(tmp_path / "none.jsonl"), "--images", ".", "--out", str(tmp_path / "o")]) == 2
    assert "none.jsonl cannot be read" in capsys.readouterr().err
    with pytest.raises(BadInput, match="problem's words are 'theirs'"):
        build_dataset(made / "filtered" / "valid_pairs.jsonl", made, tmp_path / "o", words="theirs")  # type: ignore[arg-type]
    assert {path.name for path in tmp_path.iterdir()} == {"full"}


def test_an_empty_folder_may_be_there(made: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert build(made, tmp_path / "out") == 0
    assert (tmp_path / "out" / "README.md").is_file()
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_build_that_is_stopped_leaves_nothing(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    def stop(_: Path) -> bytes:
        assert any(path.name.startswith(".out.") for path in tmp_path.iterdir())  # it was writing
        signal.raise_signal(number)
        return b""

    monkeypatch.setattr("r1mm.chain.parquet.read_picture", stop)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        assert build(made, tmp_path / "out") == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    finally:
        signal.signal(signal.SIGINT, before)
    assert "r1mm: stopped; nothing was written; the same command starts anew" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
