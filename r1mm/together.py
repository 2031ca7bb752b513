"""Several runs of one recipe together: variants on one page, and the answer over all variants and seeds."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from r1mm.errors import BadInput
from r1mm.inputs import generations, readings, recorded_outputs, task_sets, why_not_comparable
from r1mm.job import Job, default_base_seed, job_of
from r1mm.recipe_files import find_recipe, load_expected, load_recipe
from r1mm.rundir import write_json, write_text


def finished_jobs(recipe: str, runs: Path, base_seed: int | None = None) -> list[Job]:
    """The jobs of a recipe's finished runs below `runs` of one base model, the pinned one where `base_seed` is None.

    BadInput when there is none.
    """
    loaded = load_recipe(find_recipe(recipe) / "recipe.yaml")
    folder = runs / loaded.name
    roots = [path for path in sorted(folder.glob("*-seed*")) if re.search(r"-seed\d+(-base\d+)?$", path.name)]
    jobs = [job_of(root) for root in roots if (root / "verdict.json").is_file() and not root.name.startswith("base-")]
    wanted = default_base_seed(loaded) if base_seed is None else base_seed
    jobs = [job for job in jobs if job.base_seed == wanted]
    if not jobs:
        raise BadInput(f"{folder} holds no finished run of {loaded.name}; run `r1mm reproduce {recipe}` first")
    return jobs


def _over_seeds(variant: str, jobs: Sequence[Job]) -> Any:
    """The verdict on all of a variant's finished runs."""
    from r1mm.evaluate.scoring import read_outputs
    from r1mm.judge.seeds import judge_seeds

    first, why_not = jobs[0], list(dict.fromkeys(reason for job in jobs for reason in why_not_comparable(job)))
    runs = {
        job.seed: {
            split: {condition: read_outputs(path) for condition, path in files.items()}
            for split, files in generations(job).items()
        }
        for job in jobs
    }
    return judge_seeds(
        first.expected,
        recipe=first.recipe.name,
        size=first.recipe.size,
        variant=variant,
        runs=runs,
        recorded=recorded_outputs(first),
        readings={job.seed: readings(job, runs[job.seed]) for job in jobs},
        why_not=why_not,
        comparable=not why_not,
    )


def answer_of(recipe: str, runs: Path, base_seed: int | None = None) -> dict[str, Any]:
    """What all finished runs of a recipe say together: `answer`, in words, and `verdicts`, one per variant over its
    seeds.  Also written to `runs`/<recipe>/answer.json, of the pinned base model; `base_seed`: of another.
    """
    from r1mm.judge.answer import answer

    by_variant: dict[str, list[Job]] = {}
    for job in finished_jobs(recipe, runs, base_seed):
        by_variant.setdefault(job.resolved.variant, []).append(job)
    verdicts = [_over_seeds(variant, jobs) for variant, jobs in by_variant.items()]
    folder = find_recipe(recipe)
    loaded = load_recipe(folder / "recipe.yaml")
    found = {
        "recipe": loaded.name,
        "answer": answer(load_expected(folder / "expected.yaml", loaded), verdicts),
        "verdicts": [verdict.model_dump(mode="json") for verdict in verdicts],
    }
    name = "answer.json" if base_seed in (None, default_base_seed(loaded)) else f"answer-base{base_seed}.json"
    write_json(runs / loaded.name / name, found)
    return found


def answer_beside(jobs: Sequence[Job]) -> dict[str, Any]:
    """What `answer_of` finds over all finished runs of the jobs' recipe; why not, where an older one does not fit."""
    try:
        return answer_of(str(jobs[0].recipe_folder), jobs[0].runs, jobs[0].base_seed)
    except BadInput as error:
        # It must not cost the page and the words of these.
        return {"answer": [f"No answer over all finished runs: {error}"]}


def write_comparison(jobs: Sequence[Job], answer: dict[str, Any]) -> Path:
    """The page that sets a recipe's variants side by side, with what `answer_beside` found.

    The cells of the page are the runs of the first job's seed; the answer is over all finished runs.
    """
    from r1mm.report.collect import comparison_inputs
    from r1mm.report.comparison import build_comparison

    first = jobs[0]
    shown = [job for job in jobs if job.seed == first.seed]
    inputs = comparison_inputs(
        {job.resolved.variant: (job.folder("run"), generations(job)) for job in shown}, task_sets(first), answer
    )
    return write_text(first.runs / first.recipe.name / f"comparison-seed{first.seed}.html", build_comparison(inputs))
