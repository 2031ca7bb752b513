"""What the tiny model says: its two ways of answering, and the word-level tokenizer that both are written with.

The two ways re-create what Qwen2-VL-2B does on R1-V's counting task (Deep-Agent/R1-V@bbbbe3d:src/eval/logs): asked to
think it writes its thoughts over several lines and is often wrong; asked directly it is short and more often right.
The weakness of the thinking way is built in here: its traces count distinct *colours*, so two red cubes are one, and
lump two pairs of colours together.
This module is not a language model of anything real.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from r1mm.data.prompts import QUESTIONS

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# Never sampled: an image placeholder inside a completion breaks the log-prob pass (Deep-Agent/R1-V#91, #180).
VISION_TOKENS = SPECIAL_TOKENS[3:]
SYSTEM_PROMPT = "You are a helpful assistant."
LARGEST_COUNT = 10

# <think> and <answer> are ordinary words: decoding that drops special tokens must keep them.
_WORDS = r"</?think>|</?answer>|<unk>|\n| ?[A-Za-z]+| ?\d|[^\sA-Za-z\d]| "

# The structure of Qwen2-VL's template: a default system turn, typed content parts, and the generation prompt.
CHAT_TEMPLATE = (
    "{%- if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\n"
    + SYSTEM_PROMPT
    + "<|im_end|>\\n' }}{%- endif %}"
    "{%- for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{%- if message['content'] is string %}{{ message['content'] }}"
    "{%- else %}{%- for part in message['content'] %}"
    "{%- if part['type'] == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{%- elif part['type'] == 'video' %}{{ '<|vision_start|><|video_pad|><|vision_end|>' }}"
    "{%- else %}{{ part['text'] }}{%- endif %}{%- endfor %}{%- endif %}{{ '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{%- endif %}"
)


def direct_answer(count: int) -> str:
    """The short way: nothing but the tag."""
    return f"<answer>{count}</answer>"


def _listing(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


# Colours that the thinking way does not tell apart.
LUMPED = {"cyan": "blue", "brown": "red"}


def thinking_answer(colors: Sequence[str], palette: Sequence[str]) -> str:
    """The long way, over several lines as Qwen2-VL writes it: names the distinct colours, and answers their number."""
    named = {LUMPED.get(color, color) for color in colors}
    seen = [color for color in palette if color in named]
    return f"<think>\nI see {_listing(seen)} items.\n</think>\n<answer>\n {len(seen)}\n</answer>"


def broken_answer(colors: Sequence[str], palette: Sequence[str], rng: np.random.Generator) -> str:
    """A thinking answer that breaks off before its answer, as 45 of upstream's 200 base outputs do."""
    whole = thinking_answer(colors, palette)
    end = whole.index(" items.")
    return whole[:end] if rng.random() < 0.5 else whole[: whole.index("\n<answer>")]


def digit_words(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """The vocabulary's numerals, with and without a blank before them."""
    return sorted(word for word in tokenizer.get_vocab() if word.strip().isdigit())


def build_tokenizer(templates: Iterable[str], palette: Sequence[str]) -> PreTrainedTokenizerFast:
    """A word-level tokenizer that covers the chat template, the prompts and both ways of answering, to the blank.

    `templates` hold `{question}`; decoding joins the words as they are, so that text survives the round trip.
    """
    roles = "system\nuser\nassistant\n" + SYSTEM_PROMPT
    prompts = [template.format(question=question) for template in templates for question in QUESTIONS.values()]
    colors = _listing(list(palette)) + "".join(f" {color}" for color in palette)
    digits = "".join(f"{digit} {digit}" for digit in range(LARGEST_COUNT))
    texts = [roles, *prompts, thinking_answer(palette, palette), direct_answer(1), f"I see {colors}", digits]
    splitter = pre_tokenizers.Split(Regex(_WORDS), behavior="isolated")
    words = sorted({piece for text in texts for piece, _ in splitter.pre_tokenize_str(text)})
    vocabulary = {word: i for i, word in enumerate([*SPECIAL_TOKENS, "<unk>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL_TOKENS),
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
