"""CLEVR's files of scenes and questions, read as a stream and checked, and how a scene is put into words.

A file is {"info": ..., "scenes": [...]} or {"info": ..., "questions": [...]}, with hundreds of megabytes for 70,000
pictures.  `info` says split, version and licence; the miniature's files have none.

Source of the files' form: facebookresearch/clevr-dataset-gen@8e7318d:image_generation/render_images.py.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, BinaryIO

import ijson
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StrictInt

from r1mm.chain.forms import Form, of_form
from r1mm.errors import BadInput
from r1mm.progress import progress_bar

SCENES, QUESTIONS = "scenes", "questions"
_HOLDS = {
    SCENES: 'scenes are a JSON file {"scenes": [{image_filename, objects}, ...]}, as CLEVR has it',
    QUESTIONS: 'questions are a JSON file {"questions": [{image_filename, question, answer}, ...]}, as CLEVR has it',
}
_WORTH_A_BAR = 20 << 20  # bytes that take a second to read
_SHOWN = 5  # keys that an error lists
_REMEDY = "correct the file, or fetch it again"

Text = Annotated[str, Field(min_length=1)]
Point = Annotated[list[FiniteFloat], Field(min_length=3, max_length=3)]
Pixel = Annotated[list[StrictInt | FiniteFloat], Field(min_length=3, max_length=3)]


class _Entry(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)  # further keys are of no use here


class Thing(_Entry):
    """An object of a scene: `rotation` in degrees, `coords` x, y, z, `pixel` x and y of its centre, and its depth."""

    size: Text
    color: Text
    material: Text
    shape: Text
    rotation: FiniteFloat
    coords: Annotated[Point, Field(alias="3d_coords")]
    pixel: Annotated[Pixel, Field(alias="pixel_coords")]


class Scene(_Entry):
    """A picture's objects."""

    image_filename: Text
    objects: Annotated[list[Thing], Field(min_length=1)]


class Question(_Entry):
    """A question about a picture, and its answer: a number, yes or no, or another word."""

    image_filename: Text
    question: Text
    answer: Text | StrictInt


def thing_line(thing: Thing) -> str:
    """An object in words, to the byte as upstream writes it; a pixel that is no whole number (ours) is rounded to one.

    Source: Deep-Agent/R1-V@bbbbe3d:src/distill_r1/generate_scene_qa_pairs.ipynb.
    """
    x, y, z = thing.coords
    across, down, depth = thing.pixel
    return (
        f"A {thing.size} {thing.color} {thing.material} {thing.shape} rotated {thing.rotation:.1f}° located at 3D "
        f"coordinates ({x:.2f}, {y:.2f}, {z:.2f}) and pixel coordinates ({round(across)}, {round(down)}, {depth:.2f})"
    )


def description(lines: list[str]) -> str:
    """A scene in words, of its objects' lines, as upstream writes it: with a line feed also after the last."""
    return "Scene Description:\n" + "".join(line + "\n" for line in lines)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror}); give a JSON file as CLEVR has it") from error
    with file:
        yield file


def _cut_short(path: Path, after: str, error: Exception) -> BadInput:
    return BadInput(
        f"{path} is no whole JSON file: {str(error).splitlines()[0]}, after {after}; it is truncated or damaged: "
        "unpack or fetch it again"
    )


def read_info(path: Path, key: str) -> dict[str, str]:
    """What a file says of itself (split, version, license, date), as far as that stands before its list `key`.

    BadInput where it is of another form.  A right file is read up to the list alone.
    """
    builder, names = ijson.ObjectBuilder(), []
    with _opened(path) as file:
        try:
            for place, event, value in ijson.parse(file, use_float=True):
                if place == "" and event == "map_key":
                    names.append(value)
                elif place == "" and event not in ("start_map", "end_map"):
                    raise BadInput(f"{path} holds no JSON object; {_HOLDS[key]}")
                elif place == key:
                    if event != "start_array":
                        raise BadInput(f"{path}: {key} is no list; {_HOLDS[key]}")
                    break
                elif place in _HOLDS and event == "start_array":
                    raise BadInput(f"{path} has {place} and no {key}; were two files exchanged? {_HOLDS[key]}")
                elif place == "info" or place.startswith("info."):
                    builder.event(event, value)
            else:
                named = ", ".join(names[:_SHOWN]) + " ..." * (len(names) > _SHOWN)
                raise BadInput(f"{path} has no {key} (it has {named or 'nothing'}); {_HOLDS[key]}")
        except ijson.JSONError as error:
            raise _cut_short(path, names[-1] if names else "its first bytes", error) from error
    found = getattr(builder, "value", None)
    return {name: text for name, text in found.items() if isinstance(text, str)} if isinstance(found, dict) else {}


def read_list(path: Path, key: str, form: type[Form]) -> Iterator[tuple[int, Form]]:
    """The entries of a file's list `key` one after the other, each with its place from 0 on.

    BadInput names file and place of an entry that is not of this form, and of where a file is cut short.
    """
    size, number = path.stat().st_size, -1
    bar = progress_bar(total=size, desc=f"read {key}", unit="B", unit_scale=True, disable=size < _WORTH_A_BAR)
    with _opened(path) as file, bar:
        try:
            for number, entry in enumerate(ijson.items(file, f"{key}.item", use_float=True)):
                yield number, of_form(form, entry, str(path), _REMEDY, f"{key}[{number}]")
                bar.update(min(file.tell(), size) - bar.n)
        except ijson.JSONError as error:
            raise _cut_short(path, f"{key}[{number}]" if number >= 0 else key, error) from error
