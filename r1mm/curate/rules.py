"""Which rewritten items can be learnt from: what can be verified, and was not made wrong on the way.

Upstream's published filter (see `r1mm.curate`) drops a row with an empty tag, with "Answer:" in its problem, or whose
picture does not open or has a side under 28 px.  Whether the answer is right, or could ever be compared, it does not
ask; a verification that its data went through before ("..._90k_verified") is not published.  EvolvingLMMs-Lab/
open-r1-multimodal#9 shows what came of it: thoughts that come to C under the answer A.

The rules here ask all of that and, our choice:

- form: one problem, one thinking block, one answer, each in its tag, in this order, and nothing after them.
- empty: none of the three is blank.
- answer-label: no "Answer:" in the problem, in whatever case, bold, with a blank before the colon or a wide one.
- image, small-image: the picture decodes, and has 28 px and more each way.
- unverifiable: the original answer is one number, expression, option, or yes or no.  Free text, several answers,
  proofs are not: who compares them with a rule rewards words.
- no-truth: the rewritten answer is one too.
- differs: it says the same as the original answer; by the options' texts where both know them, so that a letter may
  change with the order of the options.
- options-lost: a letter has options to be chosen from, in the problem as in the question.
- options-alike: no other option says the same as the right one.
- not-an-option: where the problem has options, the answer is one of them.
- thoughts-differ: where the thoughts state an answer, it is not another letter or value than the one in the tag.
- giveaway: a value that is the answer is not in the problem's text, unless it was in the question's; options aside.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from r1mm.answers.judging import LETTERS, Truth, interpret, judge, same, truth_of
from r1mm.answers.options import find_options
from r1mm.answers.places import found_by_rule, statement
from r1mm.answers.values import listed, same_value, split_unit, value_of
from r1mm.curate.pictures import Seen
from r1mm.errors import BadInput

RULES = (
    *("form", "empty", "answer-label", "image", "small-image", "unverifiable", "no-truth", "differs", "options-lost"),
    *("options-alike", "not-an-option", "thoughts-differ", "giveaway"),
)
_TAGS = ("problem", "think", "answer")
_PARTS = re.compile(
    r"<problem>(?P<problem>.*?)</problem>\s*<think>(?P<think>.*?)</think>\s*<answer>(?P<answer>.*?)</answer>\s*$",
    re.DOTALL,
)
_LABEL = re.compile(r"\banswer\b[\s*_]*[:\uff1a]", re.IGNORECASE)
_PROOF = re.compile(r"\b(?:prove|proof|show that|justify|explain (?:why|how|your))\b|\u8bc1\u660e", re.IGNORECASE)
_POLAR = ("yes", "no", "true", "false")
# What upstream's has_empty_tags looks for: any two tags with nothing between them.
_UPSTREAMS_EMPTY = re.compile(r"<[^>]+></[^>]+>")


class Parts(NamedTuple):
    """What a response was asked for."""

    problem: str
    thoughts: str
    answer: str

    @property
    def solution(self) -> str:
        """The column `solution`, in upstream's form."""
        return f"<think>{self.thoughts}</think>\n\n<answer>{self.answer}</answer>"


class Original(NamedTuple):
    """The question as its source has it, and all that the source said in answer."""

    question: str
    answer: str


def parts_of(response: str) -> Parts | None:
    """The three parts of a response; None where it is of another form.

    What stands before the last `<problem>` is the thinking of a model that thinks before it writes.
    """
    _, opened, rest = response.rpartition("<problem>")
    found = _PARTS.match(opened + rest)
    if not found or any(f"<{tag}>" in found[part] or f"</{tag}>" in found[part] for tag in _TAGS for part in _TAGS):
        return None
    return Parts(*(found[tag].strip() for tag in _TAGS))


def truth_or_why(answer: str, problem: str) -> tuple[Truth | None, str]:
    """The one thing that an answer comes to and that can be compared; or None, and why there is none."""
    if _PROOF.search(problem):
        return None, "the question asks for a proof or an explanation"
    found = next(found_by_rule(answer), None)
    if found is None or not found.texts[-1].strip():
        return None, f"no answer is stated in {_shown(answer)}"
    text = found.texts[-1]
    try:
        truth = truth_of(text, problem)
    except BadInput:
        return None, f"no answer is stated in {_shown(answer)}"
    if truth.letter is not None:
        return truth, ""
    said = truth.text or ""
    options = find_options(problem)
    meant = interpret(said, options, options or LETTERS)
    if len(listed(said)) > 1 or meant.fault == "two answers":
        return None, f"several answers: {_shown(said)}"
    if value_of(said) is not None or said.casefold().strip(" .") in _POLAR:
        return truth, ""
    return None, f"free text: {_shown(said)}"


def check(parts: Parts | None, original: Original, picture: Seen) -> dict[str, str]:
    """The rules that an item breaks, each with what was seen; {} where it passes.  Its order is that of RULES."""
    found: dict[str, str] = {}
    if parts is None:
        found["form"] = "not one <problem>, <think> and <answer> in this order, and nothing after them"
    elif empty := [tag for tag, text in zip(_TAGS, parts, strict=True) if not text]:
        found["empty"] = f"nothing in {', '.join(f'<{tag}>' for tag in empty)}"
    if picture.fault:
        found[picture.fault] = picture.why
    truth, why = truth_or_why(original.answer, original.question)
    if truth is None:
        found["unverifiable"] = why
    if parts is not None and all(parts):
        found |= _check_parts(parts, original, truth)
    return {rule: found[rule] for rule in RULES if rule in found}


def _check_parts(parts: Parts, original: Original, truth: Truth | None) -> dict[str, str]:
    found: dict[str, str] = {}
    if label := _LABEL.search(parts.problem):
        found["answer-label"] = f"{label[0]!r} in the problem"
    rewritten, why = truth_or_why(parts.answer, parts.problem)
    if rewritten is None:
        found["no-truth"] = why
        return found
    options = find_options(parts.problem)
    if rewritten.letter and not options and any(find_options(original.question).values()):
        found["options-lost"] = f"answer {rewritten.letter}, and no options in the problem"
    elif truth is not None and not agree(rewritten, truth):
        found["differs"] = f"{_told(rewritten)} instead of {_told(truth)}"
    if options and rewritten.letter not in options:
        found["not-an-option"] = f"{_told(rewritten)} is none of {', '.join(map(repr, options.values()))}"
    elif alike := _alike(rewritten, options):
        found["options-alike"] = f"options {', '.join(alike)} say the same"
    if stated := _contradiction(parts.thoughts, rewritten, options):
        found["thoughts-differ"] = f"thoughts state {_shown(stated)}, the answer is {_told(rewritten)}"
    if not options and (value := _given_away(rewritten, parts.problem, original.question)):
        found["giveaway"] = f"{value} is in the problem and was not in the question"
    return found


def agree(rewritten: Truth, truth: Truth) -> bool:
    """Whether two answers say the same, each read beside its own options."""
    if rewritten.text and truth.text:
        return judge(rewritten.text, Truth(None, truth.text), {}).right
    # A letter without a text is one of options that stand in the picture.
    return rewritten.letter is not None and rewritten.letter == truth.letter


def upstream_keeps(parts: Parts | None, picture: Seen) -> bool:
    """Whether upstream's published filter would have kept the row."""
    if parts is None or picture.fault:
        return False
    return not _UPSTREAMS_EMPTY.search(parts.solution) and "Answer:" not in parts.problem


def _alike(truth: Truth, options: Mapping[str, str]) -> list[str]:
    mine = options.get(truth.letter or "", "")
    alike = [letter for letter, text in options.items() if mine and text and same(text, mine)]
    return alike if len(alike) > 1 else []


def _contradiction(thoughts: str, truth: Truth, options: Mapping[str, str]) -> str | None:
    """The answer that thoughts state last, where it is another letter or value; prose that is neither is not read."""
    stated = statement(thoughts)
    if stated is None:
        return None
    meant = interpret(stated, options, options or (LETTERS if truth.letter else ""))
    if meant.letter and truth.letter:
        return stated if meant.letter != truth.letter else None
    if truth.text and value_of(meant.text) and value_of(truth.text) and not same_value(meant.text, truth.text):
        return stated
    return None


def _given_away(truth: Truth, problem: str, question: str) -> str | None:
    if truth.text is None or value_of(truth.text) is None:
        return None
    value = split_unit(truth.text)[0].strip()
    token = re.compile(rf"(?<![\w.]){re.escape(value)}(?![\w]|\.\d)")
    return value if token.search(problem) and not token.search(question) else None


def _told(truth: Truth) -> str:
    return " ".join(filter(None, (truth.letter, _shown(truth.text) if truth.text else None)))


def _shown(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= 60 else f"...{text[-57:]}")
