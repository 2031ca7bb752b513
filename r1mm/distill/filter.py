"""Which responses are kept: those whose answer is right, as one of two sets of rules finds it.

Source of the form: Deep-Agent/R1-V@bbbbe3d:src/distill_r1/filter_r1.py.  It wrote valid_pairs.jsonl, the records as
they came, and invalid_pairs.jsonl, with `error` (unparseable, mismatch) and for a mismatch `parsed_answer`.  So do we;
and a record that the strict rules find no answer in says why, in `reason`.

Both sets of rules look at every record, whichever decides, so that each run says where they agree.
"""

from collections import Counter
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, StrictInt, StrictStr

from r1mm.chain.forms import of_form
from r1mm.chain.provenance import ELSEWHERE, FILTER_FILE, Provenance, read_provenance, write_provenance
from r1mm.distill.rules import RULES, RULES_NAMES, Decision, RulesName, normal, patterns_of
from r1mm.distill.truth import Traces, Truth, together
from r1mm.errors import BadInput
from r1mm.progress import progress_bar
from r1mm.rundir import iter_jsonl, json_line, make_folder, stamp, writing

STEP = "distill filter"
VALID_FILE, INVALID_FILE = "valid_pairs.jsonl", "invalid_pairs.jsonl"
Outcome = Literal["valid", "mismatch", "unparseable"]


class Response(BaseModel):
    """What is read of a record: upstream's `a` and `r1_response`, and where they are known how it ended and the truth.

    A response of None is one that the server left empty.
    """

    model_config = ConfigDict(frozen=True)  # records have more, which is passed on as it is
    a: StrictStr | StrictInt
    r1_response: StrictStr | None
    finish_reason: str | None = None
    truth: Truth | None = None


class Decided(BaseModel):
    """What one pattern, or one reason to find no answer, decided."""

    name: str
    group: str
    valid: int = 0
    mismatch: int = 0
    unparseable: int = 0
    traces: Traces = Traces()

    @property
    def all(self) -> int:
        """Records that it decided."""
        return self.valid + self.mismatch + self.unparseable


class Disagreement(BaseModel):
    """Records that pass by one set of rules alone, and what decided them by each."""

    passes: RulesName
    upstream: str
    strict: str
    records: int


class Agreement(BaseModel):
    """How many records pass by both sets of rules, by one, by neither; in how many both find the same answer."""

    both: int = 0
    upstream_only: int = 0
    strict_only: int = 0
    neither: int = 0
    same_answer: int = 0
    disagreements: list[Disagreement] = []


class FilterReport(BaseModel):
    """What a run of the filter found.  `good` of the `with_truth` records that carry a truth ought to pass."""

    rules: RulesName
    records: int
    patterns: dict[RulesName, list[Decided]]
    agreement: Agreement
    with_truth: int
    good: int

    def count(self, outcome: Outcome, rules: RulesName | None = None) -> int:
        """Records with this outcome, by the rules that decided or by others."""
        return sum(getattr(one, outcome) for one in self.patterns[rules or self.rules])

    def traces(self, rules: RulesName) -> Traces:
        """What a set of rules let through in all."""
        return together(one.traces for one in self.patterns[rules])

    def recall(self, traces: Traces) -> float | None:
        """The share of all good records that `traces` let through; None where there are none."""
        return traces.good / self.good if self.good else None


def outcome_of(decision: Decision, right: str) -> Outcome:
    """What becomes of a record; `right` is the true answer, as `normal` makes it."""
    if decision.answer is None:
        return "unparseable"
    return "valid" if decision.answer == right else "mismatch"


def filter_responses(responses: Path, out: Path, rules: RulesName) -> FilterReport:
    """Write what the rules keep of a JSON-lines file to `out`, what they do not, and filter.json, the report.

    Lines are read one after the other; the memory does not grow with the file.  Raises BadInput naming the line of a
    record without an answer or a response, for a file without any, and where none is kept.
    """
    if responses.resolve() in ((out / VALID_FILE).resolve(), (out / INVALID_FILE).resolve()):
        raise BadInput(f"--out {out} would write over {responses}, which is read; name another folder")
    before, responses_stamp = read_provenance(responses)
    report = FilterReport(
        rules=rules,
        records=0,
        patterns={name: [Decided(name=one, group=group) for one, group in patterns_of(name)] for name in RULES_NAMES},
        agreement=Agreement(),
        with_truth=0,
        good=0,
    )
    apart: Counter[tuple[RulesName, str, str]] = Counter()
    make_folder(out, ELSEWHERE)
    with writing(out / VALID_FILE, ELSEWHERE) as valid, writing(out / INVALID_FILE, ELSEWHERE) as invalid:
        for number, row in progress_bar(iter_jsonl(responses), desc="filter", unit="record"):
            record = _record(row, f"{responses}:{number}")
            decisions = {name: RULES[name](record.r1_response or "", record.finish_reason) for name in RULES_NAMES}
            _take_in(report, record, decisions, apart)
            error = outcome_of(decisions[rules], normal(record.a))
            if error == "valid":
                valid.write(json_line(row))
            else:
                invalid.write(json_line(row | _why(error, decisions[rules], rules)))
        if not report.records:
            raise BadInput(f"{responses} has no lines; give the responses that `r1mm distill query` wrote")
        if not report.count("valid"):
            raise BadInput(
                f"none of the {report.records} responses in {responses} passes the {rules} rules "
                f"({report.count('unparseable')} unparseable, {report.count('mismatch')} mismatches), so nothing was "
                "written; is it the file of responses, and of a reasoning model?"
            )
    report.agreement.disagreements = [
        Disagreement(passes=passes, upstream=upstream, strict=strict, records=records)
        for (passes, upstream, strict), records in apart.most_common()
    ]
    record_of_step = Provenance(
        step=STEP,
        settings={"rules": rules},
        inputs={"responses": responses_stamp},
        outputs={name: stamp(out / name) for name in (VALID_FILE, INVALID_FILE)},
        counts={"records": report.records}
        | {name: report.count(name) for name in ("valid", "mismatch", "unparseable")},
        before=before.model_dump(mode="json") if before else None,
        report=report_json(report),
    )
    write_provenance(out / FILTER_FILE, record_of_step)
    return report


def _record(row: dict[str, Any], where: str) -> Response:
    if "error" in row and "r1_response" not in row:
        raise BadInput(f"{where}: a request that failed ({str(row['error'])[:60]}); give the file of responses")
    return of_form(
        Response, row, where, "a line holds img_filename, q, a and r1_response, as `r1mm distill query` writes them"
    )


def _take_in(
    report: FilterReport,
    record: Response,
    decisions: dict[RulesName, Decision],
    apart: Counter[tuple[RulesName, str, str]],
) -> None:
    right = normal(record.a)
    report.records += 1
    passes = {}
    for name, decision in decisions.items():
        outcome = outcome_of(decision, right)
        passes[name] = outcome == "valid"
        decided = next(one for one in report.patterns[name] if one.name == decision.by)
        setattr(decided, outcome, getattr(decided, outcome) + 1)
        if record.truth:
            decided.traces.count(record.truth, right, decision.answer)
    if record.truth:
        report.with_truth += 1
        report.good += record.truth.good(right)
    agreement = report.agreement
    agreement.both += passes["upstream"] and passes["strict"]
    agreement.neither += not (passes["upstream"] or passes["strict"])
    agreement.same_answer += decisions["upstream"].answer == decisions["strict"].answer is not None
    if passes["upstream"] != passes["strict"]:
        alone: RulesName = "upstream" if passes["upstream"] else "strict"
        agreement.upstream_only += passes["upstream"]
        agreement.strict_only += passes["strict"]
        apart[alone, decisions["upstream"].by, decisions["strict"].by] += 1


def _why(error: Outcome, decision: Decision, rules: RulesName) -> dict[str, Any]:
    if error == "mismatch":
        return {"error": error, "parsed_answer": decision.answer}
    return {"error": error} | ({"reason": decision.by} if rules == "strict" else {})


def report_json(report: FilterReport) -> dict[str, Any]:
    """The report for JSON, with the shares that are calculated of it; without truths nothing is said of traces."""
    found = report.model_dump(mode="json")
    for name in RULES_NAMES:
        for one, row in zip(report.patterns[name], found["patterns"][name], strict=True):
            if report.with_truth:
                row["traces"] |= _shares(report, one.traces)
            else:
                del row["traces"]
    if not report.with_truth:
        return found | {"traces": None}
    return found | {
        "traces": {
            name: report.traces(name).model_dump() | _shares(report, report.traces(name)) for name in RULES_NAMES
        }
    }


def _shares(report: FilterReport, traces: Traces) -> dict[str, float | None]:
    return {"precision": traces.precision, "recall": report.recall(traces)}
