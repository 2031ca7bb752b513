"""What a base model must have before it learns from the scripted reasoner's traces: their words, and eyes for them.

The tiny model reads the questions and writes the thoughts, so that its vocabulary must hold both.  What recurs is one
token each, so that prompts and traces stay short; questions come in parts, because what is learned of one is to hold of
another.  And as Qwen2-VL can say what is in a picture before anybody teaches it to reason, the warm start has
descriptions among its examples: traces teach to make use of what is seen, not to see.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from r1mm.data.counting import Example
from r1mm.data.prompts import QUESTIONS
from r1mm.mini.datasets import warm_start_examples
from r1mm.mini.language import LARGEST_COUNT, build_tokenizer
from r1mm.mini.questions import ANYTHING, COMPARE_PHRASES, COUNT_PHRASES, VALUES, plural_of
from r1mm.mini.reasoner import AMONG, CLOSERS, GLANCE, MISSED, NONE, OPENER, ORDINALS, listing
from r1mm.mini.scenes import Scene

# The places that a question may name; the reasoner's description becomes an image before it is learned from.
_PLACES = (" in the described scene", " in the image")
DESCRIBE = "Describe the image."
_READ, _SEEN = "scene description", "image"


def build_trace_tokenizer(templates: Sequence[str], palette: Sequence[str]) -> PreTrainedTokenizerFast:
    """The counting miniature's tokenizer, with the words of what is distilled."""
    return build_tokenizer(templates, palette, _question_phrases() | _thought_phrases(), _covered_texts())


def traced_examples(
    scenes: list[Scene], templates: dict[str, str], settings: dict[str, Any], seed: int
) -> Iterator[Example]:
    """As `warm_start_examples`; `describe_share` of the examples ask for a description instead, and get a true one."""
    rng = np.random.default_rng([seed, 1])
    for example in warm_start_examples(scenes, templates, settings, seed):
        if rng.random() < settings["describe_share"]:
            yield Example(example.item, DESCRIBE, description(scenes[example.item]))
        else:
            yield example


def description(scene: Scene) -> str:
    """A scene's objects from left to right, in the words of the traces."""
    from_left = sorted(scene["objects"], key=lambda thing: thing["pixel_coords"][0])
    return seen(listing([f"{thing['color']} {thing['shape']}" for thing in from_left]))


def seen(thought: str) -> str:
    """A thought about a description as one about the image that it stood for, as the distillation makes it."""
    return thought.replace(_READ, _SEEN)


def _question_phrases() -> set[str]:
    """The parts of the questions that recur, to the blank."""
    around = {part for phrase in (*COUNT_PHRASES, *COMPARE_PHRASES.values()) for part in _parts(phrase)}
    return around | set(_PLACES)


def _parts(phrase: str) -> Iterable[str]:
    parts = phrase.replace("{other}", "{one}").split("{one}")
    return (part.strip("?").rstrip() for part in parts if part.strip("? "))


def _thought_phrases() -> set[str]:
    """The sentences, and parts of sentences, that thoughts are made of, as they are read and as they are learned."""
    said = {OPENER, GLANCE, *(f" {closer.partition(' {')[0]}" for closer in (*CLOSERS, AMONG, MISSED, NONE))}
    return said | set(map(seen, said)) | {DESCRIBE}


def _covered_texts() -> list[str]:
    """Texts that hold every word of a question that is distilled and of a thought about it."""
    nouns = [plural_of(noun) for noun in (*ANYTHING, *VALUES["shape"])]
    words = [word for values in VALUES.values() for word in values]
    asked = [phrase.format(one="things", other="things") for phrase in (*COUNT_PHRASES, *COMPARE_PHRASES.values())]
    answers = [f" {answer}" for answer in (*range(LARGEST_COUNT), "yes", "no")]
    listed = f" {', '.join(ORDINALS)}, 1."
    return [*QUESTIONS.values(), *asked, "".join(f" {word}" for word in (*words, *nouns)), *answers, listed]
