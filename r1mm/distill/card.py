"""The dataset's card: README.md with the front matter that the hub and `datasets` read, and where all of it is from."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from r1mm.chain.card import NOT_SEEN, Split, front_matter, inputs_of, table
from r1mm.chain.parquet import TRAIN
from r1mm.chain.provenance import Provenance, host_of
from r1mm.distill import filter as filtering
from r1mm.distill import questions
from r1mm.distill.rows import features_of

QUERY_STEP = "distill query"
_UPSTREAM = "Deep-Agent/R1-V@bbbbe3d:src/distill_r1"
_CC_BY = "CC-BY 4.0"  # as CLEVR's files name their licence


class SplitReport(BaseModel):
    """What is known of a split.  `lines`: of the file that it is made from; `left_out`: without a thinking block.

    `leaks`: rows of which thoughts hold a phrase; `described`: rows whose source asks about the "described scene".
    `same_bytes`: groups of pictures that are the same under several names; `in_train`: pictures of a validation split
    that the training split has too.  Bytes are the pictures' as they are stored, and as a copy for each row would be.
    """

    model_config = ConfigDict(frozen=True)
    rows: int
    lines: int
    left_out: int
    empty: int
    described: int
    leaks: dict[str, int]
    answers: dict[str, int]
    models: list[str]
    hosts: list[str]
    pictures: int
    same_bytes: int
    same_bytes_named: list[list[str]]
    in_train: int
    text_bytes: int
    picture_bytes: int
    picture_bytes_per_row: int
    files: list[str]


class BuildReport(BaseModel):
    """All splits, the training split first."""

    model_config = ConfigDict(frozen=True)
    splits: dict[str, SplitReport]


def card_text(record: Provenance, report: BuildReport, name: str) -> str:
    """README.md.  What no record tells stands there as "not seen"."""
    chain = {step.step: step for step in record.chain()}
    licences = sorted(
        {about["license"] for step in chain.values() for about in step.about.values() if "license" in about}
    )
    parts = [
        _front_matter(report, licences),
        f"# {name}\n",
        "Counting questions about pictures of CLEVR's kind, with the thoughts of a reasoning model that was shown each "
        f"scene as text. Made by `r1mm distill`, after {_UPSTREAM}.\n",
        _splits(report),
        _steps(record, chain, report),
        _patterns(chain.get(filtering.STEP)),
        _weaknesses(record, report),
        _pictures(report),
        _licence(licences),
        inputs_of(record),
    ]
    return "\n".join(part for part in parts if part)


def _front_matter(report: BuildReport, licences: Sequence[str]) -> str:
    splits = [
        Split(name, features_of(name), split.rows, split.text_bytes + split.picture_bytes_per_row)
        for name, split in report.splits.items()
    ]
    # An identifier of the hub's only where CLEVR's own files name that licence.
    licence = "cc-by-4.0" if len(licences) == 1 and _CC_BY in licences[0] else None
    return front_matter(splits, ["counting", "reasoning", "distillation"], licence)


def _splits(report: BuildReport) -> str:
    rows = []
    for name, split in report.splits.items():
        numbers = sum(count for answer, count in split.answers.items() if answer.isdecimal())
        config = "" if name == TRAIN else f'"{name}", '
        rows.append(
            (
                name,
                split.rows,
                split.pictures,
                numbers,
                split.rows - numbers,
                f'`load_dataset(..., {config}split="{name}")`',
            )
        )
    head = ("split", "rows", "pictures", "answered by a number", "by a word", "load it with")
    columns = "`thinking` (training split alone), `problem`, `solution` (`<answer> 3 </answer>`), `image`."
    return f"## Splits\n\n{table(head, rows)}\nColumns: {columns}\n"


def _steps(record: Provenance, chain: dict[str, Provenance], report: BuildReport) -> str:
    train = report.splits[TRAIN]
    asked, filtered = chain.get(questions.STEP), chain.get(filtering.STEP)
    queried = chain[QUERY_STEP].settings if QUERY_STEP in chain else {}
    # In each record, or in the step's own.
    models = train.models or ([str(queried["model"])] if "model" in queried else [])
    hosts = train.hosts or ([host_of(str(queried["base_url"]))] if "base_url" in queried else [])
    source = asked.about if asked else {}
    split = ", ".join(sorted({about["split"] for about in source.values() if "split" in about}))
    rows = [
        (
            "questions: source",
            _joined(f"{key}: sha256 {one.sha256}" for key, one in asked.inputs.items()) if asked else NOT_SEEN,
        ),
        ("questions: split", split or NOT_SEEN),
        ("questions: seed of all orders", asked.settings.get("seed", NOT_SEEN) if asked else NOT_SEEN),
        ("model", _joined(models) or NOT_SEEN),
        ("endpoint's host", _joined(hosts) or NOT_SEEN),
        ("filter's rules", filtered.settings.get("rules", NOT_SEEN) if filtered else NOT_SEEN),
        ("dataset: seed of rows and samples", record.settings["seed"]),
        ("problem's words", record.settings["problem"]),
    ]
    counted = [(step.step, name, number) for step in chain.values() for name, number in step.counts.items()]
    counted += [
        (record.step, "lines of the filter", train.lines),
        (record.step, "left out, no thinking block", train.left_out),
    ]
    return (
        f"## How it was made\n\n{table(('what', 'value'), rows)}\n"
        f"{table(('step', 'count of', 'number'), counted)}\n"
        "`provenance.json` holds every step's whole record.\n"
    )


def _joined(some: Any) -> str:
    return ", ".join(some)


def _patterns(filtered: Provenance | None) -> str:
    if filtered is None or filtered.report is None:
        return ""
    report = filtered.report
    rows = [
        (one["name"], one["group"], one["valid"], one["mismatch"], one["unparseable"])
        for one in report["patterns"][report["rules"]]
        if one["valid"] or one["mismatch"] or one["unparseable"]
    ]
    agreement = report["agreement"]
    return (
        f"## What the filter decided by\n\n{table(('pattern', 'group', 'valid', 'mismatch', 'unparseable'), rows)}\n"
        f"Of {report['records']} responses {agreement['both']} pass by upstream's and by the strict rules, "
        f"{agreement['upstream_only']} by upstream's alone, {agreement['strict_only']} by the strict ones alone.\n"
    )


def _weaknesses(record: Provenance, report: BuildReport) -> str:
    train = report.splits[TRAIN]
    leaks = [(f'"{phrase}"', count) for phrase, count in train.leaks.items()]
    described = {name: split.described for name, split in report.splits.items()}
    kept = record.settings["problem"] == "upstream"
    problems = ", ".join(f"{count} of {name}" for name, count in described.items())
    parts = [
        "## Known weaknesses\n",
        '- The model that thinks here never saw a picture. Upstream\'s replacement of "scene description" by "image" '
        "is made; what else tells of the text stays. Rows whose thoughts hold, in any case:\n",
        table(("phrase", "rows"), leaks) if leaks else "  none of the phrases that were looked for\n",
        f'- Problems that ask about the "described scene": {problems}; '
        + ("they are left as upstream left them." if kept else 'they say "image" here (ours).'),
        f"- Rows whose thoughts are empty: {train.empty}.",
        "- A response passes the filter when its answer is right; its thoughts may be wrong all the same.",
        "- The rows of one picture stand next to each other: shuffle before training.",
    ]
    return "\n".join(parts) + "\n"


def _pictures(report: BuildReport) -> str:
    head = ("split", "bytes stored", "with one copy a row", "same bytes, other names", "also in train")
    rows = [
        (name, one.picture_bytes, one.picture_bytes_per_row, one.same_bytes, "-" if name == TRAIN else one.in_train)
        for name, one in report.splits.items()
    ]
    named = [" = ".join(names) for one in report.splits.values() for names in one.same_bytes_named]
    listed = f"\nThe same to the byte: {'; '.join(named)}\n" if named else ""
    return (
        f"## Pictures\n\n{table(head, rows)}\nA picture is stored once for its rows, in the dictionary of its row "
        f"group; readers get it with every row.\n{listed}"
    )


def _licence(licences: Sequence[str]) -> str:
    said = f"CLEVR's files name theirs: {'; '.join(licences)}." if licences else f"Of the pictures: {NOT_SEEN}."
    return f"## Licence\n\n{said} Of the model's texts: {NOT_SEEN}; ask the model's owner.\n"
