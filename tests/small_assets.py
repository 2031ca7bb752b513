"""Small assets laid out as upstream's, and a full recipe that names them."""

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from safetensors.numpy import save_file

from r1mm.asset_kinds import ArchiveAsset, Asset, DatasetAsset, FileAsset, ModelAsset
from r1mm.data.access import Access, Patience
from r1mm.data.counting import write_counting
from r1mm.recipe import Recipe
from r1mm.recipe_files import RECIPES, load_recipe
from r1mm.rundir import sha256_file
from r1mm.task_parts import Task

HERE = "our choice: an asset for tests"
MODEL, DATA, UPSTREAM, COMMIT = "Owner/Tiny-VL", "owner/counts", "Owner/Code", "c" * 40
PROMPTS = "eval/prompts.jsonl"


def png(shade: int) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (32, 28), (shade, 90, 200)).save(buffer, format="PNG")
    return buffer.getvalue()


def write_checkpoint(folder: Path, model_type: str = "qwen2_vl") -> Path:
    """Two shards with an index, as a large checkpoint is laid out."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    (folder / "tokenizer_config.json").write_text("{}")
    shards = {f"model-0000{i}-of-00002.safetensors": f"layer.{i}" for i in (1, 2)}
    for file, tensor in shards.items():
        save_file({tensor: np.arange(64, dtype=np.float32)}, folder / file)
    weight_map = {tensor: file for file, tensor in shards.items()}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def write_dataset(folder: Path, counts: Sequence[int] = (3, 4, 5, 6), shards: int = 2) -> Path:
    for shard in range(shards):
        mine = counts[shard::shards]
        name = f"train-{shard:05d}-of-{shards:05d}.parquet"
        write_counting(folder / "data" / name, [png(count) for count in mine], "How many?", mine)
    return folder


def write_zip(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def write_prompts(path: Path, truths: Sequence[Any] = (3, 7), image: str = "./images/item_{}.png") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"image_path": image.format(i), "question": f"How many, {i}?", "ground_truth": truth}
        for i, truth in enumerate(truths)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def make_local(folder: Path) -> Path:
    """A folder for R1MM_ASSETS."""
    write_checkpoint(folder / "models" / MODEL)
    write_dataset(folder / "datasets" / DATA)
    write_prompts(folder / "files" / UPSTREAM / PROMPTS)
    write_zip(folder / "archives" / "pictures.zip", {f"pictures/images/item_{i}.png": png(i) for i in range(4)})
    return folder


def recipe_of(local: Path, url: str = "http://127.0.0.1:1/pictures.zip", **changes: Any) -> Recipe:
    """A full recipe whose pins are what lies in `local`."""
    weights = sorted((local / "models" / MODEL).glob("*.safetensors"))
    assets: dict[str, Asset] = {
        "model": ModelAsset(
            kind="model",
            repo=MODEL,
            revision="a" * 40,
            sha256={path.name: sha256_file(path) for path in weights},
            licence="Apache-2.0",
            source=HERE,
        ),
        "train": DatasetAsset(kind="dataset", repo=DATA, revision="b" * 7, rows=4, licence="MIT", source=HERE),
        # Before the prompts file that it needs, to see that order does not matter.
        "pictures": ArchiveAsset(kind="archive", url=url, items="prompts", licence="BSD", source=HERE),
        "prompts": FileAsset(
            kind="file",
            repository=UPSTREAM,
            commit=COMMIT,
            path=PROMPTS,
            sha256=sha256_file(local / "files" / UPSTREAM / PROMPTS),
            licence="MIT",
            source=HERE,
        ),
    }
    tasks = {
        "held-out": Task(scorer="counting", items="prompts", images="pictures", source=HERE),
        "in-distribution": Task(scorer="counting", items="train", limit=3, source=HERE),
    }
    full = load_recipe(RECIPES / "r1v-clevr-2b" / "recipe.yaml")
    return full.model_copy(update={"assets": {**assets, **changes}, "tasks": tasks})


def access_to(tmp_path: Path, **changes: Any) -> Access:
    """An access whose caches are the test's own, and which never waits."""
    settings: dict[str, Any] = {
        "hub": "http://127.0.0.1:1",
        "hub_cache": tmp_path / "hub",
        "downloads": tmp_path / "downloads",
        "patience": Patience(attempts=2, sleep=lambda _: None),
    }
    return Access(**{**settings, **changes})
