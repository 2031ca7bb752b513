"""The steps of curating that ask a model: rewrite, and verify with --attempts."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from r1mm.verbs.asking import (
    ADDED,
    HOW,
    SETTINGS,
    ask_by_options,
    endpoint_of_options,
    endpoint_options,
    leave_record,
    print_asked,
    report_asked,
)
from r1mm.verbs.common import (
    AddVerb,
    at_least_one,
    ended_in_order,
    print_json,
    print_table,
    whole_number,
)

if TYPE_CHECKING:
    from r1mm.chain.lines import ChosenLines
    from r1mm.curate.pictures import Pictures
    from r1mm.curate.report import Tried, VerifyReport
    from r1mm.curate.verify import Checked
    from r1mm.endpoint.ask import Request

RESPONSE = "response"

_REWRITE = f"""\
ITEMS are JSON lines of image, question, answer, as `r1mm curate items` writes them.  The model is shown the picture,
the question and its answer, and is asked for <problem>, <think> and <answer>; the words are ours
(r1mm/curate/prompts.py says what is upstream's).  Temperature and --max-tokens are upstream's by default.  A line comes
back in FILE with response, key, model, finish_reason, usage and timestamp.

Pictures are sent as they are, each read when its request is made.  One that does not open, has a side under 28 px, or
is of a type that such interfaces do not take is not asked about: its item goes to FILE's dead letters
(rewrites.jsonl: rewrites.dead.jsonl) with the reason, as does what could not be answered and what was cut.

  r1mm curate rewrite items.jsonl --images pictures --out rewrites.jsonl \\
      --base-url http://127.0.0.1:8000/v1 --model NAME
                        of a server of your own: vllm serve NAME
  r1mm curate rewrite items.jsonl --images pictures --out rewrites.jsonl --base-url https://api.openai.com/v1 \\
      --model gpt-4o-2024-08-06 --first 1000 --budget 20 --price-in 2.5 --price-out 10
                        upstream's model, for no more than 20 (prices of a million tokens: your provider's)

{HOW}"""

_VERIFY = """\
FOLDER gets verified.jsonl, rejected.jsonl (with reasons: every rule that the item breaks, and what was seen) and
verify.json, the report: items for each rule, those that break it alone, examples, and how many of the refused
upstream's published filter would have kept.  The rules, in short (r1mm/curate/rules.py says all of each):

  form, empty, answer-label           the three tags, not blank; no "Answer:" in the problem
  image, small-image                  the picture decodes, both sides have 28 px and more
  unverifiable, no-truth              original and rewritten answer are one number, expression, option, or yes or no
  differs                             the rewritten answer is the original one
  options-lost, options-alike, not-an-option
                                      a letter has options, one of them is right, and the answer is among them
  thoughts-differ, giveaway           thoughts do not state another answer; the problem does not hold it

With --attempts K a model is asked every item that passes, K times, with the picture and without the answer; what it
never answers rightly is refused (never-solved).  It needs --base-url and --model; its answers are kept in FOLDER's
attempts.jsonl, so that the same command goes on when it was stopped.  The options below are for it alone.

  r1mm curate verify rewrites.jsonl --images pictures --out verified
  r1mm curate verify rewrites.jsonl --images pictures --out verified --attempts 4 --base-url URL --model NAME"""


def add_rewrite(step: AddVerb) -> None:
    """Add the step that rewrites."""
    made = step(
        "rewrite", _rewrite, "have a model that sees rewrite every question, with thoughts and answer", _REWRITE
    )
    made.add_argument("items", metavar="ITEMS", type=Path, help="questions about pictures, JSON lines")
    made.add_argument("--images", metavar="DIR", type=Path, required=True, help="folder of the pictures")
    made.add_argument("--out", metavar="FILE", type=Path, required=True, help="answers are appended here, JSON lines")
    made.add_argument(
        "--first",
        metavar="N",
        type=at_least_one,
        help="ask N items: shuffled by --seed, the first N (default: all)",
    )
    made.add_argument("--seed", type=whole_number, default=42, help="of --first (default 42)")
    # EvolvingLMMs-Lab/open-r1-multimodal@232b7ba:local_scripts/create_vision_cot_data.py
    endpoint_options(made, max_tokens=8192, temperature=0.2)


def add_verify(step: AddVerb) -> None:
    """Add the step that verifies."""
    made = step("verify", _verify, "refuse what cannot be verified or went wrong, and say why", _VERIFY)
    made.add_argument("rewrites", metavar="REWRITES", type=Path, help="what `r1mm curate rewrite` wrote")
    made.add_argument("--images", metavar="DIR", type=Path, required=True, help="folder of the pictures")
    made.add_argument("--out", metavar="FOLDER", type=Path, required=True, help="folder for the files")
    made.add_argument(
        "--attempts", metavar="K", type=at_least_one, help="have a model try each item K times (default: not at all)"
    )
    endpoint_options(made, max_tokens=4096, temperature=None, required=False, whose="the attempts")


def _rewrite(options: argparse.Namespace) -> int:
    from r1mm.chain.lines import ChosenLines
    from r1mm.chain.pictures import check_there
    from r1mm.chain.provenance import read_provenance
    from r1mm.curate.pictures import Pictures
    from r1mm.curate.prompts import NAME
    from r1mm.curate.sources import Item
    from r1mm.errors import StageFailed

    endpoint = endpoint_of_options(options)
    holds = "a line holds image, question and answer, as `r1mm curate items` writes them"
    taken = (RESPONSE, *ADDED)
    items = ChosenLines(options.items, Item, holds, "question", options.first, options.seed, taken, "some sets are")
    check_there(dict.fromkeys(row["image"] for row in items), options.images, str(options.items))
    requests = _requests(items, Pictures(options.images, whole=False))
    asked = ask_by_options(options, endpoint, requests, len(items), options.out, RESPONSE)
    report_asked(options, asked, len(items))
    before, source = read_provenance(options.items)
    settings = {**{name: getattr(options, name) for name in (*SETTINGS, "first", "seed")}, "prompt": NAME}
    leave_record("curate rewrite", asked, items, settings, before, {"items": source})
    if asked.summary.stopped:
        raise StageFailed(asked.summary.stopped)
    return 0


def _requests(items: "ChosenLines", pictures: "Pictures") -> "Iterator[Request]":
    from r1mm.curate.pictures import unfit_to_send
    from r1mm.curate.prompts import rewrite_messages
    from r1mm.endpoint.ask import Request

    for row in items:
        seen = pictures.look(row["image"])
        messages = rewrite_messages(row["question"], str(row["answer"]), seen.file)
        yield Request(messages, row, unfit_to_send(seen))


def _verify(options: argparse.Namespace) -> int:
    from r1mm.curate.verify import check_rewrites, solved_by_item, write_verified
    from r1mm.errors import BadInput

    given = [name for name in ("base_url", "model") if getattr(options, name)]
    if len(given) != (2 if options.attempts else 0):
        raise BadInput(
            "--attempts, --base-url and --model go together: a model tries each item so often; give all three, or none"
        )
    settings = {"attempts": options.attempts}
    with ended_in_order():
        checked = check_rewrites(options.rewrites, options.images)
        tried, solved = None, None
        if options.attempts:
            settings |= {name: getattr(options, name) for name in SETTINGS}
            tried, attempts = _try(options, checked)
            solved = solved_by_item(attempts, tried)
        report = write_verified(checked, options.out, settings, tried, solved)
    if options.json:
        print_json({"out": str(options.out), **report.model_dump(mode="json")})
    else:
        print_report(report)
        print(f"{options.out}: {report.passed:,} verified, {report.rejected:,} rejected")
    return 0


def _try(options: argparse.Namespace, checked: "Checked") -> tuple["Tried", Path]:
    from r1mm.chain.provenance import ELSEWHERE
    from r1mm.curate.report import Tried
    from r1mm.curate.verify import ATTEMPT, ATTEMPTS_FILE
    from r1mm.errors import StageFailed
    from r1mm.rundir import make_folder

    endpoint = endpoint_of_options(options)
    attempts = make_folder(options.out, ELSEWHERE) / ATTEMPTS_FILE
    total = checked.passed * options.attempts
    requests = checked.requests(options.attempts)
    asked = ask_by_options(options, endpoint, requests, total, attempts, ATTEMPT)
    if not options.json:
        print_asked(asked, total)
    if asked.summary.stopped:
        raise StageFailed(asked.summary.stopped)
    return Tried(attempts=options.attempts, model=options.model), attempts


def print_report(report: "VerifyReport") -> None:
    """Items by rule, an example of each, and what upstream would have kept."""
    print_table(
        f"{report.rows:,} items by the rules that they break",
        ("rule", "items", "alone", "upstream keeps"),
        [(one.name, one.rows, one.alone, one.upstream_keeps) for one in report.reasons],
    )
    for one in report.reasons:
        first = one.examples[0]
        print(f"  {one.name}, e.g. {first.image}: {first.why}")
    if len(report.sources) > 1:
        print_table(
            "by source",
            ("source", "items", "verified"),
            [(name or "not said", rows, passed) for name, (rows, passed) in report.sources.items()],
        )
    if report.tried:
        tried = report.tried
        print_table(
            f"{tried.model}: {tried.right:,} of {tried.answers:,} answers right",
            ("right answers", "items"),
            [(f"{right} of {tried.attempts}", items) for right, items in tried.solved.items()],
        )
    print(
        f"upstream's published filter would have kept {report.upstream_keeps:,}, {report.upstream_only:,} of which are "
        "refused here"
    )
