from pathlib import Path

import pytest
from datasets import Dataset

from r1mm.data.counting import load_counting, solution_count, solution_text, write_counting
from r1mm.data.prompts import QUESTIONS
from r1mm.errors import BadInput
from r1mm.mini.datasets import read_scenes, render_sets
from r1mm.mini.render import encode_png, render
from r1mm.rundir import sha256_file
from r1mm.scene_parts import SceneSet

SET = SceneSet(world="clevr-like", items=8, counts=[2, 4], question="train", seed=5, source="our choice: a test set")


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assets") / "sets"
    render_sets({"train": SET}, 112, folder, workers=2)
    return folder


def test_a_rendered_set_has_the_published_columns(rendered: Path) -> None:
    dataset = load_counting(rendered / "train.parquet")
    assert dataset.column_names == ["image", "problem", "solution"]
    assert dataset[0]["image"].size == (112, 112)
    assert set(dataset["problem"]) == {QUESTIONS["train"]}
    assert list(dataset["solution"])[:4] == [f"<answer> {n} </answer>" for n in (2, 3, 4, 2)]


def test_images_solutions_and_scenes_belong_together(rendered: Path) -> None:
    dataset = load_counting(rendered / "train.parquet")
    for row, scene in zip(dataset, read_scenes(rendered, "train"), strict=True):
        assert solution_count(row["solution"], "here") == len(scene["objects"])
        assert row["image"].tobytes() == render(scene, 112).tobytes()


def test_bytes_depend_on_the_seed_and_not_on_the_processes(rendered: Path, tmp_path: Path) -> None:
    render_sets({"train": SET}, 112, tmp_path / "one", workers=1)
    for name in ("train.parquet", "train_scenes.json"):
        assert sha256_file(tmp_path / "one" / name) == sha256_file(rendered / name)
    render_sets({"train": SET.model_copy(update={"seed": 6})}, 112, tmp_path / "other", workers=1)
    assert sha256_file(tmp_path / "other" / "train.parquet") != sha256_file(rendered / "train.parquet")


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    path = tmp_path / "sets" / "x.parquet"
    path.parent.mkdir()
    Dataset.from_dict({"problem": ["How many?"], "solution": [solution_text(1)]}).to_parquet(path)
    with pytest.raises(BadInput, match="lacks the column 'image'; it has problem, solution"):
        load_counting(path)


def test_a_solution_without_a_number_is_named(tmp_path: Path, rendered: Path) -> None:
    path = tmp_path / "sets" / "x.parquet"
    write_counting(path, [encode_png(render(read_scenes(rendered, "train")[0], 112))], "How many?", [1])
    Dataset.from_parquet(str(path)).map(lambda row: {"solution": "three"}).to_parquet(path)
    with pytest.raises(BadInput, match="row 0: solution 'three' is not of the form"):
        load_counting(path)


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sets" / "x.parquet"
    path.parent.mkdir()
    path.write_bytes(b"PAR1 or so")
    with pytest.raises(BadInput, match=r"x\.parquet is not a readable parquet file"):
        load_counting(path)
