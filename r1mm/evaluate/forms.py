"""What an output answers, looked at in two ways: in the form that its task demands, and by force.

Of a text, whether it is one answer of the task's kind and nothing else; of a whole output, the answer where it belongs,
and the first that any rule of `r1mm.answers.places` finds.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from r1mm.answers.judging import LETTERS, Truth, interpret, judge, readings_alone
from r1mm.answers.places import Found, Rule, after_thoughts, found_by_rule
from r1mm.answers.values import equal, read, value_of
from r1mm.evaluate.choices import parse_letter, parse_letter_leniently
from r1mm.evaluate.counting import parse_count_leniently

# What is read for.
Form = Literal["counting", "math", "choice", "text"]


def says(form: Form, text: str, options: Mapping[str, str]) -> Literal["one", "several", "nothing"]:
    """How many answers of the task's kind a text gives."""
    meant = interpret(text, options, options or (LETTERS if form == "choice" else ""))
    if meant.fault:
        return "nothing" if meant.fault == "no answer" else "several"
    if meant.letter or form == "text":
        return "one"
    if form == "choice":
        return "nothing"
    return "one" if any(value_of(one) is not None for one in readings_alone(meant.text)) else "nothing"


def in_form(form: Form, text: str, options: Mapping[str, str]) -> bool:
    """Whether a text is one answer in the form of the task."""
    if form == "counting":
        return text.strip().isdecimal()
    one = says(form, text, options) == "one"
    if form == "choice":
        return one and parse_letter(text) is not None
    if form == "text":
        return one and "\n" not in text.strip()
    meant = interpret(text, options, options)
    return one and (meant.letter is not None or value_of(text) is not None)


def answer_in_form(form: Form, completion: str, options: Mapping[str, str], places: Collection[Rule]) -> str | None:
    """The answer of an output in one of `places` and in its form; None where it is elsewhere, or two tags disagree."""
    found = next(found_by_rule(completion), None)
    texts = {text.strip() for text in found.texts} if found is not None and found.rule in places else set()
    return texts.pop() if len(texts) == 1 and all(in_form(form, text, options) for text in texts) else None


def right(text: str, truths: Sequence[Truth], options: Mapping[str, str]) -> bool:
    """Whether the text of an answer is one of the right ones."""
    return any(judge(text, truth, options).right for truth in truths)


def found_by_force(form: Form, completion: str, options: Mapping[str, str]) -> Found | None:
    """Where an answer is found when any will do: the first rule whose words say something of the task's kind.

    In the last words any letter or value does, the last.
    """
    for found in found_by_rule(completion, forced=True):
        (text,) = found.texts
        if says(form, text, options) != "nothing":
            return found
        if found.rule == "last words" and _last_of(form, after_thoughts(completion) or "", text):
            return found
    return None


def right_by_force(
    form: Form, found: Found | None, completion: str, truths: Sequence[Truth], options: Mapping[str, str]
) -> bool:
    """Whether what `found_by_force` found is right."""
    if found is None:
        return False
    (text,) = found.texts
    if says(form, text, options) != "nothing":
        return right(text, truths, options)
    last = _last_of(form, after_thoughts(completion) or "", text)
    if form == "choice":
        return any(last == truth.letter for truth in truths)
    if form == "counting":
        return any(last == truth.text for truth in truths)
    return any(equal(last, read(truth.text or "")) for truth in truths)


def _last_of(form: Form, said: str, text: str) -> Any:
    """The last letter, count or value of an output; None or () where there is none."""
    if form == "choice":
        return parse_letter_leniently(said)
    if form == "counting":
        count = parse_count_leniently(said)
        return None if count is None else str(count)
    return read(text)
