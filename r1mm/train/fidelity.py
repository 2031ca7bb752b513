"""Does our trainer compute what upstream's code computed?  Recorded rollouts through our trainer (`replay.py`), its
gradient held against upstream's.

A commit of which nothing was recorded can be asked about too: rollouts know nothing of passes, so that plain torch
(`plain.py`) computes upstream's gradient on another commit's, and must give that one's recorded gradient first.
"""

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from r1mm.errors import BadInput
from r1mm.train.fixture import Fixture
from r1mm.train.plain import compute
from r1mm.train.replay import Reading, Replayed, fixture_processor, loadable, reading_of, replay

# Upstream's bound of |log reference - log policy| in the KL (Wang-Xiaodong1899/Open-R1-Video@50eb65f, trainer).  TRL
# has none, and neither have we: beyond it a token is e^11 times as likely to one of policy and reference as to the
# other; there the gradient of upstream's KL is 0, and ours draws the policy back.
CLAMP = 11.0
TOLERANCE = 1e-5  # of the whole gradient, relative; float32 sums in another order differ by less than 1e-6


@dataclass(frozen=True)
class Fidelity:
    """Our numbers beside upstream's.  Errors are relative; None where one side has nothing to compare with.

    `gradient_error` is |ours - upstream's| / |upstream's| over all parameters, those that upstream's gradient leaves
    out counted as zero; `worst_error` is the same of `worst_parameter` alone, which holds `worst_share` of the norm of
    the whole.  `pixel_difference` is the largest between our processor's pixels and the recorded ones, both normalised;
    None when our processor makes another grid.  `recorded_of`: the commit that the rollouts are of; where that is not
    `upstream`, whose numbers are then computed, `anchor_error` is the computation's against the recorded gradient.
    """

    fixture: str
    upstream: str
    recorded_of: str
    anchor_error: float | None
    reading: str
    prompts: int
    group: int
    beta: float
    recipe_beta: float
    loss: float
    upstream_loss: float
    loss_error: float | None
    kl: float | None
    upstream_kl: float
    kl_error: float | None
    kl_over_tokens: float | None
    largest_log_ratio: float | None
    clamp: float | None
    gradient_error: float | None
    worst_parameter: str
    worst_error: float | None
    worst_share: float
    pixel_difference: float | None
    tolerance: float
    faithful: bool

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def check_fidelity(fixture: Fixture, folder: Path, *, upstream: str | None = None, grouped: bool = True) -> Fidelity:
    """Replay a fixture through the trainer of its upstream's reading and compare.

    `folder` takes scratch files.  `upstream`: another commit, as `as_upstream_would` has it.  `grouped`: as the
    recipe's `grouped_images`.
    """
    reading = reading_of(upstream or fixture.meta.upstream)
    ours = replay(fixture, reading, folder, grouped=grouped)
    if upstream is None:
        return compare(fixture, reading, ours)
    told, anchor_error = as_upstream_would(fixture, upstream, folder)
    found = replace(compare(told, reading, ours), recorded_of=fixture.meta.upstream, anchor_error=anchor_error)
    return replace(found, faithful=found.faithful and anchor_error <= TOLERANCE)


def as_upstream_would(fixture: Fixture, upstream: str, folder: Path) -> tuple[Fixture, float]:
    """The fixture with what another commit's code would have computed on its rollouts, and how far the same computation
    is from the recorded gradient of its own commit, relative.

    Raises BadInput for a fixture of clips, and for a commit that no recipe follows.
    """
    base = loadable(fixture.base, folder / "base")
    end = fixture_processor(base).tokenizer.eos_token_id
    anchor, computed = (
        compute(fixture, reading_of(commit).recipe.grpo.factors.images_in_logprobs.value, base, end)
        for commit in (fixture.meta.upstream, upstream)
    )
    recorded = {present_name(name): gradient for name, gradient in fixture.gradients.items()}
    meta = fixture.meta.model_copy(update={"upstream": upstream, "loss": computed.loss, "kl": computed.kl})
    return replace(fixture, meta=meta, gradients=computed.gradients), _whole(_squares(anchor.gradients, recorded))


_Squares = dict[str, tuple[float, float]]  # by parameter: of the difference, of upstream's


def _squares(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> _Squares:
    """Summed squares of two gradients by parameter; what one of them leaves out is zero in it."""
    found, nothing = {}, torch.zeros(())
    for name in {**ours, **theirs}:
        upstream = theirs.get(name, nothing).double()
        apart = (ours.get(name, nothing).double() - upstream).square().sum().item()
        found[name] = (apart, upstream.square().sum().item())
    return found


def _whole(squares: _Squares) -> float:
    """The relative error of a whole gradient."""
    return math.sqrt(sum(apart for apart, _ in squares.values()) / sum(norm for _, norm in squares.values()))


def present_name(name: str) -> str:
    """A parameter's name in transformers 5, from that in 4.49."""
    if name.startswith(("model.visual.", "model.language_model.", "lm_head.")):
        return name
    if name.startswith("visual."):
        return f"model.{name}"
    return f"model.language_model.{name.removeprefix('model.')}"


def compare(fixture: Fixture, reading: Reading, ours: Replayed) -> Fidelity:
    """Our numbers beside the fixture's.  BadInput where its gradients are of other parameters."""
    meta = fixture.meta
    theirs = {present_name(name): gradient for name, gradient in fixture.gradients.items()}
    for name, gradient in theirs.items():
        shape = ours.gradients[name].shape if name in ours.gradients else None
        if shape != gradient.shape:
            seen = "is no parameter of our model" if shape is None else f"has shape {tuple(shape)} in our model"
            raise BadInput(
                f"{fixture.folder / 'gradients.safetensors'}: {name}, of shape {tuple(gradient.shape)}, {seen}; "
                "names are those of transformers 4.49"
            )
    squares = _squares(ours.gradients, theirs)
    whole = math.sqrt(sum(norm for _, norm in squares.values()))
    error = _whole(squares)
    errors = {name: _relative(math.sqrt(apart), math.sqrt(norm)) for name, (apart, norm) in squares.items()}
    worst = max(sorted(errors), key=errors.__getitem__)
    loss, kl = (sum(each) / len(each) for each in (meta.loss, meta.kl))
    return Fidelity(
        fixture=fixture.folder.resolve().name,
        upstream=meta.upstream,
        recorded_of=meta.upstream,
        anchor_error=None,
        reading=reading.name,
        prompts=len(fixture.prompts),
        group=fixture.group,
        beta=meta.beta,
        recipe_beta=reading.recipe.train["beta"].value,
        loss=ours.loss,
        upstream_loss=loss,
        loss_error=_finite(_relative(abs(ours.loss - loss), abs(loss))),
        kl=ours.kl,
        upstream_kl=kl,
        kl_error=None if ours.kl is None else _finite(_relative(abs(ours.kl - kl), abs(kl))),
        kl_over_tokens=ours.kl_over_tokens,
        largest_log_ratio=ours.largest_log_ratio,
        clamp=CLAMP if fixture.kind == "video" else None,
        gradient_error=_finite(error),
        worst_parameter=worst,
        worst_error=_finite(errors[worst]),
        worst_share=math.sqrt(squares[worst][1]) / whole,
        pixel_difference=_pixel_difference(fixture),
        tolerance=TOLERANCE,
        faithful=error <= TOLERANCE,
    )


def _relative(apart: float, size: float) -> float:
    """`apart` in units of `size`; infinite where there is something, and upstream has nothing."""
    return apart / size if size else (math.inf if apart else 0.0)


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _pixel_difference(fixture: Fixture) -> float | None:
    """The largest difference of our processor's pixels from the recorded ones; None when it makes another grid."""
    processor = fixture_processor(fixture.base)
    largest = 0.0
    for prompt in fixture.prompts:
        if prompt.frames is not None:
            made = processor.video_processor(
                videos=[prompt.frames], do_sample_frames=False, cap_pixels_per_frame=True, return_tensors="pt"
            )
            pixels, grid = made["pixel_values_videos"], made["video_grid_thw"]
        else:
            assert prompt.image is not None  # what shows no clip shows an image
            with Image.open(prompt.image) as image:
                made = processor.image_processor(images=[image.convert("RGB")], return_tensors="pt")
            pixels, grid = made["pixel_values"], made["image_grid_thw"]
        if not torch.equal(grid, prompt.grid):
            return None
        largest = max(largest, (pixels - prompt.pixels).abs().max().item())
    return largest
