import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from r1mm.cli import main
from r1mm.distill.clevr import Scene, Thing, thing_line
from r1mm.distill.questions import COUNT_ALL, write_pairs
from r1mm.errors import BadInput
from r1mm.mini.scenes import CLEVR_LIKE, sample_scene
from r1mm.rundir import read_jsonl, sha256_file
from tests.unit.distill.clevr_files import (
    HOW_MANY,
    LICENCE,
    LINE,
    NUMBER,
    OTHER,
    THING,
    question,
    scene,
    write,
    write_scenes,
)


def made(folder: Path, *arguments: str) -> int:
    places = ("--scenes", str(folder / "scenes.json"), "--questions", str(folder / "questions.json"))
    return main(["distill", "questions", *places, "--out", str(folder / "out.jsonl"), *arguments])


def pairs(folder: Path, *arguments: str) -> list[dict[str, Any]]:
    assert made(folder, *arguments) == 0
    return read_jsonl(folder / "out.jsonl")


def test_an_object_in_words_is_upstreams_to_the_byte() -> None:
    assert thing_line(Thing.model_validate(THING)) == LINE


def test_the_miniatures_scenes_have_whole_pixels_in_words() -> None:
    made = sample_scene(CLEVR_LIKE, 4, np.random.default_rng(3), "a.png")
    for thing, found in zip(made["objects"], Scene.model_validate(made).objects, strict=True):
        across, down, depth = thing["pixel_coords"]
        assert across != round(across)
        assert thing_line(found).endswith(f"and pixel coordinates ({round(across)}, {round(down)}, {depth:.2f})")


def test_a_count_of_all_follows_the_first_question_of_a_picture(tmp_path: Path) -> None:
    write_scenes(tmp_path)
    rows = pairs(tmp_path)
    assert list(rows[0]) == ["img_filename", "q", "a", "description"]
    assert len(rows) == 11 * 3  # two of the three questions of 11 pictures, and the count; none of the twelfth
    assert {row["q"] for row in rows} == {HOW_MANY, NUMBER, COUNT_ALL}
    seen = set()
    for before, row in zip([None, *rows], rows, strict=False):
        if row["q"] == COUNT_ALL:
            assert row["a"] == str(row["description"].count("\n") - 1)
            assert before["img_filename"] == row["img_filename"]
            assert before["description"] == row["description"]
        elif row["img_filename"] not in seen:
            assert rows[rows.index(row) + 1]["q"] == COUNT_ALL
        seen.add(row["img_filename"])
    names = [row["img_filename"] for row in rows]
    assert names != sorted(names)


def test_every_question_has_its_own_order_of_the_same_objects(tmp_path: Path) -> None:
    write_scenes(tmp_path)
    of_one = [row["description"] for row in pairs(tmp_path) if row["img_filename"].endswith("03.png")]
    assert of_one[0].startswith("Scene Description:\nA large ")
    assert of_one[0].endswith(")\n")
    assert len({tuple(sorted(text.split("\n"))) for text in of_one}) == 1
    assert len(set(of_one)) == 2


def test_the_order_depends_on_seed_and_content_alone(tmp_path: Path) -> None:
    write_scenes(tmp_path)
    first = (tmp_path / "out.jsonl").read_bytes() if pairs(tmp_path) else b""
    scenes = json.loads((tmp_path / "scenes.json").read_text())
    write(tmp_path / "scenes.json", "scenes", scenes["scenes"][::-1])
    assert made(tmp_path) == 0
    assert (tmp_path / "out.jsonl").read_bytes() == first
    assert made(tmp_path, "--limit", "7") == 0
    assert (tmp_path / "out.jsonl").read_bytes() == b"".join(first.splitlines(keepends=True)[:7])
    assert made(tmp_path, "--seed", "2") == 0
    other = (tmp_path / "out.jsonl").read_bytes()
    assert other != first
    assert sorted(json.loads(line)["q"] for line in other.splitlines()) == sorted(
        json.loads(line)["q"] for line in first.splitlines()
    )


def test_the_record_says_what_it_was_made_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenes, _ = write_scenes(tmp_path)
    assert made(tmp_path, "--json", "--limit", "5") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["counts"] == {
        **{"scenes": 12, "objects": 54, "questions": 34, "kept": 22, "pictures_asked": 11, "pairs": 5}
    }
    record = json.loads((tmp_path / "out.provenance.json").read_text())
    assert record["inputs"]["scenes"]["sha256"] == sha256_file(scenes)
    assert record["about"]["scenes"] == {"split": "trainA", "license": LICENCE}
    assert str(tmp_path) not in json.dumps(record)


A, B = "a.png", "b.png"
HALF = '{"info": {}, "scenes": [{"image_filename": "a.png", "objects": ['


def files(folder: Path, scenes: Any, questions: Any) -> None:
    for key, entries in (("scenes", scenes), ("questions", questions)):
        if isinstance(entries, str):
            (folder / f"{key}.json").write_text(entries)
        else:
            write(folder / f"{key}.json", key, entries)


@pytest.mark.parametrize(
    ("scenes", "questions", "words"),
    [
        (HALF, [], r"scenes\.json is no whole JSON file: .*, after scenes; it is truncated or damaged"),
        ("", [], r"scenes\.json is no whole JSON file: .*, after its first bytes"),
        ('{"scenes": [{"image_filename": NaN', [], r"scenes\.json is no whole JSON file"),
        (
            [scene(A)],
            '{"questions": [{"image_filename": "a.png"',
            r"questions\.json is no whole JSON file: .* after que",
        ),
        ("[1, 2]", [], r"scenes\.json holds no JSON object; scenes are a JSON file \{"),
        ('{"scenes": 3}', [], r"scenes\.json: scenes is no list"),
        ('{"images": [], "x": 1}', [], r"scenes\.json has no scenes \(it has images, x\)"),
        ('{"questions": [{}]}', [], r"scenes\.json has questions and no scenes; were two files exchanged\?"),
        ([], [], r"scenes\.json has an empty list of scenes"),
        ([scene(A), {"image_filename": B}], [], r"scenes\[1\]\.objects: Field required; it is nothing"),
        ([scene(A, 0)], [], r"scenes\[0\]\.objects: List should have at least 1 item.*; it is \[\]"),
        (
            [scene(A, rotation="12")],
            [],
            r"scenes\[0\]\.objects\[0\]\.rotation: Input should be a valid number.*it is 12",
        ),
        ([scene(A, pixel_coords=[1, 2])], [], r"scenes\[0\]\.objects\[0\]\.pixel_coords: List should have at least 3"),
        ([scene(A, pixel_coords=[1, True, 2])], [], r"objects\[0\]\.pixel_coords\[1\]: .*; it is True"),
        ([scene(A, size="")], [], r"scenes\[0\]\.objects\[0\]\.size: String should have at least 1 character"),
        ([scene(A), scene(B), scene(A)], [], r"scenes\[2\]\.image_filename: a\.png has a scene already"),
        (
            [scene(A)],
            [question(A, HOW_MANY), question(B, OTHER)],
            r"questions\[1\]\.image_filename: b\.png has no scene",
        ),
        ([scene(A)], [{"image_filename": A, "question": HOW_MANY}], r"questions\[0\]\.answer: Field required"),
        ([scene(A)], [question(A, HOW_MANY, True)], r"questions\[0\]\.answer: .*; it is True"),
        ([scene(A)], [question(A, OTHER)], r"none of the 1 questions in .* asks for a number \(has 'how many' or 'num"),
    ],
)
def test_a_wrong_file_is_refused_by_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], scenes: Any, questions: Any, words: str
) -> None:
    files(tmp_path, scenes, questions)
    assert made(tmp_path) == 2
    error = capsys.readouterr().err
    assert re.search(words, error), error
    assert error.count("r1mm: error: ") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["questions.json", "scenes.json"]


def test_what_is_not_there_or_would_write_nothing_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert made(tmp_path) == 2
    assert "scenes.json cannot be read (No such file or directory)" in capsys.readouterr().err
    write_scenes(tmp_path)
    assert made(tmp_path, "--limit", "0") == 2
    assert "--limit 0 would write nothing" in capsys.readouterr().err
    assert made(tmp_path, "--out", str(tmp_path / "scenes.json")) == 2
    assert "scenes.json would write over what is read; name another file" in capsys.readouterr().err
    (tmp_path / "out.jsonl").mkdir()
    assert made(tmp_path) == 2
    assert "out.jsonl is a folder; name a file" in capsys.readouterr().err


def test_a_step_that_is_stopped_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenes, questions = write_scenes(tmp_path)

    def stop(*_: Any) -> None:
        assert any(path.name.startswith(".out.jsonl.") for path in tmp_path.iterdir())  # it was at work
        raise KeyboardInterrupt

    monkeypatch.setattr("r1mm.distill.questions.description", stop)
    with pytest.raises(KeyboardInterrupt):
        write_pairs(scenes, questions, tmp_path / "out.jsonl", 1)
    assert {path.name for path in tmp_path.iterdir()} == {"scenes.json", "questions.json"}


def test_an_answer_that_is_a_number_becomes_a_string(tmp_path: Path) -> None:
    files(tmp_path, [scene(A)], [question(A, HOW_MANY, 4)])
    assert [row["a"] for row in pairs(tmp_path)] == ["4", "3"]


def test_the_memory_is_the_same_for_more_scenes(tmp_path: Path) -> None:
    """What Python holds at its highest, for files of which one is twice the other."""
    import tracemalloc

    peaks = []
    for pictures in (200, 400):
        folder = tmp_path / str(pictures)
        folder.mkdir()
        scenes, questions = write_scenes(folder, pictures)
        tracemalloc.start()
        write_pairs(scenes, questions, folder / "out.jsonl", 1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0], peaks


def test_a_file_of_another_kind_is_bad_input_for_the_function_too(tmp_path: Path) -> None:
    write_scenes(tmp_path)
    with pytest.raises(BadInput, match="were two files exchanged"):
        write_pairs(tmp_path / "questions.json", tmp_path / "scenes.json", tmp_path / "out.jsonl", 1)
