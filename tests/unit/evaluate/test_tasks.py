import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from r1mm.errors import BadInput
from r1mm.evaluate.tasks import find_task, known_tasks
from r1mm.recipe_files import RECIPES


def test_tasks_of_our_recipes() -> None:
    task = find_task("superclevr-200")
    assert (task.scorer, task.items) == ("counting", 200)
    assert task.prompts_sha256 == "4ca86120527cd76d6957a33a6b745980bf8d51c3307a4fdbab5e264b89f19b04"
    assert (find_task("cogent-valb").items, find_task("cogent-valb").prompts_sha256) == (
        500,
        None,
    )  # of 5,000, by limit
    assert (find_task("r1v-mini/ood").items, find_task("video-mini/ood").items) == (800, 600)
    with pytest.raises(
        BadInput, match="'ood' is; write distill-mini/ood or mm8k-mini/ood or r1v-mini/ood or video-mini/ood"
    ):
        find_task("ood")
    assert all(of for of in known_tasks().values())


def test_an_unknown_task_is_named_with_its_nearest() -> None:
    with pytest.raises(BadInput, match="there is no task 'superclver-200'.* did you mean 'superclevr-200'"):
        find_task("superclver-200")
    with pytest.raises(BadInput, match="there is no task 'r1v-mini/odd'.* did you mean 'r1v-mini/ood'"):
        find_task("r1v-mini/odd")


def altered(root: Path, name: str, tasks: dict[str, Any]) -> None:
    """The flagship under another name and with other tasks."""
    shutil.copytree(RECIPES / "r1v-clevr-2b", root / name)
    whole = yaml.safe_load((root / name / "recipe.yaml").read_text())
    (root / name / "recipe.yaml").write_text(yaml.safe_dump({**whole, "name": name, "tasks": tasks}, sort_keys=False))


def test_recipes_that_differ_must_be_named(tmp_path: Path) -> None:
    source = "our choice: for a test of the tasks"
    altered(
        tmp_path,
        "one",
        {
            "geoqa-754": {
                "scorer": "math",
                "items": "superclevr-prompts",
                "images": "superclevr-images",
                "source": source,
            },
            "cogent-valb": {"scorer": "counting", "items": "cogent-valb", "source": source},
        },
    )
    altered(
        tmp_path, "two", {"cogent-valb": {"scorer": "counting", "items": "cogent-valb", "limit": 9, "source": source}}
    )
    geoqa = find_task("geoqa-754", tmp_path)
    assert (geoqa.scorer, geoqa.items) == ("math", 754)
    with pytest.raises(BadInput, match="write one/cogent-valb or two/cogent-valb"):
        find_task("cogent-valb", tmp_path)
    assert find_task("one/cogent-valb", tmp_path).items is None  # neither the recipe nor the name says
    assert find_task("two/cogent-valb", tmp_path).items == 9


def test_a_task_that_lmms_eval_asks_is_scored_by_letter() -> None:
    task = find_task("longvideobench-1337")
    assert (task.scorer, task.items, task.prompts_sha256) == ("choice", 1337, None)
