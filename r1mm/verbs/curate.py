"""The verb of open-r1-multimodal's data, and its own verbs: curate items, rewrite, verify, build, audit."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from r1mm.verbs import curate_ask
from r1mm.verbs.common import AddVerb, ended_in_order, print_json, whole_number, with_steps
from r1mm.verbs.pushing import access_of_options, push_option, pushed_of_options

if TYPE_CHECKING:
    from r1mm.chain.provenance import Provenance

CHAIN = """open-r1-multimodal had GPT-4o rewrite questions about pictures (Math360K, Geo170K) so that they want
reasoning, write the thoughts, and give an answer that can be compared (multimodal-open-r1-8k-verified). The steps, each
from what the one before wrote:

  r1mm curate items --source train_samples_all_tuning.json mathv/data_images --source qa_tuning.json geo170k/images \\
      --out items.jsonl                  questions as they are published, one a line: image, question, answer
  r1mm curate rewrite items.jsonl --images pictures --out rewrites.jsonl --base-url URL --model NAME
                                         ask a model that sees, behind any OpenAI-compatible address
  r1mm curate verify rewrites.jsonl --images pictures --out verified
                                         refuse what cannot be verified or went wrong, and say why
  r1mm curate build verified/verified.jsonl --images pictures --out dataset
                                         parquet files and a card, as the hub has datasets

`r1mm curate audit` looks by the same rules at a dataset that is there already, upstream's too.

Beside its files each step leaves a record (*.provenance.json, verify.json) of what it was given and how many came out;
the next takes it up, and the dataset's card tells the whole chain. Files and folders appear whole or not at all, but
for answers, which are kept one by one, so that `rewrite` and `verify --attempts` go on where they were stopped.
`r1mm curate STEP --help` says more."""

_STOPPED = "nothing was written; the same command starts anew"


def add(verb: AddVerb) -> None:
    """Add this verb and its own."""
    step = with_steps(verb, "curate", "make questions about pictures into training data, rewritten and verified", CHAIN)
    _add_items(step)
    curate_ask.add_rewrite(step)
    curate_ask.add_verify(step)
    _add_build(step)
    _add_audit(step)


def _add_items(step: AddVerb) -> None:
    made = step(
        "items",
        _items,
        "bring published questions about pictures into one form",
        "FILE is JSON lines (.jsonl), one JSON list (.json) or parquet (.parquet); an entry is image, question and\n"
        "answer, or image and conversations in LLaVA's form, as MathV360K and Geo170K are published. FOLDER is where\n"
        "its pictures are, below the folder that the next steps get with --images. A question is kept as it is, but\n"
        "for '<image>'; entries without a picture are left out and counted.\n\n"
        "OUT's lines hold image, question, answer, and source: FILE's name. Files are read as a stream.",
    )
    made.set_defaults(when_stopped=_STOPPED)
    made.add_argument(
        "--source",
        metavar=("FILE", "FOLDER"),
        nargs=2,
        action="append",
        required=True,
        help="questions, and the folder of their pictures; may be given several times",
    )
    made.add_argument("--out", metavar="OUT", type=Path, required=True, help="write the items here, as JSON lines")


def _add_build(step: AddVerb) -> None:
    made = step(
        "build",
        _build,
        "make a dataset of what was verified, with a card that says where all of it is from",
        "FOLDER gets data/train-*.parquet (image, problem, solution, original_question, original_answer, as\n"
        "multimodal-open-r1-8k-verified has them; solution: <think>...</think>, an empty line, <answer>...</answer>),\n"
        "README.md and provenance.json. Rows come in the order of --seed. Every picture is decoded first.\n\n"
        "Put the folder at DIR/datasets/OWNER/NAME for R1MM_ASSETS=DIR, or --push it. A push goes into an empty\n"
        "repository, private when it is made for it, and needs a token that may write in the file that HF_TOKEN_PATH\n"
        "names.",
    )
    made.set_defaults(when_stopped=_STOPPED)
    made.add_argument("verified", metavar="VERIFIED", type=Path, help="verify's verified.jsonl")
    made.add_argument("--images", metavar="DIR", type=Path, required=True, help="folder of the pictures")
    made.add_argument("--out", metavar="FOLDER", type=Path, required=True, help="folder to make; must not be there yet")
    made.add_argument("--seed", type=whole_number, default=42, help="of the rows' order (default 42, upstream's)")
    push_option(made)


def _add_audit(step: AddVerb) -> None:
    made = step(
        "audit",
        _audit,
        "look by verify's rules at a dataset that is built already, upstream's or one of yours",
        "DATASET are parquet files with image, problem, solution, original_question, original_answer. Rows that\n"
        "break a rule are written to FILE, with file, row and reasons; nothing else is changed. The rules are those\n"
        "of `r1mm curate verify`. A row that breaks one need not be wrong: free text, say, is only nothing that a\n"
        "rule can reward.\n\n"
        "  r1mm curate audit multimodal-open-r1-8k-verified/data/train-*.parquet --out audit.jsonl",
    )
    made.set_defaults(when_stopped=_STOPPED)
    made.add_argument("dataset", metavar="DATASET", nargs="+", type=Path, help="the dataset's parquet files")
    made.add_argument("--out", metavar="FILE", type=Path, required=True, help="write rows that break a rule here")


def _audit(options: argparse.Namespace) -> int:
    from r1mm.curate.audit import audit

    with ended_in_order():
        report = audit(options.dataset, options.out)
    if options.json:
        print_json({"out": str(options.out), **report.model_dump(mode="json")})
    else:
        curate_ask.print_report(report)
        print(f"{options.out}: {report.rejected:,} of {report.rows:,} rows break a rule")
    return 0


def _items(options: argparse.Namespace) -> int:
    from r1mm.curate.sources import Source, write_items

    with ended_in_order():
        record = write_items([Source(Path(file), folder) for file, folder in options.source], options.out)
    if options.json:
        print_json({"out": str(options.out), **record.model_dump(mode="json")})
        return 0
    told = ", ".join(f"{name} {number:,}" for name, number in record.counts.items() if name != "items")
    print(f"{options.out}: {record.counts['items']:,} items ({told})")
    return 0


def _build(options: argparse.Namespace) -> int:
    from r1mm.curate.build import build_dataset

    access = access_of_options(options)
    with ended_in_order():
        record = build_dataset(options.verified, options.images, options.out, options.seed)
    pushed = pushed_of_options(options, access, record)
    if options.json:
        print_json({"out": str(options.out), "pushed": pushed, **record.model_dump(mode="json")})
    else:
        _print_build(record, options.out, pushed)
    return 0


def _print_build(record: "Provenance", out: Path, pushed: str | None) -> None:
    from r1mm.curate.card import BuildReport

    found = BuildReport.model_validate(record.report)
    print(
        f"{out}: {found.rows:,} rows about {found.pictures:,} pictures ({found.picture_bytes / 1e6:.1f} MB of "
        f"pictures, {found.text_bytes / 1e6:.1f} MB of text)"
    )
    if found.questions < found.rows:
        print(f"{found.rows - found.questions:,} rows are of a question that another row is of too")
    if pushed:
        print(f"pushed: {pushed}")
