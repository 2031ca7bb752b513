"""What lmms-eval wrote of each item about pictures, as our outputs, marked by r1mm.

MMMU's own marks are in the file too.  They are not taken, for a letter drawn by chance is among them and an answer tag
is not looked into; but the rules they were given by are held against ours on every output, so that ours are MMMU's.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from r1mm.errors import BadInput
from r1mm.evaluate.lmms_pictures import Benchmark, PictureItem
from r1mm.evaluate.lmms_samples import prompt_of, raw_text
from r1mm.evaluate.lmms_tasks import KEPT
from r1mm.evaluate.mmmu import is_one_of, letter_by_rule, open_candidates
from r1mm.evaluate.scoring import Output, score
from r1mm.evaluate.thoughts import without_thoughts
from r1mm.rundir import read_jsonl

_METRICS: dict[Benchmark, tuple[str, str]] = {"mmmu": ("mmmu_acc", "id"), "mathvista": (KEPT, "question_id")}


def _stock_mark(item: PictureItem, given: Mapping[str, Any], completion: str, where: str) -> bool:
    """MMMU's mark as lmms-eval gave it.  BadInput where it was read by another rule than the one known here."""
    read, text = given.get("parsed_pred"), without_thoughts(completion)
    if not isinstance(read, list) or len(read) != 1:
        raise BadInput(
            f"{where}: mmmu_acc has no single parsed_pred (found {read!r}); evaluate with one answer an item"
        )
    known: Any = letter_by_rule(text, item.asked.options) if item.asked.options else open_candidates(text)
    found = set(read[0]) if isinstance(read[0], list) else read[0]
    if known is not None and known != found:
        raise BadInput(
            f"{where}: lmms-eval read {found!r} out of {text[:80]!r}, r1mm knows MMMU's rule to give {known!r}; the "
            "file was written by another version, or with thoughts kept (reasoning_tags none)"
        )
    return found == item.truth if item.asked.options else is_one_of(found, [item.truth])


def read_picture_samples(
    benchmark: Benchmark,
    path: Path,
    items: Sequence[PictureItem],
    count_tokens: Callable[[Sequence[str]], list[int]] | None = None,
) -> tuple[list[Output], int | None]:
    """The outputs of a samples file to the items that were asked, and of MMMU how many lmms-eval itself marks right.

    `count_tokens(texts)` gives the lengths of completions in tokens; they are 0 without it, for lmms-eval does not
    record them.  Raises BadInput, with the line, for what is no such file, for other items than were asked, and for an
    MMMU answer that was read by another rule.
    """
    rows = read_jsonl(path)
    metric, key = _METRICS[benchmark]
    names = []
    for number, row in enumerate(rows, 1):
        given = row.get(metric)
        if not isinstance(given, Mapping) or not isinstance(given.get(key), str):
            raise BadInput(f"{path}:{number}: has no {metric} with the item's {key}, but {', '.join(row)}")
        names.append(given[key])
    if names != [item.name for item in items]:
        raise BadInput(f"{path}: lmms-eval did not answer the {len(items)} items that were asked, in order; delete it")
    texts = [raw_text(row, f"{path}:{number}") for number, row in enumerate(rows, 1)]
    counts = count_tokens(texts) if count_tokens is not None else [0] * len(texts)
    outputs, right = [], 0
    for number, (row, item, text, tokens) in enumerate(zip(rows, items, texts, counts, strict=True), 1):
        where = f"{path}:{number}"
        if benchmark == "mmmu":
            right += _stock_mark(item, row[metric], text, where)
        outputs.append(
            score(
                benchmark,
                item=item.name,
                prompt=prompt_of(row, where),
                completion=text,
                tokens=tokens,
                truth=item.truth,
                asked=item.asked,
            )
        )
    return outputs, right if benchmark == "mmmu" else None


def check_picture_total(
    benchmark: Benchmark, items: int, right: int | None, results: Mapping[str, Any], where: str
) -> None:
    """Raise BadInput where lmms-eval's own total is not that of its items, which then are not all there."""
    metric, _ = _METRICS[benchmark]
    ours = items if right is None else right / items
    totals = [
        value
        for metrics in dict(results.get("results", {})).values()
        for name, value in dict(metrics).items()
        if name.partition(",")[0] == metric and isinstance(value, int | float)
    ]
    if not totals or any(abs(value - ours) > 1e-4 for value in totals):
        raise BadInput(
            f"{where}: lmms-eval's total is {totals or 'missing'}, its {items} items give {ours}; the files are not of "
            "one run"
        )
