"""What the steps that ask an endpoint share: their options, how they are asked with, what is said of it at the end."""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from r1mm.endpoint.budget import LOST
from r1mm.verbs.common import amount, at_least_one, positive_amount, print_json, say

if TYPE_CHECKING:
    from r1mm.chain.lines import ChosenLines
    from r1mm.chain.provenance import Provenance
    from r1mm.endpoint.ask import Request, Summary
    from r1mm.endpoint.client import Endpoint
    from r1mm.endpoint.records import Records
    from r1mm.rundir import FileStamp

# What a record has beside the answer and the question's own keys.
ADDED = ("key", "model", "finish_reason", "usage", "timestamp", "reason", "status", "attempts", "body", LOST)
# Options that say what was asked of whom; a step's record holds them.
SETTINGS = ("base_url", "model", "max_tokens", "temperature")

HOW = """\
It can be stopped and killed at any moment; the same command goes on, and asks nothing twice.  A question is known by
model, prompt and temperature: with another of these it is asked anew.  Another --max-tokens does not change an answer
that ended by itself; with --retry-dead a larger one asks again what was cut.

Requests that fail for a time (429, 5xx, no answer, a broken one) are made again up to 8 times, later and later, or when
the server says.  An error that every request would meet (key, credit, address, model) stops it at once.  The key is
read from the environment or from --api-key-file, and is written nowhere.

Exit status 0: every question was answered or is a dead letter; 1: stopped before (the budget, the server); 2: bad
input, nothing was written."""


class Asked(NamedTuple):
    """What came of asking: the start's summary, how the file stands, and the files."""

    summary: "Summary"
    answered: int
    dead: int
    out: Path
    dead_letters: Path


def endpoint_options(
    made: "argparse.ArgumentParser | argparse._ArgumentGroup",
    *,
    max_tokens: int,
    temperature: float | None,
    required: bool = True,
    whose: str = "FILE",
) -> None:
    """The options that say who is asked, how, and within which limits; `whose` costs the budget is of."""
    made.add_argument("--base-url", metavar="URL", required=required, help="the endpoint's; most end in /v1")
    made.add_argument("--model", metavar="NAME", required=required, help="the model, as the endpoint calls it")
    made.add_argument(
        "--api-key-env",
        metavar="NAME",
        help="environment variable that holds the key (default: OPENAI_API_KEY, if set)",
    )
    made.add_argument("--api-key-file", metavar="FILE", type=Path, help="file that holds the key and nothing else")
    made.add_argument(
        "--max-tokens",
        metavar="N",
        type=at_least_one,
        default=max_tokens,
        help=f"of an answer (default {max_tokens})",
    )
    default = "default: not sent, the server's own, as upstream" if temperature is None else f"default {temperature:g}"
    made.add_argument("--temperature", type=amount, default=temperature, help=default)
    made.add_argument(
        "--concurrency", metavar="N", type=at_least_one, default=10, help="requests at a time (default 10)"
    )
    made.add_argument("--rpm", metavar="N", type=positive_amount, help="at most N requests a minute, repeated ones too")
    made.add_argument("--tpm", metavar="N", type=positive_amount, help="at most N tokens a minute")
    made.add_argument(
        "--timeout", metavar="SECONDS", type=positive_amount, default=600.0, help="for a whole answer (default 600)"
    )
    made.add_argument(
        "--budget",
        metavar="MONEY",
        type=positive_amount,
        help=f"the most that {whose} may cost, earlier starts included",
    )
    made.add_argument("--budget-tokens", metavar="N", type=at_least_one, help=f"the most tokens that {whose} may take")
    made.add_argument("--price-in", metavar="MONEY", type=amount, default=0.0, help="of a million prompt tokens")
    made.add_argument("--price-out", metavar="MONEY", type=amount, default=0.0, help="of a million tokens of answers")
    made.add_argument("--retry-dead", action="store_true", help="ask the dead letters of earlier starts again")


def endpoint_of_options(options: argparse.Namespace) -> "Endpoint":
    """The endpoint that `endpoint_options` parsed."""
    from r1mm.endpoint.client import Endpoint
    from r1mm.endpoint.keys import read_key

    return Endpoint(
        base_url=options.base_url,
        model=options.model,
        key=read_key(options.api_key_env, options.api_key_file),
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        timeout=options.timeout,
    )


def ask_by_options(
    options: argparse.Namespace,
    endpoint: "Endpoint",
    requests: Iterable["Request"],
    total: int,
    out: Path,
    answer: str,
) -> Asked:
    """Ask all requests, record them at `out`, the answer's text under the name `answer`."""
    from r1mm.endpoint.ask import ask_all
    from r1mm.endpoint.budget import Budget, Prices
    from r1mm.endpoint.pace import Pace
    from r1mm.endpoint.records import Records
    from r1mm.processes import run_in_order

    with Records(out, options.retry_dead) as records:
        _say_whom(endpoint)

        async def ask() -> "Summary":
            return await ask_all(
                endpoint,
                requests,
                records,
                concurrency=options.concurrency,
                pace=Pace(options.rpm, options.tpm),
                budget=Budget(options.budget, options.budget_tokens),
                prices=Prices(options.price_in, options.price_out),
                answer=answer,
                total=total,
                title=out.name,
            )

        summary = run_in_order(ask())
        return _asked(summary, records)


def _asked(summary: "Summary", records: "Records") -> Asked:
    return Asked(summary, records.answered, records.dead, records.path, records.dead_path)


def report_asked(options: argparse.Namespace, asked: Asked, questions: int) -> None:
    """Print what came of it."""
    if options.json:
        found = {"questions": questions, **asked.summary.as_dict()}
        print_json({**found, "out": str(asked.out), "dead_letters": str(asked.dead_letters)})
    else:
        print_asked(asked, questions)


def leave_record(
    step: str,
    asked: Asked,
    questions: "ChosenLines",
    settings: dict[str, Any],
    before: "Provenance | None",
    inputs: dict[str, "FileStamp"],
) -> None:
    """What the next step takes up: of this start, and of the file as it is now."""
    from r1mm.chain.provenance import Provenance, provenance_path, write_provenance
    from r1mm.rundir import stamp

    if not asked.out.exists():
        return
    record = Provenance(
        step=step,
        settings=settings,
        inputs=inputs,
        outputs={asked.out.name: stamp(asked.out)},
        counts={
            "questions": len(questions),
            "answered": asked.answered,
            "dead letters": asked.dead,
            "not asked yet": asked.summary.left,
            "answers to other questions or settings": asked.summary.others,
        },
        before=before.model_dump(mode="json") if before else None,
    )
    write_provenance(provenance_path(asked.out), record)


def _say_whom(endpoint: "Endpoint") -> None:
    """Which model is asked with whose key: a key in the default variable may be meant for somebody else."""
    key = endpoint.key
    with_key = f"with the key in {key.place}" if key.given else f"without a key ({key.place} is not set)"
    say(f"asking {endpoint.model} at {endpoint.shown} {with_key}")
    if key.given and endpoint.unencrypted:
        say(f"warning: {endpoint.shown} is not encrypted; whoever is on the way to it can read the key")


def print_asked(asked: Asked, questions: int) -> None:
    """What came of it, as text."""
    found = asked.summary
    print(
        f"{questions:,} questions: {found.answered:,} answered now, {found.before:,} before; {found.dead:,} dead "
        f"letters now, {found.dead_before:,} before; {found.twice:,} repeated in the file; {found.left:,} left"
    )
    cost = "" if found.cost is None else f", cost {found.cost:,.4f}"
    print(
        f"{found.requests:,} requests, {found.retries:,} of them again; {asked.out} and its dead letters took "
        f"{found.prompt_tokens:,} + {found.completion_tokens:,} tokens{cost}"
    )
    if found.unsaid_attempts:
        print(
            f"  and at most {found.unsaid_tokens:,} more for {found.unsaid_attempts:,} requests whose answer did not "
            "come or had no count"
        )
    if found.dead:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in found.dead_reasons.most_common(5))
        print(f"dead letters in {asked.dead_letters}: {reasons}")
    if found.dead or found.dead_before:
        print("  --retry-dead asks them again (those that were cut: with a larger --max-tokens)")
    if found.others:
        print(
            f"{found.others:,} records answer no question of this file as it is asked now: another prompt, model, "
            "temperature or choice of questions"
        )
    for name in found.served_by:
        print(f"the server calls its model {name or 'nothing'}")
