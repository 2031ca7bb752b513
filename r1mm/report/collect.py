"""The files of a finished run, gathered for its page."""

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Image as ImageColumn
from datasets import disable_progress_bars
from PIL import Image

from r1mm.data.counting import load_counting
from r1mm.mini.render import contact_sheet
from r1mm.recipe import Condition
from r1mm.report.page import ComparisonInputs, ReportInputs
from r1mm.rundir import read_jsonl

# Output files by split and condition.
Files = Mapping[str, Mapping[Condition, Path]]
_SHEET_ITEMS, _SHEET_COLUMNS = 36, 12


def _pngs(assets: Path, split: str) -> list[bytes]:
    disable_progress_bars()  # a report takes seconds
    column = load_counting(assets / f"{split}.parquet").cast_column("image", ImageColumn(decode=False))["image"]
    return [cell["bytes"] for cell in column]


def _sheet(pngs: list[bytes]) -> bytes:
    pixels = [np.asarray(Image.open(io.BytesIO(png))) for png in pngs[:_SHEET_ITEMS]]
    buffer = io.BytesIO()
    Image.fromarray(contact_sheet(pixels, _SHEET_COLUMNS)).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _pictures(assets: Path, splits: Mapping[str, Any]) -> tuple[Callable[[str, str], bytes], dict[str, bytes]]:
    pngs = {split: _pngs(assets, split) for split in splits}

    def image_of(split: str, item: str) -> bytes:
        return pngs[split][int(item.rpartition("-")[2])]

    return image_of, {split: _sheet(images) for split, images in pngs.items()}


def _run_inputs(
    root: Path,
    files: Files,
    image_of: Callable[[str, str], bytes],
    sheets: Mapping[str, bytes],
) -> ReportInputs:
    def read(name: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((root / name).read_text(encoding="utf-8"))
        return content

    return ReportInputs(
        resolved=read("recipe.json"),
        manifest=read("manifest.json"),
        metrics=read_jsonl(root / "metrics.jsonl"),
        outputs={split: {name: read_jsonl(path) for name, path in by.items()} for split, by in files.items()},
        verdict=read("verdict.json"),
        image_of=image_of,
        contact_sheets=sheets,
    )


def report_inputs(root: Path, files: Files, assets: Path) -> ReportInputs:
    """What the page of the run at `root` shows; `files` are its outputs by split and condition."""
    return _run_inputs(root, files, *_pictures(assets, files))


def comparison_inputs(runs: Mapping[str, tuple[Path, Files]], assets: Path) -> ComparisonInputs:
    """What the page that sets variants side by side shows; `runs` by variant: directory and output files."""
    splits = next(iter(runs.values()))[1]
    pictures = _pictures(assets, splits)
    return ComparisonInputs(runs=[_run_inputs(root, files, *pictures) for root, files in runs.values()])
