"""The step of distillation that asks: query."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from r1mm.verbs.common import AddVerb, amount, at_least_one, positive_amount, print_json, say, whole_number

if TYPE_CHECKING:
    from r1mm.distill.question_lines import QuestionLines
    from r1mm.endpoint.ask import Request, Summary
    from r1mm.endpoint.client import Endpoint
    from r1mm.endpoint.records import Records

STEP = "distill query"
ANSWER = "r1_response"  # upstream's name of it
# What a record has beside the question's own keys.
ADDED = (ANSWER, "key", "model", "finish_reason", "usage", "timestamp", "reason", "status", "attempts", "body")

_LONG = """\
QUESTIONS are JSON lines of img_filename, q, a, description.  Each line is asked as upstream asked it, in FILE it comes
back with r1_response, key, model, finish_reason, usage and timestamp.  What could not be answered, and what was cut at
--max-tokens, goes to FILE's dead letters (traces.jsonl: traces.dead.jsonl) with the reason.  A record of the step is
left beside them (traces.provenance.json).

  r1mm distill query questions.jsonl --out traces.jsonl --base-url http://127.0.0.1:8000/v1 --model NAME
                        of a server of your own: vllm serve NAME, transformers serve NAME
  r1mm distill query questions.jsonl --out traces.jsonl --base-url https://api.siliconflow.cn/v1 \\
      --model deepseek-ai/DeepSeek-R1 --api-key-env SL_KEY --first 10000 --budget 50 --price-in 4 --price-out 16
                        upstream's 10,000, for no more than 50 (prices of a million tokens: your provider's)

It can be stopped and killed at any moment; the same command goes on, and asks nothing twice.  A question is known by
model, prompt and temperature: with another of these it is asked anew.  Another --max-tokens does not change an answer
that ended by itself; with --retry-dead a larger one asks again what was cut.

Requests that fail for a time (429, 5xx, no answer, a broken one) are made again up to 8 times, later and later, or when
the server says.  An error that every request would meet (key, credit, address, model) stops it at once.  The key is
read from the environment or from --api-key-file, and is written nowhere.

Exit status 0: every question was answered or is a dead letter; 1: stopped before (the budget, the server); 2: bad
input, nothing was written."""


def add(step: AddVerb) -> None:
    """Add this step."""
    made = step("query", _query, "ask a language model behind an OpenAI-compatible endpoint every question", _LONG)
    made.add_argument("questions", metavar="QUESTIONS", type=Path, help="questions about described scenes, JSON lines")
    made.add_argument("--out", metavar="FILE", type=Path, required=True, help="answers are appended here, JSON lines")
    made.add_argument("--base-url", metavar="URL", required=True, help="the endpoint's; most end in /v1")
    made.add_argument("--model", metavar="NAME", required=True, help="the model, as the endpoint calls it")
    made.add_argument(
        "--api-key-env",
        metavar="NAME",
        help="environment variable that holds the key (default: OPENAI_API_KEY, if set)",
    )
    made.add_argument("--api-key-file", metavar="FILE", type=Path, help="file that holds the key and nothing else")
    made.add_argument(
        "--prompt",
        choices=("v1", "v2"),
        default="v2",
        help="upstream's prompts; v2 says how to mark the answer (default)",
    )
    made.add_argument(
        "--system",
        metavar="FILE",
        type=Path,
        help="text of a system prompt (default: none, as DeepSeek advises for R1)",
    )
    made.add_argument(
        "--first",
        metavar="N",
        type=at_least_one,
        help="ask N questions: shuffled by --seed, the first N (default: all)",
    )
    made.add_argument("--seed", type=whole_number, default=1234, help="of --first (default 1234, upstream's)")
    made.add_argument("--max-tokens", metavar="N", type=at_least_one, default=4096, help="of an answer (default 4096)")
    made.add_argument("--temperature", type=amount, help="default: not sent, the server's own, as upstream")
    made.add_argument(
        "--concurrency", metavar="N", type=at_least_one, default=10, help="requests at a time (default 10)"
    )
    made.add_argument("--rpm", metavar="N", type=positive_amount, help="at most N requests a minute, repeated ones too")
    made.add_argument("--tpm", metavar="N", type=positive_amount, help="at most N tokens a minute")
    made.add_argument(
        "--timeout", metavar="SECONDS", type=positive_amount, default=600.0, help="for a whole answer (default 600)"
    )
    made.add_argument(
        "--budget", metavar="MONEY", type=positive_amount, help="the most that FILE may cost, earlier starts included"
    )
    made.add_argument("--budget-tokens", metavar="N", type=at_least_one, help="the most tokens that FILE may take")
    made.add_argument("--price-in", metavar="MONEY", type=amount, default=0.0, help="of a million prompt tokens")
    made.add_argument("--price-out", metavar="MONEY", type=amount, default=0.0, help="of a million tokens of answers")
    made.add_argument("--retry-dead", action="store_true", help="ask the dead letters of earlier starts again")


def _query(options: argparse.Namespace) -> int:
    from r1mm.distill.question_lines import QuestionLines
    from r1mm.endpoint.ask import ask_all
    from r1mm.endpoint.budget import Budget, Prices
    from r1mm.endpoint.client import Endpoint
    from r1mm.endpoint.keys import read_key
    from r1mm.endpoint.pace import Pace
    from r1mm.endpoint.records import Records
    from r1mm.errors import StageFailed
    from r1mm.processes import run_in_order

    key = read_key(options.api_key_env, options.api_key_file)
    endpoint = Endpoint(
        base_url=options.base_url,
        model=options.model,
        key=key,
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        timeout=options.timeout,
    )
    system = _system(options.system)
    questions = QuestionLines(options.questions, options.first, options.seed, ADDED)
    with Records(options.out, options.retry_dead) as records:
        _say_whom(endpoint)

        async def ask() -> "Summary":
            return await ask_all(
                endpoint,
                _requests(questions, options.prompt, system),
                records,
                concurrency=options.concurrency,
                pace=Pace(options.rpm, options.tpm),
                budget=Budget(options.budget, options.budget_tokens),
                prices=Prices(options.price_in, options.price_out),
                answer=ANSWER,
                total=len(questions),
                title=options.out.name,
            )

        summary = run_in_order(ask())
        if options.json:
            found = {"questions": len(questions), **summary.as_dict()}
            print_json({**found, "out": str(records.path), "dead_letters": str(records.dead_path)})
        else:
            _print(summary, len(questions), records)
    _leave_record(options, questions, records, summary)
    if summary.stopped:
        raise StageFailed(summary.stopped)
    return 0


def _requests(questions: "QuestionLines", prompt: str, system: str | None) -> "Iterator[Request]":
    from r1mm.distill.prompts import PROMPTS, messages_of
    from r1mm.endpoint.ask import Request

    for row in questions:
        yield Request(messages_of(PROMPTS[prompt](row["description"], row["q"]), system), row)


def _leave_record(
    options: argparse.Namespace, questions: "QuestionLines", records: "Records", summary: "Summary"
) -> None:
    """What the next step takes up: of this start, and of the file as it is now."""
    from r1mm.distill.provenance import Provenance, provenance_path, read_provenance, write_provenance
    from r1mm.rundir import stamp

    if not records.path.exists():
        return
    before, asked = read_provenance(options.questions)
    names = ("base_url", "model", "prompt", "first", "seed", "max_tokens", "temperature")
    record = Provenance(
        step=STEP,
        settings={name: getattr(options, name) for name in names},
        inputs={"questions": asked} | ({"system prompt": stamp(options.system)} if options.system else {}),
        outputs={records.path.name: stamp(records.path)},
        counts={
            "questions": len(questions),
            "answered": records.answered,
            "dead letters": records.dead,
            "not asked yet": summary.left,
            "answers to other questions or settings": summary.others,
        },
        before=before.model_dump(mode="json") if before else None,
    )
    write_provenance(provenance_path(records.path), record)


def _system(file: Path | None) -> str | None:
    from r1mm.errors import BadInput

    if file is None:
        return None
    try:
        text = file.read_text(encoding="utf-8").rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"--system {file} cannot be read: {error}") from error
    if not text.strip():
        raise BadInput(f"--system {file} is empty; leave --system away to ask without a system prompt")
    return text


def _say_whom(endpoint: "Endpoint") -> None:
    """Which model is asked with whose key: a key in the default variable may be meant for somebody else."""
    key = endpoint.key
    with_key = f"with the key in {key.place}" if key.given else f"without a key ({key.place} is not set)"
    say(f"asking {endpoint.model} at {endpoint.shown} {with_key}")
    if key.given and endpoint.unencrypted:
        say(f"warning: {endpoint.shown} is not encrypted; whoever is on the way to it can read the key")


def _print(summary: "Summary", questions: int, records: "Records") -> None:
    found = summary
    print(
        f"{questions:,} questions: {found.answered:,} answered now, {found.before:,} before; {found.dead:,} dead "
        f"letters now, {found.dead_before:,} before; {found.twice:,} repeated in the file; {found.left:,} left"
    )
    cost = "" if found.cost is None else f", cost {found.cost:,.4f}"
    print(
        f"{found.requests:,} requests, {found.retries:,} of them again; {records.path} and its dead letters took "
        f"{found.prompt_tokens:,} + {found.completion_tokens:,} tokens{cost}"
    )
    if found.unsaid_attempts:
        print(
            f"  and at most {found.unsaid_tokens:,} more for {found.unsaid_attempts:,} requests whose answer did not "
            "come or had no count"
        )
    if found.dead:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in found.dead_reasons.most_common(5))
        print(f"dead letters in {records.dead_path}: {reasons}")
    if found.dead or found.dead_before:
        print("  --retry-dead asks them again (those that were cut: with a larger --max-tokens)")
    if found.others:
        print(
            f"{found.others:,} records answer no question of this file as it is asked now: another prompt, model, "
            "temperature or choice of questions"
        )
    for name in found.served_by:
        print(f"the server calls its model {name or 'nothing'}")
