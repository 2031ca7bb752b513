"""A fidelity fixture: what upstream's own training code computed on recorded rollouts, read and checked.

A folder with `meta.json`, `rollouts.safetensors`, `gradients.safetensors`, the policy whose gradient was taken
(`policy/`), the input images (`image_<k>.png`; a clip's frames lie in the rollouts), and beside it the reference policy
(`base/`).  Nothing here computes; `fidelity.py` does.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from PIL import Image
from pydantic import BaseModel, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file

from r1mm.errors import BadInput

Finite = Annotated[float, Field(allow_inf_nan=False)]
_KINDS: dict[str, tuple[Literal["image", "video"], str]] = {
    "pixel_values": ("image", "image_grid_thw"),
    "pixel_values_videos": ("video", "video_grid_thw"),
}


class Meta(BaseModel):
    """`meta.json`: loss and KL of each prompt, and what the run was told.  Other keys are notes and not read.

    `n_prompts` and `num_generations` say again what the other files show, and may be left out.
    """

    beta: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    num_generations: Annotated[int, Field(ge=2)] | None = None
    n_prompts: Annotated[int, Field(ge=1)] | None = None
    loss: Annotated[list[Finite], Field(min_length=1)]
    kl: Annotated[list[Finite], Field(min_length=1)]
    upstream: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+@[0-9a-f]{7,40}$")]


@dataclass(frozen=True)
class RecordedPrompt:
    """One prompt with what upstream sampled, rewarded and saw.

    `prompt_ids` (P,); `completion_ids` (G, C), padded after the end of each; `rewards` (G,); `pixels` (patches, pixels
    of a patch), normalised; `grid` (1, 3), patches in time, height and width; `frames` of a clip, (T, 3, H, W), bytes.
    """

    kind: Literal["image", "video"]
    prompt_ids: torch.Tensor
    completion_ids: torch.Tensor
    rewards: torch.Tensor
    pixels: torch.Tensor
    grid: torch.Tensor
    image: Path | None
    frames: torch.Tensor | None

    def __deepcopy__(self, memo: dict[int, Any]) -> "RecordedPrompt":
        """Itself: TRL copies its prompts with what they carry, to keep them from changes; nothing changes these."""
        return self


@dataclass(frozen=True)
class Fixture:
    """A whole fixture.  `gradients` by the parameter names of transformers 4.49."""

    folder: Path
    base: Path
    meta: Meta
    config: dict[str, Any]
    prompts: list[RecordedPrompt]
    gradients: dict[str, torch.Tensor]

    @property
    def group(self) -> int:
        """Completions per prompt."""
        return len(self.prompts[0].completion_ids)

    @property
    def kind(self) -> Literal["image", "video"]:
        """What the prompts show."""
        return self.prompts[0].kind


def read_fixture(folder: Path, base: Path | None = None) -> Fixture:
    """The fixture in `folder`; its reference policy is `base`, or the folder of that name beside it.

    Raises BadInput for anything that is missing, damaged or does not fit together.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder} is no folder; give the folder of one fixture, which holds meta.json")
    base = base or folder.resolve().parent / "base"
    if not base.is_dir():
        raise BadInput(f"{base} is no folder; it must hold the reference policy (another place: --base FOLDER)")
    meta = _meta(folder / "meta.json")
    config = _base_config(base)
    if not (folder / "policy").is_dir():
        raise BadInput(f"{folder / 'policy'} is missing; it must hold the weights whose gradient was taken")
    prompts = _prompts(folder, meta, config)
    gradients = _tensors(folder / "gradients.safetensors")
    for name, gradient in gradients.items():
        if not gradient.is_floating_point() or not torch.isfinite(gradient).all():
            raise BadInput(f"{folder / 'gradients.safetensors'}: {name} is not finite; record the fixture again")
    if not any(gradient.any() for gradient in gradients.values()):
        raise BadInput(f"{folder / 'gradients.safetensors'}: every gradient is zero; there is nothing to compare with")
    return Fixture(folder, base, meta, config, prompts, gradients)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadInput(f"{path} is missing") from error
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from error


def _meta(path: Path) -> Meta:
    try:
        meta = Meta.model_validate(_json(path), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "file"
        if first["type"] == "missing":
            needed = ", ".join(name for name, field in Meta.model_fields.items() if field.is_required())
            raise BadInput(f"{path}: {where} is missing; a fixture says {needed}") from error
        raise BadInput(f"{path}: {where}: {first['msg']} (value {first['input']!r})") from error
    count = meta.n_prompts or len(meta.loss)
    for name, found in (("loss", meta.loss), ("kl", meta.kl)):
        if len(found) != count:
            raise BadInput(f"{path}: {name} has {len(found)} values for {count} prompts; one each is needed")
    return meta


def _base_config(base: Path) -> dict[str, Any]:
    config = _json(base / "config.json")
    found = config.get("model_type") if isinstance(config, dict) else None
    if found != "qwen2_vl":
        raise BadInput(f"{base / 'config.json'}: model_type is {found!r}; fixtures are of Qwen2-VL ('qwen2_vl')")
    if not list(base.glob("model*.safetensors")):
        raise BadInput(f"{base} holds no model*.safetensors; the reference policy's weights are needed")
    known: dict[str, Any] = config
    return known


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise BadInput(f"{path} is missing")
    try:
        found: dict[str, torch.Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise BadInput(f"{path} is damaged: {error}") from error
    if not found:
        raise BadInput(f"{path} holds no tensor")
    return found


def _prompts(folder: Path, meta: Meta, config: dict[str, Any]) -> list[RecordedPrompt]:
    path = folder / "rollouts.safetensors"
    found = _tensors(path)
    numbers = {int(match[1]) for name in found if (match := re.match(r"prompt_(\d+)/", name))}
    if numbers != set(range(len(meta.loss))):
        raise BadInput(f"{path} holds prompts {sorted(numbers)}, but meta.json is of {len(meta.loss)} prompts")
    group = meta.num_generations
    if group is None and "prompt_0/completion_ids" in found:
        group = len(found["prompt_0/completion_ids"])
    if group is not None and group < 2:
        raise BadInput(f"{path}: prompt_0/completion_ids holds {group} completions; a group has at least 2")
    prompts = [_prompt(path, number, found, group, config) for number in sorted(numbers)]
    if len({prompt.kind for prompt in prompts}) > 1:
        raise BadInput(f"{path} mixes images and clips; a fixture holds one kind")
    return prompts


def _prompt(
    path: Path, number: int, found: dict[str, torch.Tensor], group: int | None, config: dict[str, Any]
) -> RecordedPrompt:
    def take(name: str, shape: tuple[int | None, ...], good: Callable[[torch.Tensor], bool], kind: str) -> torch.Tensor:
        full = f"prompt_{number}/{name}"
        if full not in found:
            raise BadInput(f"{path}: {full} is missing")
        tensor = found[full]
        fits = tensor.ndim == len(shape) and all(b in (None, a) for a, b in zip(tensor.shape, shape, strict=True))
        if not fits or not tensor.numel():
            wanted = tuple("any" if size is None else size for size in shape)
            raise BadInput(f"{path}: {full} has shape {tuple(tensor.shape)}, must have {wanted}")
        if not good(tensor):
            raise BadInput(f"{path}: {full} must hold {kind}, is {tensor.dtype}, {tensor.min()} to {tensor.max()}")
        return tensor

    vocabulary = _text_setting(config, "vocab_size")

    def is_token(tensor: torch.Tensor) -> bool:
        return not tensor.is_floating_point() and bool(((tensor >= 0) & (tensor < vocabulary)).all())

    def is_finite(tensor: torch.Tensor) -> bool:
        return tensor.is_floating_point() and bool(torch.isfinite(tensor).all())

    tokens, numbers = f"token ids below {vocabulary}", "finite floating-point numbers"
    prompt_ids = take("prompt_ids", (None,), is_token, tokens)
    completion_ids = take("completion_ids", (group, None), is_token, tokens)
    rewards = take("rewards", (group,), is_finite, numbers)
    present = [name for name in _KINDS if f"prompt_{number}/{name}" in found]
    if len(present) != 1:
        raise BadInput(f"{path}: prompt_{number} must hold one of {', '.join(_KINDS)}, holds {present or 'neither'}")
    kind, grid_name = _KINDS[present[0]]
    vision = {"spatial_merge_size": 2, "patch_size": 14, "temporal_patch_size": 2, **config.get("vision_config", {})}
    merge = vision["spatial_merge_size"]

    def is_grid(tensor: torch.Tensor) -> bool:
        return not tensor.is_floating_point() and bool((tensor > 0).all() and (tensor[:, 1:] % merge == 0).all())

    grid = take(grid_name, (1, 3), is_grid, f"patches in time, height, width, the latter multiples of {merge}")
    patch = 3 * vision["temporal_patch_size"] * vision["patch_size"] ** 2
    pixels = take(present[0], (int(grid.prod()), patch), is_finite, numbers)
    needed, token = int(grid.prod()) // merge**2, config[f"{kind}_token_id"]
    placeholders = int((prompt_ids == token).sum())
    if placeholders != needed:
        raise BadInput(
            f"{path}: prompt_{number}/prompt_ids has {placeholders} {kind} placeholders (token {token}), "
            f"{grid_name} {grid.tolist()} asks for {needed}"
        )
    frames = None
    if kind == "video":
        frames = take("frames_uint8", (None, 3, None, None), lambda t: t.dtype == torch.uint8, "bytes")
    image = path.parent / f"image_{number}.png" if kind == "image" else None
    if image:
        if not image.is_file():
            raise BadInput(f"{image} is missing; it is the image of prompt_{number}")
        try:
            with Image.open(image) as opened:
                opened.load()
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise BadInput(f"{image} cannot be decoded: {error}") from error
    return RecordedPrompt(kind, prompt_ids, completion_ids, rewards, pixels, grid, image, frames)


def _text_setting(config: dict[str, Any], name: str) -> Any:
    # transformers 4.49 wrote a text model's settings at the top, 5 writes them below text_config.
    return config.get(name, config.get("text_config", {}).get(name))
