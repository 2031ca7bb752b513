"""A recipe, the work of its step, a layout and models' shapes, for the tests of the plan."""

from typing import Any

from r1mm.plan import Layout
from r1mm.plan.layout import Work
from r1mm.plan.shapes import PUBLISHED, read_shape
from r1mm.recipe import Recipe, resolve
from r1mm.recipe_files import RECIPES, load_recipe

TWO_B = PUBLISHED["Qwen/Qwen2-VL-2B-Instruct"]


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
            "images_in_reference": True,
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
