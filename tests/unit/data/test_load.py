import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from datasets import Dataset, Features, Image

from r1mm.data.assets import fetch_assets, load_task, load_train
from r1mm.data.counting import FEATURES
from r1mm.data.images import decode_image
from r1mm.data.load import check_rows, check_solution, prompt_rows, read_examples
from r1mm.data.selection import image_key, split_shards
from r1mm.errors import BadInput
from r1mm.recipe import Recipe
from r1mm.task_parts import Task
from r1mm.train.images import decode_once
from tests.small_assets import DATA, HERE, access_to, make_local, png, recipe_of, write_dataset, write_prompts


def fetched(tmp_path: Path, local: Path, recipe: Recipe) -> Path:
    folder = tmp_path / "stages" / "assets"
    fetch_assets(recipe, folder, lambda _: None, access_to(tmp_path, local=local))
    return folder


def with_tasks(recipe: Recipe, **tasks: Task) -> Recipe:
    return recipe.model_copy(update={"tasks": {name.replace("_", "-"): task for name, task in tasks.items()}})


def bomb(width: int, height: int) -> bytes:
    """A PNG that claims to be large, in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")


def test_the_training_set_has_the_published_columns_and_names(tmp_path: Path, local: Path) -> None:
    recipe = recipe_of(local)
    dataset = load_train(fetched(tmp_path, local, recipe), recipe)
    assert dataset.column_names == ["image", "problem", "solution", "item"]
    # Two shards in the order of their names: 3, 5 and 4, 6.
    assert list(dataset["solution"]) == [f"<answer> {n} </answer>" for n in (3, 5, 4, 6)]
    assert dataset[2]["item"] == "train-000002"
    assert dataset[0]["image"].tobytes() == PIL.Image.open(io.BytesIO(png(3))).tobytes()
    assert [image.size for image in dataset[:2]["image"]] == [(32, 28)] * 2


def test_examples_to_learn_from_have_thoughts(tmp_path: Path) -> None:
    path = tmp_path / "train-00000-of-00001.parquet"
    rows = {
        "thinking": ["<think>two</think>"],
        "problem": ["How many?"],
        "solution": ["<answer> 2 </answer>"],
        "image": [{"bytes": png(2), "path": None}],
    }
    kinds = Features({**FEATURES, "thinking": FEATURES["problem"]})
    Dataset.from_dict(rows, features=kinds).to_parquet(path)
    examples = read_examples([path], tmp_path / "cache", "distilled")
    assert set(examples.column_names) == {"image", "thinking", "problem", "solution", "item"}
    assert (examples[0]["item"], examples[0]["thinking"]) == ("distilled-000000", "<think>two</think>")
    assert examples[0]["image"].size == (32, 28)
    Dataset.from_dict({name: rows[name] for name in FEATURES}, features=FEATURES).to_parquet(path)
    with pytest.raises(BadInput, match="set distilled: train-00000-of-00001.parquet lacks the column 'thinking'"):
        read_examples([path], tmp_path / "cache", "distilled")


def test_a_task_from_a_dataset_keeps_to_its_limit(tmp_path: Path, local: Path) -> None:
    recipe = recipe_of(local)
    items = load_task(fetched(tmp_path, local, recipe), recipe, "in-distribution")
    assert list(items["item"]) == [f"in-distribution-{i:06d}" for i in range(3)]


def test_a_task_from_a_prompts_file_joins_its_images(tmp_path: Path, local: Path) -> None:
    recipe = recipe_of(local)
    items = load_task(fetched(tmp_path, local, recipe), recipe, "held-out")
    assert list(items["item"]) == ["item_0", "item_1"]
    assert list(items["solution"]) == ["<answer> 3 </answer>", "<answer> 7 </answer>"]
    assert items[1]["problem"] == "How many, 1?"
    assert items[1]["image"].tobytes() == PIL.Image.open(io.BytesIO(png(1))).tobytes()


def test_a_math_task_keeps_its_truths_as_they_are(tmp_path: Path, local: Path) -> None:
    write_prompts(local / "files" / "Owner/Code" / "eval/prompts.jsonl", ["140°", "3cm"])
    recipe = with_tasks(
        recipe_of(local), geometry=Task(scorer="math", items="prompts", images="pictures", limit=1, source=HERE)
    )
    assert list(load_task(fetched(tmp_path, local, recipe), recipe, "geometry")["solution"]) == ["140°"]


def test_a_counting_task_wants_numbers(tmp_path: Path, local: Path) -> None:
    write_prompts(local / "files" / "Owner/Code" / "eval/prompts.jsonl", ["140°"])
    recipe = recipe_of(local)
    with pytest.raises(BadInput, match=r"prompts.jsonl images/item_0.png: ground_truth '140°' is no number"):
        load_task(fetched(tmp_path, local, recipe), recipe, "held-out")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            {"problem": "How many?", "solution": "<answer> 3 </answer>"},
            "lacks the column 'image'; it has problem, solu",
        ),
        ({"image": None, "problem": "?", "solution": "<answer> 3 </answer>"}, r"bad.parquet row 1 has no image"),
        (
            {"image": {"bytes": None, "path": "/etc/hostname"}, "problem": "?", "solution": "<answer> 3 </answer>"},
            "bad.parquet row 1 has no image",
        ),
        (
            {"image": {"bytes": b"not an image", "path": None}, "problem": "?", "solution": "<answer> 3 </answer>"},
            "row 1: its image is none of PNG, JPEG",
        ),
        (
            {
                "image": {"bytes": bomb(60_000, 60_000), "path": None},
                "problem": "?",
                "solution": "<answer> 3 </answer>",
            },
            r"row 1: its image is a decompression bomb \(Image size \(3600000000 pixels\)",
        ),
        (
            {
                "image": {"bytes": bomb(10_000, 10_000), "path": None},
                "problem": "?",
                "solution": "<answer> 3 </answer>",
            },
            r"row 1: its image is a decompression bomb \(Image size \(100000000 pixels\)",
        ),
        (
            {"image": {"bytes": png(1)[:-30], "path": None}, "problem": "?", "solution": "<answer> 3 </answer>"},
            "row 1: its image does not decode",
        ),
        (
            {"image": {"bytes": png(1), "path": None}, "problem": "?", "solution": "3"},
            "row 1: solution '3' has no answer",
        ),
        (
            {"image": {"bytes": png(1), "path": None}, "problem": "?", "solution": None},
            "row 1: solution '' has no answer",
        ),
        (
            {"image": {"bytes": png(1), "path": None}, "problem": "", "solution": "<answer> 3 </answer>"},
            "row 1 has no problem",
        ),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, rows: dict[str, Any], said: str) -> None:
    good = {"image": {"bytes": png(1), "path": None}, "problem": "?", "solution": "<answer> 3 </answer>"}
    columns = {key: [good[key], rows[key]] for key in rows}
    path = tmp_path / "bad.parquet"
    Dataset.from_dict(columns, features=Features({key: FEATURES[key] for key in rows})).to_parquet(path)
    with pytest.raises(BadInput, match=said):
        check_rows([path], "dataset owner/counts")


@pytest.mark.parametrize("solution", ["", "3", "<answer></answer>", "<answer>  </answer>", "<answer> 3"])
def test_a_solution_without_an_answer_is_refused(solution: str) -> None:
    with pytest.raises(BadInput, match="has no answer tag"):
        check_solution(solution, "here")


def test_a_counting_task_takes_the_items_that_are_answered_by_a_number(tmp_path: Path) -> None:
    local = make_local(tmp_path / "assets")
    path = local / "datasets" / DATA / "data" / "train-00000-of-00002.parquet"
    rows = Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "cache")).cast(FEATURES).to_list()
    other = {"problem": "Are there more cubes than spheres?", "solution": "<answer> no </answer>"}
    Dataset.from_list([rows[0] | other, *rows], features=FEATURES).to_parquet(path)
    recipe = recipe_of(local)
    task = Task(scorer="counting", items="train", limit=2, source=HERE)
    recipe = recipe.model_copy(update={"tasks": {"count": task}})
    fetch_assets(recipe, tmp_path / "a", lambda _: None, access_to(tmp_path, local=local))
    loaded = load_task(tmp_path / "a", recipe, "count")
    assert loaded["item"][:] == ["count-000001", "count-000002"]
    assert "no" not in "".join(loaded["solution"][:])


def test_columns_of_another_kind_are_named(tmp_path: Path) -> None:
    for column, values in {"image": ["a.png"], "solution": [3]}.items():
        rows = {"image": [{"bytes": png(1), "path": None}], "problem": ["?"], "solution": ["<answer> 3 </answer>"]}
        Dataset.from_dict(rows | {column: values}).to_parquet(tmp_path / "x.parquet")
        with pytest.raises(BadInput, match=f"column '{column}' is (string|int64), wanted is"):
            check_rows([tmp_path / "x.parquet"], "dataset x")


@pytest.mark.parametrize("keep", [0, 100, -20])
def test_a_truncated_parquet_file_is_named(tmp_path: Path, keep: int) -> None:
    path = write_dataset(tmp_path, shards=1) / "data" / "train-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BadInput, match=r"train-00000-of-00001.parquet is no readable parquet file .* fetch it again"):
        check_rows([path], "dataset x")


def test_an_image_that_breaks_later_names_its_item(tmp_path: Path, local: Path) -> None:
    recipe = recipe_of(local)
    folder = fetched(tmp_path, local, recipe)
    items = load_task(folder, recipe, "held-out")
    image = next((folder / "pictures").rglob("item_1.png"))
    image.write_bytes(image.read_bytes()[:60])
    assert items[0]["image"].size == (32, 28)
    with pytest.raises(BadInput, match="item_1: its image does not decode"):
        items[1]


def test_training_names_the_item_whose_image_breaks(tmp_path: Path, local: Path) -> None:
    recipe = recipe_of(local)
    dataset = load_task(fetched(tmp_path, local, recipe), recipe, "held-out").remove_columns("problem")
    once = decode_once(dataset.add_column("prompt", ["a", "b"]))
    copies = once[[0, 1, 0]]["image"]
    assert copies[0] is copies[2]
    next((tmp_path / "stages").rglob("item_1.png")).write_bytes(b"")
    with pytest.raises(BadInput, match="item_1: its image is none of"):
        once[1]


def test_formats_that_run_programs_are_not_opened() -> None:
    with pytest.raises(BadInput, match="is none of PNG"):
        decode_image({"bytes": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "path": None}, "here")


def test_an_image_is_turned_as_its_camera_says() -> None:
    buffer, exif = io.BytesIO(), PIL.Image.Exif()
    exif[PIL.ExifTags.Base.Orientation] = 6
    PIL.Image.new("RGB", (30, 20)).save(buffer, format="JPEG", exif=exif)
    encoded = {"bytes": buffer.getvalue(), "path": None}
    assert decode_image(encoded, "here").size == Image().decode_example(encoded).size == (20, 30)


def test_a_prompts_file_names_its_bad_line(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    good = {"image_path": "a.png", "question": "?", "ground_truth": 1}
    for change, said in (
        ({"image_path": None}, "prompts.jsonl:2: image_path None is not usable"),
        ({"ground_truth": ""}, "prompts.jsonl:2: ground_truth '' is not usable"),
    ):
        path.write_text(json.dumps(good) + "\n" + json.dumps(good | change) + "\n")
        with pytest.raises(BadInput, match=said):
            list(prompt_rows(path))
    path.write_text('{"image": "a.png"}')
    with pytest.raises(BadInput, match=r"prompts.jsonl:1 has no 'image_path' \(it has image\)"):
        list(prompt_rows(path))
    path.write_text("")
    with pytest.raises(BadInput, match="has no items"):
        list(prompt_rows(path))


@pytest.mark.parametrize("path", ["/home/x/a.png", "../a.png", "images/../../a.png", ""])
def test_image_paths_stay_inside(path: str) -> None:
    with pytest.raises(BadInput, match="must be a path inside the archive"):
        image_key(path, "here")


def test_shards_of_a_split() -> None:
    names = [
        "data/train-00000-of-00002.parquet",
        "data/train-00001-of-00002.parquet",
        "data/test-00000-of-00001.parquet",
    ]
    assert split_shards([*names, "README.md"], "train", "x") == names[:2]
    assert split_shards(names, "test", "x") == names[2:]
    assert split_shards(["default/train/0000.parquet"], "train", "x") == ["default/train/0000.parquet"]
    assert split_shards(["some.parquet"], "train", "x") == ["some.parquet"]
    own = ["data/valA-00000-of-00001.parquet", "data/valB-00000-of-00001.parquet"]
    assert split_shards([*names, *own], "valA", "x") == own[:1]
    assert split_shards([*names, *own], "train", "x") == names[:2]
    with pytest.raises(BadInput, match=r"has no parquet file of split 'validation' \(it has data/test-"):
        split_shards(names, "validation", "x")
    with pytest.raises(BadInput, match="x lacks shard 00000 of 00002 of data/train"):
        split_shards(names[1:], "train", "x")
