"""How the items of a task come to lmms-eval and its answers back: of LongVideoBench, of MMMU, of MathVista."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1mm.errors import BadInput
from r1mm.evaluate.lmms_items import read_items
from r1mm.evaluate.lmms_picture_samples import check_picture_total, read_picture_samples
from r1mm.evaluate.lmms_pictures import read_pictures, write_pictures
from r1mm.evaluate.lmms_samples import check_total, read_samples
from r1mm.evaluate.lmms_tasks import BESIDE, LmmsSettings, picture_task, stock_task, task_file, task_text
from r1mm.evaluate.scoring import Output
from r1mm.rundir import write_jsonl, write_text
from r1mm.task_parts import PICTURE_TASKS

Counter = Callable[[Sequence[str]], list[int]]


@dataclass(frozen=True)
class Answers:
    """The outputs of one start of lmms-eval, and of these how many it marks right itself, where it marks any."""

    outputs: list[Output]
    right: int | None


@dataclass(frozen=True)
class Questions:
    """A task with its items.  `identity`: what its answers depend on, as JSON; `about`: what is worth recording of it.

    `write(folder, start, count)` puts the task's files for a slice of items into a folder, `read(samples, results,
    start, count, counter)` reads what lmms-eval has written of that slice.
    """

    task: str
    names: list[str]
    identity: Any
    about: dict[str, Any]
    write: Callable[[Path, int, int], None]
    read: Callable[[Path, Path, int, int, Counter], Answers]


def _loaded(results: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(results.read_text(encoding="utf-8"))
    return found


def clip_questions(
    tasks: Path, name: str, items: Path, clips: Path, template: str, settings: LmmsSettings, limit: int | None = None
) -> Questions:
    """LongVideoBench's items in a file, their clips in the folder `clips`; `tasks` is lmms-eval's folder of tasks."""
    task = task_file(*stock_task(tasks, name), template, settings)
    rows = read_items(items, clips)[:limit]

    def write(folder: Path, start: int, count: int) -> None:
        write_jsonl(folder / "items.jsonl", rows[start : start + count])
        write_text(folder / "task.yaml", task_text(task))

    def read(samples: Path, results: Path, start: int, count: int, counter: Counter) -> Answers:
        outputs = read_samples(samples, counter)
        check_total(outputs, _loaded(results), str(results))
        if [output.item for output in outputs] != [row["id"] for row in rows[start : start + count]]:
            raise BadInput(f"{samples}: lmms-eval did not answer the items that were asked, in order; delete it")
        return Answers(outputs, None)

    return Questions(task["task"], [row["id"] for row in rows], [task, rows], {}, write, read)


def picture_questions(
    tasks: Path, name: str, paths: Sequence[Path], template: str, settings: LmmsSettings, limit: int | None = None
) -> Questions:
    """The items of MMMU or MathVista in parquet files, the task's own or those of all its subjects."""
    benchmark = PICTURE_TASKS[name]
    task = picture_task(benchmark, *stock_task(tasks, name), template, settings)
    pictures = read_pictures(benchmark, paths).first(limit)
    items = pictures.items
    beside = Path(__file__).with_name(f"{BESIDE}.py")

    def write(folder: Path, start: int, count: int) -> None:
        write_pictures(pictures, start, count, folder / "items.parquet")
        shutil.copy(beside, folder / f"{BESIDE}.py")
        write_text(folder / "task.yaml", task_text(task))

    def read(samples: Path, results: Path, start: int, count: int, counter: Counter) -> Answers:
        outputs, right = read_picture_samples(benchmark, samples, items[start : start + count], counter)
        check_picture_total(benchmark, len(outputs), right, _loaded(results), str(results))
        return Answers(outputs, right)

    files = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in paths]
    identity = [task, beside.read_text(encoding="utf-8"), files, [item.name for item in items]]
    shown = [min(item.images, 1) if settings.images == "first" else item.images for item in items]
    about = {
        "items": len(items),
        "images_shown": sum(shown),
        "items_with_several": sum(item.images > 1 for item in items),
        "most_images_of_an_item": max(item.images for item in items),
    }
    return Questions(task["task"], [item.name for item in items], identity, about, write, read)
