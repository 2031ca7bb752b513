"""Time part by part: figures worked by hand, and what upstream's users reported."""

import pytest

from r1mm.plan import parse_gpus
from r1mm.plan.duration import decode_seconds, pass_flops, step_time
from r1mm.plan.layout import work_of
from r1mm.plan.shapes import read_shape
from tests.unit.plan.laid import TWO_B, layout, recipe, work


def test_flops_of_a_pass_by_hand() -> None:
    shape = read_shape(TWO_B)
    # One token, nothing scored, no image: two per weight of the layers' matrices and biases, and a little attention.
    assert pass_flops(shape, 1, 1, 0) == 2 * 28 * (46_797_824 - 3072) + 28 * 2 * 1536
    assert pass_flops(shape, 1, 1, 1) - pass_flops(shape, 1, 1, 0) == 2 * 151_936 * 1536


def test_decoding_waits_for_kernels_or_for_memory() -> None:
    shape = read_shape(TWO_B)
    one = decode_seconds(shape, work(), parse_gpus("1xA100-80G"), 1, 300, vllm=False)
    assert one == 28 * 1e-3
    slow = decode_seconds(shape, work(), parse_gpus("1xL4-24G"), 1, 300, vllm=True)
    weights = 2 * (2_208_985_600 - 665_271_296)
    assert slow == pytest.approx((weights + 300 * 28_672) / (0.7 * 300e9))


def test_estimates_beside_what_upstreams_users_reported() -> None:
    """Upstream's early code calls generate once per completion; its seconds per step against this model's.

    Fitted, and so no evidence: 38 tokens a call make the 18 to 21.6 s of 8 x A100 (#39), 110 the 51.6 s of 4 x A800.
    Not fitted: one A100 with 16 prompts a step, "over 100 h" for 8,750 steps (#4), is met with a wide margin;
    8 x H100 (#8) is reported as 12 minutes per 100 steps (7.2 s) and as 29 h per epoch (23.9 s at 4,375 steps), which
    do not agree with each other; the estimate lies between.
    """
    shape = read_shape(TWO_B)
    published = work_of(recipe("as-published"), shape)

    def upstream(gpus: str, prompts_per_gpu: int, tokens: int) -> float:
        machine = parse_gpus(gpus)
        spread = layout(gpus=gpus, processes=machine.devices, completions_per_device=8, accumulation=prompts_per_gpu)
        ours = step_time(shape, published, spread, machine, mean=tokens, longest=tokens)
        calls = 8 * prompts_per_gpu
        return (
            ours.total
            - ours.generation
            + calls
            * tokens
            * decode_seconds(shape, published, machine, 1, published.prompt_tokens + tokens, vllm=False)
        )

    rows = {
        "8xA100-80G, 38 tokens": (upstream("8xA100-80G", 2, 38), 18.0, 21.6),
        "4xA800-80G, 110 tokens": (upstream("4xA800-80G", 2, 110), 51.6 * 0.9, 51.6 * 1.1),
        "1xA100-80G, 38 tokens": (upstream("1xA100-80G", 16, 38), 100 * 3600 / 8750, float("inf")),
        "8xH100-80G, 38 tokens": (upstream("8xH100-80G", 2, 38), 7.2, 23.9),
    }
    for name, (estimate, low, high) in rows.items():
        print(f"{name}: estimate {estimate:.1f} s a step, reported {low:.1f} to {high:.1f}")
        assert low <= estimate <= high, name
