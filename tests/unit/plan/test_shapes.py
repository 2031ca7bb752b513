"""The shape of a model: counts worked by hand, and those of the class itself."""

import re
from typing import Any

import pytest

from r1mm.errors import BadInput
from r1mm.plan.layout import image_tokens
from r1mm.plan.shapes import PUBLISHED, read_shape
from tests.unit.plan.laid import TWO_B, model_class, tiny_config


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
