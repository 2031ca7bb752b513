"""The shape of a Qwen2-VL or Qwen2.5-VL model, read from its config.json, and its parameters counted from it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1mm.errors import BadInput

# What each hub repository's config.json says, as far as a plan needs it, for planning without the checkpoint at hand.
_TOWER_2 = {"depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "num_heads": 16, "patch_size": 14}
_TOWER_2_5 = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "patch_size": 14}
PUBLISHED: dict[str, dict[str, Any]] = {
    "Qwen/Qwen2-VL-2B-Instruct": {
        "model_type": "qwen2_vl",
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
        "vision_config": {**_TOWER_2, "hidden_size": 1536},
    },
    "Qwen/Qwen2-VL-7B-Instruct": {
        "model_type": "qwen2_vl",
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "tie_word_embeddings": False,
        "vision_config": {**_TOWER_2, "hidden_size": 3584},
    },
    "Qwen/Qwen2.5-VL-3B-Instruct": {
        "model_type": "qwen2_5_vl",
        "hidden_size": 2048,
        "intermediate_size": 11008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
        "vision_config": {**_TOWER_2_5, "out_hidden_size": 2048},
    },
}


@dataclass(frozen=True)
class Tower:
    """A vision tower.  `gated`: Qwen2.5-VL's blocks, with RMSNorm and a gated MLP."""

    depth: int
    width: int
    inner: int
    heads: int
    out: int
    patch: int
    temporal: int
    channels: int
    merge: int
    gated: bool

    @property
    def patch_values(self) -> int:
        """Numbers of one patch of pixels."""
        return self.channels * self.temporal * self.patch**2

    @property
    def parameters(self) -> int:
        """Weights and biases of the tower and its merger."""
        attention = 4 * self.width**2 + 4 * self.width
        if self.gated:
            block = attention + 3 * self.width * self.inner + 2 * self.inner + self.width + 2 * self.width
        else:
            block = attention + 2 * self.width * self.inner + self.inner + self.width + 4 * self.width
        merged = self.width * self.merge**2
        merger = (1 if self.gated else 2) * self.width + merged**2 + merged + merged * self.out + self.out
        return self.patch_values * self.width + self.depth * block + merger


@dataclass(frozen=True)
class Shape:
    """A model.  Widths are numbers per token."""

    width: int
    inner: int
    layers: int
    heads: int
    key_value_heads: int
    vocabulary: int
    tied: bool
    tower: Tower

    @property
    def key_value_width(self) -> int:
        """Width of one token's keys (and of its values) in one layer."""
        return self.width // self.heads * self.key_value_heads

    @property
    def head_parameters(self) -> int:
        """The matrix from the last hidden state to the vocabulary."""
        return self.vocabulary * self.width

    @property
    def layer_parameters(self) -> int:
        """One decoder layer."""
        queries = self.width**2 + self.width
        keys_and_values = 2 * (self.width * self.key_value_width + self.key_value_width)
        return queries + keys_and_values + self.width**2 + 3 * self.width * self.inner + 2 * self.width

    @property
    def parameters(self) -> int:
        """All of them; a tied head counts once."""
        embeddings = self.head_parameters * (1 if self.tied else 2)
        return embeddings + self.layers * self.layer_parameters + self.width + self.tower.parameters


MODEL_TYPES = ("qwen2_vl", "qwen2_5_vl")


def read_shape(config: dict[str, Any]) -> Shape:
    """The shape that a config.json describes, in the flat layout of transformers 4 or with a `text_config`.

    Raises BadInput for another architecture, and for a missing or impossible size.
    """
    kind = config.get("model_type")
    if kind not in MODEL_TYPES:
        raise BadInput(f"model_type {kind!r} cannot be planned for; give a checkpoint of {' or '.join(MODEL_TYPES)}")
    text, vision = config.get("text_config") or config, config.get("vision_config")
    if not isinstance(vision, dict):
        raise BadInput("the model's config has no vision_config; give a checkpoint with its vision tower")

    def size(part: dict[str, Any], *names: str, default: int | None = None) -> int:
        value = next((part[name] for name in names if name in part), default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise BadInput(f"the model's config says {names[0]}: {value!r}; it must be a whole number from 1 on")
        return value

    width, heads = size(text, "hidden_size"), size(text, "num_attention_heads")
    if width % heads:
        raise BadInput(f"the model's config says hidden_size {width} with {heads} heads, which do not divide it")
    gated = kind == "qwen2_5_vl"
    tower_width = size(vision, "hidden_size" if gated else "embed_dim")
    tower = Tower(
        depth=size(vision, "depth"),
        width=tower_width,
        inner=size(vision, "intermediate_size") if gated else int(tower_width * vision.get("mlp_ratio", 4)),
        heads=size(vision, "num_heads"),
        out=size(vision, "out_hidden_size" if gated else "hidden_size"),
        patch=size(vision, "patch_size", default=14),
        temporal=size(vision, "temporal_patch_size", default=2),
        channels=size(vision, "in_channels", "in_chans", default=3),
        merge=size(vision, "spatial_merge_size", default=2),
        gated=gated,
    )
    return Shape(
        width=width,
        inner=size(text, "intermediate_size"),
        layers=size(text, "num_hidden_layers"),
        heads=heads,
        key_value_heads=size(text, "num_key_value_heads", default=heads),
        vocabulary=size(text, "vocab_size"),
        tied=bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))),
        tower=tower,
    )


def config_of_folder(folder: Path) -> dict[str, Any]:
    """The config.json of a checkpoint.  Raises BadInput when there is none to read."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read: {error}; give the folder of a checkpoint") from error
    if not isinstance(config, dict):
        raise BadInput(f"{path} holds no JSON object; give the folder of a checkpoint")
    return config


def config_of_repo(repo: str) -> dict[str, Any]:
    """The published shape of a hub repository.  Raises BadInput for one that r1mm does not carry."""
    if repo not in PUBLISHED:
        raise BadInput(f"the shape of {repo} is not known here (known: {', '.join(PUBLISHED)}); give --model FOLDER")
    return PUBLISHED[repo]
