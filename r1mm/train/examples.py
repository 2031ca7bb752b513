"""Rows with thoughts as examples of supervised fine-tuning: the text, its tokens, and which of them are learnt.

An example is written by the checkpoint's own chat template and tokenized as a whole, as
Deep-Agent/R1-V@bbbbe3d:src/r1-v/src/open_r1/sft.py does.  None is ever cut: what is cut may be an image's tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset, Image

from r1mm.data.images import size_of
from r1mm.errors import BadInput
from r1mm.processor import image_tokens
from r1mm.progress import progress_bar
from r1mm.training_parts import SftExamples

IGNORED = -100  # the label of a token that is not learnt
_AT_ONCE = 256  # rows whose lengths are worked out together


@dataclass(frozen=True)
class Written:
    """An example's text, with one placeholder for its image; the answer is `text[start:end]`, its last token the end's.

    `place` is where the placeholder begins.
    """

    text: str
    start: int
    end: int
    place: int


def write_example(settings: SftExamples, processor: Any, row: dict[str, Any]) -> Written:
    """A row (thinking, problem, solution) as the chat template writes it.

    Raises BadInput for a row without one of them, or with a placeholder of its own, and for a template that writes
    answers in another way than it asks for them.
    """
    for column in ("thinking", "problem", "solution"):
        if not (row[column] or "").strip():
            raise BadInput(f"row {row.get('item', '')} has no {column} to learn from; correct the dataset")
    text = {"type": "text", "text": settings.prompt.value.format(question=row["problem"])}
    picture = {"type": "image"}
    user = {"role": "user", "content": [picture, text] if settings.image.value == "first" else [text, picture]}
    system = settings.system.value if settings.system else None
    turns = [*([{"role": "system", "content": [{"type": "text", "text": system}]}] if system else []), user]
    response = settings.response.value.format(thinking=row["thinking"], solution=row["solution"])
    answer = {"role": "assistant", "content": response}

    def render(turns: list[dict[str, Any]], opened: bool) -> str:
        text: str = processor.apply_chat_template(turns, add_generation_prompt=opened, tokenize=False)
        return text

    asked, whole = render(turns, True), render([*turns, answer], settings.open_turn.value)
    said = response + processor.tokenizer.eos_token
    if not whole.startswith(asked + said):
        raise BadInput(
            f"the checkpoint's chat template does not write an answer as it asks for one: {whole[:300]!r} does not go "
            f"on after {asked[-40:]!r} with the answer and {processor.tokenizer.eos_token!r}; give another checkpoint"
        )
    placeholder = processor.image_token
    if whole.count(placeholder) != 1:
        raise BadInput(f"row {row.get('item', '')}: {whole[:300]!r} holds {placeholder!r} itself; leave the row out")
    return Written(whole, len(asked), len(asked) + len(said), whole.index(placeholder))


def encode(
    written: Written, tokens_of_image: int, settings: SftExamples, processor: Any
) -> tuple[list[int], list[int]]:
    """An example's token ids and labels.  A token that reaches from before the answer into it is not the answer's."""
    placeholder = processor.image_token
    more = placeholder * (tokens_of_image - 1)
    text = written.text[: written.place] + more + written.text[written.place :]
    start, end = (place + (len(more) if place > written.place else 0) for place in (written.start, written.end))
    made = processor.tokenizer(text, return_offsets_mapping=True)
    ids: list[int] = made["input_ids"]
    if settings.loss.value == "answer":
        learnt = [start <= first and last <= end for first, last in made["offset_mapping"]]
    else:
        learnt = [token not in (processor.image_token_id, processor.tokenizer.pad_token_id) for token in ids]
    return ids, [token if counts else IGNORED for token, counts in zip(ids, learnt, strict=True)]


def padded(rows: Sequence[tuple[list[int], list[int]]], pad: int, placeholder: int) -> dict[str, torch.Tensor]:
    """Ids and labels of several examples as model inputs (B, T), padded on the right; `placeholder` is the image's."""
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), longest), pad)
    labels = torch.full((len(rows), longest), IGNORED)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for row, (own_ids, own_labels) in enumerate(rows):
        ids[row, : len(own_ids)] = torch.tensor(own_ids)
        labels[row, : len(own_ids)] = torch.tensor(own_labels)
        mask[row, : len(own_ids)] = 1
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "mm_token_type_ids": (ids == placeholder).long(),
        "labels": labels,
    }


class ExampleCollator:
    """Rows (thinking, problem, solution, image) to model inputs: ids, mask and labels (B, T), pixels."""

    def __init__(self, settings: SftExamples, processor: Any) -> None:
        self.settings, self.processor = settings, processor

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """One batch, as transformers' data loader asks for it."""
        processor = self.processor
        pixels = processor.image_processor([row["image"] for row in rows], return_tensors="pt")
        patches = pixels["image_grid_thw"].prod(-1) // int(processor.image_processor.merge_size) ** 2
        made = [
            encode(write_example(self.settings, processor, row), int(count), self.settings, processor)
            for row, count in zip(rows, patches, strict=True)
        ]
        return {**padded(made, processor.tokenizer.pad_token_id, processor.image_token_id), **pixels}


def example_lengths(dataset: Dataset, settings: SftExamples, processor: Any) -> list[int]:
    """Tokens of every example, its image's included, without decoding one: a size stands in an image's first bytes."""
    encoded = dataset.with_format(None).cast_column("image", Image(decode=False))
    lengths: list[int] = []
    with progress_bar(total=len(encoded), desc="measure examples", unit="row") as bar:
        for begin in range(0, len(encoded), _AT_ONCE):
            rows = encoded.select(range(begin, min(begin + _AT_ONCE, len(encoded)))).to_list()
            texts = [write_example(settings, processor, row).text for row in rows]
            for row, ids in zip(rows, processor.tokenizer(texts)["input_ids"], strict=True):
                lengths.append(len(ids) - 1 + image_tokens(processor, *size_of(row["image"])))
            bar.update(len(rows))
    return lengths


def too_long(lengths: Sequence[int], limit: int, otherwise: str) -> list[int]:
    """The rows, by number, of more than `limit` tokens.  Raises BadInput where there are some and `otherwise` is stop.

    Also where nothing is left.
    """
    long = [row for row, length in enumerate(lengths) if length > limit]
    longest = max(lengths, default=0)
    if len(long) == len(lengths):
        raise BadInput(f"all {len(lengths)} examples have more than sft.max_length {limit} tokens (up to {longest})")
    if long and otherwise == "stop":
        raise BadInput(
            f"{len(long)} of {len(lengths)} examples have more than sft.max_length {limit} tokens, the longest "
            f"{longest} (row {lengths.index(longest)}); raise sft.max_length, or leave them out with "
            "sft_examples.too_long: skip"
        )
    return long
