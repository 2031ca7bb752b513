"""GRPO that looks at a prompt once per group, where TRL looks at it once per completion.

The G completions of a group share their prompt and its image.  Here the processor makes them once (`train.images`), and
the model encodes the image once in each of its passes:

- generation runs every different prompt through tower and decoder once and copies the cache to the G rows;
- reference and policy passes encode the images of U prompts for U x G rows; a row takes the features of its group's
  images, and the gradient that reaches the tower is the sum of what the G rows would have sent it one by one.

This happens inside the model's own forward pass, so that DDP's, ZeRO's and gradient checkpointing's hooks see what they
always see.  Rows keep TRL's order, except that the rows of a group stay in one micro-batch where a step has several:
scattered over micro-batches they would have nothing to share.  Padding that no row of a pass needs is cut off first.

The sums are the same numbers in another order: loss and gradient agree with TRL's to rounding (tests/recipes/
test_grouped.py), and `benchmarks/step.py --check-only` fails where the tower sees an image twice.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from r1mm.errors import BadInput
from r1mm.train.images import PER_IMAGE, distinct, process_once
from r1mm.vision import position_deltas

_Result = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]


def plain_network(model: nn.Module) -> Any:
    """The transformers model inside what training wraps around it: DDP, deepspeed's engine, peft's adapters."""
    model = getattr(model, "module", model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@contextmanager
def _replaced(target: Any, name: str, replacement: Callable[..., Any]) -> Iterator[None]:
    """While this lasts, `target` has `replacement` under `name`, before what its class or it had there."""
    had = vars(target).get(name)
    setattr(target, name, replacement)
    try:
        yield
    finally:
        if had is None:
            delattr(target, name)
        else:
            setattr(target, name, had)


@contextmanager
def _positions_once(inner: Any, group_of_row: Sequence[int]) -> Iterator[None]:
    """The model's positions of a batch computed for one row of each group, over `image_grid_thw` of those alone.

    Rows of a group have the same prompt, and after it text on which positions count on by one.
    """
    original = inner.get_rope_index
    firsts, source = distinct(group_of_row)

    def positions(
        input_ids: torch.Tensor, mm_token_type_ids: torch.Tensor, *, attention_mask: torch.Tensor, **grids: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(3, B, T), and their `position_deltas`."""
        grids = {name: grids.get(name) for name in ("image_grid_thw", "video_grid_thw")}
        # From its first token on a row counts to the end, so that it serves the longest completion of its group.
        whole = (attention_mask[firsts].cumsum(1) > 0).to(attention_mask.dtype)
        of_groups, _ = original(input_ids[firsts], mm_token_type_ids[firsts], attention_mask=whole, **grids)
        found = of_groups[:, source].masked_fill(attention_mask[None] == 0, 0)
        return found, position_deltas(found, attention_mask)

    with _replaced(inner, "get_rope_index", positions):
        yield


@contextmanager
def prefill_once(network: Any, group_of_row: Sequence[int]) -> Iterator[None]:
    """While this lasts, `network.generate` runs each group's prompt once and copies its cache to the group's rows.

    `pixel_values` and `image_grid_thw` are then those of the groups; everything else is given for every row.
    """
    original = network._prefill
    firsts, source = distinct(group_of_row)

    def prefill(input_ids: torch.Tensor, generation_config: Any, model_kwargs: dict[str, Any], **kwargs: Any) -> Any:
        of_groups = dict(model_kwargs)
        for name in ("attention_mask", "mm_token_type_ids", "position_ids"):
            if of_groups.get(name) is not None:
                rows = of_groups[name]  # (B, P), or (3 or 4, B, P)
                of_groups[name] = rows[..., firsts, :]
        outputs = original(input_ids[firsts], generation_config, of_groups, **kwargs)
        index = torch.tensor(source, device=input_ids.device)
        outputs.past_key_values.batch_select_indices(index)
        outputs.logits = outputs.logits[index]
        return outputs

    with _positions_once(network.model, group_of_row), _replaced(network, "_prefill", prefill):
        yield


@contextmanager
def encode_once(network: Any, group_of_row: Sequence[int], images_of_row: Sequence[int]) -> Iterator[None]:
    """While this lasts, the rows of a batch take the features of their group's images, which are encoded once.

    `images_of_row`: the numbers of the images of the first row, then of the second and so on.
    """
    inner = network.model

    def for_rows(encode: Callable[..., BaseModelOutputWithPooling]) -> Callable[..., BaseModelOutputWithPooling]:
        @functools.wraps(encode)
        def features(*args: Any, **kwargs: Any) -> BaseModelOutputWithPooling:
            found = encode(*args, **kwargs)
            found.pooler_output = tuple(found.pooler_output[image] for image in images_of_row)
            return found

        return features

    with (
        _positions_once(inner, group_of_row),
        _replaced(inner, "get_image_features", for_rows(inner.get_image_features)),
        _replaced(inner, "get_video_features", for_rows(inner.get_video_features)),
    ):
        yield


def _images_of_groups(batch: dict[str, Any], group_of_row: Sequence[int]) -> list[tuple[int, int]]:
    """Where the images of each group begin and end among the batch's images; `num_images` counts them by row."""
    firsts, _ = distinct(group_of_row)
    spans, begin = [], 0
    for row in firsts:
        spans.append((begin, begin + batch["num_images"][row]))
        begin = spans[-1][1]
    return spans


def take_rows(batch: dict[str, Any], rows: Sequence[int]) -> dict[str, Any]:
    """Some rows of a batch, in that order; with `group`, the images of their groups, numbered as they then appear."""
    taken: dict[str, Any] = {}
    for name, value in batch.items():
        if isinstance(value, torch.Tensor) and value.ndim and name not in PER_IMAGE:
            taken[name] = value[list(rows)]
        else:
            taken[name] = [value[row] for row in rows] if isinstance(value, list) else value
    if "group" in batch:
        group = batch["group"].tolist()
        kept, renumbered = distinct([group[row] for row in rows])
        spans = _images_of_groups(batch, group)
        wanted = [spans[group[rows[i]]] for i in kept]
        grids = batch["image_grid_thw"]
        edges = [0, *grids.prod(-1).cumsum(0).tolist()]
        taken["group"] = torch.tensor(renumbered)
        taken["image_grid_thw"] = torch.cat([grids[begin:end] for begin, end in wanted])
        taken["pixel_values"] = torch.cat([batch["pixel_values"][edges[begin] : edges[end]] for begin, end in wanted])
    return taken


class GroupedImages:
    """For GRPOTrainer's subclasses, left of it: a group's prompt and images are processed and encoded once.

    A batch then holds pixels and grids once per group, and `group`, (B,), which of them each row is of.
    `grouped_images=False` is TRL as it is.  For Qwen2-VL and Qwen2.5-VL, full or with adapters.
    """

    def __init__(self: Any, *args: Any, grouped_images: bool = True, **kwargs: Any) -> None:
        self.grouped_images = grouped_images
        self._group_of_row: list[int] = []
        if grouped_images:
            _require_growing_cache(kwargs["args"])
            process_once(kwargs["processing_class"])
        super().__init__(*args, **kwargs)

    def _generate_single_turn(self: Any, prompt_ids: Any, images: Any, multimodal_fields: Any, *args: Any) -> Any:
        make = functools.partial(
            super()._generate_single_turn,  # type: ignore[misc]
            prompt_ids,
            images,
            multimodal_fields,
            *args,
        )
        if not self.grouped_images or self.use_vllm or "pixel_values" not in multimodal_fields:
            return make()
        with prefill_once(plain_network(self.model), self.processing_class.group_of_row):
            return make()

    def _generate_and_score_completions(self: Any, inputs: Any) -> dict[str, Any]:
        self._group_of_row = []
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)  # type: ignore[misc]
        if self.grouped_images and "pixel_values" in batch:
            batch["group"] = torch.tensor(self.processing_class.group_of_row)
        return batch

    def _prepare_inputs(self: Any, generation_batch: Any) -> dict[str, Any]:
        if not self.grouped_images or not self.model.training:
            inputs: dict[str, Any] = super()._prepare_inputs(generation_batch)  # type: ignore[misc]
            return inputs
        calls = self.args.steps_per_generation
        if self._step % (calls * self.num_iterations) == 0 or self._buffered_inputs is None:
            made = self._generate_and_score_completions(generation_batch)
            self._buffered_inputs = _micro_batches(made, calls, self.args.gradient_accumulation_steps)
        buffered: dict[str, Any] = self._buffered_inputs[self._step % calls]
        return buffered

    def compute_loss(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """TRL's loss; `inputs` with a `group` hold each image once per group."""
        self._group_of_row = inputs["group"].tolist() if "group" in inputs else []
        loss: torch.Tensor = super().compute_loss(model, inputs, *args, **kwargs)  # type: ignore[misc]
        return loss

    def _get_per_token_logps_and_entropies(
        self: Any,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> _Result:
        score = super()._get_per_token_logps_and_entropies  # type: ignore[misc]
        if not self.grouped_images:
            untouched: _Result = score(model, input_ids, attention_mask, logits_to_keep, batch_size, **kwargs)
            return untouched
        batch = {"input_ids": input_ids, "attention_mask": attention_mask}
        batch |= {name: kwargs.pop(name) for name in list(kwargs) if kwargs[name] is not None and name in _OF_ROWS}
        if "pixel_values" in batch:
            batch["group"] = torch.tensor(self._group_of_row or self.processing_class.group_of_row)
        count = len(input_ids)
        size = batch_size or count
        calls = [range(count)[start : start + size] for start in range(0, count, size)]
        parts = [take_rows(batch, rows) for rows in calls] if len(calls) > 1 else [batch]
        found = [_scored(score, model, part, logits_to_keep, kwargs) for part in parts]
        logps, entropies, losses = zip(*found, strict=True)
        return (
            torch.cat(logps),
            None if entropies[0] is None else torch.cat(entropies),
            None if losses[0] is None else torch.stack(losses).mean(),
        )


_OF_ROWS = ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids")


def _require_growing_cache(settings: Any) -> None:
    wanted = settings.cache_implementation or (settings.generation_kwargs or {}).get("cache_implementation")
    if wanted not in (None, "dynamic"):
        raise BadInput(
            f"train.cache_implementation is {wanted!r}; with grouped_images a prompt's cache is copied to its group's "
            "rows, which only transformers' dynamic cache can do: leave it out, or set grouped_images to false"
        )


def _micro_batches(batch: dict[str, Any], calls: int, per_update: int) -> list[dict[str, Any]]:
    """Completions shuffled as TRL shuffles them, in `calls` micro-batches, of which `per_update` make one update.

    An update has TRL's rows; its micro-batches are shared by whole groups as far as they can.
    """
    count = len(batch["prompt_ids"])
    order: list[int] = torch.randperm(count).tolist()  # TRL's one draw, so that what is sampled later stays the same
    size = count // calls
    if calls > 1 and "group" in batch:
        group = batch["group"].tolist()
        updates = [order[start : start + size * per_update] for start in range(0, count, size * per_update)]
        order = [row for rows in updates for row in _by_group(rows, group)]
    return [take_rows(batch, order[start : start + size]) for start in range(0, count, size)]


def _by_group(rows: list[int], group: list[int]) -> list[int]:
    """`rows`, those of a group behind its first."""
    _, rank = distinct([group[row] for row in rows])
    return [row for _, row in sorted(zip(rank, rows, strict=True), key=lambda pair: pair[0])]


def _scored(
    score: Callable[..., Any], model: Any, batch: dict[str, Any], keep: int, options: dict[str, Any]
) -> _Result:
    """TRL's `score` over one batch, without padding that all its rows have, images once per group."""
    used = batch["attention_mask"].any(0).nonzero()
    begin, end = int(used[0]), int(used[-1]) + 1
    cut = batch["attention_mask"].shape[1] - end
    cut = min(cut, keep - 1)  # a pass scores something, also where no row answered
    columns = slice(begin, batch["attention_mask"].shape[1] - cut)
    arguments = [batch[name][:, columns] for name in ("input_ids", "attention_mask")]
    if "mm_token_type_ids" in batch:
        options = {**options, "mm_token_type_ids": batch["mm_token_type_ids"][:, columns]}
    if "pixel_values" in batch:
        group = batch["group"].tolist()
        spans = _images_of_groups(batch, group)
        shown = functools.partial(model, pixel_values=batch["pixel_values"], image_grid_thw=batch["image_grid_thw"])
        with encode_once(plain_network(model), group, [image for number in group for image in range(*spans[number])]):
            found = score(shown, *arguments, keep - cut, **options)
    else:
        found = score(model, *arguments, keep - cut, **options)
    logps, entropies, loss = found
    padded = [None if each is None else nn.functional.pad(each, (0, cut)) for each in (logps, entropies)]
    return padded[0], padded[1], loss
