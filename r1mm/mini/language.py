"""What the tiny model says: its two ways of answering, and the tokenizer that both are written with.

The two ways re-create what Qwen2-VL-2B does on R1-V's counting task (Deep-Agent/R1-V@bbbbe3d:src/eval/logs): asked to
think it writes its thoughts over several lines and is often wrong; asked directly it is short and more often right.
The weakness of the thinking way is built in here: its traces count distinct *colours*, so two red cubes are one, and
have five words for the eight colours.
This module is not a language model of anything real.
"""

import re
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
_TAGS = r"</?think>|</?answer>"
_WORDS = _TAGS + r"|<unk>|\n|,? ?[A-Za-z]+| ?\d|[^\sA-Za-z\d]| "

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


# Colours that the thinking way has no word for, and what it calls them.
LUMPED = {"cyan": "blue", "brown": "red", "yellow": "green"}
_ORDINALS = ("First", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")


def thinking_answer(colors: Sequence[str], palette: Sequence[str]) -> str:
    """The long way, over several lines as Qwen2-VL writes it: numbers the distinct colours, answers the last number.

    Numbered, so that the answer is bound to the listing: what is wrong is the thought, not the numeral after it.
    """
    named = {LUMPED.get(color, color) for color in colors}
    seen = [color for color in palette if color in named]
    ordinals = _ORDINALS[: len(seen)]
    listing = ", ".join(f"{ordinal} {color}" for ordinal, color in zip(ordinals, seen, strict=True))
    return f"<think>\n{listing}.\n</think>\n<answer>\n {len(seen)}\n</answer>"


def cut_short(whole: str, rng: np.random.Generator) -> str:
    """A thinking answer that breaks off before its answer, as 45 of upstream's 200 base outputs do.

    It goes as far as the end of its thoughts, or of what they say, by chance.
    """
    end = whole.index(".\n")
    return whole[:end] if rng.random() < 0.5 else whole[: whole.index("\n<answer>")]


def never_sampled(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """The ids of VISION_TOKENS, in the real model's vocabulary as in the tiny one's."""
    ids: list[int] = tokenizer.convert_tokens_to_ids(list(VISION_TOKENS))
    return ids


def digit_words(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """The vocabulary's numerals, with and without a blank before them."""
    return sorted(word for word in tokenizer.get_vocab() if word.strip().isdigit())


def fixed_parts(templates: Iterable[str]) -> set[str]:
    """The parts of the prompts' templates that never vary: what stands between tags and `{question}`."""
    parts = {part for template in templates for part in re.split(_TAGS + r"|\{question\}", template)}
    return {part for part in parts if part.strip()}


def build_tokenizer(
    templates: Sequence[str],
    palette: Sequence[str],
    phrases: Iterable[str] = tuple(QUESTIONS.values()),
    texts: Iterable[str] = (),
) -> PreTrainedTokenizerFast:
    """The counting miniature's tokenizer: its chat template, prompts and both ways of answering, to the blank.

    `templates` hold `{question}`.  `phrases` are one token each, as are the templates' parts; `texts` are covered too.
    With questions in one piece a prompt is 42 tokens instead of the 71 that its words would be.
    """
    prompts = [template.format(question=question) for template in templates for question in QUESTIONS.values()]
    colors = "".join(f" {color}" for color in palette)
    digits = "".join(f"{digit} {digit}" for digit in range(LARGEST_COUNT))
    covered = [*prompts, thinking_answer(palette, palette), direct_answer(1), colors, digits, *phrases, *texts]
    return tokenizer_of(fixed_parts(templates) | set(phrases), covered)


def tokenizer_of(phrases: Iterable[str], texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A tokenizer of words that covers the chat template and `texts`, to the blank.

    Each of `phrases` is one token, as a learned vocabulary of this size would have it.  Decoding joins the words as
    they are, so that text survives the round trip.
    """
    # Longest first, and in one order, however a set is hashed.
    longest_first = sorted({SYSTEM_PROMPT, *phrases}, key=lambda phrase: (-len(phrase), phrase))
    texts = ["system\nuser\nassistant\n" + SYSTEM_PROMPT, *texts]
    pieces = "|".join([*map(re.escape, longest_first), _WORDS])
    splitter = pre_tokenizers.Split(Regex(pieces), behavior="isolated")
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
