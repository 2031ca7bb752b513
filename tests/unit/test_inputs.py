"""What a full recipe's stages take: clips of which one does not decode, and a folder of assets."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from r1mm.asset_kinds import ClipsAsset, RepositoryAsset, VideosAsset
from r1mm.data.access import CACHE_VARIABLE, LOCAL_VARIABLE
from r1mm.data.assets import fetch_assets
from r1mm.data.clips import Clip, write_mp4
from r1mm.errors import BadInput
from r1mm.expected import Expected
from r1mm.inputs import (
    SKIPPED_FILE,
    lmms_places,
    look_through_clips,
    metrics_file,
    start_model,
    trained_model,
    training_set,
)
from r1mm.job import Job, make_job
from r1mm.pipeline import needed_bytes
from r1mm.plan.shapes import config_of_repo
from r1mm.recipe import Recipe, Resolved
from r1mm.recipe_files import RECIPES, load_recipe
from r1mm.sourced import Setting
from r1mm.train.grpo import training_rows
from tests.small_assets import access_to

HERE = "our choice: for a test"
NAMES = ["first", "damaged", "third", "fourth"]


def job_with(folder: Path, undecodable: str) -> Job:
    pin: dict[str, Any] = {"licence": "MIT", "source": HERE}
    assets = {
        "clips": VideosAsset(kind="videos", repo="o/videos", revision="a" * 40, items="train", **pin),
        "train": ClipsAsset(
            kind="clips", repo="o/questions", revision="b" * 7, file="q.jsonl", videos="clips", rows=4, **pin
        ),
    }
    clips = {
        name: Setting[Any](value=value, source=HERE)
        for name, value in {"frames": 4, "min_pixels": 3136, "max_pixels": 3136, "undecodable": undecodable}.items()
    }
    recipe: Recipe = load_recipe(RECIPES / "r1v-clevr-2b" / "recipe.yaml").model_copy(
        update={"assets": assets, "tasks": {}, "clips": clips}
    )
    resolved = Resolved.model_construct(recipe=recipe, variant="as-fixed", overridden=[])
    expected = Expected(recipe=recipe.name, claims=[], reference_rows=[])
    return Job(RECIPES / recipe.name, resolved, expected, seed=1, base_seed=1, runs=folder / "runs")


@pytest.fixture
def fetched(tmp_path: Path) -> Path:
    """A folder of assets of four clips, of which the second is noise."""
    local = tmp_path / "assets" / "datasets"
    rows = [
        {
            **{"problem": f"What is {name}?", "solution": "<answer>A.</answer>", "video": f"/data/{name}.mp4"},
            **{"original_question": "q", "original_answer": "A. a"},
        }
        for name in NAMES
    ]
    for repo in ("videos", "questions"):
        (local / "o" / repo).mkdir(parents=True)
    (local / "o" / "questions" / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rng = np.random.default_rng(0)
    for name in NAMES:
        film = write_mp4(rng.integers(0, 256, (6, 56, 56, 3), dtype=np.uint8), 2.0)
        (local / "o" / "videos" / f"{name}.mp4").write_bytes(rng.bytes(500) if name == "damaged" else film)
    return tmp_path


def test_a_clip_in_the_middle_that_does_not_decode_is_skipped_and_named(
    fetched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = job_with(fetched, "skip")
    access = access_to(fetched, local=fetched / "assets")
    fetch_assets(job.recipe, job.stage_folder("assets"), lambda _: None, access)
    look_through_clips(job)
    assert "1 of 4 clips do not decode and are skipped" in capsys.readouterr().err
    (listed,) = json.loads((job.stage_folder("assets") / SKIPPED_FILE).read_text())
    assert listed["item"] == "train-000001"
    assert "train-000001" in listed["why"]
    rows = training_rows(training_set(job), "{question}", grouped=False)
    assert [row["prompt"][0]["content"][1]["text"] for row in rows] == [f"What is {NAMES[i]}?" for i in (0, 2, 3)]
    batch = rows.__getitems__([1, 1, 2])
    assert all(isinstance(row["image"], Clip) for row in batch)
    assert batch[0]["image"] is batch[1]["image"]
    assert batch[2]["image"].frames.shape == (4, 3, 56, 56)


def test_a_recipe_that_stops_does_so_before_it_trains_and_says_what_else_could_be_done(fetched: Path) -> None:
    job = job_with(fetched, "stop")
    access = access_to(fetched, local=fetched / "assets")
    fetch_assets(job.recipe, job.stage_folder("assets"), lambda _: None, access)
    with pytest.raises(
        BadInput, match=r"1 of 4 training clips cannot be read, the first: train-000001 .*clips\.undecodable: skip"
    ):
        look_through_clips(job)
    assert not (job.stage_folder("assets") / SKIPPED_FILE).exists()
    assert len(training_set(job)) == 4  # none is left out unasked


def test_checkpoints_of_a_large_model_need_their_room_also_from_a_folder_of_assets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job("video-7b", None, 1, None, tmp_path)
    fetched = needed_bytes(job)
    monkeypatch.setenv(LOCAL_VARIABLE, str(tmp_path))
    assert needed_bytes(job) == 1e9  # nothing there: the assets stage says so
    folder = tmp_path / "models" / "Qwen" / "Qwen2-VL-7B-Instruct"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config_of_repo("Qwen/Qwen2-VL-7B-Instruct")))
    assert fetched > needed_bytes(job) > 2 * 16 * 8.29e9  # weights, masters and moments of 8.29 billion, two at a time


def test_items_of_lmms_evals_tasks_may_stand_in_several_files(tmp_path: Path) -> None:
    import pyarrow.parquet

    files = tmp_path / "assets" / "datasets" / "o" / "bench"
    for subject, rows in (("Math", 2), ("Art", 1)):
        (files / subject).mkdir(parents=True)
        path = files / subject / "validation-00000-of-00001.parquet"
        pyarrow.parquet.write_table(pyarrow.table({"id": [f"{subject}-{i}" for i in range(rows)]}), path)
    bench = {"kind": "repository", "repo": "o/bench", "file": "*/validation-*.parquet", "files": ["*.parquet"]}
    for rows in (3, 4):
        asset = RepositoryAsset.model_validate({**bench, "rows": rows, "licence": "MIT", "source": HERE})
        job = job_with(tmp_path / f"{rows}", "stop")
        job = replace(
            job, resolved=Resolved.model_construct(recipe=job.recipe.model_copy(update={"assets": {"bench": asset}}))
        )
        said: list[str] = []
        fetch_assets(
            job.recipe, job.stage_folder("assets"), said.append, access_to(tmp_path, local=tmp_path / "assets")
        )
        found = lmms_places(job, "bench")["items"]
        assert [path.parent.name for path in found] == ["Art", "Math"]  # in the order of their names
        assert ("it has 3 rows, o/bench has 4" in "\n".join(said)) == (rows == 4)


def test_clips_of_lmms_evals_tasks_are_unpacked_beside_the_downloads_by_what_is_in_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    files = tmp_path / "assets" / "datasets" / "o" / "bench"
    files.mkdir(parents=True)
    (files / "val.json").write_text("[{}, {}]")
    bench = {"kind": "repository", "repo": "o/bench", "file": "val.json", "files": ["videos/*|videos.tar.*"], "rows": 2}
    asset = RepositoryAsset.model_validate({**bench, "licence": "MIT", "source": HERE})
    places = []
    for part in (b"one", b"two", b"one"):
        (files / "videos.tar.part.aa").write_bytes(part)
        job = job_with(tmp_path / f"{len(places)}", "stop")
        job = replace(
            job, resolved=Resolved.model_construct(recipe=job.recipe.model_copy(update={"assets": {"bench": asset}}))
        )
        fetch_assets(
            job.recipe, job.stage_folder("assets"), lambda _: None, access_to(tmp_path, local=tmp_path / "assets")
        )
        places.append(lmms_places(job, "bench"))
    assert [(place["files"], place["items"]) for place in places] == [(files, [files / "val.json"])] * 3
    first, other, again = (place["unpacked"] for place in places)
    assert first == again != other
    assert first.parent == other.parent == tmp_path / "cache" / "clips"


def test_each_training_starts_from_what_the_one_before_it_left(tmp_path: Path) -> None:
    both = make_job("r1v-clevr-2b-distilled", "after-sft", 1, None, tmp_path)
    left = {training: both.stage_folder(training) / "model" for training in ("sft", "grpo")}
    assert start_model(both, "grpo") == left["sft"]
    assert trained_model(both) == left["grpo"]
    alone = make_job("r1v-clevr-2b-sft", None, 1, None, tmp_path)
    assert trained_model(alone) == alone.stage_folder("sft") / "model"
    assert metrics_file(alone, "sft") == alone.stage_folder("sft") / "metrics.jsonl"
    assert metrics_file(both, "grpo") == both.folder("run") / "metrics.jsonl"


def test_two_trainings_need_no_more_room_than_the_larger_one_at_a_time(tmp_path: Path) -> None:
    jobs = [make_job("r1v-clevr-2b-distilled", name, 1, None, tmp_path) for name in ("from-base", "after-sft")]
    alone, both = map(needed_bytes, jobs)
    assert alone <= both < 1.2 * alone
