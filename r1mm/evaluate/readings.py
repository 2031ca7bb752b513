"""Evaluated outputs read twice, so that form and answer come apart: as the prompt asks, and by force.

Of records as they are, offline: an output's text, its prompt and its truth are all that is needed.  The marks in the
record keep their meaning; the two readings here are our own, the same for every task.

- *Parseable*: the answer stands where the prompt asks for it and in the form of the task: a number and nothing else, a
  value and nothing else, an option's letter at the start, or, where any words may answer, a line.  Where the prompt
  names `<answer>`, it stands in that tag, closed and after the thoughts, in all of them the same; where it does not, a
  bare answer counts too.  Whether there are thoughts is not asked: that is the record's mark `format`.
- *Forced*: the first rule of `r1mm.answers.places` whose words say something of the task's kind.  In the last words,
  any letter or value does, the last: the lenient rules of `choices`, `counting` and `expressions`.

For counting and letters that is the task's own strict rule, but for tags in thoughts and tags that disagree, so that
accuracies are those of the record.  Geometry's rule looks at the whole output and not at its form: there they are not.
An answer that does not choose (`A or B`) is not parseable, and wrong where it is forced.  Both readings judge by
`r1mm.answers.judging`: letter, text or value.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from r1mm.answers.judging import Truth, truth_of
from r1mm.answers.options import find_options
from r1mm.answers.places import Rule
from r1mm.evaluate import answered
from r1mm.evaluate.asked import Kind, literal_list
from r1mm.evaluate.forms import Form, answer_in_form, found_by_force, right, right_by_force
from r1mm.evaluate.scoring import Output, Scorer


@dataclass(frozen=True)
class Reading:
    """One output, read both ways.  `right` needs `parseable`; `forced` is the rule that found an answer, if one did.

    `forced` is "asked" where another reader was asked (`readings_of`).
    """

    item: str
    parseable: bool
    right: bool
    forced: Rule | Literal["asked"] | None
    forced_right: bool


@dataclass(frozen=True)
class Unread:
    """An output in which no rule finds an answer, and the question it was given to."""

    item: str
    question: str
    completion: str


# Of outputs without an answer, what they answer, by item, as text; items that it leaves out stay without one.
Ask = Callable[[Sequence[Unread]], Mapping[str, str]]


def question_of(prompt: str, template: str | None) -> str:
    """The question in a prompt: what stands where the template has {question}; the whole prompt where it is another."""
    before, _, after = (template or "{question}").partition("{question}")
    fits = prompt.startswith(before) and prompt.endswith(after) and len(prompt) >= len(before) + len(after)
    return prompt[len(before) : len(prompt) - len(after)] if fits else prompt


def _form(scorer: Scorer, output: Output) -> Form:
    """The scorer's kind of answer, or that which the item asks for, where items differ (`asked`)."""
    if output.asked is None:
        assert scorer in ("counting", "math", "choice")  # outputs of the others carry what was asked
        return scorer
    if scorer == "answer":
        return answered.form_of(output.asked)
    forms: dict[Kind, Form] = {"letter": "choice", "list": "text", "text": "text"}
    return forms.get(output.asked.kind, "math")


def _options(form: Form, output: Output, question: str) -> dict[str, str]:
    if output.asked is not None:
        return output.asked.by_letter
    return {} if form == "counting" else find_options(question)


def _truths(scorer: Scorer, form: Form, output: Output, question: str, options: Mapping[str, str]) -> list[Truth]:
    """The right answers, of which one is enough: several where the dataset lists them (MMMU's open questions)."""
    truth = str(output.truth)
    if scorer == "answer" and output.asked is not None:
        return answered.truths_of(output.asked, truth)
    if form == "choice":
        return [Truth(truth, options.get(truth))]
    if output.asked is None:
        return [truth_of(truth, question)]
    listed = literal_list(truth) if output.asked.kind == "text" else None
    return [Truth(None, str(one)) for one in listed or [truth]]


def read_output(scorer: Scorer, output: Output, template: str | None = None) -> Reading:
    """An output read both ways.  `template`: what its prompt was made with, to tell question and instructions apart."""
    form, question = _form(scorer, output), question_of(output.prompt, template)
    options = _options(form, output, question)
    truths = _truths(scorer, form, output, question, options)
    places: tuple[Rule, ...] = ("tag",) if "<answer>" in output.prompt else ("tag", "bare")
    text = answer_in_form(form, output.completion, options, places)
    forced = found_by_force(form, output.completion, options)
    return Reading(
        item=output.item,
        parseable=text is not None,
        right=text is not None and right(text, truths, options),
        forced=forced.rule if forced else None,
        forced_right=right_by_force(form, forced, output.completion, truths, options),
    )


def readings_of(
    scorer: Scorer, outputs: Sequence[Output], template: str | None = None, ask: Ask | None = None
) -> list[Reading]:
    """Every output read both ways, in order.

    `ask`: another reader, a person or a model, for the outputs in which no rule finds an answer; what it says is judged
    as an answer found by force is.
    """
    readings = [read_output(scorer, output, template) for output in outputs]
    if ask is None:
        return readings
    unread = {output.item: output for output, reading in zip(outputs, readings, strict=True) if reading.forced is None}
    questions = {item: question_of(output.prompt, template) for item, output in unread.items()}
    answers = ask([Unread(item, questions[item], output.completion) for item, output in unread.items()])
    return [
        _asked(scorer, reading, unread[reading.item], questions[reading.item], answers[reading.item])
        if reading.item in unread and reading.item in answers
        else reading
        for reading in readings
    ]


def _asked(scorer: Scorer, reading: Reading, output: Output, question: str, answer: str) -> Reading:
    form = _form(scorer, output)
    options = _options(form, output, question)
    truths = _truths(scorer, form, output, question, options)
    return replace(reading, forced="asked", forced_right=right(answer, truths, options))


def counts(readings: Sequence[Reading]) -> dict[str, int]:
    """How many outputs are parseable and right so, have an answer by force and are right so."""
    return {
        "parseable": sum(reading.parseable for reading in readings),
        "parseable_right": sum(reading.right for reading in readings),
        "found_by_force": sum(reading.forced is not None for reading in readings),
        "right_by_force": sum(reading.forced_right for reading in readings),
    }
