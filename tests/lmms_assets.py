"""A tiny Qwen2-VL that has learned to tell a bright clip from a dark one, and LongVideoBench items about such clips.

It thinks over two paragraphs, with words in them that begin with the letters of options, and answers A for bright and B
for dark: whoever cuts its text at a blank line, reads a letter in its thoughts or loses the clip gets other marks.
"""

import json
import random
import subprocess
from pathlib import Path
from typing import Any

import torch

from r1mm.mini.language import build_tokenizer
from r1mm.mini.model import build_model, build_processor, save

TEMPLATE = "{question}\nThink first.\n"
QUESTION = "Is it bright?\nA. bright\nB. dark"
SIZE, FRAMES, RATE = 56, 16, 4
BRIGHT, DARK = (200, 220, 240), (15, 30, 45)
TEXTS = {
    "A": "<think>\n Before bright\n\n Certainly bright\n</think>\n<answer> A</answer>",
    "B": "<think>\n Before dark\n\n Certainly dark\n</think>\n<answer> B</answer>",
}
_WORDS = ("A", "B", "bright", "dark", "Before", "Certainly")
TINY = {
    **{"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3},
    **{"num_key_value_heads": 3, "rope_theta": 10000.0, "vision_embed_dim": 32, "vision_depth": 1},
    **{"vision_num_heads": 2, "vision_mlp_ratio": 2},
}
# For the evaluator's Python, whose av writes the clips: ours need not have one.
_WRITE = """
import json, sys
import av, numpy as np
for path, level, size, frames, rate in json.loads(sys.argv[1]):
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        for number in range(frames):
            picture = av.VideoFrame.from_ndarray(np.full((size, size, 3), level, np.uint8), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
"""


def write_clips(python: Path, levels: dict[Path, int]) -> None:
    """Clips of one grey each, `levels` in 0..255, made by the evaluator's interpreter."""
    jobs = [[str(path), level, SIZE, FRAMES, RATE] for path, level in levels.items()]
    subprocess.run([str(python), "-I", "-c", _WRITE, json.dumps(jobs)], check=True)


def write_items(folder: Path, python: Path) -> Path:
    """Six items in `folder`, the clips in its `videos`; of the last, a bright clip, the truth is said to be B."""
    (folder / "videos").mkdir(parents=True)
    levels = [level for pair in zip(DARK, BRIGHT, strict=True) for level in pair]
    write_clips(python, {folder / "videos" / f"{level}.mp4": level for level in levels})
    rows = []
    for number, level in enumerate(levels):
        right = level in DARK if number < len(levels) - 1 else level in BRIGHT
        rows.append(
            {
                "id": f"item-{number}",
                "question": "Is it bright?",
                "candidates": ["bright", "dark"],
                "correct_choice": int(right),
                "video_path": f"{level}.mp4",
                "duration_group": 15,
                "question_category": "E2O" if number % 2 else "S2E",
            }
        )
    path = folder / "lvb_val.json"
    path.write_text(json.dumps(rows))
    return path


def positions(ids: torch.Tensor, video_token: int, grid: tuple[int, int, int]) -> torch.Tensor:
    """Positions (3, 1, T) of one sequence with one clip, whose merged `grid` is longer than it is high and wide.

    Written out, because transformers 5.23 would let the text after the clip begin within it.
    """
    before = int((ids[0] == video_token).nonzero()[0])
    clip = torch.cartesian_prod(*map(torch.arange, grid)).T + before
    after = torch.arange(ids.shape[1] - before - clip.shape[1]) + before + max(grid)
    return torch.cat([torch.arange(before).expand(3, -1), clip, after.expand(3, -1)], dim=1).unsqueeze(1)


def teach(
    model: Any, examples: list[dict[str, Any]], steps: int, learning_rate: float = 3e-3, together: int = 1
) -> None:
    """Teach a tiny model the examples, so many `together`, until it knows each by heart; `steps` are the most."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses, shuffled = [1.0] * len(examples), random.Random(0)
    order = list(range(len(examples)))
    for step in range(steps * together):
        if together > 1 and step % len(examples) == 0:
            shuffled.shuffle(order)
        number = order[step % len(examples)]
        loss = model(**examples[number]).loss
        (loss / together).backward()
        losses[number] = loss.item()
        if step % together == together - 1:
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            if max(losses) < 0.01:
                break
    assert max(losses) < 0.02, losses


def make_checkpoint(folder: Path, steps: int = 400) -> Path:
    """Teach the tiny model, and save it as our trainers do."""
    tokenizer = build_tokenizer([TEMPLATE], _WORDS)
    processor = build_processor(tokenizer, SIZE)
    processor.video_processor.size = {"shortest_edge": SIZE * SIZE, "longest_edge": SIZE * SIZE}
    model = build_model(TINY, tokenizer, seed=1).train()
    message = [
        {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": TEMPLATE.format(question=QUESTION)}]}
    ]
    prompt = processor.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
    examples: list[dict[str, Any]] = []
    for level in (*BRIGHT, *DARK):
        answer = TEXTS["A" if level in BRIGHT else "B"] + "<|im_end|>"
        clip = torch.full((8, 3, SIZE, SIZE), level, dtype=torch.uint8)
        inputs = processor(text=[prompt + answer], videos=[clip], return_tensors="pt")
        length = len(tokenizer(answer)["input_ids"])
        labels = inputs["input_ids"].clone()
        labels[:, :-length] = -100
        merged = (4, SIZE // 28, SIZE // 28)
        places = positions(inputs["input_ids"], model.config.video_token_id, merged)
        examples.append({**inputs, "labels": labels, "position_ids": places})
    teach(model, examples, steps)
    save(model.eval(), processor, folder)
    return folder
