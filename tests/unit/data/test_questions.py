import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from r1mm.asset_kinds import ClipsAsset, RepositoryAsset, VideosAsset
from r1mm.cli import main
from r1mm.data.assets import fetch_assets, load_task, load_train
from r1mm.data.questions import Annotation, match_clips, question_of, read_questions
from r1mm.errors import BadInput
from r1mm.recipe import Recipe
from r1mm.recipe_files import RECIPES, load_recipe
from r1mm.rundir import read_jsonl, write_text
from r1mm.sourced import Setting
from r1mm.task_parts import Task
from tests.loopback import Answer, Asked, serving
from tests.small_assets import access_to

HERE = "our choice: an asset for tests"
QUESTIONS, VIDEOS, BENCH = "Owner/questions-4k", "owner/clips", "owner/bench"
ASKED = "\nWhat is stirred?\nA. Soup.\nB. Please wait.\n"
SOURCE = [
    {
        "query": f"<video>{ASKED}Please respond with only the letter of the correct answer.",
        "response": "A. Soup.",
        "videos": "videos/academic/kitchen.mp4",
    },
    {
        "query": "<image>\nHow many fall?\nA. One\u2028B. Two\nPlease answer.",
        "response": "B.",
        "videos": ["videos/falls.mp4"],
    },
    {"query": "<video>\nWho sings?\nA. She\nB. He\n", "response": "B. He", "videos": "videos/gone.mp4"},
]
ROOT = "/data/somebody/clips"


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def write_clips(folder: Path) -> Path:
    for name in ("videos/academic/kitchen.mp4", "videos/falls.mp4"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return lines(write_clips(tmp_path / "source") / "train.jsonl", SOURCE)


def made(source: Path, *arguments: str) -> int:
    return main(["questions", str(source), "--videos", str(source.parent), *arguments])


def test_an_annotation_becomes_a_question_as_upstream_made_them() -> None:
    question = question_of(Annotation.model_validate(SOURCE[0]), ROOT)
    assert question.model_dump() == {
        # Cut at the first "Please", here that of an option.
        "problem": "\nWhat is stirred?\nA. Soup.\nB. ",
        "solution": "<answer>A.</answer>",
        "video": "/data/somebody/clips/videos/academic/kitchen.mp4",
        "original_question": f"{ASKED}Please respond with only the letter of the correct answer.",
        "original_answer": "A. Soup.",
    }


def test_the_set_is_made_anew_byte_for_byte(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "made.jsonl"
    assert made(source, "--root", ROOT, "--out", str(out), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["annotations"], found["questions"], found["without_clip"], found["clips"]) == (3, 2, 1, 2)
    expected = [
        '{"problem": "\\nWhat is stirred?\\nA. Soup.\\nB. ", "solution": "<answer>A.</answer>", '
        '"video": "/data/somebody/clips/videos/academic/kitchen.mp4", '
        '"original_question": "\\nWhat is stirred?\\nA. Soup.\\nB. Please wait.\\n'
        'Please respond with only the letter of the correct answer.", "original_answer": "A. Soup."}',
        '{"problem": "\\nHow many fall?\\nA. One\u2028B. Two\\n", "solution": "<answer>B.</answer>", '
        '"video": "/data/somebody/clips/videos/falls.mp4", '
        '"original_question": "\\nHow many fall?\\nA. One\u2028B. Two\\nPlease answer.", "original_answer": "B."}',
    ]
    assert out.read_text() == "".join(line + "\n" for line in expected)
    assert main(["questions", str(source), "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["questions"] == 3  # without --videos none is left out


def test_differences_are_counted_and_named(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "published.jsonl"
    assert made(source, "--root", ROOT, "--out", str(out)) == 0
    assert made(source, "--compare", str(out)) == 0  # another root is no difference
    assert "published.jsonl: the same 2 questions in the same order" in capsys.readouterr().out
    first, second = read_jsonl(out)
    lines(out, [second, {**first, "solution": "<answer>B.</answer>"}])
    assert made(source, "--compare", str(out)) == 3
    text = capsys.readouterr().out
    assert "1 of 2 questions are the same, 1 changed, 0 only here, 0 only there; what both have stands in ano" in text
    assert "solution of kitchen.mp4 'What is stirred? A. Soup. B.': '<answer>A.</answer>' here, '<answer>B." in text
    lines(out, [first, {**second, "original_question": "Another?"}, second, second])
    assert made(source, "--compare", str(out), "--json") == 3
    difference = json.loads(capsys.readouterr().out)["difference"]
    assert {key: difference[key] for key in ("here", "there", "same", "changed", "only_here", "only_there")} == {
        **{"here": 2, "there": 4, "same": 2, "changed": 0, "only_here": 0, "only_there": 2},
    }
    assert difference["in_order"]
    assert not difference["identical"]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"query": "What?", "response": "A."}, r"train\.jsonl:2: videos: Field required; a line holds query"),
        ({**SOURCE[0], "videos": []}, r"train\.jsonl:2: videos names 0 clips; a question is about one"),
        ({**SOURCE[0], "response": 3}, r"train\.jsonl:2: response: Input should be a valid string"),
    ],
)
def test_an_annotation_that_is_none_is_named(
    row: dict[str, Any], words: str, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines(source, [SOURCE[0], row])
    assert made(source, "--out", str(source.parent / "out.jsonl")) == 2
    assert re.search(words, capsys.readouterr().err)
    assert not (source.parent / "out.jsonl").exists()


def test_what_would_do_nothing_or_find_no_clip_is_refused(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    for arguments, words in (
        ([], "neither --out nor --compare is given"),
        (["--recipe", "video-7b"], "give either the file ANNOTATIONS or --recipe"),
        (["--videos", str(tmp_path / "none"), "--out", "x"], "none is no folder"),
        (["--videos", str(tmp_path / "empty"), "--out", "x"], "empty has none of the 3 clips, such as videos/academic"),
    ):
        assert main(["questions", str(source), *arguments]) == 2
        assert words in capsys.readouterr().err


def test_a_clip_is_the_longest_path_that_its_question_ends_with() -> None:
    members = ["a/b.mp4", "b.mp4", "videos/a/b.mp4", "c.mp4"]
    wanted = ["/data/x/videos/a/b.mp4", "y/a/b.mp4", "b.mp4"]
    assert match_clips(wanted, members, "it") == dict(zip(wanted, ("videos/a/b.mp4", "a/b.mp4", "b.mp4"), strict=True))
    with pytest.raises(BadInput, match=r"it lacks 2 of the 3 clips that the questions name: /z/d\.mp4, c; bring"):
        match_clips(["c.mp4", "/z/d.mp4", "c"], members, "it")


def local_set(tmp_path: Path) -> Path:
    local = tmp_path / "assets"
    questions = [question_of(Annotation.model_validate(row), ROOT).model_dump() for row in SOURCE[:2]]
    lines(local / "datasets" / QUESTIONS / "origin.jsonl", [*questions, {**questions[0], "duration": 3.5}])
    write_clips(local / "datasets" / VIDEOS)
    (local / "datasets" / VIDEOS / "videos" / "unused.mp4").write_bytes(b"nobody asks about it")
    write_text(local / "datasets" / BENCH / "val.json", "[{}, {}]")
    return local


def recipe_of_clips(rows: int = 3, **changes: Any) -> Recipe:
    pin: dict[str, Any] = {"licence": "MIT", "source": HERE}
    assets = {
        "clips": VideosAsset(kind="videos", repo=VIDEOS, revision="a" * 40, items="train", **pin),
        "train": ClipsAsset(
            kind="clips", repo=QUESTIONS, revision="b" * 7, file="origin.jsonl", videos="clips", rows=rows, **pin
        ),
        "bench": RepositoryAsset(kind="repository", repo=BENCH, files=["*.json"], **pin),
    }
    tasks = {
        "same": Task(scorer="choice", items="train", limit=2, source=HERE),
        "bench-7": Task(scorer="choice", items="bench", lmms="bench_val", source=HERE),
    }
    full = load_recipe(RECIPES / "r1v-clevr-2b" / "recipe.yaml")
    clips = {"fps": Setting[Any](value=2.0, source=HERE)}
    return full.model_copy(update={"assets": {**assets, **changes}, "tasks": tasks, "clips": clips})


def test_questions_and_only_their_clips_are_fetched_and_loaded(tmp_path: Path) -> None:
    local, folder = local_set(tmp_path), tmp_path / "a"
    recipe = recipe_of_clips()
    found = {one.name: one for one in fetch_assets(recipe, folder, lambda _: None, access_to(tmp_path, local=local))}
    assert set(found["clips"].files) == {"videos/academic/kitchen.mp4", "videos/falls.mp4"}
    assert all(one.unpinned for one in found.values())
    assert found["bench"].why_not == f"no sha256 of the files of {BENCH} is known"
    dataset = load_train(folder, recipe)
    assert dataset.column_names == [
        *("video", "problem", "solution", "original_question", "original_answer", "item"),
    ]
    kitchen, falls = (local / "datasets" / VIDEOS / "videos" / name for name in ("academic/kitchen.mp4", "falls.mp4"))
    assert [row["video"] for row in dataset] == [{"bytes": None, "path": str(p)} for p in (kitchen, falls, kitchen)]
    assert dataset[1]["item"] == "train-000001"
    assert dataset[1]["solution"] == "<answer>B.</answer>"
    assert load_task(folder, recipe, "same")["item"] == ["same-000000", "same-000001"]
    with pytest.raises(BadInput, match=r"task bench-7 is lmms-eval's bench_val, which brings its own items"):
        load_task(folder, recipe, "bench-7")
    falls.write_bytes(b"another")
    with pytest.raises(BadInput, match=r"asset clips: .*falls\.mp4 has 7 bytes, recorded 16"):
        load_train(folder, recipe)


def hub(local: Path, revisions: dict[str, str]) -> Any:
    """What serves the datasets of a local folder as the hub does."""

    def answer(asked: Asked) -> Answer:
        path = asked.path.partition("?")[0]
        for repo, revision in revisions.items():
            folder = local / "datasets" / repo
            if path == f"/api/datasets/{repo}/commits/main":
                commit = {"id": revision, "title": "", "message": "", "authors": [], "date": "2025-02-03T00:00:00.000Z"}
                return Answer(200, json.dumps([commit]).encode(), {"Content-Type": "application/json"})
            if path in (f"/api/datasets/{repo}", f"/api/datasets/{repo}/revision/{revision}"):
                files = sorted(one for one in folder.rglob("*") if one.is_file())
                siblings = [
                    {"rfilename": str(one.relative_to(folder)), "size": one.stat().st_size, "blobId": git_sha1(one)}
                    for one in files
                ]
                found = {"id": repo, "sha": revision, "siblings": siblings}
                return Answer(200, json.dumps(found).encode(), {"Content-Type": "application/json"})
            start = f"/datasets/{repo}/resolve/{revision}/"
            if path.startswith(start) and (one := folder / path.removeprefix(start)).is_file():
                return Answer(200, one.read_bytes(), {"ETag": f'"{git_sha1(one)}"', "X-Repo-Commit": revision})
        return Answer(404, b"{}", {"X-Error-Code": "EntryNotFound"})

    return answer


def git_sha1(path: Path) -> str:
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def test_they_come_from_the_hub_by_revision_and_again_without_it(tmp_path: Path) -> None:
    local = local_set(tmp_path)
    revisions = {VIDEOS: "a" * 40, QUESTIONS: "b" * 40, BENCH: "c" * 40}
    with serving(hub(local, revisions)) as server:
        access = access_to(tmp_path, hub=server.address)
        found = {one.name: one for one in fetch_assets(recipe_of_clips(), tmp_path / "a", lambda _: None, access)}
        asked = [one.path for one in server.asked]
    assert {name: one.identity["revision"] for name, one in found.items()} == {
        "clips": "a" * 40,
        "train": "b" * 40,
        "bench": "c" * 40,
    }
    assert all(one.verified for one in found.values())
    assert not any("unused.mp4" in path for path in asked if "/resolve/" in path)
    rows = load_train(tmp_path / "a", recipe_of_clips())
    assert [Path(row["video"]["path"]).read_bytes() for row in rows] == [
        *(b"videos/academic/kitchen.mp4", b"videos/falls.mp4", b"videos/academic/kitchen.mp4"),
    ]
    again = fetch_assets(recipe_of_clips(), tmp_path / "b", lambda _: None, replace(access, offline=True))
    assert {one.name: one.files for one in again} == {name: one.files for name, one in found.items()}


def test_the_verb_takes_what_a_recipe_has_fetched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    local, folder = local_set(tmp_path), tmp_path / "runs" / "video-7b" / "assets" / "stages" / "assets"
    lines(local / "datasets" / VIDEOS / "train.jsonl", SOURCE)
    pin: dict[str, Any] = {"licence": "MIT", "source": HERE}
    source = RepositoryAsset(kind="repository", repo=VIDEOS, revision="a" * 40, files=["train.jsonl"], **pin)
    recipe = recipe_of_clips()
    held = {name: recipe.assets[name] for name in ("train", "clips")} | {"train-annotations": source}
    held["train-videos"] = held.pop("clips")
    assert isinstance(held["train"], ClipsAsset)
    held["train"] = held["train"].model_copy(update={"videos": "train-videos"})
    fetch_assets(recipe.model_copy(update={"assets": held}), folder, lambda _: None, access_to(tmp_path, local=local))
    # The published set has one line more, which is about the kitchen again.
    assert main(["questions", "--recipe", "video-7b", "--runs", str(tmp_path / "runs")]) == 3
    text = capsys.readouterr().out
    assert "3 annotations: 2 questions about 2 clips" in text
    assert "1 left out, as their clip is not there: videos/gone.mp4" in text
    assert "2 of 3 questions are the same, 0 changed, 0 only here, 1 only there" in text


def test_what_does_not_fit_is_named_when_it_is_fetched(tmp_path: Path) -> None:
    local, access = local_set(tmp_path), access_to(tmp_path, local=tmp_path / "assets")

    def fetch(recipe: Recipe) -> Any:
        shutil.rmtree(tmp_path / "a", ignore_errors=True)
        return {one.name: one for one in fetch_assets(recipe, tmp_path / "a", lambda _: None, access)}

    assert fetch(recipe_of_clips(rows=4))["train"].why_not == f"it has 3 rows, {QUESTIONS}@bbbbbbb:origin.jsonl has 4"
    listed = RepositoryAsset.model_validate(
        {**recipe_of_clips().assets["bench"].model_dump(), "file": "val.json", "rows": 3}
    )
    assert fetch(recipe_of_clips(bench=listed))["bench"].why_not == f"it has 2 rows, {BENCH} has 3"
    assert not fetch(recipe_of_clips(bench=listed))["bench"].unpinned
    other = recipe_of_clips().assets["bench"].model_copy(update={"files": ["videos/*|*.tar"]})
    with pytest.raises(BadInput, match=r"dataset owner/bench has no file videos/\* or \*\.tar \(it has val\.json\)"):
        fetch(recipe_of_clips(bench=other))
    for name in ("a.tar", "videos/a.mp4"):  # packed as the hub has them, then unpacked too, which goes before
        write_text(local / "datasets" / BENCH / name, "x")
        assert set(fetch(recipe_of_clips(bench=other))["bench"].files) == {name}
    (local / "datasets" / VIDEOS / "videos" / "falls.mp4").unlink()
    with pytest.raises(BadInput, match=r"lacks 1 of the 2 clips that the questions name: /data/somebody/clips/vid"):
        fetch(recipe_of_clips())
    path = local / "datasets" / QUESTIONS / "origin.jsonl"
    lines(path, [{**read_jsonl(path)[0], "solution": "A."}])
    with pytest.raises(BadInput, match=r"origin\.jsonl:1: solution 'A\.' has no answer tag"):
        fetch(recipe_of_clips())
    lines(path, [{"problem": "What?", "solution": "<answer>A.</answer>", "video": " "}])
    with pytest.raises(BadInput, match=r"origin\.jsonl:1: video is empty"):
        read_questions(path)


def test_a_query_that_begins_with_the_instruction_leaves_an_empty_problem_as_upstream_did(tmp_path: Path) -> None:
    asked = question_of(Annotation(query="<video>Please choose: A. x", response="A. x", videos="x.mp4"))
    assert asked.problem == ""
    assert read_questions(lines(tmp_path / "made.jsonl", [asked.model_dump()])) == [asked]


def test_assets_that_name_others_of_the_wrong_kind_are_refused() -> None:
    recipe = load_recipe(RECIPES / "r1v-clevr-2b" / "recipe.yaml").model_dump()
    clips = recipe_of_clips().assets["clips"].model_dump()
    with pytest.raises(ValueError, match=r"asset clips names 'train', which is no clips asset \(\)"):
        Recipe.model_validate({**recipe, "assets": {**recipe["assets"], "clips": clips}})
