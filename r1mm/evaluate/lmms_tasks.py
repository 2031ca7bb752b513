"""A task of lmms-eval with items, prompt and ends of answers of ours: what its file says, and what ours does."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from r1mm.errors import BadInput

_SPLIT_KEYS = ("test_split", "validation_split")
_SUFFIX = "_r1mm"  # of our task's name: the stock one's own name stays its own


@dataclass(frozen=True)
class LmmsSettings:
    """How a task is evaluated.  `frames` of each clip; pixels bound each of its frames before they are subsampled.

    `dtype`: of the weights as they are used; on a CPU float32 is.
    """

    max_new_tokens: int
    frames: int
    min_pixels: int
    max_pixels: int
    dtype: str


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


def task_file(stock: Path, content: dict[str, Any], template: str, settings: LmmsSettings) -> dict[str, Any]:
    """Our task: the stock one with our items and our prompt, whose answers end at their end token alone."""
    splits = [content[key] for key in _SPLIT_KEYS if content.get(key)]
    if not splits:
        raise BadInput(f"task {content['task']} has none of {', '.join(_SPLIT_KEYS)}; it cannot be given items of ours")
    before, after = split_template(template)
    specific = dict(content.get("lmms_eval_specific_kwargs") or {})
    default = {**dict(specific.get("default") or {}), "pre_prompt": before, "post_prompt": after}
    return {
        "include": str(stock),
        "task": content["task"] + _SUFFIX,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {splits[0]: "items.jsonl"}},
        "lmms_eval_specific_kwargs": {"default": default},
        "generation_kwargs": {
            **dict(content.get("generation_kwargs") or {}),
            "max_new_tokens": settings.max_new_tokens,
            "temperature": 0,
            "do_sample": False,
            "until": [],
        },
    }
