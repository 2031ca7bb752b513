"""The counting task: how an output is parsed and scored, on fresh outputs and on recorded ones alike.

Source of the rule: Deep-Agent/R1-V@bbbbe3d:src/eval/test_qwen2vl_counting_superclevr.py: the first match of the pattern
decides, an output without a match is wrong.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from r1mm.errors import BadInput
from r1mm.rundir import read_jsonl

_ANSWER = re.compile(r"<answer>\s*(\d+)\s*</answer>")
_THOUGHT = re.compile(r"<think>.*?</think>\s*<answer>.*?</answer>", re.DOTALL)
_BARE = re.compile(r"<answer>\s*\d+\s*</answer>")


class Output(BaseModel):
    """One evaluated output.  `tokens` counts the completion without its end token; `parsed` is None if unparsable.

    `format`: thinks, then answers, over any number of lines.  `direct`: nothing but the answer tag.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    item: str
    prompt: str
    completion: str
    tokens: int
    truth: int
    parsed: int | None
    correct: bool
    format: bool
    direct: bool


def parse_count(completion: str) -> int | None:
    """The number that an output answers with, or None."""
    found = _ANSWER.search(completion)
    return int(found.group(1)) if found else None


def score(item: str, prompt: str, completion: str, tokens: int, truth: int) -> Output:
    """An output with its marks."""
    text = completion.strip()
    parsed = parse_count(completion)
    return Output(
        item=item,
        prompt=prompt,
        completion=completion,
        tokens=tokens,
        truth=truth,
        parsed=parsed,
        correct=parsed == truth,
        format=_THOUGHT.fullmatch(text) is not None,
        direct=_BARE.fullmatch(text) is not None,
    )


def read_outputs(path: Path) -> list[Output]:
    """Evaluated outputs from our JSON lines.  BadInput names the file and line that is none."""
    outputs = []
    for number, row in enumerate(read_jsonl(path), 1):
        try:
            outputs.append(Output.model_validate(row))
        except ValidationError as error:
            first = error.errors()[0]
            raise BadInput(f"{path}:{number}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    if not outputs:
        raise BadInput(f"{path} holds no outputs")
    return outputs


def _upstream_outputs(path: Path, rows: Sequence[dict[str, Any]]) -> list[Output]:
    outputs = []
    for number, row in enumerate(rows):
        try:
            question, truth = row["question"], int(row["ground_truth"])
            completion = row["model_output"]
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput(
                f"{path}: results[{number}] lacks a usable question, ground_truth or model_output: {error}"
            ) from error
        outputs.append(
            score(
                Path(str(question.get("image_path", number))).name, question.get("question", ""), completion, 0, truth
            )
        )
    return outputs


def rescore(path: Path) -> list[Output]:
    """Recorded outputs scored anew: our JSON lines, or the JSON that R1-V's evaluation script writes (`results`).

    Raises BadInput when the file is neither.
    """
    if path.suffix == ".jsonl":
        return [score(o.item, o.prompt, o.completion, o.tokens, o.truth) for o in read_outputs(path)]
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} is not readable JSON: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("results"), list) or not content["results"]:
        raise BadInput(f"{path} has no list `results`; give r1mm's .jsonl or the JSON of R1-V's evaluation script")
    return _upstream_outputs(path, content["results"])
