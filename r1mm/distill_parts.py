"""The part of a miniature's recipe about its distillation: what is asked, who answers and how, what is kept."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from r1mm.sourced import Setting, Strict

Share = Annotated[float, Field(ge=0, le=1)]
# Questions in CLEVR's words: how many there are; how two numbers compare, with the word number in it and without; which
# colour one object has.
QuestionKind = Literal["count", "compare", "more", "color"]
# What goes wrong in an answer.  `forgets` one object; `repeats` one; `cancels`: both, so that the number is right
# again; `guesses` without going through the description; `miscounts`: names all and comes to a wrong number;
# `misstates`: thinks the right number and answers another.
Mistake = Literal["forgets", "repeats", "cancels", "guesses", "miscounts", "misstates"]
# How an answer ends.  `labelled`: as the prompt may ask; `conclusion`: "the answer is **3**"; `plain`: the number is in
# the thoughts alone; `words`: spelled out; `untagged`: labelled, but its thoughts stand in no tags; `breaks-off`: it
# stops within its thoughts; `endless`: it checks again and again, until it is cut.
Ending = Literal[
    "labelled", "conclusion", "bold", "boxed", "there-are", "plain", "words", "untagged", "breaks-off", "endless"
]


def _sums_to_one(what: str, shares: Mapping[Any, float]) -> None:
    if abs(sum(shares.values()) - 1) > 1e-9:
        raise ValueError(f"{what} sum to {sum(shares.values()):g}; they must sum to 1")


class Habits(Strict):
    """How often the scripted reasoner does what, in shares of its answers.

    `mistakes`: of each kind; in the rest of its answers it thinks soundly, `rechecks` of these after a slip that it
    notices.  `concludes`: how often its thoughts say what they come to before they close; they do anyway where nothing
    else would show it.  `endings`: of each kind, which sum to 1.  `obeys`: how often it ends `labelled` where the
    prompt asks for it, whatever `endings` say.
    """

    mistakes: dict[Mistake, Share]
    rechecks: Share
    concludes: Share
    endings: dict[Ending, Share]
    obeys: Share

    @model_validator(mode="after")
    def _are_shares(self) -> "Habits":
        if sum(self.mistakes.values()) > 1 + 1e-9:
            raise ValueError(f"mistakes sum to {sum(self.mistakes.values()):g}; they must sum to 1 at most")
        _sums_to_one("endings", self.endings)
        return self


class Distill(Strict):
    """Questions about the pictures of the set `scenes`, `per_picture` of them in shares `kinds`, put to the reasoner.

    `seed` is of the questions and of the reasoner.  `prompt`: upstream's first or second, which asks for a mark before
    the answer.  `max_tokens`: where an answer is cut.  `rules`: which decide what is kept.  `problem`: the problems'
    words, upstream's or ours, which speak of the image.
    """

    scenes: Setting[str]
    per_picture: Setting[Annotated[int, Field(gt=0)]]
    kinds: Setting[dict[QuestionKind, Share]]
    seed: Setting[int]
    prompt: Setting[Literal["v1", "v2"]]
    reasoner: Setting[Habits]
    max_tokens: Setting[Annotated[int, Field(gt=0)]]
    rules: Setting[Literal["upstream", "strict"]]
    problem: Setting[Literal["upstream", "ours"]]

    @model_validator(mode="after")
    def _kinds_are_shares(self) -> "Distill":
        _sums_to_one("kinds", self.kinds.value)
        return self
