"""What a trained model's answers owe to the film: the same questions with the film, with stills of it, with another's.

python benchmarks/looks.py --runs runs                    of `make reproduce-video`, seed 1
python benchmarks/looks.py --runs runs --variant with-format --seed 1 --split id

`first` and `last` show one picture of the film in place of all, `backwards` the frames from the last to the first,
`another` the film of another item, drawn by chance.  A model that looks at motion is right with the film alone; one
that reads the answer off a single picture is right with a still too.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from r1mm.data.clips import Clip
from r1mm.evaluate.generate import evaluate_task, evaluation_device
from r1mm.inputs import task_set
from r1mm.job import make_job
from r1mm.judge.statistics import wilson
from r1mm.mini.language import VISION_TOKENS
from r1mm.processor import load_processor
from r1mm.sourced import values

Change = Callable[[int, list[torch.Tensor]], torch.Tensor]


class _Changed:
    """A set of clips of which each is shown otherwise."""

    def __init__(self, dataset: Any, frames: list[torch.Tensor], change: Change) -> None:
        self._dataset, self._frames, self._change = dataset, frames, change
        self.column_names = dataset.column_names

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return self._dataset[key]
        return {**self._dataset[key], "image": Clip(self._change(key, self._frames))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="video-mini")
    parser.add_argument("--variant")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--split", default="ood")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    options = parser.parse_args()
    job = make_job(options.recipe, options.variant, options.seed, None, options.runs)
    torch.set_num_threads(job.recipe.threads.value)
    dataset = task_set(job, options.split)
    frames = [row["image"].frames for row in dataset]
    partner = np.random.default_rng(0).permutation(len(frames))
    changes: dict[str, Change] = {
        "the film": lambda i, clips: clips[i],
        "first": lambda i, clips: clips[i][:1].expand_as(clips[i]),
        "last": lambda i, clips: clips[i][-1:].expand_as(clips[i]),
        "backwards": lambda i, clips: clips[i].flip(0),
        "another": lambda i, clips: clips[int(partner[i])],
    }
    model = job.folder("run") / "stages" / "grpo" / "model"
    suppressed = load_processor(model).tokenizer.convert_tokens_to_ids(list(VISION_TOKENS))
    for name, change in changes.items():
        with tempfile.TemporaryDirectory() as folder:
            outputs = evaluate_task(
                model_folder=model,
                dataset=_Changed(dataset, frames, change),
                scorer=job.recipe.tasks[options.split].scorer,
                split=options.split,
                template=job.recipe.prompts.evaluation.value,
                settings=values(job.recipe.evaluation),
                suppressed=suppressed,
                partial=Path(folder) / "partial.jsonl",
                title=name,
                device=evaluation_device(job.recipe.miniature),
                clips=True,
            )
        right, n = sum(output.correct for output in outputs), len(outputs)
        interval = wilson(right, n).scaled(100)
        unread = sum(output.parsed is None for output in outputs)
        print(
            f"{name:10} {100 * right / n:5.1f} % right ({interval.low:.1f} to {interval.high:.1f}), {unread} unparsed"
        )


if __name__ == "__main__":
    main()
