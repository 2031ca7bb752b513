"""Small files in CLEVR's form, and responses about them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LICENCE = "Creative Commons Attribution (CC-BY 4.0)"
# What upstream's notebook shows of a scene, and of its first object in words.
THING = {
    "color": "yellow",
    "size": "large",
    "rotation": 161.8370138842408,
    "shape": "cylinder",
    "3d_coords": [0.049163494259119034, -2.864100217819214, 0.699999988079071],
    "material": "rubber",
    "pixel_coords": [115, 182, 8.91348934173584],
}
LINE = (
    "A large yellow rubber cylinder rotated 161.8° located at 3D coordinates (0.05, -2.86, 0.70) and pixel coordinates "
    "(115, 182, 8.91)"
)
HOW_MANY, NUMBER, OTHER = "How many red things?", "Is the NUMBER of cubes greater than 2?", "What color is the cube?"


def scene(name: str, things: int = 3, **changes: Any) -> dict[str, Any]:
    objects = [{**THING, "color": f"colour{i}", **changes} for i in range(things)]
    return {"image_filename": name, "image_index": 0, "objects": objects, "split": "trainA"}


def question(name: str, text: str, answer: Any = "1") -> dict[str, Any]:
    return {"image_filename": name, "question": text, "answer": answer, "program": [{"inputs": []}]}


def write(path: Path, key: str, entries: Sequence[dict[str, Any]], **info: str) -> Path:
    path.write_text(json.dumps({"info": {"split": "trainA", "license": LICENCE, **info}, key: entries}))
    return path


def write_scenes(folder: Path, pictures: int = 12) -> tuple[Path, Path]:
    """Scenes of 3 and more objects, of which the last picture has no question that asks for a number."""
    names = [f"CLEVR_trainA_{i:06d}.png" for i in range(pictures)]
    scenes = [scene(name, 3 + i % 4) for i, name in enumerate(names)]
    asked = [
        question(name, text, answer)
        for name in names
        for text, answer in ((HOW_MANY, "2"), (NUMBER, "yes"), (OTHER, "red"))
        if text == OTHER or name != names[-1]
    ]
    return write(folder / "scenes.json", "scenes", scenes), write(folder / "questions.json", "questions", asked)


def response(text: str, a: Any = "5", **more: Any) -> dict[str, Any]:
    return {"img_filename": "a.png", "q": "How many?", "a": a, "description": "", "r1_response": text, **more}


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path
