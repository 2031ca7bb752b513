"""The pass that decides which rewritten items are kept, and says of every other one why it is not.

First rules (`r1mm.curate.rules`) look at every item.  Then, where it is asked for, a model tries what passed, several
times, without the answer: an item that it never solves may be wrong, or too hard for it; nobody can tell which, and
neither is of use.  One that it solves may still be wrong in the same way twice.

Results are two files, verified.jsonl and rejected.jsonl, and the report, verify.json.
"""

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, StrictFloat, StrictInt, StrictStr

from r1mm.answers.judging import judge_completion
from r1mm.chain.forms import of_form
from r1mm.chain.pictures import check_there
from r1mm.chain.provenance import ELSEWHERE, VERIFY_FILE, Provenance, read_provenance, write_provenance
from r1mm.curate.pictures import Pictures
from r1mm.curate.prompts import solve_messages
from r1mm.curate.report import Tally, Tried, VerifyReport
from r1mm.curate.rules import Original, Parts, check, parts_of, upstream_keeps
from r1mm.endpoint.ask import Request
from r1mm.errors import BadInput
from r1mm.progress import progress_bar
from r1mm.rundir import iter_jsonl, json_line, json_object, make_folder, stamp, writing

STEP = "curate verify"
VERIFIED_FILE, REJECTED_FILE, ATTEMPTS_FILE = "verified.jsonl", "rejected.jsonl", "attempts.jsonl"
ATTEMPT = "attempt"  # the name of its text in ATTEMPTS_FILE
NEVER_SOLVED, NOT_TRIED = "never-solved", "not-tried"
_HOLDS = "a line holds image, question, answer, response and key, as `r1mm curate rewrite` writes them"


class Rewrite(BaseModel):
    """What is read of a line that `r1mm curate rewrite` wrote."""

    model_config = ConfigDict(frozen=True)  # lines have more, which is passed on
    image: StrictStr
    question: StrictStr
    answer: StrictStr | StrictInt | StrictFloat
    response: StrictStr
    key: StrictStr
    source: StrictStr = ""

    @property
    def original(self) -> Original:
        """The question and its answer."""
        return Original(self.question, str(self.answer))


class Solved(BaseModel):
    """How many of a model's answers to an item were right."""

    answers: int = 0
    right: int = 0


@dataclass
class Checked:
    """The lines of a file of rewrites, and the rules that each breaks; some 100 bytes for each, its texts not kept."""

    path: Path
    pictures: Pictures
    starts: "array[int]" = field(default_factory=lambda: array("Q"))
    broken: list[dict[str, str] | None] = field(default_factory=list)

    def lines(self) -> Iterator[tuple[dict[str, Any], Rewrite, dict[str, str]]]:
        """Each line's object, what is read of it, and the rules that it breaks."""
        with self.path.open("rb") as file:
            for start, broken in zip(self.starts, self.broken, strict=True):
                file.seek(start)
                row = json_object(file.readline(), f"{self.path} at byte {start}")
                yield row, Rewrite.model_validate(row), broken or {}

    def good(self) -> Iterator[tuple[Rewrite, Parts]]:
        """The items that break no rule."""
        for _, rewrite, broken in self.lines():
            if not broken:
                yield rewrite, _parts(rewrite)

    @property
    def passed(self) -> int:
        """How many break no rule."""
        return sum(broken is None for broken in self.broken)

    def requests(self, attempts: int) -> Iterator[Request]:
        """Every item that breaks no rule, asked so many times."""
        for rewrite, parts in self.good():
            messages = solve_messages(parts.problem, self.pictures.look(rewrite.image).file)
            for number in range(attempts):
                row = {"rewrite": rewrite.key, "number": number, "problem": parts.problem, "solution": parts.solution}
                yield Request(messages, row, attempt=number)


def check_rewrites(path: Path, images: Path) -> Checked:
    """Look at all lines of `path` by the rules.  BadInput names a line of another form, and lists missing pictures."""
    checked = Checked(path, Pictures(images, whole=True))
    names = dict.fromkeys(_rewrite(row, f"{path}:{number}").image for number, row in iter_jsonl(path))
    if not names:
        raise BadInput(f"{path} has no lines; give what `r1mm curate rewrite` wrote")
    check_there(names, images, str(path))
    start = 0
    with path.open("rb") as file:
        for line in progress_bar(file, desc=f"verify {path.name}", unit="item"):
            rewrite = Rewrite.model_validate(json_object(line, str(path)))
            broken = check(parts_of(rewrite.response), rewrite.original, checked.pictures.look(rewrite.image))
            checked.starts.append(start)
            checked.broken.append(broken or None)
            start += len(line)
    return checked


def solved_by_item(attempts: Path, tried: Tried) -> dict[str, Solved]:
    """How the model did, by the items' keys, of the answers at `attempts`; others' answers are not counted."""
    found: dict[str, Solved] = {}
    if not attempts.exists():
        return found
    for _, row in progress_bar(iter_jsonl(attempts), desc="compare answers", unit="answer"):
        if row["model"] != tried.model or row["number"] >= tried.attempts:
            continue  # of an earlier start
        solved = found.setdefault(row["rewrite"], Solved())
        solved.answers += 1
        solved.right += judge_completion(row[ATTEMPT], row["solution"], row["problem"]).right
    return found


def write_verified(
    checked: Checked,
    out: Path,
    settings: Mapping[str, Any],
    tried: Tried | None = None,
    solved: Mapping[str, Solved] | None = None,
) -> VerifyReport:
    """Write what passes and what does not to the folder `out`, each file whole or not at all, and the report.

    With `tried`, an item passes when a model solved it at least once.  BadInput where nothing passes.
    """
    for name in (VERIFIED_FILE, REJECTED_FILE):
        if checked.path.resolve() == (out / name).resolve():
            raise BadInput(f"--out {out} would write over {checked.path}, which is read; name another folder")
    before, source = read_provenance(checked.path)
    tally = Tally()
    histogram: Counter[int] = Counter()
    make_folder(out, ELSEWHERE)
    with writing(out / VERIFIED_FILE, ELSEWHERE) as good, writing(out / REJECTED_FILE, ELSEWHERE) as bad:
        for row, rewrite, broken in checked.lines():
            parts = parts_of(rewrite.response)
            more: dict[str, Any] = {}
            if tried and not broken:
                one = (solved or {}).get(rewrite.key, Solved())
                more = {"answers": one.answers, "right": one.right}
                broken = _not_solved(one, tried)
                histogram[one.right] += bool(one.answers)
            kept_there = upstream_keeps(parts, checked.pictures.look(rewrite.image))
            tally.take(rewrite.image, rewrite.source, parts, str(rewrite.answer), broken, kept_there)
            texts = {"problem": parts.problem, "solution": parts.solution} if parts else {}
            (bad if broken else good).write(json_line(row | texts | more | ({"reasons": broken} if broken else {})))
        if tried:
            tried.solved = dict(sorted(histogram.items()))
        report = tally.report(tried)
        if not report.passed:
            worst = ", ".join(f"{one.name} {one.rows}" for one in report.reasons[:3])
            raise BadInput(
                f"none of the {report.rows} items in {checked.path} passes ({worst}), so nothing was written; is it "
                "the file of rewrites, and of a model that keeps to the tags?"
            )
    record = Provenance(
        step=STEP,
        settings=dict(settings),
        inputs={"rewrites": source} | ({"attempts": stamp(out / ATTEMPTS_FILE)} if _there(out, tried) else {}),
        outputs={name: stamp(out / name) for name in (VERIFIED_FILE, REJECTED_FILE)},
        counts={"items": report.rows, "verified": report.passed, "rejected": report.rejected},
        report=report.model_dump(mode="json"),
        before=before.model_dump(mode="json") if before else None,
    )
    write_provenance(out / VERIFY_FILE, record)
    return report


def _there(out: Path, tried: Tried | None) -> bool:
    return tried is not None and (out / ATTEMPTS_FILE).exists()


def _rewrite(row: dict[str, Any], where: str) -> Rewrite:
    return of_form(Rewrite, row, where, _HOLDS)


def _parts(rewrite: Rewrite) -> Parts:
    parts = parts_of(rewrite.response)
    assert parts is not None  # the rules have looked
    return parts


def _not_solved(one: Solved, tried: Tried) -> dict[str, str]:
    tried.items += one.answers > 0
    tried.answers += one.answers
    tried.right += one.right
    if not one.answers:
        return {NOT_TRIED: f"{tried.model} gave no answer; see the dead letters of {ATTEMPTS_FILE}"}
    return {} if one.right else {NEVER_SOLVED: f"{tried.model} answered {one.answers} times, never so"}
