"""Questions about clips as JSON lines, in Open-R1-Video's form, and how that form was made of its source.

A line holds problem, solution (`<answer>A.</answer>`) and video, the clip's path; and where they are known the question
and answer that it was made of, original_question and original_answer.

Source of the form: Wang-Xiaodong1899/Open-R1-Video@50eb65f:scripts/format_video_data.py.  It read the annotations of
malterei/LLaVA-Video-large-swift (query, response, videos), left out the rows whose clip was not on its disk, and wrote
the clip's path on that disk.
"""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from r1mm.errors import BadInput
from r1mm.rundir import read_jsonl

_PLACEHOLDERS = ("<image>", "<video>")
_INSTRUCTION = "Please"  # a question's text from here on asks for the letter alone; upstream cuts it off
_SHOWN = 5  # differences that are named

_Key = tuple[str, str]


class Question(BaseModel):
    """One line.  `video` is the path of its clip, as the line has it."""

    model_config = ConfigDict(frozen=True)  # other people's files have further keys, which are of no use here
    problem: str
    solution: str
    video: str
    original_question: str | None = None
    original_answer: str | None = None


class Annotation(BaseModel):
    """One line of the source."""

    model_config = ConfigDict(frozen=True)
    query: str
    response: str
    videos: str | list[str]

    @property
    def clip(self) -> str:
        """The path of its clip in the source's repository."""
        return self.videos if isinstance(self.videos, str) else self.videos[0]


def _read(path: Path, form: type[Any], wanted: str) -> list[Any]:
    found = []
    for number, row in enumerate(read_jsonl(path), 1):
        try:
            found.append(form.model_validate(row))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise BadInput(f"{path}:{number}: {place}: {first['msg']}; a line holds {wanted}") from error
    if not found:
        raise BadInput(f"{path} has no lines; fetch it again")
    return found


def read_questions(path: Path) -> list[Question]:
    """The questions of a file.  BadInput names the line that is none, or has no solution or video.

    A problem may be empty: upstream wrote, and trained on, what came before "Please" also where nothing did.
    """
    found: list[Question] = _read(path, Question, "problem, solution and video")
    for number, question in enumerate(found, 1):
        for key in ("solution", "video"):
            if not getattr(question, key).strip():
                raise BadInput(f"{path}:{number}: {key} is empty; correct the file")
    return found


def read_annotations(path: Path) -> list[Annotation]:
    """The source's annotations.  BadInput names the line that is none, or is about several clips or none."""
    found: list[Annotation] = _read(path, Annotation, "query, response and videos")
    for number, annotation in enumerate(found, 1):
        if isinstance(annotation.videos, list) and len(annotation.videos) != 1:
            raise BadInput(f"{path}:{number}: videos names {len(annotation.videos)} clips; a question is about one")
    return found


def question_of(annotation: Annotation, root: str = "") -> Question:
    """An annotation in Open-R1-Video's form; `root` stands before the clip's path.

    The problem is what comes before the first "Please"; the solution is the first two characters of the response, a
    letter and its full stop.
    """
    text = annotation.query
    for placeholder in _PLACEHOLDERS:
        text = text.replace(placeholder, "")
    return Question(
        problem=text.split(_INSTRUCTION)[0],
        solution=f"<answer>{annotation.response[:2]}</answer>",
        video=str(PurePosixPath(root, annotation.clip)),
        original_question=text,
        original_answer=annotation.response,
    )


def make_questions(
    annotations: Iterable[Annotation], there: Callable[[str], bool], root: str = ""
) -> tuple[list[Question], list[str]]:
    """All annotations whose clip is `there`, in order, in Open-R1-Video's form; and the clips that are not."""
    made, absent = [], []
    for annotation in annotations:
        if there(annotation.clip):
            made.append(question_of(annotation, root))
        else:
            absent.append(annotation.clip)
    return made, absent


def as_lines(questions: Iterable[Question]) -> str:
    """Questions as upstream writes them: byte for byte, if the paths are."""
    return "".join(json.dumps(one.model_dump(), ensure_ascii=False) + "\n" for one in questions)


def match_clips(wanted: Iterable[str], members: Collection[str], what: str) -> dict[str, str]:
    """Which of the files `members` each wanted path means: the one that it ends with, the longest where several do.

    Upstream's paths are of its own disk, `/data/.../LLaVA-Video-large-swift/videos/a/b.mp4` for `videos/a/b.mp4`.
    BadInput lists paths that end with none of `members`.
    """
    known = set(members)
    matched, missing = {}, []
    for path in dict.fromkeys(wanted):
        parts = [part for part in PurePosixPath(path).parts if part != "/"]
        endings = ("/".join(parts[start:]) for start in range(len(parts)))
        member = next((ending for ending in endings if ending in known), None)
        if member is None:
            missing.append(path)
        else:
            matched[path] = member
    if missing:
        raise BadInput(
            f"{what} lacks {len(missing)} of the {len(missing) + len(matched)} clips that the questions name: "
            f"{', '.join(missing[:_SHOWN])}{' ...' if len(missing) > _SHOWN else ''}; bring them, at these paths or at "
            "what these paths end with"
        )
    return matched


@dataclass(frozen=True)
class Difference:
    """How two files of questions differ.  A question is the same by its clip's file name and its original text.

    `same`: in both and equal; `changed`: in both, but another problem, solution or answer; `only_here`, `only_there`.
    `in_order`: what both have stands in one order.  `named`: the first few that differ, in words.
    """

    here: int
    there: int
    same: int
    changed: int
    only_here: int
    only_there: int
    in_order: bool
    named: list[str]

    @property
    def none(self) -> bool:
        """Whether there is no difference."""
        return self.in_order and not (self.changed or self.only_here or self.only_there)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "identical": self.none}


def compare_questions(here: Sequence[Question], there: Sequence[Question]) -> Difference:
    """How two sets of questions differ, the folders of their clips aside."""
    mine, theirs = ([_keyed(one) for one in side] for side in (here, there))
    counts, others = Counter(key for key, _ in mine), Counter(key for key, _ in theirs)
    common = counts & others
    contents: dict[_Key, list[Question]] = {}
    for key, question in theirs:
        contents.setdefault(key, []).append(question)
    changed, named = 0, []
    for key, question in mine:
        if not contents.get(key):
            named.append(f"only here: {_shown(question)}")
            continue
        other = contents[key].pop(0)
        differing = [
            name
            for name in ("problem", "solution", "original_answer")
            if getattr(question, name) != getattr(other, name)
        ]
        if differing:
            changed += 1
            values = f"{getattr(question, differing[0])!r} here, {getattr(other, differing[0])!r} there"
            named.append(f"{' and '.join(differing)} of {_shown(question)}: {values}")
    named += [f"only there: {_shown(question)}" for rest in contents.values() for question in rest]
    total = common.total()
    return Difference(
        here=len(here),
        there=len(there),
        same=total - changed,
        changed=changed,
        only_here=len(here) - total,
        only_there=len(there) - total,
        in_order=_kept(mine, common) == _kept(theirs, common),
        named=named[:_SHOWN],
    )


def _kept(rows: Sequence[tuple[_Key, Question]], common: Counter[_Key]) -> list[_Key]:
    left, kept = Counter(common), []
    for key, _ in rows:
        if left[key]:
            left[key] -= 1
            kept.append(key)
    return kept


def _keyed(question: Question) -> tuple[_Key, Question]:
    return (PurePosixPath(question.video).name, question.original_question or question.problem), question


def _shown(question: Question) -> str:
    text = " ".join(question.problem.split())
    return f"{PurePosixPath(question.video).name} {text[:60]!r}"
