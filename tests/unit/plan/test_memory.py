"""Memory part by part: figures worked by hand, and what the real layers keep."""

from collections.abc import Callable
from typing import Any

import pytest

from r1mm.plan.hardware import GIB
from r1mm.plan.memory import block_bytes, cache_bytes, images_of, layer_bytes, passing_bytes, predict
from r1mm.plan.shapes import read_shape
from tests.unit.plan.laid import TWO_B, layout, model_class, work


def test_weights_gradients_and_optimizer_by_hand() -> None:
    shape, n = read_shape(TWO_B), 2_208_985_600
    autocast = predict(shape, work(precision="autocast"), layout(), 80 * GIB)
    assert autocast.standing["weights"] == 4 * n == 8_835_942_400
    assert autocast.standing["optimizer"] == 8 * n  # AdamW's two moments; the weights are their own masters
    assert autocast.standing["reference"] == 4 * n
    assert autocast.standing["DDP buckets"] == autocast.phases["update"]["gradients"] == 4 * n
    second = predict(shape, work(), layout(sharding="zero-2"), 80 * GIB)
    assert second.standing["weights"] == second.standing["reference"] == 2 * n
    assert second.standing["optimizer"] == 12 * n / 8  # float32 master and two moments, one eighth of each
    third = predict(shape, work(), layout(sharding="zero-3"), 80 * GIB)
    assert third.standing["weights"] == third.standing["reference"] == 2 * n / 8
    assert third.phases["generation"]["gathered weights"] == 2 * n
    assert third.phases["update"]["gathered weights"] == 2 * 10**9
    # Buckets of 5e8 gradients in bfloat16: two under stage 2, one under stage 3 (deepspeed's defaults).
    assert second.phases["update"]["ZeRO buckets"] == 2 * third.phases["update"]["ZeRO buckets"] == 2e9
    away = predict(shape, work(), layout(sharding="zero-3", offload=True), 80 * GIB)
    assert "weights" not in away.standing
    assert away.host == (2 + 2 + 4 + 12) * n


def test_logits_and_cache_by_hand() -> None:
    shape = read_shape(TWO_B)
    memory = predict(shape, work(), layout(sharding="zero-2"), 80 * GIB)
    # One layer keeps 2 x 2 heads x 128 numbers of 2 bytes per token: 28 layers, 28,672 bytes.
    assert cache_bytes(shape, work()) == 28_672
    assert memory.phases["generation"]["KV cache"] == 16 * (283 + 512) * 28_672
    # The cache is of every row; two groups' prompts are run, of stock TRL each row's.
    stock = predict(shape, work(grouped=False), layout(sharding="zero-2"), 80 * GIB)
    assert memory.phases["generation"]["activations"] == 2 * 283 * passing_bytes(shape, work())
    assert stock.phases["generation"]["activations"] == 16 * 283 * passing_bytes(shape, work())
    # 8 x 512 completion tokens fill one tile of 4,096 x 32,768 in bfloat16; the whole logits would take 1.2 GB.
    assert memory.phases["reference"]["logits"] == 4096 * 32768 * 2 == 268_435_456
    # In the backward pass also the hidden states' gradient and the head's in float32, the latter cast to bfloat16.
    assert memory.phases["update"]["logits"] == 268_435_456 + 4096 * 1536 * 4 + 151_936 * 1536 * (4 + 2)


def test_what_images_none_and_checkpointing_save() -> None:
    shape = read_shape(TWO_B)
    usual = predict(shape, work(), layout(), 80 * GIB).phases["update"]
    blind = predict(shape, work(images_in_logprobs=False), layout(), 80 * GIB).phases["update"]
    half = predict(shape, work(images_in_reference=False), layout(), 80 * GIB).phases
    again = predict(shape, work(), layout(gradient_checkpointing=True), 80 * GIB).phases["update"]
    assert usual["activations"] == 8 * 795 * 29 * layer_bytes(shape, work())
    # A pass of one group: an image of 748 patches in 32 blocks, and one block's worth at work.
    assert usual["vision tower"] == 748 * 33 * block_bytes(shape, work())
    assert "vision tower" not in blind
    assert half["update"]["vision tower"] == usual["vision tower"]
    assert "vision tower" not in half["reference"]
    assert again["activations"] == 8 * 795 * (28 * 2 * 1536 + 2 * layer_bytes(shape, work()))


@pytest.mark.parametrize(
    ("sizes", "rows"),
    [((8, 8), 8), ((8, 8), 4), ((8, 8), 16), ((4, 8, 8), 10), ((4, 8), 6), ((6, 6, 6, 6), 4), ((2,), 2)],
)
def test_images_of_a_pass_are_those_of_the_trainers_micro_batches(sizes: tuple[int, ...], rows: int) -> None:
    """`sizes`: rows that a device has of each group, of which a first and a last one may be cut."""
    import torch

    from r1mm.train.grouped import _micro_batches

    group = torch.tensor([number for number, size in enumerate(sizes) for _ in range(size)])
    batch = {
        "prompt_ids": group[:, None],
        "group": group,
        "num_images": [1] * len(group),
        "image_grid_thw": torch.ones(len(sizes), 3, dtype=torch.long),
        "pixel_values": torch.zeros(len(sizes), 1),
    }
    calls = len(group) // rows
    passes = [part for _ in range(20) for part in _micro_batches(batch, calls, calls)]
    most = max(len(part["image_grid_thw"]) for part in passes)
    planned = images_of(rows, work(group=max(sizes)), layout(completions_per_device=rows, accumulation=calls))
    assert most <= planned
    whole = all(size == sizes[0] for size in sizes) and (rows % sizes[0] == 0 or sizes[0] % rows == 0)
    assert planned == most or not whole


def kept_for_backward(run: Callable[[], Any], weights: list[Any], shared: list[Any], autocast: bool) -> int:
    """Bytes that autograd keeps of `run`, each storage once, without weights, their bfloat16 copies, and `shared`."""
    import torch

    known = {weight.untyped_storage().data_ptr() for weight in [*weights, *shared]}
    shapes = {frozenset(weight.shape) for weight in weights if weight.ndim == 2}
    sizes: dict[int, int] = {}
    alive = []

    def pack(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        copy = autocast and tensor.ndim == 2 and frozenset(tensor.shape) in shapes
        if storage.data_ptr() not in known and not copy:
            sizes[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
    ):
        run()
    return sum(sizes.values())


@pytest.mark.parametrize("precision", ["bfloat16", "autocast", "float32"])
@pytest.mark.parametrize("kind", ["qwen2_vl", "qwen2_5_vl"])
def test_what_the_real_layers_keep_is_what_the_plan_counts(kind: str, precision: Any) -> None:
    """transformers' own decoder layer and vision block at odd widths: the bytes saved, exactly."""
    import torch
    from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl
    from transformers.models.qwen2_vl import modeling_qwen2_vl

    gated = kind == "qwen2_5_vl"
    sizes = {"hidden_size": 96, "intermediate_size": 176} if gated else {"embed_dim": 96, "mlp_ratio": 4}
    small = {
        "model_type": kind,
        "vocab_size": 160_000,
        "hidden_size": 192,
        "intermediate_size": 704,
        "num_hidden_layers": 1,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
        "rope_scaling": {"type": "mrope", "mrope_section": [4, 6, 6]},
        "vision_config": {"depth": 1, "num_heads": 3, "out_hidden_size" if gated else "hidden_size": 192, **sizes},
    }
    config = model_class(small)[0](**small)
    for part in (config, config.text_config, config.vision_config):
        part._attn_implementation = "sdpa"
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    layer_class, block_class = (
        (modeling_qwen2_5_vl.Qwen2_5_VLDecoderLayer, modeling_qwen2_5_vl.Qwen2_5_VLVisionBlock)
        if gated
        else (modeling_qwen2_vl.Qwen2VLDecoderLayer, modeling_qwen2_vl.Qwen2VLVisionBlock)
    )
    layer, block = layer_class(config.text_config, 0).to(dtype), block_class(config.vision_config).to(dtype)
    rows, length = 5, 67
    tokens = rows * length
    hidden = torch.randn(rows, length, 192, dtype=dtype, requires_grad=True)
    turns = torch.randn(rows, length, 32, dtype=dtype)
    mask = torch.ones(rows, 1, length, length, dtype=torch.bool).tril()
    turned = [turns, turns.clone()]  # sines and cosines: one for all layers
    kept = kept_for_backward(
        lambda: layer(hidden, position_embeddings=turned, attention_mask=mask),
        list(layer.parameters()),
        turned,
        precision == "autocast",
    )
    shape, what = read_shape(small), work(precision=precision)
    # On a CPU the mask becomes numbers of the queries' type, once for all layers.
    assert kept == tokens * layer_bytes(shape, what) + mask.numel() * (4 if precision == "float32" else 2)
    patches = torch.randn(tokens, 96, dtype=dtype, requires_grad=True)
    ends = torch.arange(0, tokens + 1, length)
    spots = [torch.randn(tokens, 32), torch.randn(tokens, 32)]
    kept = kept_for_backward(
        lambda: block(patches, cu_seqlens=ends, position_embeddings=spots),
        list(block.parameters()),
        spots,
        precision == "autocast",
    )
    assert kept == tokens * block_bytes(shape, what)
