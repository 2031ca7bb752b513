"""The stage distill goes through the whole chain over HTTP, goes on where it was stopped, and counts truly."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from r1mm.cli import main
from r1mm.distill.truth import Truth
from r1mm.distill_stage import FIGURES_FILE, distill_answers
from r1mm.job import Job, make_job
from r1mm.mini.datasets import read_scenes, render_sets
from r1mm.mini.reasoner import ORDINALS
from r1mm.report.distilled import distilled_section
from r1mm.rundir import read_jsonl
from r1mm.scene_parts import SceneSet
from tests.command import start
from tests.tiny import tiny_distill_recipe

ITEMS = 40
MAX_TOKENS = 60


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    source = "our choice: a set for tests"
    train = SceneSet(world="clevr-like", items=ITEMS, counts=[1, 6], question="train", seed=3, source=source)
    render_sets({"train": train}, 28, folder, workers=2)
    return folder


@pytest.fixture(scope="module")
def make(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Job]:
    def made(**changes: Any) -> Job:
        folder = tmp_path_factory.mktemp("run")
        recipe = tiny_distill_recipe(folder, {"distill.max_tokens": MAX_TOKENS, **changes})
        job = make_job(str(recipe), "sft", 1, None, folder / "runs")
        shutil.copytree(pictures, job.stage_folder("assets"))
        return job

    return made


@pytest.fixture(scope="module")
def done(make: Callable[..., Job]) -> Job:
    job = make()
    distill_answers(job)
    return job


def results(job: Job) -> dict[str, bytes]:
    """All that the stage leaves, but for the client's own records."""
    folder = job.stage_folder("distill")
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if "answers" not in name}


def rows_of(job: Job, tmp_path: Path) -> Dataset:
    files = sorted(job.stage_folder("distill").glob("dataset/data/train-*.parquet"))
    return Dataset.from_parquet([str(file) for file in files], cache_dir=str(tmp_path))


def test_an_example_is_a_thought_about_the_very_picture(done: Job, tmp_path: Path) -> None:
    rows = rows_of(done, tmp_path)
    assert len(rows) > ITEMS / 2
    assert set(rows.column_names) >= {"thinking", "problem", "solution", "image"}
    assert not any("scene description" in thinking for thinking in rows["thinking"])
    assert {image.size for image in rows["image"]} == {(28, 28)}
    everything = [row for row in rows if row["problem"].startswith("How many items are there in the described scene")]
    assert len(everything) > ITEMS / 4
    # By its bytes the picture is the scene's, and the thoughts name the scene's objects, some slips aside.
    scenes = {scene["image_filename"]: scene for scene in read_scenes(done.stage_folder("assets"), "train")}
    responses = read_jsonl(done.stage_folder("distill") / "filtered" / "valid_pairs.jsonl")
    for row in responses:
        if row["q"].startswith("How many items") and row["truth"]["sound"]:
            assert row["a"] == str(len(scenes[row["img_filename"]]["objects"]))
            named = Counter(re.findall(rf"(?:{'|'.join(ORDINALS)}|missed) (\w+ \w+)", row["r1_response"]))
            assert named == Counter(
                f"{thing['color']} {thing['shape']}" for thing in scenes[row["img_filename"]]["objects"]
            )


def test_the_figures_are_those_of_the_files(done: Job, tmp_path: Path) -> None:
    folder = done.stage_folder("distill")
    figures = json.loads((folder / FIGURES_FILE).read_text())
    steps = figures["steps"]
    valid, invalid = (read_jsonl(folder / "filtered" / f"{name}_pairs.jsonl") for name in ("valid", "invalid"))
    assert steps["questions"] == ITEMS * 2
    assert steps["for a number"] < steps["asked"] == len((folder / "pairs.jsonl").read_text().splitlines())
    dead = read_jsonl(folder / "answers.dead.jsonl")
    assert steps["answered"] == steps["asked"] - len(dead) == len(valid) + len(invalid)
    assert dead
    assert {row["reason"] for row in dead} == {"length"}
    assert steps["passed"] == len(valid)
    assert steps["examples"] == len(rows_of(done, tmp_path)) == len(valid)
    made = Counter(row["script"]["mistake"] or "none" for row in valid + invalid)
    passed = Counter(row["script"]["mistake"] or "none" for row in valid)
    assert figures["mistakes"] == {name: {"made": n, "passed": passed[name]} for name, n in made.items()}
    good = [Truth.model_validate(row["truth"]).good(row["a"]) for row in valid]
    assert figures["filter"]["traces"]["upstream"]["precision"] == sum(good) / len(valid)
    assert 0 < sum(good) < len(valid)  # some wrong traces do pass


def test_a_page_shows_them(done: Job) -> None:
    shown = distilled_section(json.loads((done.stage_folder("distill") / FIGURES_FILE).read_text()))
    assert list(shown["traces"]) == ["upstream", "strict"]  # those that decided first
    assert {"bold-the-answer-is", "no pattern matches"} <= {row["name"] for row in shown["patterns"]["upstream"]}
    for name, rows in shown["patterns"].items():
        assert sum(row["traces"]["passed"] for row in rows) == shown["traces"][name]["passed"]
    assert shown["panels"].count("<svg") == 2
    assert f"asked, with the count of all: {shown['steps']['asked']};" in shown["panels"]


def test_a_stopped_stage_goes_on_to_the_same_end(done: Job, make: Callable[..., Job]) -> None:
    job = make()
    folder = job.stage_folder("distill")
    folder.mkdir(parents=True)
    # As a kill leaves it: some answers, the last one torn.
    lines = (done.stage_folder("distill") / "answers.jsonl").read_bytes().splitlines(keepends=True)
    half = len(lines) // 2
    (folder / "answers.jsonl").write_bytes(b"".join(lines[:half]) + lines[half][:40])
    distill_answers(job)
    kept = (folder / "answers.jsonl").read_bytes()
    assert kept.startswith(b"".join(lines[:half]))
    assert len(kept.splitlines()) == len(lines)  # nothing was asked twice
    assert results(job) == results(done)
    # And as it was before its record was written: all is there.
    distill_answers(job)
    assert (folder / "answers.jsonl").read_bytes() == kept
    assert results(job) == results(done)


def test_what_depends_on_the_clock_is_no_part_of_it(done: Job) -> None:
    stamps = distill_answers(done)
    assert not [path for path in stamps if "answers" in path]
    assert {Path(path).name for path in stamps} >= {FIGURES_FILE, "responses.jsonl", "valid_pairs.jsonl"}
    assert any(path.endswith(".parquet") for path in stamps)


def test_a_proxy_for_the_world_is_not_asked(make: Callable[..., Job], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nobody is
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    job = make(**{"distill.per_picture": 1})
    assert distill_answers(job)


def test_a_reasoner_without_faults_loses_nothing(make: Callable[..., Job]) -> None:
    faultless = {"mistakes": {}, "rechecks": 0.0, "concludes": 0.5, "endings": {"labelled": 1.0}, "obeys": 1.0}
    job = make(**{"distill.reasoner": faultless, "distill.prompt": "v1", "distill.problem": "ours"})
    distill_answers(job)
    figures = json.loads((job.stage_folder("distill") / FIGURES_FILE).read_text())
    steps = figures["steps"]
    assert steps["asked"] == steps["answered"] == steps["passed"] == steps["examples"]
    assert figures["filter"]["traces"]["upstream"]["precision"] == 1.0


def test_the_reasoner_can_be_asked_by_hand(done: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server = start("distill", "reasoner", "--json")
    try:
        assert server.stdout is not None
        found = json.loads("".join(iter(lambda: server.stdout.readline(), "}\n")) + "}")
        pairs = tmp_path / "pairs.jsonl"
        lines = (done.stage_folder("distill") / "pairs.jsonl").read_text().splitlines(keepends=True)
        pairs.write_text("".join(lines[:5]))
        options = ["--base-url", found["base_url"], "--model", found["model"], "--json"]
        assert main(["distill", "query", str(pairs), "--out", str(tmp_path / "traces.jsonl"), *options]) == 0
        assert json.loads(capsys.readouterr().out)["questions"] == 5
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 143
    finally:
        server.kill()
        server.communicate()


def test_a_reasoner_that_cannot_be_had_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["distill", "reasoner", "--recipe", "r1v-mini"]) == 2
    assert "r1v-mini has no scripted reasoner" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["distill", "reasoner", "--port", str(taken.getsockname()[1])]) == 2
    assert "cannot be listened on" in capsys.readouterr().err
