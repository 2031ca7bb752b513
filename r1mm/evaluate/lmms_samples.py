"""What lmms-eval wrote of each item, as our outputs.

Known are the multiple-choice tasks whose metric keeps, per item, its name, the right letter and the letter that was
read: LongVideoBench's `lvb_acc`.  How that letter is read decides numbers:

- The first capital A, B, C, D or E anywhere in the text is the answer: "Based on the clip, ..." answers B.
- A text without any is given a letter by chance.  Such an output is `parsed` None here, its mark is lmms-eval's.
- lmms-eval 0.7.3 takes `<think>...</think>` away before it looks; 0.3.0, of the time of Open-R1-Video's numbers, looked
  at the thoughts too.  Both end an answer at its first blank line unless the task says otherwise, as ours does.
  `letter_of` gives either reading of a kept output, so that a run's page shows the older one beside the other.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1mm.data.prompts import THOUGHT_THEN_ANSWER
from r1mm.errors import BadInput
from r1mm.evaluate.scoring import Output
from r1mm.evaluate.thoughts import never_ends_thinking, without_thoughts
from r1mm.rundir import read_jsonl

# lmms-eval==0.7.3:tasks/longvideobench/utils.py: phrases that are taken out first; of all that are, only these two
# hold a letter that could be taken for an answer.
_PHRASES = ("Best answer:", "Best option:")
_LETTER = re.compile(r"[ABCDE]")
_THOUGHT = re.compile(THOUGHT_THEN_ANSWER, re.DOTALL)
_BARE = re.compile(r"<answer>\s*[A-E]\.?\s*</answer>|[A-E]\.?")
# A letter that stands as an answer does: before a full stop, bracket, colon or comma, or at the end of its line.
_ALONE = re.compile(r"(?<![A-Za-z0-9])([A-E])(?=[.):,\]*]|[ \t]*(?:$|\n|<))")


@dataclass(frozen=True)
class LetterMetric:
    """Where a task's metric keeps an item's name, its right letter and the letter that was read."""

    name: str
    item: str
    truth: str
    letter: str


METRICS = (LetterMetric(name="lvb_acc", item="id", truth="answer", letter="parsed_pred"),)


def letter_of(text: str, *, thoughts: bool = False, to_blank_line: bool = False) -> str | None:
    """The letter that lmms-eval reads out of an output; None where it would draw one by chance.

    `thoughts`: they are searched too, as 0.3.0 did.  `to_blank_line`: the text ends at its first blank line.
    """
    if to_blank_line:
        text = text.partition("\n\n")[0]
    if not thoughts:
        text = without_thoughts(text)
    for phrase in _PHRASES:
        text = text.replace(phrase, "")
    found = _LETTER.search(text)
    return found.group() if found else None


def letter_leniently(text: str) -> str | None:
    """The letter that a benevolent reader would take an output to answer with, or None.

    In the last `<answer>`, else in what follows the thoughts: the last letter that stands as an answer does, so that
    the article in "A man waves" is none.
    """
    _, tag, after = text.rpartition("<answer>")
    if tag:
        part = after.partition("</answer>")[0]
    elif never_ends_thinking(text):
        return None
    else:
        part = without_thoughts(text)
    found = _ALONE.findall(part)
    return found[-1] if found else None


def raw_text(row: Mapping[str, Any], where: str) -> str:
    """What was generated, thoughts and all.  BadInput where there is no single text."""
    # What was generated stands in `resps` where taking the thoughts away has changed it; as text or a list of one.
    value = row.get("resps", row.get("filtered_resps"))
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str):
        raise BadInput(
            f"{where}: has no single output (resps is {str(value)[:60]!r}); evaluate with one answer an item"
        )
    return value


def prompt_of(row: Mapping[str, Any], where: str) -> str:
    """What was asked, after the pictures or the clip.  BadInput where it is not written down."""
    prompt = row.get("input")
    if not isinstance(prompt, str):
        raise BadInput(f"{where}: has no text input (found {str(prompt)[:60]!r}); it was not written by lmms-eval 0.7")
    return prompt


def _metric_of(row: Mapping[str, Any], where: str) -> LetterMetric:
    for metric in METRICS:
        if isinstance(row.get(metric.name), Mapping):
            return metric
    raise BadInput(
        f"{where}: has none of the metrics that r1mm can read item by item ({', '.join(m.name for m in METRICS)}), but "
        f"{', '.join(row)}; name a task that has one"
    )


def _output(row: Mapping[str, Any], tokens: Mapping[str, int] | None, where: str) -> Output:
    metric = _metric_of(row, where)
    given = row[metric.name]
    values = {name: given.get(getattr(metric, name)) for name in ("item", "truth", "letter")}
    for name, value in values.items():
        if not isinstance(value, str):
            raise BadInput(f"{where}: {metric.name} has no text {getattr(metric, name)!r} (found {value!r})")
    completion, prompt = raw_text(row, where), prompt_of(row, where)
    letter = letter_of(completion)
    if letter is not None and letter != values["letter"]:
        raise BadInput(
            f"{where}: lmms-eval read {values['letter']!r} out of {completion[:80]!r}, r1mm knows its rule to give "
            f"{letter!r}; the file was written by another version, or with thoughts kept (reasoning_tags none)"
        )
    correct = values["letter"] == values["truth"]
    return Output(
        item=values["item"],
        prompt=prompt,
        completion=completion,
        tokens=0 if tokens is None else tokens[completion],
        truth=values["truth"],
        parsed=letter,
        correct=correct,
        lenient=correct or letter_leniently(completion) == values["truth"],
        format=_THOUGHT.fullmatch(completion) is not None,
        direct=_BARE.fullmatch(completion) is not None,
    )


def read_samples(path: Path, count_tokens: Any = None) -> list[Output]:
    """The outputs of a samples file that lmms-eval wrote, in its order.

    `correct` is lmms-eval's own mark, a letter drawn by chance included, as published numbers have it; `lenient` adds
    what a benevolent reader finds.  `count_tokens(texts)` gives the lengths of completions in tokens; they are 0
    without it, for lmms-eval does not record them.

    Raises BadInput, with the line, for what is no such file, an item twice, or a rule that is not the one known here.
    """
    rows = read_jsonl(path)
    if not rows:
        raise BadInput(f"{path} holds no items")
    texts = sorted({raw_text(row, f"{path}:{number}") for number, row in enumerate(rows, 1)})
    tokens = dict(zip(texts, count_tokens(texts), strict=True)) if count_tokens is not None else None
    outputs = [_output(row, tokens, f"{path}:{number}") for number, row in enumerate(rows, 1)]
    seen: set[str] = set()
    for number, output in enumerate(outputs, 1):
        if output.item in seen:
            raise BadInput(f"{path}:{number}: item {output.item!r} stands there twice; give the samples of one run")
        seen.add(output.item)
    return outputs


def check_total(outputs: Sequence[Output], results: Mapping[str, Any], where: str) -> None:
    """Raise BadInput where lmms-eval's own total is not that of the items, which then are not all there."""
    ours = sum(output.correct for output in outputs) / len(outputs)
    totals = {
        name: value
        for metrics in dict(results.get("results", {})).values()
        for name, value in dict(metrics).items()
        if name.partition(",")[0] in {metric.name for metric in METRICS} and isinstance(value, int | float)
    }
    if not totals or any(abs(value - ours) > 1e-4 for value in totals.values()):
        raise BadInput(
            f"{where}: lmms-eval's total is {totals or 'missing'}, its {len(outputs)} items give {ours:.5f}; the files "
            "are not of one run"
        )
