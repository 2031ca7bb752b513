"""The scorer `answer`: any kind of answer, in its tag, right as letter, text or value.

Ours, for sets whose items are answered by numbers, letters, fractions or degrees as they come, such as
open-r1-multimodal's, and the counterpart of the reward `answer`.  What an item asks for is told by its truth: an option
of those in the problem's text, a value, or a text.  Strictly, an answer counts that stands in `<answer>`: one option in
whatever words, a value and nothing else, or a line of words; what is right is told by `r1mm.answers.judging`.
Leniently, an answer found by force counts too, so that what the strict marks lose by form alone can be seen.
"""

from r1mm.answers.judging import LETTERS, Truth, interpret, truth_of
from r1mm.answers.options import find_options
from r1mm.answers.places import Rule
from r1mm.answers.values import plain, value_of
from r1mm.errors import BadInput
from r1mm.evaluate import choices
from r1mm.evaluate.asked import Asked
from r1mm.evaluate.forms import Form, answer_in_form, found_by_force, right, right_by_force

_PLACES: tuple[Rule, ...] = ("tag",)


def asked_and_truth(problem: str, solution: str, where: str) -> tuple[Asked, str]:
    """What a problem asks for, and its truth: a letter of its options, or the text of a value or of words.

    Raises BadInput, naming `where`, for a solution that holds no answer, or one that could not be given in its form.
    """
    try:
        options, truth = find_options(problem), truth_of(solution, problem)
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from error
    text = truth.text or truth.letter or ""
    if truth.letter and truth.letter in options:
        asked, text = Asked(kind="letter", options=tuple(options.values())), truth.letter
    else:
        asked = Asked(kind="text" if value_of(text) is None else "value")
    if not is_right(asked, f"<answer>{text}</answer>", text):
        raise BadInput(
            f"{where}: the truth {text!r} would itself not be read as one right answer; correct the data, or give the "
            "task another scorer"
        )
    return asked, text


def form_of(asked: Asked) -> Form:
    """What is read for: words, or an option or value."""
    return "text" if asked.kind == "text" else "math"


def truths_of(asked: Asked, truth: str) -> list[Truth]:
    """The right answer; of a lone letter, whose options are in the picture, as a letter."""
    if asked.kind == "letter":
        return [Truth(truth, asked.by_letter[truth])]
    return [Truth(truth, None) if truth in LETTERS else Truth(None, truth)]


def _in_form(asked: Asked, completion: str) -> str | None:
    return answer_in_form(form_of(asked), completion, asked.by_letter, _PLACES)


def parse(asked: Asked, completion: str) -> str | None:
    """The answer in its tag, in the form that is asked for: an option by its letter, else the text; None without."""
    text = _in_form(asked, completion)
    if text is None:
        return None
    return interpret(text, asked.by_letter, asked.letters).letter or plain(text) or None


def is_right(asked: Asked, completion: str, truth: str) -> bool:
    """Whether the answer is in its form, and right."""
    text = _in_form(asked, completion)
    return text is not None and right(text, truths_of(asked, truth), asked.by_letter)


def parse_leniently(asked: Asked, completion: str) -> str | None:
    """The words in which an answer is found by force; None where there are none."""
    found = found_by_force(form_of(asked), completion, asked.by_letter)
    return None if found is None else found.texts[0]


def is_right_leniently(asked: Asked, completion: str, truth: str) -> bool:
    """Whether the answer is right when it is read by force, or in its form."""
    form, options = form_of(asked), asked.by_letter
    found = found_by_force(form, completion, options)
    forced = right_by_force(form, found, completion, truths_of(asked, truth), options)
    return forced or is_right(asked, completion, truth)


def is_bare(_: Asked, completion: str) -> bool:
    """Whether an output is an answer tag and nothing else."""
    return choices.is_bare_choice(completion)
