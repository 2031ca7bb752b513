"""A language model behind an endpoint that says what an output answers, where no rule finds an answer.

Opt-in (`r1mm score --judge`), and only for those outputs: what rules read is not asked again, so that every other
mark is the same for everybody.  The model reads; it is told neither the truth nor to solve the question, and what it
reads is judged by the same rules as any answer.  Its answers are kept, and each is asked for once: scored again with
the same records, a file gets the same marks, without the model.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from r1mm.endpoint.ask import Request, Summary
from r1mm.endpoint.attached import Message
from r1mm.endpoint.client import Endpoint
from r1mm.endpoint.records import content_key
from r1mm.errors import StageFailed
from r1mm.evaluate.readings import Ask, Unread
from r1mm.evaluate.thoughts import never_ends_thinking, without_thoughts
from r1mm.rundir import read_jsonl

NO_ANSWER = "NONE"
ANSWER = "reads"  # the name of what the model says in its records
_TASK = f"""\
Somebody was asked a question about pictures that you cannot see, and wrote the text below. Say which final answer the \
text gives, in as few words as possible: the letter of an option where the question has options, else the number, the \
list or the words alone. Do not solve the question and do not correct the text. Write {NO_ANSWER} if it gives no final \
answer, or more than one.

QUESTION
{{question}}

TEXT
{{completion}}

FINAL ANSWER"""


def messages_for(unread: Unread) -> list[Message]:
    """What the model is asked of one output."""
    text = _TASK.format(question=unread.question, completion=unread.completion)
    return [{"role": "user", "content": text}]


def said(reply: str) -> str | None:
    """The answer in a reply, after its thoughts; None where the model found none."""
    if never_ends_thinking(reply):
        return None
    text = without_thoughts(reply).strip().strip("*`").strip()
    return None if not text or text.rstrip(".").upper() == NO_ANSWER else text


def ask_model(endpoint: Endpoint, records: Path, ask_all: Callable[[Sequence[Request]], Summary]) -> Ask:
    """The reader that `readings_of` asks: what the model behind `endpoint` reads out of outputs, by item.

    `ask_all` asks all requests that `records` has no answer to, and keeps the answers there under the name ANSWER,
    within its limits.  Items without an answer are left out: the model found none, or what it wrote was cut, or could
    not be had (these are dead letters beside the records).  Raises StageFailed where the limit is reached; what was
    answered is kept.
    """

    def ask(unread: Sequence[Unread]) -> Mapping[str, str]:
        requests = {one.item: Request(messages_for(one), {"item": one.item}) for one in unread}
        if not requests:
            return {}
        summary = ask_all(list(requests.values()))
        if summary.stopped:
            raise StageFailed(summary.stopped)
        kept = {row["key"]: row[ANSWER] for row in read_jsonl(records)} if records.exists() else {}
        replies = {
            item: kept.get(content_key(endpoint.model, request.messages, endpoint.sampling))
            for item, request in requests.items()
        }
        answers = {item: said(reply) for item, reply in replies.items() if reply is not None}
        return {item: answer for item, answer in answers.items() if answer is not None}

    return ask
