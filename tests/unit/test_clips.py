from types import SimpleNamespace

import pytest
import torch
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLModel

from r1mm.clips import carry_clips, clip_positions

CLIP = 7


def positions(ids: list[list[int]], mask: list[list[int]], grids: list[list[int]]) -> torch.Tensor:
    return clip_positions(
        torch.tensor(ids), torch.tensor(mask), torch.tensor(grids).reshape(-1, 3), video_token=CLIP, merge=2
    )


def test_text_after_a_clip_longer_than_high_and_wide_starts_after_its_last_frame() -> None:
    # t = 3, merged height 1, merged width 2: three frames of two tokens.
    found = positions([[3, *[CLIP] * 6, 4, 50]], [[1] * 9], [[3, 2, 4]])[:, 0].tolist()
    assert found == [
        [0, 1, 1, 2, 2, 3, 3, 4, 5],
        [0, 1, 1, 1, 1, 1, 1, 4, 5],
        [0, 1, 2, 1, 2, 1, 2, 4, 5],
    ]


def test_padding_counts_nothing() -> None:
    left = positions(
        [[0, 0, 3, CLIP, CLIP, 4], [3, CLIP, CLIP, 4, 50, 0]], [[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0]], [[2, 2, 2]] * 2
    )
    assert left[0].tolist() == [[0, 0, 0, 1, 2, 3], [0, 1, 2, 3, 4, 0]]


def test_clips_of_one_row_follow_each_other() -> None:
    found = positions([[3, CLIP, CLIP, 4, 3, CLIP, CLIP, 4]], [[1] * 8], [[2, 2, 2], [1, 2, 4]])
    assert found[:, 0].tolist() == [
        [0, 1, 2, 3, 4, 5, 5, 7],
        [0, 1, 1, 3, 4, 5, 5, 7],
        [0, 1, 1, 3, 4, 5, 6, 7],
    ]


@pytest.mark.parametrize("grid", [[2, 4, 4], [2, 4, 8], [1, 8, 2]])
def test_where_a_clip_is_short_the_library_agrees(grid: list[int]) -> None:
    tokens = grid[0] * grid[1] * grid[2] // 4
    ids, mask = torch.tensor([[0, 3, *[CLIP] * tokens, 4, 50, 51]]), torch.tensor([[0, *[1] * (tokens + 4)]])
    carrier = SimpleNamespace(config=SimpleNamespace(vision_config=SimpleNamespace(spatial_merge_size=2)))
    carrier.get_vision_position_ids = Qwen2VLModel.get_vision_position_ids.__get__(carrier)
    theirs, _ = Qwen2VLModel.get_rope_index(
        carrier, ids, (ids == CLIP).int() * 2, video_grid_thw=torch.tensor([grid]), attention_mask=mask
    )
    assert positions(ids.tolist(), mask.tolist(), [grid]).equal(theirs)


@pytest.mark.parametrize(
    ("ids", "grids", "words"),
    [
        ([3, CLIP, CLIP, 4], [[3, 2, 2]], "row 0 has 2 placeholders where a clip of 3 x 1 x 1 is due"),
        ([3, CLIP, 4], [], "row 0 has 1 placeholders where a clip of 0 x 0 x 0 is due"),
        ([3, CLIP, 4], [[1, 2, 2], [1, 2, 2]], "1 clips of 2 have no placeholders"),
    ],
)
def test_placeholders_that_are_not_those_of_the_clips_are_refused(
    ids: list[int], grids: list[list[int]], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        positions([ids], [[1] * len(ids)], grids)


def model_of_clips() -> Qwen2VLForConditionalGeneration:
    torch.manual_seed(0)
    config = Qwen2VLConfig(
        text_config={
            **{"vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1},
            **{"num_attention_heads": 2, "num_key_value_heads": 1, "eos_token_id": 1, "pad_token_id": 0},
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
        },
        vision_config={"depth": 1, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2},
        **{"image_token_id": CLIP + 1, "video_token_id": CLIP, "vision_start_token_id": 3, "vision_end_token_id": 4},
    )
    return Qwen2VLForConditionalGeneration(config).eval()


def test_an_image_with_frames_reaches_the_model_as_a_clip() -> None:
    model = model_of_clips()
    # Six frames in three steps: longer than high and wide.
    grids, pixels = torch.tensor([[3, 2, 4]]), torch.randn(24, 1176)
    ids = torch.tensor([[3, *[CLIP] * 6, 4, 50, 51]])
    mask = torch.ones_like(ids)
    right = clip_positions(ids, mask, grids, video_token=CLIP, merge=2)
    given = {"input_ids": ids, "attention_mask": mask}
    types = (ids == CLIP).int() * 2
    with torch.no_grad():
        expected = model(**given, pixel_values_videos=pixels, video_grid_thw=grids, position_ids=right).logits
        library = model(**given, pixel_values_videos=pixels, video_grid_thw=grids, mm_token_type_ids=types).logits
        carry_clips(model)
        found = model(**given, pixel_values=pixels, image_grid_thw=grids, mm_token_type_ids=types).logits
    assert torch.equal(found, expected)
    assert not torch.allclose(library, expected)


def test_generation_sees_the_clip_as_the_log_probs_do() -> None:
    model = model_of_clips()
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(torch.randn(weights.shape) * 0.1)  # so that what is said depends on what is seen
    carry_clips(model)
    grids, pixels = torch.tensor([[6, 2, 4], [3, 2, 4]]), torch.randn(72, 1176)
    ids = torch.tensor([[3, *[CLIP] * 12, 4, 50, 51], [*[0] * 7, 3, *[CLIP] * 6, 4, 50]])
    mask, types = (ids != 0).long(), (ids == CLIP).int() * 2
    clips = {"pixel_values": pixels, "image_grid_thw": grids}
    said = model.generate(
        input_ids=ids,
        attention_mask=mask,
        mm_token_type_ids=types,
        **clips,
        max_new_tokens=8,
        suppress_tokens=[0, 1, CLIP, CLIP + 1],
        do_sample=False,
    )
    pad = torch.nn.functional.pad
    with torch.no_grad():
        logits = model(
            input_ids=said, attention_mask=pad(mask, (0, 8), value=1), mm_token_type_ids=pad(types, (0, 8)), **clips
        ).logits
    logits[..., [0, 1, CLIP, CLIP + 1]] = -torch.inf
    answers = said[:, ids.shape[1] :]
    assert torch.equal(logits[:, ids.shape[1] - 1 : -1].argmax(-1), answers)
    assert len(answers.unique()) > 4
