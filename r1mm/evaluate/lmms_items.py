"""The items of LongVideoBench as its publishers give them, from local files, as its lmms-eval task takes them.

Of either form: the parquet files of the hub's dataset, with option0 to option4 ("N/A" where there is none), or its
`lvb_val.json`, with a list of candidates.
"""

from pathlib import Path, PurePosixPath
from typing import Any

from r1mm.data.listed import read_rows
from r1mm.errors import BadInput

OPTIONS = 5
_NONE = "N/A"
_TEXTS = ("id", "question", "video_path", "question_category")


def clip_names(path: Path) -> list[str]:
    """The clips that the items of a file name, each once.  BadInput for a file that holds none."""
    names = dict.fromkeys(str(row["video_path"]) for row in read_rows(path) if row.get("video_path"))
    if not names:
        raise BadInput(f"{path} names no clip in video_path; give LongVideoBench's items")
    return list(names)


def _options(row: dict[str, Any], where: str) -> list[str]:
    given = row.get("candidates")
    if not isinstance(given, list):
        given = [option for option in (row.get(f"option{i}") for i in range(OPTIONS)) if option not in (None, _NONE)]
    if not 2 <= len(given) <= OPTIONS or not all(isinstance(option, str) for option in given):
        raise BadInput(f"{where}: has the options {given!r}; an item has two to five texts (candidates, or option0...)")
    return given


def _item(row: dict[str, Any], clips: Path, where: str) -> dict[str, Any]:
    for key in _TEXTS:
        if not isinstance(row.get(key), str) or not row[key]:
            raise BadInput(f"{where}: has no text {key} (found {row.get(key)!r})")
    options, right = _options(row, where), row.get("correct_choice")
    if not isinstance(right, int) or isinstance(right, bool) or not 0 <= right < len(options):
        raise BadInput(f"{where}: correct_choice is {right!r}, the number of an option from 0 to {len(options) - 1}")
    named = PurePosixPath(row["video_path"])
    if named.is_absolute() or ".." in named.parts:
        raise BadInput(f"{where}: video_path {row['video_path']!r} leads out of {clips}; correct the file")
    clip = clips.resolve() / named  # the name as it is: in the hub's cache a file is a link to one without a suffix
    if not clip.is_file() or not clip.stat().st_size:
        state = "is empty" if clip.is_file() else "is not there"
        raise BadInput(f"{where}: the clip of item {row['id']!r}, {clip}, {state}; fetch it, or leave the item out")
    if clip.suffix not in (".mp4", ".avi", ".mov"):
        raise BadInput(f"{where}: {clip} is no .mp4, .avi or .mov; lmms-eval would ask the question without it")
    return {
        "id": row["id"],
        "question": row["question"],
        **{f"option{i}": options[i] if i < len(options) else _NONE for i in range(OPTIONS)},
        "correct_choice": right,
        "video_path": str(clip),
        "duration_group": str(row.get("duration_group")),
        "question_category": row["question_category"],
    }


def read_items(path: Path, clips: Path) -> list[dict[str, Any]]:
    """The items of a file, each with its clip's full path.

    `path`: LongVideoBench's lvb_val.json, its parquet, or JSON lines of either schema; `clips`: the clips' folder.
    Raises BadInput, with the item's place, for what is missing: a field, an option, a clip.
    """
    rows = read_rows(path)
    if not rows:
        raise BadInput(f"{path} holds no items")
    found = [_item(row, clips, f"{path}:{number}") for number, row in enumerate(rows, 1)]
    seen: set[str] = set()
    for number, item in enumerate(found, 1):
        if item["id"] in seen:
            raise BadInput(f"{path}:{number}: item {item['id']!r} stands there twice; correct the file")
        seen.add(item["id"])
    return found
