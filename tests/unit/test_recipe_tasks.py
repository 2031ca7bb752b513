"""Recipes of clips and of tasks about pictures: what they may say."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from r1mm.errors import BadInput
from r1mm.recipe import resolve
from r1mm.recipe_files import RECIPES, load_recipe
from tests.tiny import tiny_recipe


def setting(value: Any) -> dict[str, Any]:
    return {"value": value, "source": "our choice: to test what is taken"}


READING = {"description": "To test the refusal.", "upstream": "Deep-Agent/R1-V"}


def of_clips(folder: Path, section: dict[str, Any]) -> Path:
    path = tiny_recipe(folder) / "recipe.yaml"
    recipe = yaml.safe_load(path.read_text())
    if "clips" in section:
        film = {"world": "clevr-like", "items": 4, "kinds": ["color"], "solids": [2, 4], "frames": 4, "seed": 1}
        recipe["scenes"] = {name: {**film, "source": "our choice: of a test"} for name in recipe["scenes"]}
    path.write_text(yaml.safe_dump({**recipe, **section}, sort_keys=False))
    return path


def test_a_recipe_of_clips_is_taken(tmp_path: Path) -> None:
    values = {"fps": 2.0, "frames": 16, "min_pixels": 100352, "max_pixels": 153664, "undecodable": "skip"}
    clips = {key: setting(value) for key, value in values.items()}
    recipe = load_recipe(of_clips(tmp_path, {"clips": clips, "rewards": setting(["letter", "format"])}))
    assert {key: one.value for key, one in recipe.clips.items()} == values
    assert recipe.rewards.value == ["letter", "format"]


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"clips": {"frame": setting(8)}}, r"clips\.frame: is no setting of how clips are read.*'frames'"),
        ({"clips": {"frames": setting(15)}}, r"clips\.frames: must be even: .*, is 15"),
        ({"clips": {"frames": setting(8.0)}}, r"clips\.frames: must be a whole number above 0, is 8\.0"),
        ({"clips": {"fps": setting(0)}}, r"clips\.fps: must be a number above 0, is 0"),
        ({"clips": {"undecodable": setting("drop")}}, r"clips\.undecodable: must be stop .* or skip, is 'drop'"),
        (
            {"clips": {"min_pixels": setting(900), "max_pixels": setting(800)}},
            r"clips\.min_pixels: must be at most max_pixels 800, is 900",
        ),
        ({"rewards": setting([])}, r"rewards: must name one reward or more, each once, is \[\]"),
        ({"rewards": setting(["letter", "letter"])}, r"rewards: must name one reward or more, each once"),
        ({"rewards": setting(["letter", "accuracy"])}, r"rewards: must not count the answer twice"),
        ({"rewards": setting(["answer", "accuracy"])}, r"rewards: must not count the answer twice"),
        ({"rewards": setting(["length"])}, r"rewards\.value\.0: .*'letter', 'answer' or 'format'.*'length'"),
    ],
)
def test_what_cannot_be_done_with_clips_or_rewards_is_refused(
    tmp_path: Path, section: dict[str, Any], words: str
) -> None:
    with pytest.raises(BadInput, match=rf"recipe\.yaml:\d+: {words}"):
        load_recipe(of_clips(tmp_path, section))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"file": None}, r"assets\.longvideobench\.repository: .*rows is 1337, and no `file` is named"),
        ({"file": None, "rows": None}, r"tasks\.longvideobench-1337: items must be an asset .* with the `file` that"),
    ],
)
def test_a_task_of_lmms_eval_needs_its_items(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    for name in ("r1v-clevr-2b", "video-7b"):
        shutil.copytree(RECIPES / name, tmp_path / name)
    path = tmp_path / "video-7b" / "recipe.yaml"
    content = yaml.safe_load(path.read_text())
    content["assets"]["longvideobench"] |= changes
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(BadInput, match=words):
        load_recipe(path)


def of_pictures(folder: Path, task: dict[str, Any], evaluation: dict[str, Any], **more: Any) -> Path:
    """The counting recipe with a task of lmms-eval about pictures beside its own."""
    shutil.copytree(RECIPES / "r1v-clevr-2b", folder / "r1v-clevr-2b")
    path = folder / "r1v-clevr-2b" / "recipe.yaml"
    content = yaml.safe_load(path.read_text())
    here = "our choice: of a test"
    content["assets"]["mmmu"] = {
        **{"kind": "repository", "repo": "MMMU/MMMU", "file": "*/validation-*.parquet", "rows": 900},
        **{"files": ["*/validation-*.parquet"], "licence": "MIT", "source": here},
    }
    content["tasks"]["mmmu-val"] = {"scorer": "mmmu", "items": "mmmu", "lmms": "mmmu_val", "source": here, **task}
    pixels = {"min_pixels": setting(3136), "max_pixels": setting(2359296), "dtype": setting("bfloat16")}
    content["evaluation"] = {
        key: value for key, value in {**content["evaluation"], **pixels, **evaluation}.items() if value is not None
    }
    path.write_text(yaml.safe_dump({**content, **more}, sort_keys=False))
    return path


def test_a_task_about_pictures_may_have_prompts_of_its_own(tmp_path: Path) -> None:
    prompts = {"direct": setting("{prompt}"), "evaluation": setting("{question}\nThink.")}
    stock = {
        **{"description": "the stock prompt, then a request to think", "upstream": "o/r"},
        "overrides": {"tasks.mmmu-val.prompts.evaluation": setting("{prompt}\nThink.")},
    }
    images = {"images": setting("first")}
    recipe = load_recipe(of_pictures(tmp_path, {"prompts": prompts}, images, options={"stock": stock}))
    assert recipe.template("mmmu-val", "direct") == "{prompt}"
    assert recipe.template("superclevr-200", "direct") == recipe.prompts.direct.value
    assert (
        "prompts" not in recipe.tasks["superclevr-200"].model_dump()
    )  # the digests of runs made before stay what they were
    changed = resolve(recipe, f"{recipe.default_variant}+stock").recipe
    assert changed.template("mmmu-val", "evaluation") == "{prompt}\nThink."


@pytest.mark.parametrize(
    ("task", "evaluation", "words"),
    [
        ({"scorer": "choice"}, {}, r"scorer choice is not for lmms mmmu_val; mmmu is for mmmu_val"),
        ({"lmms": "longvideobench_val_v"}, {}, r"scorer mmmu is not for lmms longvideobench_val_v"),
        ({"lmms": "mathvista_testmini"}, {}, r"mathvista for mathvista_testmini_format, _cot or _solution"),
        (
            {"prompts": {"direct": setting("A"), "evaluation": setting("{question}")}},
            {},
            r"template direct 'A' must hold",
        ),
        (
            {
                **{"lmms": None, "scorer": "math"},
                "prompts": {"direct": setting("{prompt}"), "evaluation": setting("{prompt}")},
            },
            {},
            r"prompts are for lmms-eval's tasks about pictures",
        ),
        ({}, {"max_pixels": None}, r"evaluation: must have max_pixels for lmms-eval's task mmmu-val"),
        ({}, {"images": setting("two")}, r"evaluation\.images: must be all, or first .*, is 'two'"),
    ],
)
def test_a_task_about_pictures_that_cannot_be_asked(
    tmp_path: Path, task: dict[str, Any], evaluation: dict[str, Any], words: str
) -> None:
    with pytest.raises(BadInput, match=words):
        load_recipe(of_pictures(tmp_path, task, evaluation))


@pytest.mark.parametrize(
    ("find", "replace", "words"),
    [
        ("{sheet: poster,", "{sheet: papyrus,", r"scenes\.ood\.drawings\.sheet: .*'paper' or 'poster'.*'papyrus'"),
        ("difference], seed: 38", "heights], seed: 38", r"scenes\.ood\.drawings\.kinds\.5: .*'heights'"),
        ("{scorer: answer, items: ood", "{scorer: math, items: ood", "task ood has the scorer math; .* scorer answer"),
        ("fault_share: {value: 0.6", "fault_share: {value: 1.6", r"warm_start\.fault_share: must be from 0 to 1, is 1"),
        ("  line_share: {value: 0.15", "  lines: {value: 0.15", r"warm_start\.lines: is no setting of the warm start"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_drawings_is_told_in_one_line(tmp_path: Path, find: str, replace: str, words: str) -> None:
    text = (RECIPES / "mm8k-mini" / "recipe.yaml").read_text()
    assert text.count(find) == 1
    path = tmp_path / "mm8k-mini" / "recipe.yaml"
    path.parent.mkdir()
    path.write_text(text.replace(find, replace))
    with pytest.raises(BadInput, match=words) as caught:
        load_recipe(path)
    assert len(str(caught.value).splitlines()) == 1


def test_a_misspelt_sheet_is_still_told_of_drawings(tmp_path: Path) -> None:
    path = tmp_path / "mm8k-mini" / "recipe.yaml"
    path.parent.mkdir()
    path.write_text((RECIPES / "mm8k-mini" / "recipe.yaml").read_text().replace("{sheet: poster,", "{sheets: poster,"))
    with pytest.raises(BadInput, match=r"scenes\.ood\.drawings\.sheet: is missing; add it\n.*sheets: unknown key"):
        load_recipe(path)


def test_drawings_and_solids_do_not_go_together(tmp_path: Path) -> None:
    recipe = yaml.safe_load((RECIPES / "mm8k-mini" / "recipe.yaml").read_text())
    solids = yaml.safe_load((RECIPES / "r1v-mini" / "recipe.yaml").read_text())["scenes"]
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**recipe, "scenes": {**recipe["scenes"], "ood": solids["ood"]}}, sort_keys=False))
    with pytest.raises(BadInput, match="scenes are drawings or pictures of solids, not both"):
        load_recipe(path)
