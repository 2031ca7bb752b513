"""What a miniature is made of: pictures of solids to count, with or without traces about them, films of solids that
move, or drawings and charts.

The stages are the same for all; this is all they need to know.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from r1mm.data.counting import Example
from r1mm.mini.choices import build_choice_tokenizer, letter_words, seen_words
from r1mm.mini.clip_sets import choice_examples, read_films, render_clip_sets
from r1mm.mini.datasets import PALETTE, read_scenes, render_sets, warm_start_examples
from r1mm.mini.language import build_tokenizer, digit_words
from r1mm.mini.plane import answer_words, build_plane_tokenizer
from r1mm.mini.plane_sets import drawing_examples, read_drawings, render_drawings
from r1mm.mini.traces import build_trace_tokenizer, traced_examples
from r1mm.recipe import Recipe


@dataclass(frozen=True)
class Material:
    """`render(sets, picture size, folder, workers)` writes the recipe's sets; `tokenizer(templates)` has all words;
    `heavy_words` carry the answer; `examples(folder, templates, settings, seed)` are the warm start's, in order.
    """

    render: Callable[[Any, int, Path, int], None]
    tokenizer: Callable[[list[str]], PreTrainedTokenizerFast]
    heavy_words: Callable[[PreTrainedTokenizerFast], list[str]]
    examples: Callable[[Path, dict[str, str], dict[str, Any], int], Iterator[Example]]


WARM_START = "warm-start"  # the set that the base model learns from

PICTURES = Material(
    render=render_sets,
    tokenizer=lambda templates: build_tokenizer(templates, PALETTE),
    heavy_words=digit_words,
    examples=lambda folder, *how: warm_start_examples(read_scenes(folder, WARM_START), *how),
)

FILMS = Material(
    render=render_clip_sets,
    tokenizer=build_choice_tokenizer,
    heavy_words=lambda _: [*letter_words(), *seen_words()],
    examples=lambda folder, *how: choice_examples(read_films(folder, WARM_START), *how),
)

DRAWINGS = Material(
    render=render_drawings,
    tokenizer=build_plane_tokenizer,
    heavy_words=lambda _: answer_words(),
    examples=lambda folder, *how: drawing_examples(read_drawings(folder, WARM_START), *how),
)

# As PICTURES, of a recipe whose model is to learn from traces.
TRACED_PICTURES = Material(
    render=render_sets,
    tokenizer=lambda templates: build_trace_tokenizer(templates, PALETTE),
    heavy_words=digit_words,
    examples=lambda folder, *how: traced_examples(read_scenes(folder, WARM_START), *how),
)


def material_of(recipe: Recipe) -> Material:
    """What a miniature recipe is made of."""
    if recipe.clips:
        return FILMS
    if recipe.drawings:
        return DRAWINGS
    return TRACED_PICTURES if recipe.distill else PICTURES
