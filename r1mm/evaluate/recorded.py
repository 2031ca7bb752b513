"""Recorded outputs scored anew: our JSON lines, or the JSON that R1-V's evaluation scripts write."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1mm.errors import BadInput
from r1mm.evaluate.readings import Ask, counts, readings_of
from r1mm.evaluate.scoring import (
    Output,
    Scorer,
    Truth,
    asked_and_truth,
    read_outputs,
    rescored,
    score,
    summary,
)
from r1mm.evaluate.tasks import KnownTask
from r1mm.rundir import read_jsonl, sha256_file

_POSITION = re.compile(r".*-(\d{6})")  # the item ids that r1mm gives where a dataset has none


@dataclass(frozen=True)
class Recorded:
    """Outputs scored anew, and for each the mark that the file itself had given it; None where it had none."""

    outputs: list[Output]
    stored: list[bool | None]


def _stored_mark(row: dict[str, Any], truth: Truth) -> bool | None:
    if isinstance(row.get("is_correct"), bool):
        return bool(row["is_correct"])
    # The counting script stores the number it found and leaves the comparison to the reader.
    return row["extracted_answer"] == truth if isinstance(truth, int) and "extracted_answer" in row else None


def _upstream_output(scorer: Scorer, row: Any, where: str) -> Output:
    if not isinstance(row, dict):
        raise BadInput(f"{where} is no object: {str(row)[:60]!r}")
    question = row.get("question")
    asked: dict[str, Any] = question if isinstance(question, dict) else {"question": question, **row}
    truths = [part["ground_truth"] for part in (row, asked) if "ground_truth" in part]
    text, image, completion = asked.get("question"), asked.get("image_path"), row.get("model_output")
    for name, value in (("question", text), ("image_path", image), ("model_output", completion)):
        if not isinstance(value, str):
            raise BadInput(
                f"{where} has no text {name} (found {value!r}); R1-V's scripts write question (with image_path, "
                "question and ground_truth), ground_truth and model_output for every item"
            )
    if not truths:
        raise BadInput(f"{where} has no ground_truth; without it an output cannot be scored")
    if any(str(other) != str(truths[0]) for other in truths):
        raise BadInput(f"{where} has two truths, {truths[0]!r} and {truths[1]!r}; correct the file")
    assert isinstance(text, str)
    assert isinstance(image, str)
    assert isinstance(completion, str)
    wanted, truth = asked_and_truth(scorer, text, truths[0], where)
    return score(
        scorer,
        item=Path(image).stem,
        prompt=text,
        completion=completion,
        tokens=0,  # not recorded
        truth=truth,
        asked=wanted,
    )


def _read_upstream(path: Path, scorer: Scorer) -> Recorded:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} is not readable JSON: {error}") from error
    rows = content.get("results") if isinstance(content, dict) else content
    if not isinstance(rows, list) or not rows:
        raise BadInput(f"{path} has no list `results`; give r1mm's .jsonl or the JSON of R1-V's evaluation script")
    outputs = [_upstream_output(scorer, row, f"{path}: results[{i}]") for i, row in enumerate(rows)]
    stored = [_stored_mark(row, output.truth) for row, output in zip(rows, outputs, strict=True)]
    return Recorded(outputs, stored)


def read_recorded(path: Path, scorer: Scorer) -> Recorded:
    """The outputs of a file, marked anew from their texts.

    Raises BadInput when the file is neither of ours nor of upstream's layout, when a truth is missing or not of the
    scorer's kind, and when an item stands in it twice.
    """
    if path.suffix == ".jsonl":
        before = read_outputs(path)
        outputs = [rescored(scorer, output, f"{path}:{number}") for number, output in enumerate(before, 1)]
        recorded = Recorded(outputs, [output.correct for output in before])
    else:
        recorded = _read_upstream(path, scorer)
    seen: set[str] = set()
    for output in recorded.outputs:
        if output.item in seen:
            raise BadInput(f"{path} holds item {output.item!r} twice; one file is one model's answers, each item once")
        seen.add(output.item)
    return recorded


def _read_prompts(path: Path, task: KnownTask) -> list[tuple[str, str, Truth]]:
    """(item, question, truth) of every line of a prompts file."""
    found: list[tuple[str, str, Truth]] = []
    for number, row in enumerate(read_jsonl(path), 1):
        for key in ("image_path", "question", "ground_truth"):
            if key not in row:
                raise BadInput(f"{path}:{number}: has no {key}; a prompts file has image_path, question, ground_truth")
        item = Path(str(row["image_path"])).stem
        question, where = str(row["question"]), f"{path}:{number}"
        found.append((item, question, asked_and_truth(task.scorer, question, row["ground_truth"], where)[1]))
    if task.prompts_sha256 is not None and sha256_file(path) != task.prompts_sha256:
        raise BadInput(
            f"{path} is not the prompts file of {task.name}: sha256 {sha256_file(path)}, the recipe pins "
            f"{task.prompts_sha256}"
        )
    return found


def _check_items(path: Path, outputs: Sequence[Output], prompts: list[tuple[str, str, Truth]], task: KnownTask) -> None:
    by_item = {item: (item, question, truth) for item, question, truth in prompts}
    for output in outputs:
        position = _POSITION.fullmatch(output.item)
        named = by_item.get(output.item) or by_item.get(Path(output.item).stem)
        if named is None and position is not None and int(position.group(1)) < len(prompts):
            named = prompts[int(position.group(1))]
        if named is None:
            raise BadInput(f"{path}: item {output.item!r} is none of the {len(prompts)} items of {task.name}")
        item, question, truth = named
        if output.truth != truth:
            raise BadInput(
                f"{path}: item {output.item!r} has the truth {output.truth!r}, the prompts file {truth!r} ({item}); "
                "the outputs are of other items, or of another version of the task"
            )
        if question not in output.prompt:
            raise BadInput(
                f"{path}: item {output.item!r} was asked {output.prompt[:80]!r}, the prompts file asks "
                f"{question[:80]!r}"
            )


def score_recorded(path: Path, task: KnownTask, prompts: Path | None = None, ask: Ask | None = None) -> dict[str, Any]:
    """What a file of recorded outputs is worth under the rules of `task`: counts, and what was and was not checked.

    `prompts`: the task's prompts file, to hold items, questions and truths against.  `ask`: who is asked where no rule
    finds an answer (`judge_model.py`); what came of it is counted apart.  Raises BadInput when the file is
    of another task, as far as that can be seen.
    """
    recorded = read_recorded(path, task.scorer)
    outputs, notes = recorded.outputs, []
    if task.items is not None and len(outputs) > task.items:
        raise BadInput(f"{path} holds {len(outputs)} items, {task.name} has {task.items}; is it of another task?")
    if prompts is None:
        notes.append("item ids and truths were not checked: give the task's prompts file with --prompts")
    else:
        _check_items(path, outputs, _read_prompts(prompts, task), task)
        notes.append(f"items, questions and truths are those of {prompts}")
    missing = None if task.items is None else task.items - len(outputs)
    if missing is None:
        notes.append(f"how many items {task.name} has is not stated, so that missing ones would not be seen")
    elif missing:
        notes.append(f"{missing} of the {task.items} items are missing: the scores are of the {len(outputs)} at hand")
    marks = [(output, mark) for output, mark in zip(outputs, recorded.stored, strict=True) if mark is not None]
    changed = [output.item for output, mark in marks if output.correct != mark]
    if changed:
        notes.append(
            f"the file's own marks differ on {len(changed)} items ({', '.join(changed[:5])}"
            f"{', ...' if len(changed) > 5 else ''}): they were given by other rules or another version of them"
        )
    readings = readings_of(task.scorer, outputs, ask=ask)
    asked = {"read_by_model": sum(reading.forced == "asked" for reading in readings)} if ask is not None else {}
    return {
        "task": task.name,
        "scorer": task.scorer,
        **summary(task.scorer, outputs),
        **counts(readings),
        **asked,
        "missing": missing,
        "stored_right": sum(mark for _, mark in marks) if marks else None,
        "changed": changed,
        "notes": notes,
    }
