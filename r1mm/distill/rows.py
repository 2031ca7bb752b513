"""The rows of a dataset, found in JSON lines and put in order without their texts being kept.

Source of a row: Deep-Agent/R1-V@bbbbe3d:src/distill_r1/create_hf_dataset.py.  thinking: what stands between the first
`<think>` and the next `</think>`, with "scene description" replaced by "image"; problem: the question as it was asked;
solution: the answer in its tag.  It took the responses in the order in which they had come, and of the validation
questions a random sample.
"""

import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from datasets import Features, Image, Value
from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr

from r1mm.chain.forms import Form, of_form
from r1mm.chain.order import rank
from r1mm.chain.parquet import TRAIN, Row
from r1mm.chain.provenance import host_of
from r1mm.data.counting import solution_text
from r1mm.distill.rules import CLOSES, OPENS, normal
from r1mm.errors import BadInput
from r1mm.progress import progress_bar
from r1mm.rundir import json_object

ProblemWords = Literal["upstream", "ours"]
PROBLEM_WORDS: tuple[ProblemWords, ...] = ("upstream", "ours")
DESCRIBED, IMAGE = "described scene", "image"
# What a thought says of the text that stood for the picture, after upstream's replacement.  Looked for in lower case.
LEAKS = (DESCRIBED, "scene description", "description", "coordinates", "listed")
_MOST_SOURCES = 20  # models and hosts that are named

Text = Annotated[StrictStr, Field(min_length=1)]


class Asked(BaseModel):
    """A question about a picture, as `r1mm distill questions` writes it."""

    model_config = ConfigDict(frozen=True)  # lines have more, which is of no use here
    img_filename: Text
    q: Text
    a: Text | StrictInt


class Answered(Asked):
    """A response to one, as the filter passes it on; `model` and `endpoint` where they are known."""

    r1_response: StrictStr
    model: StrictStr | None = None
    endpoint: StrictStr | None = None
    error: StrictStr | None = None


@dataclass
class Rows:
    """The rows of a split, in the file `source`, and what was counted on the way.

    `answers`: how often each was asked for; `leaks`: rows of which thoughts hold a phrase; `left_out`: rows without a
    closed thinking block, which upstream left out too; `empty`: rows whose thoughts say nothing.
    """

    source: Path
    rows: list[Row]
    lines: int
    answers: Counter[str] = field(default_factory=Counter)
    leaks: Counter[str] = field(default_factory=Counter)
    described: int = 0  # rows whose problem speaks of the described scene
    left_out: int = 0
    empty: int = 0
    models: list[str] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)


def thinking_of(response: str) -> str | None:
    """The column `thinking` of a response; None where no thinking block is opened and closed."""
    _, opened, rest = response.partition(OPENS)
    thoughts, closed, _ = rest.partition(CLOSES)
    if not (opened and closed):
        return None
    return OPENS + thoughts.replace("scene description", IMAGE) + CLOSES


def problem_of(question: str, words: ProblemWords) -> str:
    """The column `problem`: the question as it was asked (upstream's), or about the image that will be there (ours)."""
    return question if words == "upstream" else question.replace(DESCRIBED, IMAGE)


def columns_of(row: dict[str, Any], words: ProblemWords) -> dict[str, str]:
    """All columns of a row but its image; `thinking` where the row is a response."""
    thinking = {"thinking": thinking_of(row["r1_response"])} if "r1_response" in row else {}
    texts = {**thinking, "problem": problem_of(row["q"], words), "solution": solution_text(str(row["a"]).strip())}
    return {name: text for name, text in texts.items() if text is not None}


def features_of(split: str) -> Features:
    """A split's columns: `thinking` in the training split alone."""
    thinking = {"thinking": Value("string")} if split == TRAIN else {}
    return Features({**thinking, "problem": Value("string"), "solution": Value("string"), "image": Image()})


def _required(form: type[BaseModel]) -> list[str]:
    return [name for name, one in form.model_fields.items() if one.is_required()]


def _lines(path: Path, form: type[Form]) -> Iterator[tuple[int, Form]]:
    """A file's lines, each with the place of its first byte."""
    offset, remedy = 0, f"a line holds {', '.join(_required(form))}"
    try:
        with path.open("rb") as file:
            for number, line in enumerate(progress_bar(file, desc=f"read {path.name}", unit="line"), 1):
                where = f"{path}:{number}"
                yield offset, of_form(form, json_object(line, where), where, remedy)
                offset += len(line)
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror}); give a file of JSON lines") from error


def _noted(found: Rows, row: Asked) -> None:
    found.lines += 1
    found.answers[normal(row.a)] += 1
    found.described += DESCRIBED in row.q


def train_rows(path: Path, seed: int) -> Rows:
    """The rows of the filter's valid_pairs.jsonl.  What is kept of each takes about 150 bytes.

    BadInput names a line that is none, and refuses what the filter did not pass.
    """
    found = Rows(path, [], 0)
    for offset, row in _lines(path, Answered):
        if row.error is not None:
            raise BadInput(
                f"{path}:{found.lines + 1}: the filter did not pass this record (error: {row.error}); give its "
                "valid_pairs.jsonl"
            )
        thinking = thinking_of(row.r1_response)
        if thinking is None:
            found.lines, found.left_out = found.lines + 1, found.left_out + 1
            continue
        _noted(found, row)
        found.empty += not thinking.removeprefix(OPENS).removesuffix(CLOSES).strip()
        found.leaks.update(phrase for phrase in LEAKS if phrase in thinking.lower())
        for seen, one in ((found.models, row.model), (found.hosts, host_of(row.endpoint or ""))):
            if one and one not in seen and len(seen) < _MOST_SOURCES:
                seen.append(one)
        found.rows.append(Row(row.img_filename, rank(seed, row.img_filename, row.q), offset))
    if not found.rows:
        raise BadInput(f"{path} has no response with a thinking block; give the filter's valid_pairs.jsonl")
    return found


def validation_rows(path: Path, seed: int, items: int) -> Rows:
    """A random sample of `items` questions of a file of `r1mm distill questions`, or all if there are fewer."""
    found = Rows(path, [], 0)
    # Of negated ranks, so that the row which goes first when a better one comes is on top of the heap.
    sample: list[tuple[int, Row, str, bool]] = []
    for offset, row in _lines(path, Asked):
        found.lines += 1
        place = rank(seed, row.img_filename, row.q)
        entry = (
            -int.from_bytes(place, "big"),
            Row(row.img_filename, place, offset),
            normal(row.a),
            DESCRIBED in row.q,
        )
        (heapq.heappush if len(sample) < items else heapq.heappushpop)(sample, entry)
    if not sample:
        raise BadInput(f"{path} has no lines; give what `r1mm distill questions` wrote for the split")
    found.rows = [row for _, row, _, _ in sample]
    found.answers.update(answer for _, _, answer, _ in sample)
    found.described = sum(described for *_, described in sample)
    return found
