"""CLEVR's scenes and questions as questions about a scene in words: what a reasoning model is asked.

Source: Deep-Agent/R1-V@bbbbe3d:src/distill_r1/generate_scene_qa_pairs.ipynb.  All questions are shuffled; those that
ask for a number are kept; and at the first that is kept of a picture comes, with the same description, one after the
number of all its objects.  The objects stand in another order in every question.

What differs here: upstream's orders came from an unseeded generator, ours from a seed; upstream wrote a JSON list and
the count of all objects as a number, here are JSON lines and every answer is a string.
"""

import contextlib
import json
import sqlite3
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from r1mm.chain.order import rank
from r1mm.chain.provenance import ELSEWHERE, Provenance, provenance_path, write_provenance
from r1mm.distill.clevr import QUESTIONS, SCENES, Question, Scene, description, read_info, read_list, thing_line
from r1mm.errors import BadInput, StageFailed
from r1mm.progress import progress_bar
from r1mm.rundir import explained, make_folder, stamp, write_jsonl

STEP = "distill questions"
COUNT_ALL = "How many items are there in the described scene?"
ASKS_FOR_A_NUMBER = ("how many", "number")  # in the question's text, in lower case
_CACHE_KIBIBYTES = 16_384

# Names and texts may be more than the memory holds, and are to come out in another order than they went in.
_TABLES = """
create table scenes (name text primary key, things text) without rowid;
create table questions (rank blob primary key, place integer, name text, question text, answer text) without rowid;
create table uncounted (name text primary key) without rowid;
"""


class Pair(BaseModel):
    """A question about a scene in words, with upstream's names.  `q`: the question, `a`: its answer."""

    model_config = ConfigDict(frozen=True)
    img_filename: str
    q: str
    a: str
    description: str


def write_pairs(scenes: Path, questions: Path, out: Path, seed: int, limit: int | None = None) -> Provenance:
    """Write the pairs of CLEVR's scenes and questions to `out` as JSON lines, in the order of `seed`, and a record.

    `limit`: only the first so many; they are the same as without it.  Every scene and every question is checked
    whatever is written.  The memory that it takes does not grow with the files; beside `out` it takes for the time
    about a sixth of their size on the disk.

    Raises BadInput for a file that is cut short or of another form, naming the place; a picture that occurs twice; a
    question about none; and where nothing asks for a number.
    """
    if limit == 0:
        raise BadInput("--limit 0 would write nothing; give 1 or more, or leave it out")
    if out.is_dir():
        raise BadInput(f"--out {out} is a folder; name a file")
    if out.resolve() in (scenes.resolve(), questions.resolve()):
        raise BadInput(f"--out {out} would write over what is read; name another file")
    about = {SCENES: read_info(scenes, SCENES), QUESTIONS: read_info(questions, QUESTIONS)}
    with _database(out) as database:
        counts = _take_scenes(database, scenes) | _take_questions(database, questions, scenes, seed)
        if not counts["kept"]:
            raise BadInput(
                f"none of the {counts['questions']} questions in {questions} asks for a number (has "
                f"{' or '.join(map(repr, ASKS_FOR_A_NUMBER))} in it); give CLEVR's questions"
            )
        total = counts["kept"] + counts["pictures_asked"]
        wanted = total if limit is None else min(limit, total)
        pairs = progress_bar(islice(_pairs(database, seed), wanted), total=wanted, desc="write pairs", unit="pair")
        write_jsonl(out, (pair.model_dump() for pair in pairs))
    record = Provenance(
        step=STEP,
        settings={"seed": seed, "limit": limit, "asks_for_a_number": list(ASKS_FOR_A_NUMBER), "count_all": COUNT_ALL},
        inputs={SCENES: stamp(scenes), QUESTIONS: stamp(questions)},
        about=about,
        outputs={out.name: stamp(out)},
        counts={**counts, "pairs": wanted},
    )
    write_provenance(provenance_path(out), record)
    return record


@contextlib.contextmanager
def _database(out: Path) -> Iterator[sqlite3.Connection]:
    """An empty database beside `out`, whose disk is the one with room, for the length of the block."""
    make_folder(out.parent, ELSEWHERE)
    try:
        with explained(out, ELSEWHERE), tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
            database = sqlite3.connect(Path(folder) / "pairs.sqlite", isolation_level=None)
            with contextlib.closing(database):
                for setting in ("journal_mode = off", "synchronous = off", f"cache_size = -{_CACHE_KIBIBYTES}"):
                    database.execute(f"pragma {setting}")
                database.executescript(_TABLES)
                database.execute("begin")
                yield database
    except sqlite3.OperationalError as error:
        raise StageFailed(
            f"the questions cannot be put in order in {out.parent} ({error}); free some space there, or write --out to "
            "another disk"
        ) from error


def _take_scenes(database: sqlite3.Connection, path: Path) -> dict[str, int]:
    scenes = things = 0
    for place, scene in read_list(path, SCENES, Scene):
        lines = json.dumps([thing_line(thing) for thing in scene.objects], ensure_ascii=False)
        row = (scene.image_filename, lines)
        if not database.execute("insert or ignore into scenes values (?, ?)", row).rowcount:
            raise BadInput(
                f"{path}: scenes[{place}].image_filename: {scene.image_filename} has a scene already; a picture has "
                "one: correct the file"
            )
        scenes, things = scenes + 1, things + len(scene.objects)
    if not scenes:
        raise BadInput(f"{path} has an empty list of scenes; fetch it again")
    return {"scenes": scenes, "objects": things}


def _take_questions(database: sqlite3.Connection, path: Path, scenes: Path, seed: int) -> dict[str, int]:
    questions = kept = pictures = 0
    for place, asked in read_list(path, QUESTIONS, Question):
        questions += 1
        name = asked.image_filename
        if not database.execute("select 1 from scenes where name = ?", (name,)).fetchone():
            raise BadInput(
                f"{path}: questions[{place}].image_filename: {name} has no scene in {scenes}; give scenes and "
                "questions of one split"
            )
        if any(words in asked.question.lower() for words in ASKS_FOR_A_NUMBER):
            row = (rank(seed, name, place), place, name, asked.question, str(asked.answer))
            database.execute("insert into questions values (?, ?, ?, ?, ?)", row)
            kept += 1
            pictures += database.execute("insert or ignore into uncounted values (?)", (name,)).rowcount
    return {"questions": questions, "kept": kept, "pictures_asked": pictures}


def _pairs(database: sqlite3.Connection, seed: int) -> Iterator[Pair]:
    """All pairs in order.  The order of a question's objects depends on seed, picture and its place in the file."""
    kept = database.execute("select place, name, question, answer from questions order by rank")
    for place, name, question, answer in kept:
        (found,) = database.execute("select things from scenes where name = ?", (name,)).fetchone()
        lines: list[str] = json.loads(found)
        order = sorted(range(len(lines)), key=lambda thing: rank(seed, name, place, thing))
        words = description([lines[thing] for thing in order])
        yield Pair(img_filename=name, q=question, a=answer, description=words)
        if database.execute("delete from uncounted where name = ?", (name,)).rowcount:
            yield Pair(img_filename=name, q=COUNT_ALL, a=str(len(lines)), description=words)
