"""The files of a finished run, gathered for its page."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from PIL import Image, ImageOps

from r1mm.data.clips import Clip
from r1mm.ledger import Entry, entries, load_ledger
from r1mm.mini.render import contact_sheet
from r1mm.recipe import Condition
from r1mm.recipe_files import load_recipe
from r1mm.report.comparison import ComparisonInputs
from r1mm.report.figures import Row
from r1mm.report.page import ReportInputs
from r1mm.rundir import read_jsonl

# Output files by split and condition.
Files = Mapping[str, Mapping[Condition, Path]]
# The evaluated items by split, with columns item and image.
Sets = Mapping[str, Dataset]
_SHEET_ITEMS, _SHEET_COLUMNS = 36, 12
_KEY_FRAMES = 4  # of a clip
_CELL = 160  # pixels that a cell of a contact sheet is wide or high at most


def _picture(shown: Any) -> Image.Image:
    """What a page shows of an item: its image, or of a clip some key frames from left to right."""
    if not isinstance(shown, Clip):
        picture: Image.Image = shown
        return picture
    frames = shown.frames
    keys = np.linspace(0, len(frames) - 1, min(_KEY_FRAMES, len(frames))).round().astype(int)
    return Image.fromarray(np.concatenate([frames[key].permute(1, 2, 0).numpy() for key in keys], axis=1))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _sheet(images: Sequence[Image.Image]) -> bytes:
    # Cells of one size: the first image's, or in its proportions; an image of other proportions gets a margin.
    width, height = images[0].size
    scale = min(1.0, _CELL / max(width, height))
    cell = (max(1, round(width * scale)), max(1, round(height * scale)))
    pixels = [np.asarray(ImageOps.pad(image.convert("RGB"), cell, color="white")) for image in images]
    return _png(Image.fromarray(contact_sheet(pixels, _SHEET_COLUMNS)))


def _pictures(sets: Sets) -> tuple[Callable[[str, str], bytes | None], dict[str, bytes]]:
    number = {split: {name: i for i, name in enumerate(items["item"])} for split, items in sets.items()}

    def image_of(split: str, item: str) -> bytes | None:
        return _png(_picture(sets[split][number[split][item]]["image"])) if split in sets else None

    return image_of, {
        split: _sheet([_picture(shown) for shown in items[:_SHEET_ITEMS]["image"]]) for split, items in sets.items()
    }


def _run_inputs(
    root: Path,
    files: Files,
    image_of: Callable[[str, str], bytes | None],
    sheets: Mapping[str, bytes],
    ledger: Sequence[Entry] = (),
) -> ReportInputs:
    def read(name: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((root / name).read_text(encoding="utf-8"))
        return content

    def steps_of(name: str) -> list[dict[str, Any]]:
        return read_jsonl(root / name) if (root / name).is_file() else []

    distilled = root.parent / "assets" / "stages" / "distill" / "distill.json"
    return ReportInputs(
        resolved=read("recipe.json"),
        manifest=read("manifest.json"),
        metrics=steps_of("metrics.jsonl"),
        tuning=steps_of("stages/sft/metrics.jsonl"),
        outputs={split: {name: read_jsonl(path) for name, path in by.items()} for split, by in files.items()},
        verdict=read("verdict.json"),
        image_of=image_of,
        contact_sheets=sheets,
        ledger=ledger,
        distilled=json.loads(distilled.read_text(encoding="utf-8")) if distilled.is_file() else {},
    )


def ledger_of(recipe_folder: Path, variant: str) -> list[Entry]:
    """Upstream's settings beside ours under one variant; empty for a recipe without a ledger.

    Raises BadInput where the recipe or its ledger is not right.
    """
    path = recipe_folder / "ledger.yaml"
    if not path.is_file():
        return []
    recipe = load_recipe(recipe_folder / "recipe.yaml")
    return entries(load_ledger(path, recipe), recipe, variant)


def report_inputs(root: Path, files: Files, sets: Sets, ledger: Sequence[Entry] = ()) -> ReportInputs:
    """What the page of the run at `root` shows.

    `files` are its outputs by split and condition, `sets` the items, `ledger` what `ledger_of` gives.
    """
    return _run_inputs(root, files, *_pictures(sets), ledger)


def comparison_inputs(
    runs: Mapping[str, tuple[Path, Files]], sets: Sets, answer: Row | None = None
) -> ComparisonInputs:
    """What the page that sets variants side by side shows.

    `runs` by variant: directory and output files; `answer` is answer.json's content, where it was asked for.
    """
    pictures = _pictures(sets)
    found = [_run_inputs(root, files, *pictures) for root, files in runs.values()]
    return ComparisonInputs(runs=found, answer=answer or {})
