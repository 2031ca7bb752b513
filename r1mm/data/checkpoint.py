"""Whether a folder is a checkpoint that r1mm may load: Qwen2-VL or 2.5-VL, whole, safetensors, no code of its own."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from r1mm.data.selection import model_files
from r1mm.errors import BadInput
from r1mm.plan.shapes import MODEL_TYPES

_INDEX = "model.safetensors.index.json"
# Where a checkpoint may name code to be run when it is loaded.
_CONFIGURATIONS = (
    *("config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json"),
    *("video_preprocessor_config.json", "generation_config.json"),
)


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object of a checkpoint.  BadInput when the file holds none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} is damaged ({error}); fetch the checkpoint again") from error
    if not isinstance(content, dict):
        raise BadInput(f"{path} holds no JSON object; fetch the checkpoint again")
    return content


def _weights(folder: Path) -> dict[str, list[str]]:
    """The weight files by name, with the tensors that the index says they hold (nothing without an index)."""
    if not (folder / _INDEX).is_file():
        return {path.name: [] for path in sorted(folder.glob("*.safetensors"))}
    weight_map = read_object(folder / _INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise BadInput(f"{folder / _INDEX} has no weight_map; fetch the checkpoint again")
    held: dict[str, list[str]] = {}
    for tensor, file in weight_map.items():
        if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"):
            raise BadInput(f"{folder / _INDEX} puts {tensor} into {file!r}, which is no safetensors file beside it")
        held.setdefault(file, []).append(tensor)
    return held


def check_checkpoint(folder: Path) -> None:
    """Raise BadInput unless `folder` holds a Qwen2-VL or Qwen2.5-VL checkpoint that can be loaded without running code.

    Refused: another model type, pickled weights without safetensors, an index that names files or tensors that are not
    there, cut weight files, and an `auto_map` (code that comes with the checkpoint).
    """
    model_files([path.name for path in folder.iterdir() if path.is_file()], f"checkpoint {folder}")
    model_type = read_object(folder / "config.json").get("model_type")
    if model_type not in MODEL_TYPES:
        raise BadInput(
            f"checkpoint {folder} is of model type {model_type!r}; r1mm trains {' and '.join(MODEL_TYPES)}: name a "
            "Qwen2-VL or Qwen2.5-VL checkpoint"
        )
    for name in _CONFIGURATIONS:
        if (folder / name).is_file() and "auto_map" in read_object(folder / name):
            raise BadInput(
                f"{folder / name} has an auto_map: it wants code of its own to be run, which is refused; name a "
                "checkpoint that transformers loads by itself"
            )
    for file, tensors in _weights(folder).items():
        path = folder / file
        if not path.is_file():
            raise BadInput(f"checkpoint {folder} lacks {file}, which its index names; fetch it again")
        try:
            with safe_open(path, framework="numpy") as opened:
                missing = sorted(set(tensors) - set(opened.keys()))
        except (SafetensorError, OSError) as error:
            raise BadInput(f"{path} is damaged or truncated ({error}); fetch the checkpoint again") from error
        if missing:
            raise BadInput(f"{path} lacks {missing[0]}, which the index says it holds; fetch the checkpoint again")


def check_processor(folder: Path) -> None:
    """Raise BadInput unless a checkpoint's tokenizer, image processor and chat template can be loaded."""
    from transformers import AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # of whatever kind the library meets in a file that is cut or missing
        raise BadInput(f"the processor of checkpoint {folder} cannot be loaded ({error}); fetch it again") from error
    if not getattr(processor, "chat_template", None):
        raise BadInput(f"checkpoint {folder} has no chat template; fetch chat_template.json (or .jinja) with it")
