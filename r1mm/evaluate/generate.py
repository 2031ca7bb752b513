"""An evaluated task: every item answered greedily and scored, resumable, by either back end."""

import functools
import importlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from r1mm.errors import BadInput
from r1mm.evaluate.partial import Answer, Asked, PartialAnswers
from r1mm.evaluate.scoring import Output, Scorer, asked_and_truth, score
from r1mm.progress import progress_bar

# Batches are made by length within so many of them, so that the answers come in about the order of the items.
_WINDOW = 32


class _Rows(Sequence[tuple[Any, str]]):
    """Items of a dataset in a given order, each (image, prompt); an image is decoded when its row is read."""

    def __init__(self, dataset: Any, asked: Sequence[Asked], order: Sequence[int], shown: bool) -> None:
        self.dataset, self.asked, self.order, self.shown = dataset, asked, order, shown

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: Any) -> Any:
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(len(self)))]
        index = self.order[position]
        return self.dataset[index]["image"] if self.shown else None, self.asked[index].prompt


def batches_by_length(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Indices in batches of `size` with little to pad: the longest first within a window, equals in their order.

    All but the last are full.  The longest come first so that a batch that does not fit the memory does so at once.
    """
    order: list[int] = []
    for start in range(0, len(lengths), _WINDOW * size):
        window = range(start, min(start + _WINDOW * size, len(lengths)))
        order += sorted(window, key=lambda index: -lengths[index])
    return [order[start : start + size] for start in range(0, len(order), size)]


def evaluation_device(miniature: bool) -> str:
    """Where an evaluation runs: a miniature on the CPU, so that its numbers are the same everywhere."""
    return "cuda" if not miniature and torch.cuda.is_available() else "cpu"


@functools.cache
def _dtype(wanted: str, device: str) -> str:
    if device == "cpu" and wanted != "float32":
        print(f"evaluation.dtype is {wanted}; on this CPU float32 is used instead", file=sys.stderr, flush=True)
        return "float32"
    return wanted


def _sizes(dataset: Any) -> Iterator[tuple[int, int]]:
    for index in range(len(dataset)):
        width, height = dataset[index]["image"].size
        yield width, height


def _finish(
    answers: PartialAnswers, dataset: Any, model_folder: Path, settings: dict[str, Any], device: str, **more: Any
) -> None:
    """Generate what is not there yet.  `more`: suppressed, title, clips, shown, system."""
    order = [index for batch in answers.open_batches for index in batch]
    backend = settings.get("backend", "transformers")
    # By name: each back end imports a library that the other does without.
    module = importlib.import_module(f"r1mm.evaluate.{backend}_backend")
    placed = (
        {"dtype": _dtype(str(settings.get("dtype", "float32")), device), "device": device, "clips": more["clips"]}
        if backend == "transformers"
        else {}
    )
    total = len(answers.asked)
    with progress_bar(total=total, initial=total - len(order), desc=more["title"], unit="item") as bar:
        batch: dict[int, Answer] = {}

        def keep(row: int, completion: str, tokens: int) -> None:
            batch[order[row]] = Answer(completion, tokens)
            bar.update()
            if len(batch) == settings["batch_size"] or row == len(order) - 1:
                answers.add(batch)
                batch.clear()

        module.generate(
            model_folder,
            _Rows(dataset, answers.asked, order, more["shown"]),
            max_new_tokens=settings["max_new_tokens"],
            batch_size=settings["batch_size"],
            suppressed=more["suppressed"],
            system=more["system"],
            on_done=keep,
            **placed,
        )


def evaluate_task(
    *,
    model_folder: Path,
    dataset: Any,
    scorer: Scorer,
    split: str,
    template: str,
    settings: dict[str, Any],
    suppressed: list[int],
    partial: Path,
    title: str,
    device: str,
    clips: bool = False,
    shown: bool = True,
    system: str | None = None,
) -> list[Output]:
    """Answers every item of `dataset` greedily and scores it; outputs stand in the order of the items.

    `dataset` has the columns image, problem, solution, and may have item, the items' names; `template` wraps the
    problem.  `settings` are the recipe's `evaluation` values: max_new_tokens, batch_size, and where set dtype
    (float32) and backend (transformers).  `suppressed` token ids are never produced.  `clips`: what stands in the
    column image are clips.  Not `shown`: the questions are asked without it, as a control.  `system`: the text of the
    system turn before each; the chat template's own without.

    What is answered is kept in `partial`, from which a killed evaluation goes on to the identical end.  The caller
    keeps that file to this very model, data and settings, and removes it when the outputs are written.

    Raises BadInput for a checkpoint, solution or partial file that cannot be used, StageFailed for too little memory.
    """
    from r1mm.evaluate.transformers_backend import model_type
    from r1mm.processor import load_processor, prompt_lengths

    backend = settings.get("backend", "transformers")
    if backend not in ("transformers", "vllm"):
        raise BadInput(f"evaluation.backend is {backend!r}; it is transformers or vllm")
    if backend == "vllm" and (clips or not shown):
        raise BadInput("evaluation.backend is 'vllm', which answers over images alone; use transformers for clips")
    if not len(dataset):
        raise BadInput(f"task {split} has no items")
    problems, solutions = list(dataset["problem"]), list(dataset["solution"])
    named = "item" in dataset.column_names
    items = [str(item) for item in dataset["item"]] if named else [f"{split}-{i:06d}" for i in range(len(problems))]
    wanted = [
        asked_and_truth(scorer, problem, solution, f"{split} item {item}")
        for problem, solution, item in zip(problems, solutions, items, strict=True)
    ]
    asked = [Asked(item, template.format(question=text)) for item, text in zip(items, problems, strict=True)]

    model_type(model_folder)
    # Clips of a set are about as long as each other, and would have to be decoded to tell.
    sizes = list(_sizes(dataset)) if shown and not clips else None
    lengths = prompt_lengths(load_processor(model_folder), [one.prompt for one in asked], sizes, system=system)
    answers = PartialAnswers(partial, asked, batches_by_length(lengths, settings["batch_size"]))
    if answers.open_batches:
        more = {"suppressed": suppressed, "title": title, "clips": clips, "shown": shown, "system": system}
        _finish(answers, dataset, model_folder, settings, device, **more)
    return [
        score(
            scorer,
            item=one.item,
            prompt=one.prompt,
            completion=answers.answers[i].completion,
            tokens=answers.answers[i].tokens,
            truth=wanted[i][1],
            asked=wanted[i][0],
        )
        for i, one in enumerate(asked)
    ]
