"""The step of distillation that asks: query."""

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
    report_asked,
)
from r1mm.verbs.common import AddVerb, at_least_one, whole_number

if TYPE_CHECKING:
    from r1mm.chain.lines import ChosenLines
    from r1mm.endpoint.ask import Request

STEP = "distill query"
ANSWER = "r1_response"  # upstream's name of it

_LONG = f"""\
QUESTIONS are JSON lines of img_filename, q, a, description.  Each line is asked as upstream asked it, in FILE it comes
back with r1_response, key, model, finish_reason, usage and timestamp.  What could not be answered, and what was cut at
--max-tokens, goes to FILE's dead letters (traces.jsonl: traces.dead.jsonl) with the reason.  A record of the step is
left beside them (traces.provenance.json).

  r1mm distill query questions.jsonl --out traces.jsonl --base-url http://127.0.0.1:8000/v1 --model NAME
                        of a server of your own: vllm serve NAME, transformers serve NAME
  r1mm distill query questions.jsonl --out traces.jsonl --base-url https://api.siliconflow.cn/v1 \\
      --model deepseek-ai/DeepSeek-R1 --api-key-env SL_KEY --first 10000 --budget 50 --price-in 4 --price-out 16
                        upstream's 10,000, for no more than 50 (prices of a million tokens: your provider's)

{HOW}"""


def add(step: AddVerb) -> None:
    """Add this step."""
    made = step("query", _query, "ask a language model behind an OpenAI-compatible endpoint every question", _LONG)
    made.add_argument("questions", metavar="QUESTIONS", type=Path, help="questions about described scenes, JSON lines")
    made.add_argument("--out", metavar="FILE", type=Path, required=True, help="answers are appended here, JSON lines")
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
    endpoint_options(made, max_tokens=4096, temperature=None)


def _query(options: argparse.Namespace) -> int:
    from r1mm.chain.provenance import read_provenance
    from r1mm.distill.question_lines import question_lines
    from r1mm.errors import StageFailed
    from r1mm.rundir import stamp

    endpoint = endpoint_of_options(options)
    system = _system(options.system)
    questions = question_lines(options.questions, options.first, options.seed, (ANSWER, *ADDED))
    requests = _requests(questions, options.prompt, system)
    asked = ask_by_options(options, endpoint, requests, len(questions), options.out, ANSWER)
    report_asked(options, asked, len(questions))
    before, source = read_provenance(options.questions)
    inputs = {"questions": source} | ({"system prompt": stamp(options.system)} if options.system else {})
    settings = {name: getattr(options, name) for name in (*SETTINGS, "prompt", "first", "seed")}
    leave_record(STEP, asked, questions, settings, before, inputs)
    if asked.summary.stopped:
        raise StageFailed(asked.summary.stopped)
    return 0


def _requests(questions: "ChosenLines", prompt: str, system: str | None) -> "Iterator[Request]":
    from r1mm.distill.prompts import PROMPTS, messages_of
    from r1mm.endpoint.ask import Request

    for row in questions:
        yield Request(messages_of(PROMPTS[prompt](row["description"], row["q"]), system), row)


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
