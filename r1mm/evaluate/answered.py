"""The scorer `answer`: any kind of answer, in its tag and in its form, right as letter, text or value.

Ours, for sets whose items are answered by numbers, letters, fractions or degrees as they come, such as
open-r1-multimodal's.  What an item asks for is told by its truth: a letter where that is one of the options in the
problem's text, else a value.  Strictly, an answer counts that stands in `<answer>` and is nothing but an answer; what
is right is told by `r1mm.answers.judging`.  Leniently, an answer found by force counts too, so that what the strict
marks lose by form alone can be seen.
"""

from r1mm.answers.judging import Truth, interpret, truth_of
from r1mm.answers.options import find_options
from r1mm.answers.places import Rule
from r1mm.answers.values import plain
from r1mm.evaluate import choices
from r1mm.evaluate.asked import Asked
from r1mm.evaluate.forms import Form, answer_in_form, found_by_force, right, right_by_force

_PLACES: tuple[Rule, ...] = ("tag",)


def asked_and_truth(problem: str, solution: str) -> tuple[Asked, str]:
    """What a problem asks for, and its truth: a letter, or a value's text.  Raises BadInput for an empty solution."""
    options, truth = find_options(problem), truth_of(solution, problem)
    if truth.letter and truth.letter in options:
        return Asked(kind="letter", options=tuple(options.values())), truth.letter
    return Asked(kind="value"), truth.text or truth.letter or ""


def _form(asked: Asked) -> Form:
    return "choice" if asked.kind == "letter" else "math"


def _options(asked: Asked) -> dict[str, str]:
    return dict(zip(asked.letters, asked.options, strict=True))


def _truths(asked: Asked, truth: str) -> list[Truth]:
    return [Truth(truth, _options(asked)[truth]) if asked.kind == "letter" else Truth(None, truth)]


def _short(asked: Asked, text: str) -> str | None:
    """An answer as it is recorded: the letter that it means, or the text as it is."""
    if asked.kind == "letter":
        return interpret(text, _options(asked), asked.letters).letter
    return plain(text) or None


def parse(asked: Asked, completion: str) -> str | None:
    """The answer in its tag, in the form that is asked for; None where there is none."""
    text = answer_in_form(_form(asked), completion, _options(asked), _PLACES)
    return None if text is None else _short(asked, text)


def is_right(asked: Asked, completion: str, truth: str) -> bool:
    """Whether the answer is in its form, and right."""
    text = answer_in_form(_form(asked), completion, _options(asked), _PLACES)
    return text is not None and right(text, _truths(asked, truth), _options(asked))


def parse_leniently(asked: Asked, completion: str) -> str | None:
    """The words in which an answer is found by force; None where there are none."""
    found = found_by_force(_form(asked), completion, _options(asked))
    return None if found is None else found.texts[0]


def is_right_leniently(asked: Asked, completion: str, truth: str) -> bool:
    """Whether the answer is right when it is read by force, or in its form."""
    form, options = _form(asked), _options(asked)
    found = found_by_force(form, completion, options)
    forced = right_by_force(form, found, completion, _truths(asked, truth), options)
    return forced or is_right(asked, completion, truth)


def is_bare(_: Asked, completion: str) -> bool:
    """Whether an output is an answer tag and nothing else."""
    return choices.is_bare_choice(completion)
