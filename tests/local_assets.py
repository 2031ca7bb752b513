"""A folder for R1MM_ASSETS that is laid out as upstream's assets are, with small stand-ins for what is large.

    python -m tests.local_assets DIR [--model FOLDER] [--upstream FOLDER] [--train 64] [--items 12]

The training set is parquet of the real schema over rendered images, in two shards; the test images lie in a zip under
upstream's names; the checkpoint is a tiny Qwen2-VL that the same `from_pretrained` loads.  `--model` takes one (the
model folder of a miniature's base) instead of an untrained one; `--upstream` takes upstream's own prompts file and
recorded outputs from a folder instead of making files of their form.
"""

import argparse
import io
import json
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from r1mm.data.counting import FEATURES, write_counting
from r1mm.data.prompts import QUESTIONS
from r1mm.mini.datasets import PALETTE, WORLDS
from r1mm.mini.language import build_tokenizer
from r1mm.mini.model import build_model, build_processor, save
from r1mm.mini.render import encode_png, render
from r1mm.mini.scenes import sample_scene
from r1mm.recipe_files import RECIPES, load_recipe
from r1mm.sourced import values

SIZE = 112  # pixels; what the tiny processor passes unresized


def pictures(world: str, counts: Sequence[int], seed: int) -> list[bytes]:
    """One rendered PNG per count."""
    made = []
    for i, count in enumerate(counts):
        scene = sample_scene(WORLDS[world], count, np.random.default_rng([seed, i]), f"{i}.png")
        made.append(encode_png(render(scene, SIZE)))
    return made


def write_dataset(
    folder: Path, repo: str, counts: Sequence[int], seed: int, shards: int = 1, comparison: bool = False
) -> None:
    """A counting dataset as the hub lays it out: data/train-0000k-of-0000n.parquet.

    `comparison`: with a first question that is answered by yes or no, as CLEVR's validation sets have many.
    """
    made = pictures("clevr-like", counts, seed)
    for shard in range(shards):
        write_counting(
            folder / "datasets" / repo / "data" / f"train-{shard:05d}-of-{shards:05d}.parquet",
            made[shard::shards],
            QUESTIONS["train"],
            counts[shard::shards],
        )
    if comparison:
        path = folder / "datasets" / repo / "data" / "train-00000-of-00001.parquet"
        other = {"problem": "Are there fewer cubes than things?", "solution": "<answer> yes </answer>"}
        rows = Dataset.from_parquet(str(path), cache_dir=str(folder / ".cache")).cast(FEATURES).to_list()
        Dataset.from_list([rows[0] | other, *rows], features=FEATURES).to_parquet(path)
        shutil.rmtree(folder / ".cache")


def write_model(folder: Path) -> None:
    """An untrained tiny Qwen2-VL with its processor."""
    recipe = load_recipe(RECIPES / "r1v-mini" / "recipe.yaml")
    templates = [getattr(recipe.prompts, name).value for name in ("train", "evaluation", "direct")]
    tokenizer = build_tokenizer(templates, PALETTE)
    save(build_model(values(recipe.model), tokenizer, 0), build_processor(tokenizer, SIZE), folder)


def _log(prompts: Sequence[dict[str, Any]], answers: Sequence[str]) -> dict[str, Any]:
    results = [
        {"question": prompt, "ground_truth": prompt["ground_truth"], "model_output": answer, "extracted_answer": None}
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    return {"accuracy": 0.0, "results": results}


def make_local_assets(
    folder: Path, *, model: Path | None = None, upstream: Path | None = None, train: int = 64, items: int = 12
) -> Path:
    """Write the assets of `r1v-clevr-2b` to `folder` and return it."""
    write_dataset(folder, "leonardPKU/clevr_cogen_a_train", [1 + i % 6 for i in range(train)], 21, shards=2)
    for number, name in enumerate(("Clevr_CoGenT_ValA", "Clevr_CoGenT_ValB")):
        write_dataset(folder, f"MMInstruction/{name}", [1 + i % 6 for i in range(items)], 22 + number, comparison=True)
    place = folder / "models" / "Qwen" / "Qwen2-VL-2B-Instruct"
    if model:
        shutil.copytree(model, place)
    else:
        write_model(place)

    files = folder / "files" / "Deep-Agent" / "R1-V" / "src" / "eval"
    (files / "prompts").mkdir(parents=True)
    (files / "logs").mkdir()
    prompts_name = "superclevr_test200_counting_problems.jsonl"
    logs = [f"counting_results_superclevr_200_qwen2vl_2b_instruct{era}_legacy.json" for era in ("", "_grpo100")]
    if upstream:
        shutil.copy(upstream / prompts_name, files / "prompts")
        for log in logs:
            shutil.copy(upstream / log, files / "logs")
    else:
        rows = [
            {
                "image_path": f"./images/superCLEVR_new_{25000 + i:06d}.png",
                "question": QUESTIONS["evaluation"],
                "ground_truth": 3 + i % 8,
            }
            for i in range(items)
        ]
        (files / "prompts" / prompts_name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        for log, says in zip(
            logs, ("<think>\nsome\n</think>\n<answer>\n 3\n</answer>", "<answer>4</answer>"), strict=True
        ):
            (files / "logs" / log).write_text(json.dumps(_log(rows, [says] * len(rows))))
    prompts = [json.loads(line) for line in (files / "prompts" / prompts_name).read_text().splitlines()]
    made = pictures("superclevr-like", [prompt["ground_truth"] for prompt in prompts], 25)
    archives = folder / "archives"
    archives.mkdir()
    with zipfile.ZipFile(archives / "images.zip", "w") as archive:
        for prompt, png in zip(prompts, made, strict=True):
            archive.writestr(f"images/{Path(prompt['image_path']).name}", io.BytesIO(png).getvalue())
        archive.writestr(
            "images/superCLEVR_new_000000.png", made[0]
        )  # one that nobody asks for, as 29,800 in the real one
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--upstream", type=Path)
    parser.add_argument("--train", type=int, default=64)
    parser.add_argument("--items", type=int, default=12)
    options = parser.parse_args()
    print(make_local_assets(**vars(options)))
