"""The plan's arithmetic: figures worked by hand, counts on the real layers, and what upstream's users reported."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from r1mm.cli import main
from r1mm.errors import BadInput
from r1mm.plan import Layout, Plan, default_gpus, make_plan, parse_gpus
from r1mm.plan.duration import decode_seconds, pass_flops, step_time
from r1mm.plan.hardware import GIB, GPUS, _known_by
from r1mm.plan.layout import Work, exact_splits, image_tokens, work_of
from r1mm.plan.memory import block_bytes, cache_bytes, layer_bytes, predict
from r1mm.plan.shapes import PUBLISHED, config_of_repo, read_shape
from r1mm.recipe import Recipe, resolve
from r1mm.recipe_files import RECIPES, all_recipes, load_recipe

TWO_B = PUBLISHED["Qwen/Qwen2-VL-2B-Instruct"]
SHOWN = ("8xA100-80G", "1xH100-80G", "4xA100-40G", "2x8xH100", "1x24G")


def recipe(variant: str = "as-fixed") -> Recipe:
    return resolve(load_recipe(RECIPES / "r1v-clevr-2b" / "recipe.yaml"), variant).recipe


def tiny_config() -> dict[str, Any]:
    """The miniature's model, as its own code builds it."""
    from r1mm.mini.datasets import PALETTE
    from r1mm.mini.language import build_tokenizer
    from r1mm.mini.model import build_model

    mini = load_recipe(RECIPES / "r1v-mini" / "recipe.yaml")
    settings = {key: setting.value for key, setting in mini.model.items()}
    model = build_model(settings, build_tokenizer([mini.prompts.train.value], PALETTE), seed=0)
    config: dict[str, Any] = model.config.to_dict()
    assert read_shape(config).parameters == sum(weight.numel() for weight in model.parameters())
    return config


def model_class(config: dict[str, Any]) -> tuple[Any, Any]:
    import transformers

    name = {"qwen2_vl": "Qwen2VL", "qwen2_5_vl": "Qwen2_5_VL"}[config["model_type"]]
    return getattr(transformers, f"{name}Config"), getattr(transformers, f"{name}ForConditionalGeneration")


# --- the model's shape


def test_the_2b_model_has_2_208_985_600_parameters() -> None:
    shape = read_shape(TWO_B)
    # One decoder layer, worked by hand: q 1536^2 + 1536, k and v 2 (1536 x 256 + 256), o 1536^2, MLP 3 x 1536 x 8960,
    # two norms.
    assert shape.layer_parameters == 2_360_832 + 786_944 + 2_359_296 + 41_287_680 + 3_072 == 46_797_824
    # The tower: patches 1176 x 1280; 32 blocks of 12 x 1280^2 with 16,640 biases and norms; the merger's two matrices.
    assert 12 * 1280**2 + 16_640 == 19_677_440
    assert 5120**2 + 5120 * 1536 + 5120 + 1536 + 2 * 1280 == 34_087_936
    assert shape.tower.parameters == 1_505_280 + 32 * 19_677_440 + 34_087_936
    assert shape.parameters == 151_936 * 1536 + 28 * 46_797_824 + 1536 + shape.tower.parameters == 2_208_985_600


@pytest.mark.parametrize("repo", PUBLISHED)
def test_parameters_are_those_of_the_class_itself(repo: str) -> None:
    import torch

    config = {**PUBLISHED[repo], "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}}
    make_config, make_model = model_class(config)
    with torch.device("meta"):
        model = make_model(make_config(**config))
    model.tie_weights()
    assert read_shape(config).parameters == sum(weight.numel() for weight in model.parameters())
    assert read_shape(model.config.to_dict()) == read_shape(config), "the layout of transformers 5 reads the same"


def test_the_miniatures_model_is_read_too() -> None:
    assert 500_000 < read_shape(tiny_config()).parameters < 2_000_000


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "llava"}, "model_type 'llava' cannot be planned for"),
        ({"vision_config": None}, "no vision_config"),
        ({"hidden_size": "1536"}, "hidden_size: '1536'"),
        ({"num_attention_heads": 7}, "hidden_size 1536 with 7 heads"),
    ],
)
def test_a_config_that_is_none_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=re.escape(words)):
        read_shape({**TWO_B, **change})


def test_clevr_images_have_187_tokens() -> None:
    assert image_tokens(480, 320, read_shape(TWO_B)) == 187  # Deep-Agent/R1-V#91: "features 187"


# --- naming GPUs


def test_gpus_are_read_in_every_form() -> None:
    assert parse_gpus("8xA100-80G").name == "8xA100-80G"
    assert parse_gpus("2x8xh100").name == "2x8xH100-80G"
    assert parse_gpus("H100-80GB").name == "1xH100-80G"
    assert (parse_gpus("2x8xH100").nodes, parse_gpus("2x8xH100").devices) == (2, 16)
    assert parse_gpus("1x24G").gpu.memory == 22.5
    assert parse_gpus("cpu").cpu
    for spec in ("8xA100-80G", "2x8xH100", "1x24G", "cpu"):
        assert parse_gpus(parse_gpus(spec).name) == parse_gpus(spec)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("8xA10O-80G", "unknown GPU 'A10O-80G'; did you mean 'A100-80G'?"),
        ("1xTPUv5", "unknown GPU 'TPUv5'. Known: "),
        ("8xA100", "write A100-40G or A100-80G"),
        ("0xH100", "'0xH100' is 1 x 0 GPUs"),
        ("9999xH100", "from 1 to 1024"),
        ("two H100", "names no GPUs; write 8xA100-80G"),
        ("", "names no GPUs"),
        ("1x500G", "unknown GPU '500G'"),
    ],
)
def test_gpus_that_are_none_are_refused(spec: str, words: str) -> None:
    with pytest.raises(BadInput, match=re.escape(words)):
        parse_gpus(spec)


# --- the batch


@pytest.mark.parametrize("variant", ["as-published", "as-fixed", "as-fixed+vllm"])
def test_a_step_is_kept_exactly_on_every_number_of_gpus(variant: str) -> None:
    chosen = recipe(variant)
    for gpus in range(1, 65):
        if 128 % gpus:
            with pytest.raises(BadInput, match="cannot be split exactly.*1, 2, 4, 8, 16, 32, 64, 128"):
                make_plan(chosen, TWO_B, f"{gpus}xH200-141G")
            continue
        layout = make_plan(chosen, TWO_B, f"{gpus}xH200-141G").layout
        assert layout.processes * layout.completions_per_device * layout.accumulation == 128
        # What TRL asks for beside: whole groups in what all processes generate together (trl==1.16.0, GRPOConfig).
        assert layout.processes * layout.generated % 8 == 0
        assert layout.processes == gpus


def test_trl_takes_the_split_of_a_group_over_devices(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """64 processes of two completions: fewer than a group each.  TRL's own check, with its count of processes set."""
    from trl import GRPOConfig

    layout = make_plan(recipe(), TWO_B, "64xH100").layout
    assert (layout.completions_per_device, layout.accumulation) == (2, 1)

    def config(per_device: int) -> Any:
        return GRPOConfig(
            output_dir=str(tmp_path),
            per_device_train_batch_size=per_device,
            gradient_accumulation_steps=layout.accumulation,
            num_generations=8,
            use_cpu=True,
        )

    monkeypatch.setattr(GRPOConfig, "world_size", 64)
    assert config(layout.completions_per_device).generation_batch_size == 128
    monkeypatch.setattr(GRPOConfig, "world_size", 3)
    with pytest.raises(ValueError, match="divisible by num_generations"):
        config(1)


def test_upstreams_own_layout_is_kept_where_it_fits() -> None:
    published = make_plan(recipe("as-published"), TWO_B, "8xA100-80G")
    fixed = make_plan(recipe("as-fixed"), TWO_B, "8xA100-80G")
    assert (published.layout.sharding, fixed.layout.sharding) == ("ddp", "zero-3")
    for plan in (published, fixed):
        assert plan.layout.completions_per_device * plan.layout.accumulation == 16
        assert not plan.layout.offload
        assert not plan.layout.gradient_checkpointing
    assert fixed.deviations == []
    # 8 x 2 would take 75.6 of 80 GiB: too near to rely on a prediction.
    assert (published.layout.completions_per_device, fixed.layout.completions_per_device) == (4, 8)
    assert {item.changes_numbers for item in published.deviations} <= {"no", "rounding"}


def test_every_departure_is_listed_with_its_reason() -> None:
    plan = make_plan(recipe("as-published"), TWO_B, "4xA100-40G")
    found = {item.setting: item for item in plan.deviations}
    assert plan.layout.sharding == "zero-2"
    assert (found["sharding"].upstream, found["sharding"].ours) == ("ddp", "zero-2")
    assert (found["weights"].upstream, found["weights"].ours) == ("float32", "bfloat16")
    assert found["GPUs"].upstream == "8xA100-80G"
    assert all(item.reason for item in plan.deviations)
    assert {item.setting for item in plan.deviations if item.changes_numbers == "yes"} == {"weights"}
    assert ("gradient checkpointing" in found) == plan.layout.gradient_checkpointing
    alone = make_plan(recipe("as-fixed"), TWO_B, "1x24G")
    assert alone.layout.offload
    assert alone.host_memory > 40
    assert "weights and optimizer" in {item.setting for item in alone.deviations}


def test_vllm_only_where_the_recipe_asks_for_it() -> None:
    assert make_plan(recipe(), TWO_B, "8xA100-80G").layout.generation == "transformers"
    colocated = make_plan(recipe("as-fixed+vllm"), TWO_B, "8xA100-80G").layout
    assert colocated.generation == "vllm-colocate"
    # 4.1 GiB of weights, 16 x 795 x 28 KiB = 0.34 GiB of cache and 2 GiB of its own: 6.5 of 80, rounded up to 0.1.
    assert colocated.vllm_memory == 0.1
    whole = recipe("as-fixed+vllm").model_dump()
    whole["train"]["vllm_mode"]["value"] = "server"
    served = Recipe.model_validate(whole)
    five = make_plan(served, TWO_B, "5xA100-80G").layout
    assert (five.processes, five.vllm_gpus, five.generation, five.vllm_memory) == (4, 1, "vllm-server", None)
    nodes = make_plan(served, TWO_B, "2x8xH100").layout
    assert (nodes.nodes, nodes.processes, nodes.vllm_gpus) == (1, 8, 8)
    with pytest.raises(BadInput, match="a GPU each"):
        make_plan(served, TWO_B, "1xH100")


# --- memory


def work(**changes: Any) -> Work:
    return Work(
        **{
            "prompts": 16,
            "group": 8,
            "prompt_tokens": 283,
            "image_tokens": 187,
            "completion_tokens": 512,
            "steps": 100,
            "precision": "bfloat16",
            "reference": True,
            "images_in_logprobs": True,
            "rescored": False,
            **changes,
        }
    )


def layout(**changes: Any) -> Layout:
    whole: dict[str, Any] = {
        "gpus": "8xA100-80G",
        "device": "cuda",
        "nodes": 1,
        "processes": 8,
        "completions_per_device": 8,
        "accumulation": 2,
        "sharding": "ddp",
        "offload": False,
        "gradient_checkpointing": False,
        "generation": "transformers",
        "vllm_gpus": 0,
        "vllm_memory": None,
    }
    return Layout(**{**whole, **changes})


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
    # 8 x 512 completion tokens fill one tile of 4,096 x 32,768 in bfloat16; the whole logits would take 1.2 GB.
    assert memory.phases["reference"]["logits"] == 4096 * 32768 * 2 == 268_435_456
    # In the backward pass also the hidden states' gradient and the head's in float32, the latter cast to bfloat16.
    assert memory.phases["update"]["logits"] == 268_435_456 + 4096 * 1536 * 4 + 151_936 * 1536 * (4 + 2)


def test_what_images_none_and_checkpointing_save() -> None:
    shape = read_shape(TWO_B)
    usual = predict(shape, work(), layout(), 80 * GIB).phases["update"]
    blind = predict(shape, work(images_in_logprobs=False), layout(), 80 * GIB).phases["update"]
    again = predict(shape, work(), layout(gradient_checkpointing=True), 80 * GIB).phases["update"]
    assert usual["activations"] == 8 * 795 * 29 * layer_bytes(shape, work())
    # Two groups on a device: two images of 748 patches in 32 blocks, and one block's worth at work.
    assert usual["vision tower"] == 2 * 748 * 33 * block_bytes(shape, work())
    assert "vision tower" not in blind
    assert again["activations"] == 8 * 795 * (28 * 2 * 1536 + 2 * layer_bytes(shape, work()))


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


# --- refusals


def test_what_cannot_fit_is_refused_with_the_smallest_that_can() -> None:
    seven = config_of_repo("Qwen/Qwen2-VL-7B-Instruct")
    with pytest.raises(BadInput) as refused:
        make_plan(recipe("as-published"), seven, "1x24G")
    text = str(refused.value)
    assert re.match(
        r"1x24G: r1v-clevr-2b \(8\.29 billion parameters\) needs at least \d+\.\d GiB per GPU even with zero-3", text
    )
    assert "1 completion at a time" in text
    smallest = re.search(r"The smallest that fits: --gpus (\S+)", text)
    assert smallest
    assert make_plan(recipe("as-published"), seven, smallest[1])
    memory = parse_gpus(smallest[1])
    for gpu in GPUS.values():  # nothing of less memory takes it
        if gpu.memory < memory.devices * memory.gpu.memory:
            with pytest.raises(BadInput):
                make_plan(recipe("as-published"), seven, f"1x{gpu.name}")


def test_a_2b_model_is_refused_on_an_ordinary_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    seen = psutil.virtual_memory()
    monkeypatch.setattr("psutil.virtual_memory", lambda: seen._replace(total=16 * GIB))
    with pytest.raises(
        BadInput, match=r"cpu: r1v-clevr-2b .* of memory even with .*13\.6 of 16\.0 GiB.*smallest that fits"
    ):
        make_plan(recipe(), TWO_B, "cpu")
    monkeypatch.setattr("psutil.virtual_memory", lambda: seen._replace(total=512 * GIB))
    assert make_plan(recipe(), TWO_B, "cpu").layout.device == "cpu"


def test_a_tiny_stand_in_fits_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    seen = psutil.virtual_memory()
    for memory, expected in ((256, (128, 1)), (8, None)):
        monkeypatch.setattr("psutil.virtual_memory", lambda memory=memory: seen._replace(total=memory * GIB))
        plan = make_plan(recipe("as-fixed+vllm"), tiny_config(), "cpu")
        got = plan.layout
        assert (got.device, got.processes, got.generation, got.sharding) == ("cpu", 1, "transformers", "ddp")
        assert got.completions_per_device * got.accumulation == 128
        assert expected is None or (got.completions_per_device, got.accumulation) == expected
        assert plan.cost is None


def test_a_miniature_is_planned_for_the_cpu_alone() -> None:
    mini = resolve(load_recipe(RECIPES / "r1v-mini" / "recipe.yaml")).recipe
    assert make_plan(mini, tiny_config(), "cpu").layout.completions_per_device == 128
    with pytest.raises(BadInput, match="write --gpus cpu"):
        make_plan(mini, tiny_config(), "1xH100")


# --- time


def test_flops_of_a_pass_by_hand() -> None:
    shape = read_shape(TWO_B)
    # One token, nothing scored, no image: two per weight of the layers' matrices and biases, and a little attention.
    assert pass_flops(shape, 1, 1, 0, 0) == 2 * 28 * (46_797_824 - 3072) + 28 * 2 * 1536
    assert pass_flops(shape, 1, 1, 1, 0) - pass_flops(shape, 1, 1, 0, 0) == 2 * 151_936 * 1536


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


def test_hours_and_cost_are_the_steps_times_the_price() -> None:
    plan = make_plan(recipe(), TWO_B, "8xA100-80G", price=2.0)
    assert plan.hours == pytest.approx(plan.step_seconds["total"] * 100 / 3600, abs=1e-3)
    assert plan.cost == pytest.approx(plan.hours * 8 * 2.0, abs=0.01)
    assert plan.hours <= plan.hours_at_most
    assert any("assumption" in text for text in make_plan(recipe(), TWO_B, "8xA100-80G").assumptions)
    assert make_plan(recipe(), TWO_B, "1x24G").cost is None  # nobody sells "24G"


# --- as a user sees it


@pytest.mark.parametrize("spec", SHOWN)
def test_a_plan_comes_back_from_json_as_it_was(spec: str) -> None:
    plan = make_plan(recipe(), TWO_B, spec)
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
    assert Layout.model_validate_json(plan.layout.model_dump_json()) == plan.layout
    assert plan.peak <= plan.device_memory
    always = sum(plan.memory["always"].values())
    assert plan.peak == pytest.approx(always + sum(plan.memory[plan.peak_phase].values()), abs=0.1)


def test_the_verb_prints_a_table_or_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["plan", "r1v-clevr-2b", "--gpus", "4xA100-40G"]) == 0
    text = capsys.readouterr().out
    for word in ("KV cache", "vision tower", "departures from upstream's layout", "assumption", "2,208,985,600"):
        assert word in text
    (tmp_path / "config.json").write_text(json.dumps(TWO_B))
    options = ["--gpus", "8xA100-80G", "--variant", "as-published", "--model", str(tmp_path), "--image", "480x320"]
    assert main(["plan", "r1v-clevr-2b", "--json", *options]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["layout"]["sharding"] == "ddp"
    assert shown["variant"] == "as-published"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--gpus", "8xA100-8OG"], "did you mean"),
        (["--gpus", "3xH100"], "cannot be split exactly"),
        (["--model", "nowhere"], "nowhere/config.json cannot be read"),
        (["--variant", "as-fixd"], "did you mean 'as-fixed'"),
    ],
)
def test_the_verb_refuses_in_one_line(capsys: pytest.CaptureFixture[str], options: list[str], words: str) -> None:
    assert main(["plan", "r1v-clevr-2b", *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("r1mm: error: ")
    assert words in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "folder", [path.parent for path in sorted(RECIPES.glob("*/recipe.yaml"))], ids=lambda path: path.name
)
def test_every_full_recipe_is_planned_for_its_own_hardware(folder: Path) -> None:
    whole = load_recipe(folder / "recipe.yaml")
    if whole.miniature:
        return
    for variant in whole.variants:
        chosen = resolve(whole, variant).recipe
        assert chosen.hardware is not None
        asset = chosen.assets["model"]
        assert asset.kind == "model"
        plan = make_plan(chosen, config_of_repo(asset.repo), default_gpus(chosen))
        assert plan.completions_per_step == chosen.prompts_per_step.value * chosen.train["num_generations"].value


def test_exact_splits() -> None:
    assert exact_splits(128, 20) == [1, 2, 4, 8, 16]


@pytest.mark.parametrize(
    ("name", "memory", "known"),
    [
        ("NVIDIA A100-SXM4-80GB", 80.0, "A100-80G"),
        ("NVIDIA A100-SXM4-40GB", 40.0, "A100-40G"),
        ("NVIDIA H100 80GB HBM3", 79.6, "H100-80G"),
        ("NVIDIA GeForce RTX 4090", 24.0, "RTX4090-24G"),
        ("NVIDIA L40S", 45.0, "L40S-48G"),
        ("NVIDIA A10G", 22.5, "A10-24G"),
        ("Tesla V100-SXM2-32GB", 32.0, None),
    ],
)
def test_a_drivers_name_is_a_gpu_of_the_table(name: str, memory: float, known: str | None) -> None:
    assert _known_by(name, memory) == known


@pytest.mark.parametrize(
    "folder", [folder for folder in all_recipes() if folder.name != "r1v-mini"], ids=lambda f: f.name
)
def test_the_readmes_plans_are_those_of_the_program(folder: Path) -> None:
    recipe = resolve(load_recipe(folder / "recipe.yaml")).recipe
    model = recipe.assets["model"]
    assert model.kind == "model"
    rows = re.findall(
        r"^\| (\S*\dx\S+) \| ([\dx ]+) \| .*? \| ([\d.]+) of ", (folder / "README.md").read_text(), re.MULTILINE
    )
    assert rows
    for gpus, split, peak in rows:
        plan = make_plan(recipe, config_of_repo(model.repo), gpus)
        layout = plan.layout
        assert split == f"{layout.processes} x {layout.completions_per_device} x {layout.accumulation}", gpus
        assert float(peak) == round(plan.peak, 1), gpus
