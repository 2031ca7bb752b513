"""How long a training set's prompts are, image tokens included, without decoding its images, and what becomes of those
that are too long: refused or dropped, as the recipe says, and never cut.

An image's tokens follow from its size, which stands in its first bytes.
"""

import os
import sys
from pathlib import Path
from typing import Any

from datasets import Dataset, Image

from r1mm.data.clips import most_clip_tokens
from r1mm.data.clips_ahead import sampling_of
from r1mm.data.images import decode_lazily, size_of
from r1mm.errors import BadInput
from r1mm.processor import prompt_lengths
from r1mm.recipe import Recipe
from r1mm.rundir import write_json

# Of a larger set so many are looked at, evenly spread, unless it must be known of each: a CLEVR of 70,000 has one size,
# and every batch is looked at again when its turn comes.
LOOKED_AT = 10_000
OVER_LONG_FILE = "over-long.json"  # of the grpo stage: items whose prompts are too long, and their tokens
_NAMED = 5  # of them, in an error


def _undecoded(dataset: Dataset) -> Dataset:
    return dataset.with_format(None).cast_column("image", Image(decode=False))  # without what decodes as it is read


def lengths_by_item(
    dataset: Dataset, template: str, processor: Any, most: int = LOOKED_AT, *, system: str | None = None
) -> dict[int, int]:
    """Tokens of the prompts of `dataset` (columns image, problem), by row: of `most` rows, evenly spread."""
    stride = max(1, -(-len(dataset) // most))
    rows = _undecoded(dataset).select(range(0, len(dataset), stride))
    prompts = (template.format(question=problem) for problem in rows["problem"])
    lengths = prompt_lengths(processor, prompts, (size_of(image) for image in rows["image"]), system=system)
    return {number * stride: length for number, length in enumerate(lengths)}


def lengths_beside_clips(
    dataset: Dataset, template: str, processor: Any, clip_tokens: int, *, system: str | None = None
) -> dict[int, int]:
    """Tokens of all prompts of `dataset` (column problem) by row, each with a clip of `clip_tokens`."""
    problems = dataset.with_format(None)["problem"]
    lengths = prompt_lengths(processor, (template.format(question=problem) for problem in problems), system=system)
    return {number: clip_tokens + length for number, length in enumerate(lengths)}


def keep_within_limit(dataset: Dataset, recipe: Recipe, processor: Any, folder: Path) -> Dataset:
    """`dataset` without the rows whose prompts have more than the recipe's `max_prompt_length` tokens, if it has one.

    They are listed in `folder`/over-long.json, and dropped where the recipe's `over_long` says so.  Elsewhere BadInput
    names them: upstream cut such prompts, and with them image tokens that the model then missed.
    """
    if recipe.max_prompt_length is None:
        return dataset
    path = folder / OVER_LONG_FILE
    path.unlink(missing_ok=True)  # of another training set
    limit, template, system = recipe.max_prompt_length.value, recipe.grpo.template, recipe.prompts.system_turn
    drops = recipe.over_long is not None and recipe.over_long.value == "drop"
    if recipe.clips:
        tokens = most_clip_tokens(sampling_of(recipe))
        lengths = lengths_beside_clips(dataset, template, processor, tokens, system=system)
    else:
        most = len(dataset) if drops else LOOKED_AT
        lengths = lengths_by_item(dataset, template, processor, most, system=system)
    long = {row: length for row, length in lengths.items() if length > limit}
    if not long:
        return dataset
    names = dict(enumerate(dataset.with_format(None)["item"])) if "item" in dataset.column_names else {}
    listed = [{"item": names.get(row, row), "tokens": long[row]} for row in sorted(long, key=lambda row: -long[row])]
    write_json(path, listed)  # the same in each of a run's processes
    said = ", ".join(f"{one['item']} ({one['tokens']})" for one in listed[:_NAMED])
    what = f"{len(long)} of the {len(lengths)} prompts looked at have more than max_prompt_length {limit} tokens"
    if not drops:
        raise BadInput(
            f"{what}, the longest: {said}; all of them: {path}. Leave them out of the training set, write over_long: "
            "drop, raise max_prompt_length, or lower processor.max_pixels (clips.max_pixels)"
        )
    if os.environ.get("RANK", "0") == "0":
        print(f"{what} and are dropped, the longest: {said}; all of them: {path}", file=sys.stderr, flush=True)
    return decode_lazily(_undecoded(dataset).select(sorted(lengths.keys() - long)).flatten_indices())
