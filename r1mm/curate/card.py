"""The curated dataset's card: README.md, with what each step did and what was refused."""

from datasets import Features
from pydantic import BaseModel, ConfigDict

from r1mm.chain.card import NOT_SEEN, Split, front_matter, inputs_of, table
from r1mm.chain.parquet import TRAIN
from r1mm.chain.provenance import Provenance, host_of

REWRITE_STEP, VERIFY_STEP = "curate rewrite", "curate verify"
_UPSTREAM = "EvolvingLMMs-Lab/open-r1-multimodal@232b7ba:local_scripts/create_vision_cot_data.py and prepare_hf_data.py"


class BuildReport(BaseModel):
    """What is known of the dataset; `questions`: different ones about different pictures.

    Bytes are the pictures' as they are stored, and as a copy for each row would be.
    """

    model_config = ConfigDict(frozen=True)
    rows: int
    pictures: int
    questions: int
    text_bytes: int
    picture_bytes: int
    picture_bytes_per_row: int
    files: list[str]
    sources: dict[str, int]
    models: list[str]


def card_text(record: Provenance, report: BuildReport, features: Features, name: str) -> str:
    """README.md.  What no record tells stands there as "not seen"."""
    chain = {step.step: step for step in record.chain()}
    size = report.text_bytes + report.picture_bytes_per_row
    columns = ", ".join(f"`{column}`" for column in features)
    parts = [
        front_matter([Split(TRAIN, features, report.rows, size)], ["math", "reasoning", "distillation"], None),
        f"# {name}\n",
        "Questions about pictures, rewritten with thoughts by a model that saw the picture and the answer, and "
        f"verified. Made by `r1mm curate`, after {_UPSTREAM}.\n",
        f"{report.rows} rows about {report.pictures} pictures, from {report.questions} questions. Columns: "
        f"{columns}.\n",
        _steps(record, chain, report),
        _refused(chain.get(VERIFY_STEP)),
        _weaknesses(chain.get(VERIFY_STEP)),
        f"## Licence\n\nOf pictures and questions: {NOT_SEEN}; ask their sources. Of the model's texts: {NOT_SEEN}; "
        "ask the model's owner.\n",
        inputs_of(record),
    ]
    return "\n".join(part for part in parts if part)


def _steps(record: Provenance, chain: dict[str, Provenance], report: BuildReport) -> str:
    asked = chain[REWRITE_STEP].settings if REWRITE_STEP in chain else {}
    rows = [
        ("model", ", ".join(report.models) or asked.get("model", NOT_SEEN)),
        ("endpoint's host", host_of(str(asked["base_url"])) if "base_url" in asked else NOT_SEEN),
        ("prompt", asked.get("prompt", NOT_SEEN)),
        ("temperature", asked.get("temperature", NOT_SEEN)),
        ("seed of the rows' order", record.settings["seed"]),
    ]
    counted = [(step.step, name, number) for step in chain.values() for name, number in step.counts.items()]
    return (
        f"## How it was made\n\n{table(('what', 'value'), rows)}\n"
        f"{table(('source', 'rows'), list(report.sources.items()))}\n"
        f"{table(('step', 'count of', 'number'), counted)}\n"
        "`provenance.json` holds every step's whole record.\n"
    )


def _refused(verified: Provenance | None) -> str:
    if verified is None or verified.report is None:
        return ""
    found = verified.report
    rows = [(one["name"], one["rows"], one["alone"], one["upstream_keeps"]) for one in found["reasons"]]
    head = ("rule", "items that break it", "that alone", "upstream's filter would have kept")
    text = (
        f"## What was refused\n\n{table(head, rows)}\nOf {found['rows']} items {found['passed']} pass. Upstream's "
        f"published filter would have kept {found['upstream_keeps']}, {found['upstream_only']} of which are refused "
        "here. `r1mm/curate/rules.py` says what each rule is.\n"
    )
    tried = found["tried"]
    if tried is None:
        return text
    solved = [(right, items) for right, items in tried["solved"].items()]
    return (
        f"{text}\n{tried['model']} tried what passed the rules, {tried['attempts']} times each; {tried['right']} of "
        f"{tried['answers']} answers were right.\n\n{table(('right answers', 'items'), solved)}"
    )


def _weaknesses(verified: Provenance | None) -> str:
    tried = bool(verified and verified.report and verified.report["tried"])
    parts = [
        "## Known weaknesses\n",
        "- The model that wrote the thoughts was told the answer: they may argue towards it. A right answer does not "
        "make them right.",
        "- The original answers are taken for the truth; a source that is wrong is wrong here.",
        "- No model tried to solve the problems without the answer (`r1mm curate verify --attempts`)."
        if not tried
        else "- What the model that tried could not solve is missing, so that hard problems are rarer than they were.",
    ]
    return "\n".join(parts) + "\n"
