"""Questions about pictures in the forms that they are published in, as one line each: image, question, answer, source.

Upstream took Math360K (Zhiqiang007/MathV360K) and Geo170K (Luckyjhg/Geo170K).  Known of their form, from code that
reads them and not from the files: both are in LLaVA's, one JSON list of {image, conversations: [{from: human, value},
{from: gpt, value}]} with `<image>` in the first question; the files are called train_samples_all_tuning.json and
qa_tuning.json; answers end in "The answer is 8" or "Answer: B", Geo170K's after an explanation.  Not known: whether
all of their entries are so (what is not is refused here, by name), which of them upstream took, and how upstream made
image_path, question and answer, which its script reads, out of them.  Its published rows have whole answers in
original_answer (users read them with `Answer:\\s*([A-Z])`), so nothing is cut out of an answer or a question here but
`<image>`.

Source of LLaVA's form: haotian-liu/LLaVA:docs/Finetune_Custom_Data.md.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, NamedTuple

import ijson
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, StrictStr

from r1mm.chain.forms import of_form
from r1mm.chain.provenance import ELSEWHERE, Provenance, provenance_path, write_provenance
from r1mm.errors import BadInput
from r1mm.progress import progress_bar
from r1mm.rundir import iter_jsonl, json_line, stamp, writing

STEP = "curate items"
_PLACE = "<image>"  # where LLaVA's questions show the picture
_HOLDS = "an entry holds image, question and answer, or image and conversations (LLaVA's form)"

Text = Annotated[StrictStr, Field(min_length=1)]


class Item(BaseModel):
    """A question about a picture: `image` is its path below the folder of pictures, `answer` all that was said."""

    model_config = ConfigDict(frozen=True)  # lines have more, which is passed on
    image: Text
    question: Text
    answer: Text | StrictInt | StrictFloat


class _Turn(BaseModel):
    model_config = ConfigDict(frozen=True, populate_by_name=True)
    who: Literal["human", "gpt"] = Field(alias="from")
    value: Text


class _Conversation(BaseModel):
    model_config = ConfigDict(frozen=True)
    image: Text
    conversations: Annotated[list[_Turn], Field(min_length=2)]


class Source(NamedTuple):
    """A file of questions, and the folder of its pictures, below the folder of all pictures."""

    path: Path
    folder: str


def write_items(sources: Sequence[Source], out: Path) -> Provenance:
    """Write the questions of all sources to `out`, whole or not at all, and its record beside it.

    Files are read as a stream.  BadInput names the file and entry that is of no known form.
    """
    counts: Counter[str] = Counter()
    names = [one.path.name for one in sources]
    if len(set(names)) < len(names):
        raise BadInput(f"two sources are called {names[0]}; rename one, the name tells whose item is whose")
    with writing(out, ELSEWHERE) as file:
        for source in sources:
            for where, entry in progress_bar(_entries(source.path), desc=f"read {source.path.name}", unit="entry"):
                if not entry.get("image"):
                    counts["entries without a picture, left out"] += 1
                    continue
                for item in _items(entry, where):
                    image = str(PurePosixPath(source.folder) / item.image)
                    answer = str(item.answer)
                    row = {"image": image, "question": item.question, "answer": answer, "source": source.path.name}
                    file.write(json_line(row))
                    counts[source.path.name] += 1
        if not any(counts[name] for name in names):
            raise BadInput(f"{', '.join(names)}: no question about a picture; {_HOLDS}")
    record = Provenance(
        step=STEP,
        settings={"folders": {one.path.name: one.folder for one in sources}},
        inputs={one.path.name: stamp(one.path) for one in sources},
        outputs={out.name: stamp(out)},
        counts={**counts, "items": sum(counts[name] for name in names)},
    )
    write_provenance(provenance_path(out), record)
    return record


def _items(entry: dict[str, Any], where: str) -> Iterator[Item]:
    """The questions of an entry: one, or one for each pair of turns."""
    if "conversations" not in entry:
        yield of_form(Item, entry, where, _HOLDS)
        return
    talk = of_form(_Conversation, entry, where, _HOLDS)
    turns = talk.conversations
    if any(turn.who != ("gpt" if number % 2 else "human") for number, turn in enumerate(turns)) or len(turns) % 2:
        raise BadInput(f"{where}: its turns are not question and answer, question and answer; correct the entry")
    for question, answer in zip(turns[::2], turns[1::2], strict=True):
        text = question.value.replace(_PLACE, "").strip()
        yield of_form(
            Item, {"image": talk.image, "question": text, "answer": answer.value.strip()}, where, "a turn has words"
        )


def _entries(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """A file's objects, each with where it stands: JSON lines, one JSON list, or parquet."""
    reader = {".jsonl": _of_lines, ".json": _of_list, ".parquet": _of_parquet}.get(path.suffix)
    if reader is None:
        raise BadInput(f"{path} is called neither .jsonl, .json nor .parquet; name it as what it is")
    for where, entry in reader(path):
        if not isinstance(entry, dict):
            raise BadInput(f"{where}: no object; {_HOLDS}")
        yield where, entry


def _of_lines(path: Path) -> Iterator[tuple[str, Any]]:
    for number, row in iter_jsonl(path):
        yield f"{path}:{number}", row


def _of_list(path: Path) -> Iterator[tuple[str, Any]]:
    number = -1
    try:
        with path.open("rb") as file:
            for number, entry in enumerate(ijson.items(file, "item", use_float=True)):
                yield f"{path}[{number}]", entry
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror}); give a file of questions") from error
    except ijson.JSONError as error:
        after = f"entry {number}" if number >= 0 else "its first bytes"
        raise BadInput(
            f"{path} is no whole JSON list: {str(error).splitlines()[0]}, after {after}; it is truncated or damaged: "
            "fetch it again"
        ) from error


def _of_parquet(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        file = pq.ParquetFile(path)
        names = [name for name in ("image", "question", "answer", "conversations") if name in file.schema_arrow.names]
        number = 0
        for batch in file.iter_batches(batch_size=1024, columns=names):
            for row in batch.to_pylist():
                yield f"{path} row {number}", row
                number += 1
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{path} is no readable parquet file ({error}); fetch it again") from error
