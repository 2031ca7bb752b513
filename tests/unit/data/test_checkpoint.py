import json
from pathlib import Path

import pytest

from r1mm.data.checkpoint import check_checkpoint, check_processor
from r1mm.errors import BadInput
from tests.local_assets import write_model
from tests.small_assets import write_checkpoint


@pytest.mark.parametrize("model_type", ["qwen2_vl", "qwen2_5_vl"])
def test_a_whole_checkpoint_passes(tmp_path: Path, model_type: str) -> None:
    check_checkpoint(write_checkpoint(tmp_path, model_type))
    (tmp_path / "pytorch_model.bin").write_bytes(b"beside safetensors it is never read")
    check_checkpoint(tmp_path)


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "qwen2_vl_text", None])
def test_another_model_is_refused(tmp_path: Path, model_type: str) -> None:
    with pytest.raises(BadInput, match=f"is of model type {model_type!r}; r1mm trains qwen2_vl and qwen2_5_vl"):
        check_checkpoint(write_checkpoint(tmp_path, model_type))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pth", "model.ckpt"])
def test_pickled_weights_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_vl"}')
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(BadInput, match=f"has its weights only as {name}: pickles can run any code .* refused"):
        check_checkpoint(tmp_path)


def test_code_of_its_own_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    for name in ("tokenizer_config.json", "config.json"):
        config = json.loads((tmp_path / name).read_text())
        (tmp_path / name).write_text(json.dumps({**config, "auto_map": {"AutoModel": "evil.Model"}}))
        with pytest.raises(BadInput, match=f"{name} has an auto_map: it wants code of its own"):
            check_checkpoint(tmp_path)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"has no \*.safetensors file \(it has nothing\)"):
        check_checkpoint(tmp_path)
    write_checkpoint(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(BadInput, match=r"has no config.json"):
        check_checkpoint(tmp_path)
    write_checkpoint(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(BadInput, match="lacks model-00002-of-00002.safetensors, which its index names"):
        check_checkpoint(tmp_path)


def test_a_truncated_weight_file_is_named(tmp_path: Path) -> None:
    shard = write_checkpoint(tmp_path) / "model-00001-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-8])
    with pytest.raises(BadInput, match=r"model-00001-of-00002.safetensors is damaged or truncated"):
        check_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("weight_map", "said"),
    [
        ({}, "has no weight_map"),
        ({"layer.1": "../../elsewhere.safetensors"}, "which is no safetensors file beside it"),
        ({"layer.1": "model.bin"}, "which is no safetensors file beside it"),
        ({"layer.9": "model-00001-of-00002.safetensors"}, "lacks layer.9, which the index says it holds"),
    ],
)
def test_an_index_that_does_not_hold_is_refused(tmp_path: Path, weight_map: dict[str, str], said: str) -> None:
    write_checkpoint(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(BadInput, match=said):
        check_checkpoint(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_config_is_named(tmp_path: Path, content: str) -> None:
    (write_checkpoint(tmp_path) / "config.json").write_text(content)
    with pytest.raises(BadInput, match="config.json (is damaged|holds no JSON object)"):
        check_checkpoint(tmp_path)


def test_a_processor_that_cannot_be_loaded_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path)
    check_processor(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(BadInput, match="has no chat template"):
        check_processor(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"a"')
    with pytest.raises(BadInput, match="the processor of checkpoint .* cannot be loaded"):
        check_processor(tmp_path)
