"""The verified items as a dataset in the columns of lmms-lab/multimodal-open-r1-8k-verified.

Source of columns and seed: EvolvingLMMs-Lab/open-r1-multimodal@232b7ba:local_scripts/prepare_hf_data.py, read in a copy
(see `r1mm.curate`).  What differs: pictures stay the bytes that they were, under their names; and the order, of the
seed 42 too, is this house's (`r1mm.chain.order`), for upstream shuffled a file that is not published before it
filtered, so that its order cannot be had again.
"""

from collections import Counter
from pathlib import Path

from datasets import Features, Image, Value
from pydantic import BaseModel, ConfigDict, StrictFloat, StrictInt, StrictStr

from r1mm.chain.forms import of_form
from r1mm.chain.order import rank
from r1mm.chain.parquet import TRAIN, Row, write_rows
from r1mm.chain.pictures import look_at
from r1mm.chain.provenance import ELSEWHERE, Provenance, read_provenance, write_provenance
from r1mm.curate.card import BuildReport, card_text
from r1mm.data.download import check_space
from r1mm.errors import BadInput
from r1mm.progress import progress_bar
from r1mm.rundir import check_new, json_object, make_folder, new_folder, stamp, write_text

STEP = "curate build"
PROVENANCE_FILE, CARD_FILE, DATA_FOLDER = "provenance.json", "README.md", "data"
FEATURES = Features(
    {
        "image": Image(),
        "problem": Value("string"),
        "solution": Value("string"),
        "original_question": Value("string"),
        "original_answer": Value("string"),
    }
)
UPSTREAMS_SEED = 42


class Verified(BaseModel):
    """What is read of a line of verified.jsonl."""

    model_config = ConfigDict(frozen=True)
    image: StrictStr
    question: StrictStr
    answer: StrictStr | StrictInt | StrictFloat
    problem: StrictStr
    solution: StrictStr
    source: StrictStr = ""
    model: StrictStr = ""
    reasons: dict[str, str] | None = None


def build_dataset(verified: Path, images: Path, out: Path, seed: int = UPSTREAMS_SEED) -> Provenance:
    """Write the dataset to the folder `out`, whole or not at all: data/train-*.parquet, README.md, provenance.json.

    The memory that it takes is that of one group of rows, and some 400 bytes for every row and every picture.  Raises
    BadInput, before anything is written, where `out` holds something, a line is none or was refused, or a picture is
    missing or no whole image; StageFailed where the disk has no room.
    """
    check_new(out)
    before, source = read_provenance(verified)
    rows, counts = _rows(verified, seed)
    pictures = look_at(list(dict.fromkeys(row.picture for row in rows)), images, str(verified))
    make_folder(out.parent, ELSEWHERE)
    check_space(out.parent, sum(pictures[row.picture].bytes for row in rows), f"dataset {out}")
    with new_folder(out, ELSEWHERE) as folder:
        data = make_folder(folder / DATA_FOLDER)
        written = write_rows(TRAIN, rows, verified, pictures, data, _texts, FEATURES)
        report = BuildReport(
            rows=written.rows,
            pictures=written.pictures,
            questions=counts.questions,
            text_bytes=written.text_bytes,
            picture_bytes=written.picture_bytes,
            picture_bytes_per_row=written.picture_bytes_per_row,
            files=written.files,
            sources=dict(counts.sources.most_common()),
            models=sorted(counts.models),
        )
        record = Provenance(
            step=STEP,
            settings={"seed": seed},
            inputs={VERIFIED: source},
            outputs={f"{DATA_FOLDER}/{path.name}": stamp(path) for path in sorted(data.iterdir())},
            counts={"rows": report.rows, "pictures": report.pictures},
            report=report.model_dump(mode="json"),
            before=before.model_dump(mode="json") if before else None,
        )
        write_provenance(folder / PROVENANCE_FILE, record)
        write_text(folder / CARD_FILE, card_text(record, report, FEATURES, out.name))
    return record


VERIFIED = "verified"


class _Counts:
    def __init__(self) -> None:
        self.sources: Counter[str] = Counter()
        self.models: set[str] = set()
        self._asked: set[bytes] = set()

    def take(self, row: Verified) -> None:
        self.sources[row.source or "not said"] += 1
        self.models |= {row.model} - {""}
        self._asked.add(rank(0, row.image, row.question))

    @property
    def questions(self) -> int:
        return len(self._asked)


def _rows(path: Path, seed: int) -> tuple[list[Row], _Counts]:
    """Where each row's line begins, in the order of `seed`; that of the lines has no part in it."""
    rows, counts, offset = [], _Counts(), 0
    holds = "a line holds image, question, answer, problem and solution, as `r1mm curate verify` writes them"
    try:
        with path.open("rb") as file:
            for number, line in enumerate(progress_bar(file, desc=f"read {path.name}", unit="line"), 1):
                where = f"{path}:{number}"
                row = of_form(Verified, json_object(line, where), where, holds)
                if row.reasons:
                    raise BadInput(f"{where}: was refused ({', '.join(row.reasons)}); give verify's verified.jsonl")
                rows.append(Row(row.image, rank(seed, row.image, row.question, row.problem, row.solution), offset))
                counts.take(row)
                offset += len(line)
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror}); give verify's verified.jsonl") from error
    if not rows:
        raise BadInput(f"{path} has no lines; give verify's verified.jsonl")
    return sorted(rows, key=lambda row: (row.place, row.offset)), counts


def _texts(row: dict[str, object]) -> dict[str, str]:
    return {
        "problem": str(row["problem"]),
        "solution": str(row["solution"]),
        "original_question": str(row["question"]),
        "original_answer": str(row["answer"]),
    }
