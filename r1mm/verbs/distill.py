"""The verb of R1-V's distillation, and its own verbs: distill questions, filter, build."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1mm.verbs import distill_query, distill_reasoner
from r1mm.verbs.common import AddVerb, ended_in_order, print_json, print_table, whole_number, with_steps
from r1mm.verbs.pushing import access_of_options, push_option, pushed_of_options

if TYPE_CHECKING:
    from r1mm.chain.provenance import Provenance
    from r1mm.distill.card import BuildReport
    from r1mm.distill.filter import FilterReport, Outcome

CHAIN = """R1 cannot see, so R1-V had it answer questions about scenes in words, kept the responses that came to the
right answer, and trained a vision model on their thoughts (Clevr_CoGenT_TrainA_R1). The steps, each from what the one
before wrote:

  r1mm distill questions --scenes CLEVR_trainA_scenes.json --questions CLEVR_trainA_questions.json \\
      --out questions.jsonl              scenes in words, and the questions that ask for a number
  r1mm distill query questions.jsonl --out traces.jsonl --base-url URL --model NAME
                                         ask a reasoning model behind any OpenAI-compatible address
  r1mm distill filter traces.jsonl --out filtered
                                         keep what comes to the right answer, and say what decided it
  r1mm distill build filtered/valid_pairs.jsonl --images images/trainA --out dataset
                                         parquet files and a card, as the hub has datasets

Beside its files each step leaves a record (*.provenance.json, filter.json) of what it was given and how many came out;
the next takes it up, and the dataset's card tells the whole chain. Files and folders appear whole or not at all, but
for the answers, which are kept one by one, so that `query` goes on where it was stopped.
`r1mm distill STEP --help` says more; `r1mm distill reasoner` is an address to try it with, without any model."""

_SEED = 1234
_STOPPED = "nothing was written; the same command starts anew"


def add(verb: AddVerb) -> None:
    """Add this verb and its own."""
    step = with_steps(
        verb, "distill", "make a reasoning model's answers about scenes in words into training data", CHAIN
    )
    _add_questions(step)
    distill_query.add(step)
    distill_reasoner.add(step)
    _add_filter(step)
    _add_build(step)


def _add_questions(step: AddVerb) -> None:
    made = step(
        "questions",
        _questions,
        "put CLEVR's scenes into words, with the questions that ask for a number",
        "A line of FILE holds img_filename, q, a (always a string) and description, as upstream's notebook has them:\n"
        "a line of text for each object, in another order for every question; the questions with 'how many' or\n"
        "'number' in them; and after the first of a picture 'How many items are there in the described scene?'.\n"
        "Questions come in random order. Upstream's orders were not seeded, so its own cannot be had again; ours\n"
        "depend on --seed and the files' content alone, and --limit takes the first of them.\n\n"
        "Both files are read as a stream and every entry is checked: 70,000 scenes take the memory of seventy.",
    )
    made.set_defaults(when_stopped=_STOPPED)
    made.add_argument("--scenes", metavar="FILE", type=Path, required=True, help='CLEVR\'s scenes: {"scenes": [...]}')
    made.add_argument(
        "--questions", metavar="FILE", type=Path, required=True, help='CLEVR\'s questions: {"questions": [...]}'
    )
    made.add_argument("--out", metavar="FILE", type=Path, required=True, help="write the pairs here, as JSON lines")
    made.add_argument("--seed", type=whole_number, default=_SEED, help=f"of all orders (default {_SEED})")
    made.add_argument("--limit", metavar="N", type=whole_number, help="write only the first N pairs (upstream: 10000)")


def _add_filter(step: AddVerb) -> None:
    made = step(
        "filter",
        _filter,
        "keep the responses whose answer is right, by upstream's rules or strict ones",
        "RESPONSES holds JSON lines of img_filename, q, a, r1_response and, where known, finish_reason. FOLDER gets\n"
        "valid_pairs.jsonl, invalid_pairs.jsonl (error: unparseable or mismatch) and filter.json.\n\n"
        "  upstream   patterns as R1-V had them, first match: the last three lines, then the whole text, the thoughts\n"
        "             included; so a number on the way there can pass for the answer\n"
        "  strict     our choice: one whole thinking block, and after it one answer, stated at the end; responses cut\n"
        "             at their length, and statements that differ, are refused\n\n"
        "Either way both look at every response: the table says what each pattern decided, and where the two differ.\n"
        "Records of a scripted reasoner carry the truth about themselves; then precision and recall are given too\n"
        "(r1mm/distill/truth.py says of what).",
    )
    made.set_defaults(when_stopped=_STOPPED)
    made.add_argument("responses", metavar="RESPONSES", type=Path, help="what `r1mm distill query` wrote")
    made.add_argument("--out", metavar="FOLDER", type=Path, required=True, help="folder for the three files")
    made.add_argument("--rules", choices=("upstream", "strict"), default="upstream", help="which rules decide")


def _add_build(step: AddVerb) -> None:
    made = step(
        "build",
        _build,
        "make a dataset of what the filter passed, with a card that says where all of it is from",
        "FOLDER gets data/train-*.parquet (thinking, problem, solution, image), with --val-a and --val-b\n"
        "data/valA-*.parquet and data/valB-*.parquet (problem, solution, image), README.md and provenance.json. The\n"
        "validation sets are random samples of all questions of their split, as upstream's were. Every picture is\n"
        "decoded, and stored once for all its rows.\n\n"
        "  --problem upstream   questions stay as they were asked: some speak of the 'described scene'\n"
        "  --problem ours       'described scene' becomes 'image'\n\n"
        "Put the folder at DIR/datasets/OWNER/NAME for R1MM_ASSETS=DIR, or --push it. A push goes into an empty\n"
        "repository, private when it is made for it, and needs a token that may write in the file that HF_TOKEN_PATH\n"
        "names.",
    )
    made.set_defaults(when_stopped=_STOPPED)
    made.add_argument("valid", metavar="VALID", type=Path, help="the filter's valid_pairs.jsonl")
    made.add_argument("--images", metavar="DIR", type=Path, required=True, help="folder of the pictures it is about")
    made.add_argument("--out", metavar="FOLDER", type=Path, required=True, help="folder to make; must not be there yet")
    for letter in "ab":
        made.add_argument(
            f"--val-{letter}", metavar="FILE", type=Path, help=f"what `questions` wrote for split val{letter.upper()}"
        )
        made.add_argument(f"--val-{letter}-images", metavar="DIR", type=Path, help="folder of its pictures")
    made.add_argument(
        "--val-items", metavar="N", type=whole_number, default=5000, help="rows of a validation split (default 5000)"
    )
    made.add_argument("--seed", type=whole_number, default=_SEED, help=f"of rows and samples (default {_SEED})")
    made.add_argument("--problem", choices=("upstream", "ours"), default="upstream", help="the problems' words")
    push_option(made)


def _questions(options: argparse.Namespace) -> int:
    from r1mm.distill.questions import write_pairs

    with ended_in_order():
        record = write_pairs(options.scenes, options.questions, options.out, options.seed, options.limit)
    if options.json:
        print_json({"out": str(options.out), **record.model_dump(mode="json")})
        return 0
    found = record.counts
    print(
        f"{found['scenes']} scenes of {found['objects']} objects; {found['questions']} questions, of which "
        f"{found['kept']} ask for a number, about {found['pictures_asked']} pictures"
    )
    all_of_them = found["kept"] + found["pictures_asked"]
    limited = f" of {all_of_them}" * (found["pairs"] < all_of_them)
    print(
        f"{options.out}: {found['pairs']} pairs{limited} (a question about all objects for each picture is among them)"
    )
    return 0


def _filter(options: argparse.Namespace) -> int:
    from r1mm.distill.filter import filter_responses, report_json

    with ended_in_order():
        report = filter_responses(options.responses, options.out, options.rules)
    if options.json:
        print_json({"out": str(options.out), **report_json(report)})
    else:
        _print_filter(report, options.out)
    return 0


def _build(options: argparse.Namespace) -> int:
    from r1mm.distill.build import VALIDATION, ValidationSource, build_dataset
    from r1mm.errors import BadInput

    validation = {}
    for name, questions, images in zip(
        VALIDATION, (options.val_a, options.val_b), (options.val_a_images, options.val_b_images), strict=True
    ):
        if (questions is None) != (images is None):
            letter = name[-1].lower()
            raise BadInput(f"--val-{letter} and --val-{letter}-images go together; give both, or neither")
        if questions is not None:
            validation[name] = ValidationSource(questions, images)
    access = access_of_options(options)
    with ended_in_order():
        record = build_dataset(
            *(options.valid, options.images, options.out),
            validation=validation,
            validation_items=options.val_items,
            seed=options.seed,
            words=options.problem,
        )
    pushed = pushed_of_options(options, access, record)
    if options.json:
        print_json({"out": str(options.out), "pushed": pushed, **record.model_dump(mode="json")})
    else:
        _print_build(record, options.out, pushed)
    return 0


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.1f}%"


def _print_filter(report: "FilterReport", out: Path) -> None:
    from r1mm.distill.rules import RULES_NAMES

    outcomes: tuple[Outcome, ...] = ("valid", "mismatch", "unparseable")
    told = ("passed", "good", "picked", "unsound", "lost", "precision", "recall") if report.with_truth else ()
    for name in sorted(RULES_NAMES, key=lambda one: one != report.rules):
        whole = report.traces(name)
        rows = [
            (one.name, one.group, *(getattr(one, outcome) for outcome in outcomes), *_told(report, one.traces, told))
            for one in report.patterns[name]
            if one.all
        ]
        rows.append(("all", "", *(report.count(outcome, name) for outcome in outcomes), *_told(report, whole, told)))
        decides = "decides" if name == report.rules else "beside it"
        print_table(f"{name} rules ({decides}): records by pattern", ("pattern", "group", *outcomes, *told), rows, 2)
    found = report.agreement
    print_table(
        f"both sets of rules on {report.records} records (the same answer found in {found.same_answer})",
        ("", "passes strict", "does not"),
        [("passes upstream", found.both, found.upstream_only), ("does not", found.strict_only, found.neither)],
    )
    if found.disagreements:
        print_table(
            "records that pass by one set of rules alone, by what decided each",
            ("passes", "upstream", "strict", "records"),
            [(one.passes, one.upstream, one.strict, one.records) for one in found.disagreements],
            3,
        )
    if report.with_truth:
        print(
            f"{report.with_truth} records say what the reasoner did; {report.good} of them are good: sound, and right. "
            f"{report.traces(report.rules).wrong} wrong traces pass."
        )
    print(f"{out}: {report.count('valid')} valid, {report.records - report.count('valid')} not ({report.rules} rules)")


def _told(report: "FilterReport", traces: Any, told: Sequence[str]) -> list[Any]:
    shares = {"precision": traces.precision, "recall": report.recall(traces)}
    return [_percent(shares[name]) if name in shares else getattr(traces, name) for name in told]


def _print_build(record: "Provenance", out: Path, pushed: str | None) -> None:
    from r1mm.distill.card import BuildReport

    report = BuildReport.model_validate(record.report)

    def mega(size: int) -> str:
        return f"{size / 1e6:.1f}"

    print_table(
        f"{out}",
        ("split", "rows", "pictures", "MB of pictures", "one copy a row", "same bytes", "also in train"),
        [
            [
                *(name, one.rows, one.pictures, mega(one.picture_bytes), mega(one.picture_bytes_per_row)),
                *(one.same_bytes, None if name == "train" else one.in_train),
            ]
            for name, one in report.splits.items()
        ],
    )
    for line in _remarks(report):
        print(line)
    if pushed:
        print(f"pushed: {pushed}")


def _remarks(report: "BuildReport") -> Iterator[str]:
    train = report.splits["train"]
    if train.left_out:
        yield f"left out: {train.left_out} responses whose thinking block is not closed"
    if train.empty:
        yield f"{train.empty} rows have empty thoughts; the strict rules of `r1mm distill filter` refuse them"
    if train.leaks:
        told = ", ".join(f"{phrase!r} in {count}" for phrase, count in train.leaks.items())
        yield f"thoughts that still tell of the text behind the picture: {told}"
    for name, one in report.splits.items():
        for names in one.same_bytes_named:
            yield f"{name}: the same picture under several names: {', '.join(names)}"
