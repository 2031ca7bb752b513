import copy

import pytest
import torch
from transformers import Qwen2VLForConditionalGeneration

from r1mm.mini.datasets import PALETTE
from r1mm.mini.language import build_tokenizer
from r1mm.mini.model import build_model
from r1mm.recipe_files import RECIPES, load_recipe
from r1mm.vision import shorten_vision_tower


@pytest.fixture(scope="module")
def model() -> Qwen2VLForConditionalGeneration:
    recipe = load_recipe(RECIPES / "r1v-mini" / "recipe.yaml")
    settings = {key: setting.value for key, setting in recipe.model.items()}
    return build_model(settings, build_tokenizer([recipe.prompts.train.value], PALETTE), seed=0)


@pytest.mark.parametrize("grid", [[[1, 8, 8]] * 5, [[1, 8, 8], [1, 4, 6], [1, 8, 8]]], ids=["one size", "mixed sizes"])
def test_the_short_way_gives_the_librarys_numbers(
    model: Qwen2VLForConditionalGeneration, grid: list[list[int]]
) -> None:
    grid_thw = torch.tensor(grid)
    torch.manual_seed(0)
    pixels = torch.randn(int(grid_thw.prod(1).sum()), 1176)

    def features_and_gradients(network: Qwen2VLForConditionalGeneration) -> tuple[torch.Tensor, torch.Tensor]:
        network.zero_grad()
        features = network.model.get_image_features(pixels, grid_thw).pooler_output
        stacked = torch.cat(list(features))
        stacked.square().sum().backward()
        return stacked.detach(), torch.cat([p.grad.flatten() for p in network.model.visual.parameters()])

    short = copy.deepcopy(model)
    shorten_vision_tower(short)
    assert list(short.state_dict()) == list(model.state_dict())
    for ours, theirs in zip(features_and_gradients(short), features_and_gradients(model), strict=True):
        assert float((ours - theirs).norm() / theirs.norm()) < 2e-6


def test_a_tower_of_another_build_is_refused(model: Qwen2VLForConditionalGeneration) -> None:
    other = copy.deepcopy(model)
    other.model.visual.patch_embed.proj.stride = (1, 1, 1)
    with pytest.raises(ValueError, match="whose kernel is its stride"):
        shorten_vision_tower(other)
