"""A task of lmms-eval with items, prompt and ends of answers of ours: what its file says, and what ours does.

Two kinds: LongVideoBench's, which takes words before and after its questions and plain items, and those about pictures
(MMMU, MathVista), whose prompts functions of ours fill in (`lmms_beside.py`).
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from r1mm.errors import BadInput

_SPLIT_KEYS = ("test_split", "validation_split")
_SUFFIX = "_r1mm"  # of our task's name: the stock one's own name stays its own
BESIDE = "lmms_beside"  # the file that is copied beside the task's
KEPT = "r1mm_kept"  # the metric that stands where MathVista's marks would


@dataclass(frozen=True)
class LmmsSettings:
    """How a task is evaluated.  Pixels bound each image, and each frame of a clip before they are subsampled.

    `dtype`: of the weights as they are used; on a CPU float32 is.  `frames`: of each clip, where there are clips.
    `images`: of an MMMU question with several, all or the first alone.  `system`: the system turn's text; lmms-eval's
    own ("You are a helpful assistant.") where it is None.
    """

    max_new_tokens: int
    min_pixels: int
    max_pixels: int
    dtype: str
    frames: int | None = None
    images: Literal["all", "first"] = "all"
    system: str | None = None


class _TaskLoader(yaml.SafeLoader):
    """Reads a task's file; the functions it names are lmms-eval's to load."""


_TaskLoader.add_constructor("!function", lambda loader, node: None)


def stock_task(tasks: Path, name: str) -> tuple[Path, dict[str, Any]]:
    """The file of a task in lmms-eval's folder `tasks`, and its settings.  BadInput when there is none of that name."""
    files = sorted(tasks.rglob(f"{name}.yaml")) if re.fullmatch(r"[A-Za-z0-9_-]+", name) else []
    for path in files:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_TaskLoader)
        if isinstance(content, dict) and content.get("task") == name:
            return path, content
    raise BadInput(f"lmms-eval has no task {name!r} in a file of that name; see its `python -m lmms_eval tasks list`")


def split_template(template: str) -> tuple[str, str]:
    """What lmms-eval puts before a question and after the line break behind it.  BadInput for another form."""
    before, field, after = template.partition("{question}")
    if not field or not after.startswith("\n"):
        raise BadInput(
            f"the template {template!r} cannot be lmms-eval's, which puts a line break after the question and its "
            "options; write '{question}\\n' and then what follows"
        )
    return before, after[1:]


def _split(content: dict[str, Any]) -> str:
    splits = [content[key] for key in _SPLIT_KEYS if content.get(key)]
    if not splits:
        raise BadInput(f"task {content['task']} has none of {', '.join(_SPLIT_KEYS)}; it cannot be given items of ours")
    return str(splits[0])


def _common(stock: Path, content: dict[str, Any], settings: LmmsSettings) -> dict[str, Any]:
    return {
        "include": str(stock),
        "task": content["task"] + _SUFFIX,
        "generation_kwargs": {
            **dict(content.get("generation_kwargs") or {}),
            "max_new_tokens": settings.max_new_tokens,
            "temperature": 0,
            "do_sample": False,
            "until": [],
        },
    }


def _default(content: dict[str, Any], ours: dict[str, str]) -> dict[str, Any]:
    specific = dict(content.get("lmms_eval_specific_kwargs") or {})
    return {"default": {**dict(specific.get("default") or {}), **ours}}


def task_file(stock: Path, content: dict[str, Any], template: str, settings: LmmsSettings) -> dict[str, Any]:
    """Our task: the stock one with our items and our prompt, whose answers end at their end token alone."""
    split = _split(content)
    before, after = split_template(template)
    return {
        **_common(stock, content, settings),
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {split: "items.jsonl"}},
        "lmms_eval_specific_kwargs": _default(content, {"pre_prompt": before, "post_prompt": after}),
    }


class _Named(str):
    """A function by name, as lmms-eval loads it from a file beside the task's."""


class _TaskDumper(yaml.SafeDumper):
    pass


_TaskDumper.add_representer(_Named, lambda dumper, name: dumper.represent_scalar("!function", str(name)))


def task_text(task: dict[str, Any]) -> str:
    """A task's file, in which functions stand by their names."""
    return yaml.dump(task, Dumper=_TaskDumper, sort_keys=False, allow_unicode=True)


def picture_task(
    benchmark: Literal["mmmu", "mathvista"],
    stock: Path,
    content: dict[str, Any],
    template: str,
    settings: LmmsSettings,
) -> dict[str, Any]:
    """Our task about pictures: the stock one with our items and its prompt in `template`, MathVista's without marks.

    `template` holds `{prompt}`, lmms-eval's whole prompt, or `{question}`, the question with its options alone.
    BadInput for another form.
    """
    if template.count("{prompt}") + template.count("{question}") != 1:
        raise BadInput(
            f"the template {template!r} must hold one of {{prompt}} (lmms-eval's whole prompt) and {{question}} (the "
            "question with its options), once"
        )
    split = _split(content)
    # Before `include`: the functions of ours are loaded first, and with them what the stock task's cannot do without.
    ours: dict[str, Any] = {"doc_to_text": _Named(f"{BESIDE}.{benchmark}_text")}
    if benchmark == "mmmu" and settings.images == "first":
        ours["doc_to_visual"] = _Named(f"{BESIDE}.mmmu_first_visual")
    if benchmark == "mathvista":
        counted = {"metric": KEPT, "aggregation": _Named(f"{BESIDE}.how_many"), "higher_is_better": True}
        ours |= {"process_results": _Named(f"{BESIDE}.mathvista_kept"), "metric_list": [counted]}
    return {
        **ours,
        **_common(stock, content, settings),
        "dataset_path": "parquet",
        "dataset_kwargs": {"data_files": {split: "items.parquet"}},
        "lmms_eval_specific_kwargs": _default(content, {"template": template}),
    }
