"""The distilled dataset: a training split of the responses that the filter passed, and two to evaluate on.

Source: Deep-Agent/R1-V@bbbbe3d:src/distill_r1/create_hf_dataset.py, published as MMInstruction/Clevr_CoGenT_TrainA_R1,
_ValA and _ValB.  What differs here: a picture is not copied for every row, so that it keeps its name; the rows come in
a seeded order, not in that of the responses; and one folder holds all three.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from r1mm.chain.order import rank
from r1mm.chain.parquet import SHARD_BYTES, TRAIN, Written, write_rows
from r1mm.chain.pictures import Picture, look_at, same_bytes
from r1mm.chain.provenance import ELSEWHERE, Provenance, read_provenance, write_provenance
from r1mm.data.download import check_space
from r1mm.distill.card import BuildReport, SplitReport, card_text
from r1mm.distill.clevr import SCENES
from r1mm.distill.rows import PROBLEM_WORDS, ProblemWords, Rows, columns_of, features_of, train_rows, validation_rows
from r1mm.errors import BadInput
from r1mm.rundir import FileStamp, check_new, make_folder, new_folder, stamp, write_text

STEP = "distill build"
VALIDATION = ("valA", "valB")
PROVENANCE_FILE, CARD_FILE, DATA_FOLDER = "provenance.json", "README.md", "data"
_NAMED = 20  # groups of pictures that are the same to the byte


class ValidationSource(NamedTuple):
    """A split's questions, as `r1mm distill questions` wrote them, and its images."""

    questions: Path
    images: Path


def build_dataset(
    valid: Path,
    images: Path,
    out: Path,
    *,
    validation: Mapping[str, ValidationSource] | None = None,
    validation_items: int = 5000,
    seed: int = 1234,
    words: ProblemWords = "upstream",
) -> Provenance:
    """Write the dataset to the folder `out`, whole or not at all: data/*.parquet, README.md and provenance.json.

    `validation`: the sources of VALIDATION's splits, each a sample of `validation_items` questions.  The memory that it
    takes is that of one group of rows, and some 400 bytes for every row and every picture.

    Raises BadInput, before anything is written, where `out` holds something, a line is none, or a picture is missing or
    no whole image; StageFailed where the disk has no room.
    """
    if words not in PROBLEM_WORDS:
        raise BadInput(f"the problem's words are {words!r}; give {' or '.join(PROBLEM_WORDS)}")
    if validation_items < 1:
        raise BadInput(f"--val-items is {validation_items}; give 1 or more, or no --val-a and --val-b")
    check_new(out)
    before, valid_stamp = read_provenance(valid)
    splits: dict[str, tuple[Rows, Path]] = {TRAIN: (train_rows(valid, seed), images)}
    inputs: dict[str, FileStamp] = {TRAIN: valid_stamp}
    about: dict[str, dict[str, str]] = {}
    for name, source in (validation or {}).items():
        splits[name] = (validation_rows(source.questions, seed, validation_items), source.images)
        made, inputs[name] = read_provenance(source.questions)
        about[name] = made.about.get(SCENES, {}) if made else {}
    pictures = {
        name: look_at(list(dict.fromkeys(row.picture for row in rows.rows)), folder, str(rows.source))
        for name, (rows, folder) in splits.items()
    }
    make_folder(out.parent, ELSEWHERE)
    check_space(out.parent, sum(one.bytes for found in pictures.values() for one in found.values()), f"dataset {out}")
    with new_folder(out, ELSEWHERE) as folder:
        data = make_folder(folder / DATA_FOLDER)
        report = BuildReport(
            splits={
                name: _split_report(
                    rows, write_split(name, rows, pictures[name], data, seed, words), pictures[name], pictures[TRAIN]
                )
                for name, (rows, _) in splits.items()
            }
        )
        record = Provenance(
            step=STEP,
            settings={"seed": seed, "problem": words, "validation_items": validation_items if validation else None},
            inputs=inputs,
            about=about,
            outputs={f"{DATA_FOLDER}/{path.name}": stamp(path) for path in sorted(data.iterdir())},
            counts={f"{name} rows": one.rows for name, one in report.splits.items()},
            report=report.model_dump(mode="json"),
            before=before.model_dump(mode="json") if before else None,
        )
        write_provenance(folder / PROVENANCE_FILE, record)
        write_text(folder / CARD_FILE, card_text(record, report, out.name))
    return record


def write_split(
    split: str,
    rows: Rows,
    pictures: Mapping[str, Picture],
    folder: Path,
    seed: int,
    words: ProblemWords,
    *,
    shard_bytes: int = SHARD_BYTES,
    dictionary: bool = True,
) -> Written:
    """Write a split's files: pictures in the order of `seed`, their rows together; `dictionary` as for `write_rows`."""
    order = sorted(
        rows.rows, key=lambda row: (rank(seed, pictures[row.picture].sha256), row.picture, row.place, row.offset)
    )
    return write_rows(
        *(split, order, rows.source, pictures, folder, lambda row: columns_of(row, words), features_of(split)),
        shard_bytes=shard_bytes,
        dictionary=dictionary,
    )


def _split_report(
    rows: Rows, written: Written, pictures: Mapping[str, Picture], train: Mapping[str, Picture]
) -> SplitReport:
    same = same_bytes(pictures)
    in_train = {picture.sha256 for picture in train.values()} if pictures is not train else set()
    return SplitReport(
        rows=written.rows,
        lines=rows.lines,
        left_out=rows.left_out,
        empty=rows.empty,
        described=rows.described,
        leaks=dict(rows.leaks),
        answers=dict(sorted(rows.answers.items())),
        models=rows.models,
        hosts=rows.hosts,
        pictures=written.pictures,
        same_bytes=len(same),
        same_bytes_named=same[:_NAMED],
        in_train=sum(picture.sha256 in in_train for picture in pictures.values()),
        text_bytes=written.text_bytes,
        picture_bytes=written.picture_bytes,
        picture_bytes_per_row=written.picture_bytes_per_row,
        files=written.files,
    )
