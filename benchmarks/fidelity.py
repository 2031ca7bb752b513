"""How near our trainer's gradient is to upstream's, and how far one changed setting takes it away; as Markdown.

python benchmarks/fidelity.py ../shared/fidelity         the folder that holds base and the three fixtures

The first table holds our trainer, as the recipes set it, against each fixture, and against what commits of which
nothing was recorded would have computed on its rollouts; the second changes one thing at a time on r1v-head, and takes
the positions that transformers 5.23 would use on video.
"""

import argparse
import functools
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import datasets
import torch
import transformers

from r1mm.recipe import Recipe
from r1mm.sourced import Setting
from r1mm.train.fidelity import Fidelity, check_fidelity, compare
from r1mm.train.fixture import Fixture, read_fixture
from r1mm.train.replay import Reading, reading_of, replay

_WHY = "our choice: changed to see what it does to the gradient"


_UNRECORDED = ("c26e521", "232b7ba", "f2be85f")  # of open-r1-multimodal, one for each set of passes that see images


def plain_clips(network: Any) -> None:
    """In the place of `carry_clips`: clips, with the positions that transformers makes of them."""
    forward = network.model.forward

    @functools.wraps(forward)
    def renamed(*args: Any, pixel_values: Any = None, image_grid_thw: Any = None, **inputs: Any) -> Any:
        return forward(*args, pixel_values_videos=pixel_values, video_grid_thw=image_grid_thw, **inputs)

    network.model.forward = renamed


def measure(fixture: Fixture, reading: Reading) -> Fidelity:
    with tempfile.TemporaryDirectory() as scratch:
        return compare(fixture, reading, replay(fixture, reading, Path(scratch)))


def measure_as(fixture: Fixture, upstream: str) -> Fidelity:
    with tempfile.TemporaryDirectory() as scratch:
        return check_fidelity(fixture, Path(scratch), upstream=upstream)


def with_setting(recipe: Recipe, name: str, value: Any) -> Recipe:
    return recipe.model_copy(update={"train": {**recipe.train, name: Setting[Any](value=value, source=_WHY)}})


def changes(head: Fixture, video: Fixture) -> Iterator[tuple[str, Fixture, Reading]]:
    stock = reading_of(head.meta.upstream)
    settings: list[tuple[str, Any]] = [
        ("use_bias_correction_kl", True),
        *(("loss_type", name) for name in ("dapo", "bnpo", "dr_grpo")),
        *(("scale_rewards", name) for name in ("none", "batch")),
    ]
    yield "none", head, stock
    for name, value in settings:
        changed = replace(stock, recipe=with_setting(stock.recipe, name, value))
        yield f"`{name}` {value}, for {stock.recipe.train[name].value}", head, changed
    for beta in (0.0, 0.02):
        told = replace(head, meta=head.meta.model_copy(update={"beta": beta}))
        yield f"`beta` {beta:g}, for {head.meta.beta:g}", told, stock
    blind = stock.recipe.factors.model_copy(update={"images_in_logprobs": Setting[Any](value="none", source=_WHY)})
    yield "no images in log-probs", head, replace(stock, recipe=stock.recipe.model_copy(update={"factors": blind}))
    at = reading_of("EvolvingLMMs-Lab/open-r1-multimodal@c26e521").recipe.train["temperature"].value
    for scored in (1.0, at):
        factor = {"logprobs_temperature": Setting[Any](value=scored, source=_WHY)}
        recipe = with_setting(stock.recipe, "temperature", at)
        recipe = recipe.model_copy(update={"factors": stock.recipe.factors.model_copy(update=factor)})
        yield f"drawn at {at:g}, log-probs at {scored:g}", head, replace(stock, recipe=recipe)
    clips = reading_of(video.meta.upstream)
    yield "none", video, clips
    with patch("r1mm.train.grpo.carry_clips", plain_clips):
        yield "positions as transformers 5.23 makes them", video, clips


def shown(number: float | None) -> str:
    return "-" if number is None else f"{number:.1e}"


def print_row(found: Fidelity) -> None:
    worst = f"{shown(found.worst_error)} `{found.worst_parameter}`"
    upstream = found.upstream[: found.upstream.index("@") + 8]
    print(f"| {found.fixture} | {upstream} | {shown(found.loss_error)} | {shown(found.kl_error)}", end=" | ")
    print(f"{shown(found.gradient_error)} | {worst} | {shown(found.pixel_difference)}", end=" | ")
    print(f"{found.largest_log_ratio or 0:.2f} | {shown(found.anchor_error)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="holds base and the fixtures r1v-head, r1v-feb, video")
    folder: Path = parser.parse_args().folder
    warnings.filterwarnings("ignore", category=FutureWarning)
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    fixtures = {name: read_fixture(folder / name) for name in ("r1v-head", "r1v-feb", "video")}
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, float32 on the CPU\n")
    print("| fixture | upstream | loss | KL | whole gradient | worst parameter | pixels | largest log-ratio | anchor |")
    print("|---|---|---:|---:|---:|---|---:|---:|---:|")
    for fixture in fixtures.values():
        print_row(measure(fixture, reading_of(fixture.meta.upstream)))
    for fixture in (fixtures["r1v-head"], fixtures["r1v-feb"]):
        for commit in _UNRECORDED:
            print_row(measure_as(fixture, f"EvolvingLMMs-Lab/open-r1-multimodal@{commit}"))
    print("\n| fixture | changed | loss | KL | whole gradient |\n|---|---|---:|---:|---:|")
    for words, fixture, reading in changes(fixtures["r1v-head"], fixtures["video"]):
        found = measure(fixture, reading)
        print(f"| {found.fixture} | {words} | {shown(found.loss_error)} | {shown(found.kl_error)}", end=" | ")
        print(f"{shown(found.gradient_error)} |", flush=True)


if __name__ == "__main__":
    main()
