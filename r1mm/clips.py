"""Clips on their way through what knows images alone: TRL's GRPO, our evaluation.

TRL 1.16 has no way for a clip through GRPO.  One travels unharmed when it is carried as an image whose grid has t > 1.
Here a clip goes in as an image (`clips_as_images`, of the processor) and becomes a clip again inside the model
(`carry_clips`).

Positions are given explicitly: transformers 4.49, with which the models were trained, lets the text after a clip start
at max(t, h, w) of the merged grid; transformers 5.23 starts it at max(h, w), inside a clip that is longer than high and
wide.
"""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from transformers import ProcessorMixin

from r1mm.vision import position_deltas

_AS_THEY_COME = {"do_sample_frames": False, "do_resize": False, "cap_pixels_per_frame": False}


def _named_as_images(made: Any) -> Any:
    """What a processor has made of clips, under the names of images'; in place."""
    made["pixel_values"], made["image_grid_thw"] = made.pop("pixel_values_videos"), made.pop("video_grid_thw")
    return made


class _ClipsAsImages(ProcessorMixin):
    """Left of a processor's own class: the `images` that it is given are clips, and what it makes is named as images'.

    A prompt's image placeholders become those of clips.  Frames are taken as they come: sampled and resized already.
    """

    def __call__(self, images: Any = None, text: Any = None, **kwargs: Any) -> Any:
        """As the processor's own; `images` holds a `Clip`, or a list of them, per row of `text`."""
        if images is None:
            return super().__call__(text=text, **kwargs)
        rows = [row if isinstance(row, list | tuple) else [row] for row in images]
        kwargs["videos"] = [[clip.frames for clip in row] for row in rows]
        kwargs |= _AS_THEY_COME
        return _named_as_images(
            super().__call__(text=[words.replace(self.image_token, self.video_token) for words in text], **kwargs)
        )


def clip_pixels(processor: Any, clips: Sequence[Any]) -> dict[str, torch.Tensor]:
    """`pixel_values` (patches, pixels of a patch) and `image_grid_thw` (clips, 3) of clips, named as images'."""
    frames = [clip.frames for clip in clips]
    return dict(_named_as_images(processor.video_processor(videos=frames, **_AS_THEY_COME, return_tensors="pt")))


def clips_as_images(processor: ProcessorMixin) -> None:
    """Let a Qwen2-VL processor take clips where images are given; in place.

    What `save_pretrained` writes does not change, and so not the class's name.
    """
    own = type(processor)
    processor.__class__ = type(own.__name__, (_ClipsAsImages, own), {})


def clip_positions(
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    grids: torch.Tensor,
    *,
    video_token: int,
    merge: int,
) -> torch.Tensor:
    """Positions of every token in time, height and width, (3, B, T), for sequences of text and clips.

    `input_ids` and `attention_mask` are (B, T), padded on either side; `grids` (clips, 3) are the clips' patches in
    time, height and width, in the order in which they stand; `merge` patches a side are one token.  Text counts on by
    one in all three; a clip starts where the text before it ends, and the text after it at max(t, h, w) of its merged
    grid (`transformers==4.49.0:models/qwen2_vl/modeling_qwen2_vl.py`, get_rope_index).  Padding is 0.

    Raises ValueError when the placeholders are not those of the clips.
    """
    positions = torch.zeros(3, *input_ids.shape, dtype=torch.long, device=input_ids.device)
    waiting = [(t, h // merge, w // merge) for t, h, w in grids.tolist()]
    for row, (ids, mask) in enumerate(zip(input_ids, attention_mask.bool(), strict=True)):
        is_clip = (ids[mask] == video_token).tolist()
        parts: list[torch.Tensor] = []
        at = start = 0
        while at < len(is_clip):
            length = is_clip[at:].index(not is_clip[at]) if (not is_clip[at]) in is_clip[at:] else len(is_clip) - at
            if is_clip[at]:
                t, h, w = waiting.pop(0) if waiting else (0, 0, 0)
                if t * h * w != length:
                    raise ValueError(f"row {row} has {length} placeholders where a clip of {t} x {h} x {w} is due")
                parts.append(torch.cartesian_prod(*map(torch.arange, (t, h, w))).T + start)
                start += max(t, h, w)
            else:
                parts.append(torch.arange(length).expand(3, -1) + start)
                start += length
            at += length
        if parts:
            positions[:, row, mask] = torch.cat(parts, dim=1).to(positions)
    if waiting:
        raise ValueError(f"{len(waiting)} clips of {len(grids)} have no placeholders")
    return positions


def carry_clips(network: Any) -> None:
    """Let a Qwen2-VL model take what comes to it as images for clips, at the positions it was trained with; in place.

    It holds wherever the model is called: generation, reference and policy passes.
    """
    inner, config = network.model, network.config
    forward = inner.forward

    @functools.wraps(forward)
    def with_clips(*args: Any, pixel_values: Any = None, image_grid_thw: Any = None, **inputs: Any) -> Any:
        if pixel_values is not None:
            inputs |= {"pixel_values_videos": pixel_values, "video_grid_thw": image_grid_thw}
        # `generate` encodes before it calls the model, by the method for images; that for clips does the same.
        encoded = inputs.get("mm_encoder_outputs")
        if encoded and "image" in encoded:
            inputs["mm_encoder_outputs"] = {"video": encoded["image"]}
        return forward(*args, **inputs)

    def positions(
        input_ids: torch.Tensor, *_: Any, attention_mask: torch.Tensor, **grids: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        clips = grids.get("video_grid_thw")
        found = clip_positions(
            input_ids,
            attention_mask,
            grids["image_grid_thw"] if clips is None else clips,
            video_token=config.video_token_id,
            merge=config.vision_config.spatial_merge_size,
        )
        return found, position_deltas(found, attention_mask)

    inner.forward, inner.get_rope_index = with_clips, positions
