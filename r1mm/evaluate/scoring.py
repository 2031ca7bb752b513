"""An evaluated output and its marks, for every kind of task, on fresh outputs and on recorded ones alike."""

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, ValidationError, model_serializer

from r1mm.data.prompts import THOUGHT_THEN_ANSWER
from r1mm.errors import BadInput
from r1mm.evaluate import answered, choices, counting, expressions, mathvista, mmmu
from r1mm.evaluate.asked import Asked
from r1mm.rundir import read_jsonl

Scorer = Literal["counting", "math", "choice", "answer", "mmmu", "mathvista"]
Truth = int | str  # a number for counting, a letter for a question with options, else text

_THOUGHT = re.compile(THOUGHT_THEN_ANSWER, re.DOTALL)


class Output(BaseModel):
    """One evaluated output.  `tokens` counts the completion without its end token; `parsed` is None if unparsable.

    `correct` is upstream's rule of the task, `lenient` whether a benevolent reader would count it as right; what is
    correct is right leniently too.  `format`: thinks, then answers, over any number of lines.  `direct`: nothing but
    the answer tag.  `asked`: the form of the answer, in tasks whose items differ in it; written only there.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    item: str
    prompt: str
    completion: str
    tokens: int
    truth: int | str
    parsed: int | str | None
    correct: bool
    lenient: bool
    format: bool
    direct: bool
    asked: Asked | None = None

    @model_serializer(mode="wrap")
    def _without_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        whole: dict[str, Any] = handler(self)
        return {name: value for name, value in whole.items() if name != "asked" or value is not None}


@dataclass(frozen=True)
class Rules:
    """How the outputs of one kind of task are read.  Both rights take (completion, truth)."""

    parse: Callable[[str], Truth | None]
    parse_leniently: Callable[[str], Truth | None]
    right: Callable[[str, Any], bool]
    right_leniently: Callable[[str, Any], bool]
    bare: Callable[[str], bool]
    truth: Callable[[str], Truth | None]
    truth_form: str


_RULES: dict[str, Rules] = {
    "counting": Rules(
        parse=counting.parse_count,
        parse_leniently=counting.parse_count_leniently,
        right=lambda completion, truth: counting.parse_count(completion) == truth,
        right_leniently=lambda completion, truth: counting.parse_count_leniently(completion) == truth,
        bare=counting.is_bare_count,
        truth=counting.count_of_truth,
        truth_form="a whole number, as in '<answer> 3 </answer>' or 3",
    ),
    "math": Rules(
        parse=expressions.parse_expression,
        parse_leniently=expressions.parse_expression_leniently,
        right=expressions.is_right,
        right_leniently=expressions.is_right_leniently,
        bare=expressions.is_bare_answer,
        truth=expressions.expression_of_truth,
        truth_form="text, as in '<answer> 140° </answer>' or '140°'",
    ),
    "choice": Rules(
        parse=choices.parse_letter,
        parse_leniently=choices.parse_letter_leniently,
        right=lambda completion, truth: choices.parse_letter(completion) == truth,
        right_leniently=lambda completion, truth: choices.parse_letter_leniently(completion) == truth,
        bare=choices.is_bare_choice,
        truth=choices.letter_of_truth,
        truth_form="the letter of an option, as in '<answer>B.</answer>' or 'B'",
    ),
}


def _truth_as_asked(asked: Asked, text: str) -> Truth | None:
    text = text.strip()
    if asked.kind == "letter":
        letter = choices.letter_of_truth(text)
        return letter if letter is not None and letter in asked.letters else None
    return text or None


@functools.lru_cache(maxsize=4096)
def rules_of(scorer: Scorer, asked: Asked | None = None) -> Rules:
    """How outputs are read under a scorer; of `answer`, `mmmu` and `mathvista` those to an item that asks for `asked`.

    Raises BadInput where these are not told what was asked for.
    """
    if scorer in _RULES:
        return _RULES[scorer]
    if asked is None:
        raise BadInput(
            f"the scorer {scorer} needs of each output what was asked for, and this one has no `asked`; give "
            "outputs that r1mm has written"
        )
    room: Any = {"answer": answered, "mmmu": mmmu, "mathvista": mathvista}[scorer]
    return Rules(
        parse=functools.partial(room.parse, asked),
        parse_leniently=functools.partial(room.parse_leniently, asked),
        right=functools.partial(room.is_right, asked),
        right_leniently=functools.partial(room.is_right_leniently, asked),
        bare=functools.partial(room.is_bare, asked),
        truth=functools.partial(_truth_as_asked, asked),
        truth_form=f"one of {', '.join(asked.letters)}" if asked.options else f"a text, of kind {asked.kind}",
    )


def truth_of(scorer: Scorer, given: Any, where: str, asked: Asked | None = None) -> Truth:
    """The truth in a dataset's solution or a recorded ground truth.  BadInput, naming `where`, when there is none."""
    if isinstance(given, int) and not isinstance(given, bool):
        given = str(given)
    rules = rules_of(scorer, asked)
    found = rules.truth(given) if isinstance(given, str) else None
    if found is None:
        raise BadInput(f"{where}: the truth {given!r} is not {rules.truth_form}; correct the data")
    return found


def asked_and_truth(scorer: Scorer, problem: str, solution: Any, where: str) -> tuple[Asked | None, Truth]:
    """What an item of a set asks for, where the scorer's items differ in it, and its truth.  BadInput as `truth_of`."""
    if scorer != "answer":
        return None, truth_of(scorer, solution, where)
    solution = str(solution) if isinstance(solution, str | int | float) else ""
    return answered.asked_and_truth(problem, solution, where)


def score(
    scorer: Scorer,
    *,
    item: str,
    prompt: str,
    completion: str,
    tokens: int,
    truth: Truth,
    asked: Asked | None = None,
) -> Output:
    """An output with its marks.  `asked`: what its item asks for, of a scorer whose items differ in it."""
    rules = rules_of(scorer, asked)
    return Output(
        item=item,
        prompt=prompt,
        completion=completion,
        tokens=tokens,
        truth=truth,
        parsed=rules.parse(completion),
        correct=rules.right(completion, truth),
        lenient=rules.right_leniently(completion, truth),
        format=_THOUGHT.fullmatch(completion.strip()) is not None,
        direct=rules.bare(completion),
        asked=asked,
    )


def rescored(scorer: Scorer, output: Output, where: str) -> Output:
    """An output marked anew from its text.  BadInput, naming `where`, when its truth is not of the scorer's kind."""
    return score(
        scorer,
        item=output.item,
        prompt=output.prompt,
        completion=output.completion,
        tokens=output.tokens,
        truth=truth_of(scorer, output.truth, where, output.asked),
        asked=output.asked,
    )


def _with_lenient_mark(row: dict[str, Any]) -> dict[str, Any]:
    """A row from before outputs had that mark, when counting was the only task, with it."""
    if "lenient" in row or not isinstance(row.get("completion"), str):
        return row
    return {**row, "lenient": _RULES["counting"].right_leniently(row["completion"], row.get("truth"))}


def read_outputs(path: Path) -> list[Output]:
    """Evaluated outputs from our JSON lines.  BadInput names the file and line that is none."""
    outputs = []
    for number, row in enumerate(read_jsonl(path), 1):
        try:
            outputs.append(Output.model_validate(_with_lenient_mark(row)))
        except ValidationError as error:
            first = error.errors()[0]
            raise BadInput(f"{path}:{number}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    if not outputs:
        raise BadInput(f"{path} holds no outputs")
    return outputs


def summary(scorer: Scorer, outputs: Sequence[Output]) -> dict[str, Any]:
    """Counts over scored outputs.  `recovered`: unparsed ones in which the lenient rule finds an answer."""
    n, right = len(outputs), sum(output.correct for output in outputs)
    lenient = sum(output.lenient for output in outputs)
    unparsed = [output for output in outputs if output.parsed is None]
    return {
        "n": n,
        "right": right,
        "accuracy": round(100 * right / n, 2),
        "unparsed": len(unparsed),
        "lenient_right": lenient,
        "lenient_accuracy": round(100 * lenient / n, 2),
        "recovered": sum(
            rules_of(scorer, output.asked).parse_leniently(output.completion) is not None for output in unparsed
        ),
        "format": sum(output.format for output in outputs),
        "bare": sum(output.direct for output in outputs),
    }
