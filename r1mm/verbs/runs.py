"""Verbs that make a run, or look at one: reproduce, stage, verdict, report, verify."""

import argparse
import os
from pathlib import Path

from r1mm.verbs.common import (
    EXIT_STATUSES,
    RUN_EXAMPLE,
    AddVerb,
    job_of_options,
    job_options,
    launch_options,
    print_json,
    runs_option,
    say,
    whole_number,
    whole_numbers,
)


def add(verb: AddVerb) -> None:
    """Add these verbs."""
    reproduce = verb(
        "reproduce",
        _reproduce,
        "run a recipe to its verdict and report; goes on where an earlier start stopped",
        "Results land in RUNS/<recipe>/<variant>-seed<k>/: report.html, verdict.json, metrics.jsonl, every output in\n"
        "generations/, and manifest.json with versions and checksums.\n\n" + EXIT_STATUSES,
    )
    job_options(reproduce)
    reproduce.add_argument(
        "--seed", type=whole_numbers, default=[1], metavar="N[,N...]", help="seed of training, or several (default 1)"
    )
    launch_options(reproduce)
    reproduce.add_argument(
        "--assets",
        type=Path,
        help="folder that serves every asset of a full recipe, without network (see `r1mm assets --help`)",
    )
    reproduce.add_argument(
        "--past-gate", action="store_true", help="train also where the base model's own score is not the published one"
    )
    reproduce.add_argument(
        "--fresh", action="store_true", help="start anew; directories in the way are moved aside, never deleted"
    )

    stage = verb(
        "stage",
        _stage,
        "run one stage of a recipe in this process (what `reproduce` starts for each stage)",
        "Stages in order, of which a recipe has some: assets, warm-start, distill, base-evaluation, base-gate, sft,\n"
        "grpo, evaluation, verdict, report.",
    )
    stage.add_argument("stage", help="name of the stage")
    stage.add_argument("--locks-held", action="store_true", help=argparse.SUPPRESS)  # by `reproduce`, which starts it
    job_options(stage)
    stage.add_argument("--seed", type=whole_number, default=1, help="seed of training (default 1)")

    verdict = verb("verdict", _verdict, "judge a finished run's stored outputs again", EXIT_STATUSES)
    verdict.add_argument("run_folder", metavar="RUN", type=Path, help=RUN_EXAMPLE)
    answer = verb(
        "answer",
        _answer,
        "say in words what all finished runs of a recipe say together, over variants and seeds",
        "Also written to RUNS/<recipe>/answer.json.  More seeds: `r1mm reproduce RECIPE --variant all --seed 1,2,3`.",
    )
    answer.add_argument("recipe", help="name of a recipe, or a folder that holds recipe.yaml")
    runs_option(answer)
    report = verb("report", _report, "write a finished run's report.html again")
    report.add_argument("run_folder", metavar="RUN", type=Path, help=RUN_EXAMPLE)

    verify = verb(
        "verify",
        _verify,
        "check a run's every file against its checksum, and compare tree, packages and image with those of then",
        "exit status: 0 whole and the same, 1 damaged, 3 something differs, 4 something cannot be compared",
    )
    verify.add_argument("run_folder", metavar="RUN", type=Path, help="run directory")


def _reproduce(options: argparse.Namespace) -> int:
    from r1mm.data.access import LOCAL_VARIABLE
    from r1mm.doctor import preflight
    from r1mm.errors import BadInput
    from r1mm.launch.choose import decide, open_place
    from r1mm.pipeline import Outcome, needs_hub, reproduce, wanted_gpus
    from r1mm.plan import gpus_here
    from r1mm.processes import terminated_by_signal
    from r1mm.recipe_files import find_recipe, load_recipe, of_family
    from r1mm.terminal import exit_status, print_comparison, print_verdict, severity
    from r1mm.together import answer_beside, write_comparison

    if options.assets and not options.assets.is_dir():
        raise BadInput(f"--assets {options.assets} is no folder; give one that holds the assets (`r1mm assets --help`)")
    if options.assets:
        os.environ[LOCAL_VARIABLE] = str(options.assets.resolve())
    options.gpus = options.gpus or gpus_here()
    full = options.gpus != "cpu" or LOCAL_VARIABLE in os.environ
    options.recipe = of_family(options.recipe, "full" if full else "miniature")
    variants: list[str | None] = [options.variant]
    if options.variant == "all":
        variants = [*load_recipe(find_recipe(options.recipe) / "recipe.yaml").variants]
    jobs = [job_of_options(options, variant, seed) for seed in options.seed for variant in variants]
    gpus = wanted_gpus(jobs[0])
    launch, reason = decide(options.launch, wanted_gpus=gpus, image=options.image)
    say(f"launch: {launch} ({reason})")
    outcomes: list[Outcome] = []
    with terminated_by_signal():
        lmms = any(task.lmms for task in jobs[0].recipe.tasks.values())
        kind = "evaluator" if lmms else "trainer" if gpus else "cpu"
        preflight(launch=launch, wanted_gpus=gpus, builds=None if options.image else kind, hub=needs_hub(jobs[0]))
        if lmms and launch == "local":
            from r1mm.evaluate.lmms import find_evaluator

            find_evaluator()  # hours before it is needed
        place = open_place(launch, runs=jobs[0].runs, wanted_gpus=gpus, image=options.image, say=say, lmms=lmms)
        for job in jobs:
            say(f"{job.recipe.name}, variant {job.resolved.variant}, seed {job.seed}: {job.folder('run')}")
            outcomes.append(reproduce(job, place, fresh=options.fresh, past_gate=options.past_gate, say=say))
    answer = answer_beside(jobs) if len(jobs) > 1 else {"answer": []}
    page = write_comparison(jobs, answer) if options.variant == "all" else outcomes[0].root / "report.html"
    verdicts = [outcome.verdict for outcome in outcomes]
    if options.json:
        print_json({"report": str(page), "verdicts": verdicts, "answer": answer["answer"]})
    elif len(verdicts) > 1:
        print_comparison(verdicts, page, answer["answer"])
    else:
        print_verdict(verdicts[0], page)
    return exit_status(min(verdicts, key=severity))


def _stage(options: argparse.Namespace) -> int:
    from r1mm.errors import BadInput
    from r1mm.pipeline import run_one_stage, run_stage_alone
    from r1mm.recipe import STAGES

    if options.stage not in STAGES:
        raise BadInput(f"there is no stage {options.stage!r}; stages are {', '.join(STAGES)}")
    job = job_of_options(options, options.variant, options.seed)
    if options.stage not in job.recipe.stages:
        raise BadInput(
            f"recipe {job.recipe.name} has no stage {options.stage} under variant {job.resolved.variant}; it has "
            f"{', '.join(job.recipe.stages)}"
        )
    run = run_one_stage if options.locks_held else run_stage_alone
    run(job, options.stage)
    if options.json:
        print_json({"stage": options.stage, "done": True})
    return 0


def _verdict(options: argparse.Namespace) -> int:
    from r1mm.pipeline import redo
    from r1mm.terminal import exit_status, print_verdict

    outcome = redo(options.run_folder, "verdict")
    if options.json:
        print_json(outcome.verdict)
    else:
        print_verdict(outcome.verdict, outcome.root / "report.html")
    return exit_status(outcome.verdict)


def _answer(options: argparse.Namespace) -> int:
    from r1mm.together import answer_of

    found = answer_of(options.recipe, options.runs.resolve())
    if options.json:
        print_json(found)
    else:
        print("\n".join(found["answer"]))
    return 0


def _report(options: argparse.Namespace) -> int:
    from r1mm.pipeline import redo

    page = redo(options.run_folder, "report").root / "report.html"
    if options.json:
        print_json({"report": str(page)})
    else:
        print(page)
    return 0


def _verify(options: argparse.Namespace) -> int:
    from r1mm.terminal import print_findings
    from r1mm.verify import VERIFY_STATUS, verify

    found = verify(options.run_folder)
    if options.json:
        print_json([finding.as_dict() for finding in found])
    else:
        print_findings(found)
    states = {finding.state for finding in found}
    return next((status for state, status in VERIFY_STATUS.items() if state in states), 0)
