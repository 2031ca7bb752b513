"""The tiny Qwen2-VL: the real architecture and the real processor at about a thousandth of the size, built here.

It stands where Qwen2-VL-2B-Instruct stands in a full recipe and is loaded from disk by the same `from_pretrained`.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from r1mm.mini.language import CHAT_TEMPLATE


def build_processor(tokenizer: PreTrainedTokenizerFast, image_size: int) -> Qwen2VLProcessor:
    """Qwen2-VL's processor for square images of `image_size` pixels, which pass unresized."""
    pixels = image_size * image_size
    return Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(min_pixels=pixels, max_pixels=pixels),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=CHAT_TEMPLATE,
    )


def build_model(settings: dict[str, Any], tokenizer: PreTrainedTokenizerFast, seed: int) -> Any:
    """A randomly initialised `Qwen2VLForConditionalGeneration` in float32.

    `settings` are the recipe's `model` values: hidden_size, intermediate_size, num_hidden_layers, num_attention_heads,
    num_key_value_heads, rope_theta, vision_embed_dim, vision_depth, vision_num_heads, vision_mlp_ratio; where given,
    weight_scale times transformers' 0.02 is where the layers' matrices start.  That value is meant for layers twenty
    times as wide; in these, attention starts even and stays so for long (after 12,800 examples the nearest solid's
    colour in a clip was named in 52 % at scale 1 and learning rate 1.5e-3, in 88 % at scale 3 and 7e-4).
    """
    head_size = settings["hidden_size"] // settings["num_attention_heads"]
    half = head_size // 2
    # Half the rotary pairs turn with time, height and width in the proportion 2:3:3 of Qwen2-VL's own [16, 24, 24].
    temporal = half // 4
    height = (half - temporal) // 2
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in tokenizer.all_special_tokens}
    end, pad = ids["<|im_end|>"], ids["<|endoftext|>"]
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": settings["hidden_size"],
            "intermediate_size": settings["intermediate_size"],
            "num_hidden_layers": settings["num_hidden_layers"],
            "num_attention_heads": settings["num_attention_heads"],
            "num_key_value_heads": settings["num_key_value_heads"],
            "max_position_embeddings": 2048,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": settings["rope_theta"],
                "mrope_section": [temporal, height, half - temporal - height],
            },
            "bos_token_id": pad,
            "eos_token_id": end,
            "pad_token_id": pad,
        },
        vision_config={
            "depth": settings["vision_depth"],
            "embed_dim": settings["vision_embed_dim"],
            "hidden_size": settings["hidden_size"],
            "num_heads": settings["vision_num_heads"],
            "mlp_ratio": settings["vision_mlp_ratio"],
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    model = Qwen2VLForConditionalGeneration(config).to(torch.float32)
    embeddings = model.get_input_embeddings().weight  # tied to the output: larger, the first guesses would be bold
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim == 2 and weights is not embeddings:
                weights.mul_(settings.get("weight_scale", 1.0))
    # Qwen2-VL's own generation_config is not used in training either; ours says only where an answer ends.
    model.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=pad, bos_token_id=pad)
    return model


def save(model: Any, processor: Qwen2VLProcessor, folder: Path) -> None:
    """Weights (safetensors), config, tokenizer, chat template and processor, as a hub checkpoint is laid out."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
