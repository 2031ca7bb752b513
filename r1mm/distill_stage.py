"""What the stage distill does: R1-V's distillation over a miniature's pictures, a scripted reasoner in R1's place.

The steps are those of `r1mm distill`, by the same code and over real HTTP.  Beyond them it knows what no real endpoint
tells, what the reasoner did, and counts what the filter made of that.
"""

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from r1mm.distill_parts import Distill, Mistake
from r1mm.errors import StageFailed
from r1mm.job import Job
from r1mm.rundir import FileStamp, files_below, iter_jsonl, stamp, write_bytes, write_json, write_jsonl

FIGURES_FILE = "distill.json"  # how many came through each step, and what the filter let through
# In the stage's folder.  The client's own records have the times of its requests in them, and are no part of what the
# stage makes.
_QUESTIONS, _PAIRS, _ANSWERS, _RESPONSES = "questions.json", "pairs.jsonl", "answers.jsonl", "responses.jsonl"
_FILTERED, _DATASET = "filtered", "dataset"
_CONCURRENCY = 8  # requests at a time
_SOUND = "none"  # of the mistakes


def distill_answers(job: Job) -> dict[str, FileStamp]:
    """Questions, answers, filter and dataset; goes on with the answers that are there."""
    from r1mm.distill.build import build_dataset
    from r1mm.distill.filter import INVALID_FILE, VALID_FILE, filter_responses, report_json
    from r1mm.distill.questions import write_pairs
    from r1mm.mini.datasets import read_scenes
    from r1mm.mini.questions import write_questions

    assert job.recipe.distill  # of a recipe with the stage
    how, folder, assets = job.recipe.distill, job.stage_folder("distill"), job.stage_folder("assets")
    name, seed = how.scenes.value, how.seed.value
    scenes = read_scenes(assets, name)
    questions = write_questions(folder / _QUESTIONS, scenes, how.per_picture.value, how.kinds.value, seed)
    asked = write_pairs(assets / f"{name}_scenes.json", questions, folder / _PAIRS, seed)
    _ask(how, folder)
    answered = _tell_truth(how, folder)
    filtered, dataset = folder / _FILTERED, folder / _DATASET
    report = filter_responses(folder / _RESPONSES, filtered, how.rules.value)
    shutil.rmtree(dataset, ignore_errors=True)  # of a start that was ended before its record
    with tempfile.TemporaryDirectory(dir=folder) as images:
        _write_pictures(assets / f"{name}.parquet", [scene["image_filename"] for scene in scenes], Path(images))
        built = build_dataset(filtered / VALID_FILE, Path(images), dataset, seed=seed, words=how.problem.value)
    figures = {
        "rules": how.rules.value,
        "steps": {
            "questions": asked.counts["questions"],
            "for a number": asked.counts["kept"],
            "asked": asked.counts["pairs"],
            "answered": answered,
            "passed": report.count("valid"),
            "examples": built.counts["train rows"],
        },
        "mistakes": _mistakes(filtered / VALID_FILE, filtered / INVALID_FILE),
        "filter": report_json(report),
    }
    write_json(folder / FIGURES_FILE, figures)
    return {
        path: found
        for path, found in files_below(folder, job.folder("assets")).items()
        if not Path(path).name.startswith(Path(_ANSWERS).stem)
    }


def _prompt(how: Distill, row: dict[str, Any]) -> str:
    from r1mm.distill.prompts import PROMPTS

    return PROMPTS[how.prompt.value](row["description"], row["q"])


def _ask(how: Distill, folder: Path) -> None:
    """Put every pair that has no answer yet to the reasoner, over HTTP."""
    from r1mm.distill.prompts import messages_of
    from r1mm.distill.question_lines import question_lines
    from r1mm.endpoint.ask import Request, ask_all
    from r1mm.endpoint.client import Endpoint
    from r1mm.endpoint.keys import Key
    from r1mm.endpoint.records import Records
    from r1mm.mini.server import MODEL, serving
    from r1mm.processes import run_in_order

    pairs = question_lines(folder / _PAIRS)

    def requests() -> Iterator[Request]:
        for row in pairs:
            yield Request(messages_of(_prompt(how, row)), row)

    # Dead letters are asked again: a start may have been ended while the server did not answer.
    with serving(how.reasoner.value, how.seed.value) as url, Records(folder / _ANSWERS, retry_dead=True) as records:
        endpoint = Endpoint(url, MODEL, Key(None, "the recipe"), max_tokens=how.max_tokens.value)
        summary = run_in_order(
            ask_all(
                endpoint,
                requests(),
                records,
                concurrency=_CONCURRENCY,
                answer="r1_response",
                total=len(pairs),
                title="ask the reasoner",
            )
        )
    if others := {reason: count for reason, count in summary.dead_reasons.items() if reason != "length"}:
        raise StageFailed(
            f"the scripted reasoner on this machine left {sum(others.values())} questions unanswered ({others}); the "
            "same command asks them again"
        )


def _tell_truth(how: Distill, folder: Path) -> int:
    """Write the answers in the order of the pairs, each with the truth about it; how many there are.

    They are the same bytes in every run: what the client noted of when and in which order they came is left out.
    """
    from r1mm.chain.provenance import Provenance, provenance_path, read_provenance, write_provenance
    from r1mm.endpoint.budget import LOST
    from r1mm.mini.reasoner import reply
    from r1mm.mini.server import MODEL

    found = {_prompt(how, row): row for _, row in iter_jsonl(folder / _ANSWERS)}

    def told() -> Iterator[dict[str, Any]]:
        for _, pair in iter_jsonl(folder / _PAIRS):
            prompt = _prompt(how, pair)
            if prompt not in found:
                continue  # cut at its length: a dead letter
            said = reply(prompt, how.reasoner.value, how.seed.value, how.max_tokens.value)
            row = {key: value for key, value in found[prompt].items() if key not in ("key", "timestamp", LOST)}
            yield row | {
                "truth": {"answered": said.answer, "sound": said.sound},
                "script": {"mistake": said.mistake, "ending": said.ending},
            }

    responses = write_jsonl(folder / _RESPONSES, told())
    before, given = read_provenance(folder / _PAIRS)
    record = Provenance(
        step="distill query",
        settings={"model": MODEL, "prompt": how.prompt.value, "max_tokens": how.max_tokens.value},
        inputs={_PAIRS: given},
        outputs={_RESPONSES: stamp(responses)},
        counts={"answered": len(found)},
        before=before.model_dump(mode="json") if before else None,
    )
    write_provenance(provenance_path(responses), record)
    return len(found)


def _write_pictures(parquet: Path, names: list[str], folder: Path) -> None:
    """A set's pictures as files."""
    from datasets import Image

    from r1mm.data.counting import load_counting

    encoded = load_counting(parquet).cast_column("image", Image(decode=False))["image"]
    for name, picture in zip(names, encoded, strict=True):
        write_bytes(folder / name, picture["bytes"])


def _mistakes(valid: Path, invalid: Path) -> dict[str, dict[str, int]]:
    """By the mistake that was made, and `none`: in how many answers, and how many of these passed."""
    made: Counter[str] = Counter()
    passed: Counter[str] = Counter()
    for path, counts in ((valid, passed), (invalid, Counter[str]())):
        for _, row in iter_jsonl(path):
            name = row["script"]["mistake"] or _SOUND
            made[name] += 1
            counts[name] += 1
    return {name: {"made": made[name], "passed": passed[name]} for name in (*get_args(Mistake), _SOUND) if made[name]}
