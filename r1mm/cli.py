"""The verbs of r1mm: parse, call, print; nothing else.  Heavy modules are imported by the verb that needs them."""

import argparse
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from r1mm.stages import Job

EXIT_STATUSES = """exit status:
  0  reproduced (or, for verbs without a verdict, done)
  1  failure: a stage started and could not finish; the same command goes on
  2  bad input: nothing was written
  3  not reproduced, or only partly
  4  inconclusive: too few items or seeds to tell"""

OVERVIEW = f"""r1mm re-runs a published R1-style result on a vision-language model and says with statistics
whether it reproduces.

  r1mm recipes list                     what can be reproduced
  r1mm reproduce r1v-mini               run it: data, base model, GRPO, evaluation, verdict, report
  r1mm reproduce r1v-mini --variant all --seed 2
                                        all code eras from one base model, side by side
  r1mm reproduce r1v-mini --launch compose
                                        the same in a container, from an image built of this tree
  r1mm verify runs/r1v-mini/images-fixed-seed1
                                        is every file what was recorded, would this tree make the same?
  r1mm doctor                           can this machine run it, and what to do where it cannot

{EXIT_STATUSES}"""


_LARGEST_SEED = 2**32 - 1  # numpy's


def _whole_number(text: str) -> int:
    try:
        number = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to {_LARGEST_SEED}, is {text!r}") from error
    if not 0 <= number <= _LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to {_LARGEST_SEED}, is {text!r}")
    return number


def _parser() -> argparse.ArgumentParser:
    style: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
    parser = argparse.ArgumentParser(prog="r1mm", description=OVERVIEW, **style)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    def verb(
        name: str, run: Callable[[argparse.Namespace], int], short: str, long: str = ""
    ) -> argparse.ArgumentParser:
        made = verbs.add_parser(
            name, help=short, description=f"{short[0].upper()}{short[1:]}.\n\n{long}".strip(), **style
        )
        made.set_defaults(run=run)
        made.add_argument("--json", action="store_true", help="print one JSON object instead of text")
        return made

    def which_job(made: argparse.ArgumentParser) -> None:
        made.add_argument(
            "recipe", help="name of a recipe (see `r1mm recipes list`), or a folder that holds recipe.yaml"
        )
        made.add_argument("--variant", help="reading of upstream to run; default: the recipe's own default")
        made.add_argument("--seed", type=_whole_number, default=1, help="seed of training (default 1)")
        made.add_argument(
            "--base-seed",
            type=_whole_number,
            help="seed of a miniature's base model (default: the recipe's); runs of one base share its warm start",
        )
        made.add_argument(
            "--runs", type=Path, default=Path("runs"), help="folder that holds all run directories (default ./runs)"
        )

    reproduce = verb(
        "reproduce",
        _reproduce,
        "run a recipe to its verdict and report; goes on where an earlier start stopped",
        "Results land in RUNS/<recipe>/<variant>-seed<k>/: report.html, verdict.json, metrics.jsonl, every output in\n"
        "generations/, and manifest.json with versions and checksums.\n\n" + EXIT_STATUSES,
    )
    which_job(reproduce)
    _launch_options(reproduce)
    reproduce.add_argument(
        "--fresh", action="store_true", help="start anew; directories in the way are moved aside, never deleted"
    )

    stage = verb(
        "stage",
        _stage,
        "run one stage of a recipe in this process (what `reproduce` starts for each stage)",
        "Stages in order: assets, warm-start, base-evaluation, grpo, evaluation, verdict, report.",
    )
    stage.add_argument("stage", help="name of the stage")
    stage.add_argument("--locks-held", action="store_true", help=argparse.SUPPRESS)  # by `reproduce`, which starts it
    which_job(stage)

    verdict = verb("verdict", _verdict, "judge a finished run's stored outputs again", EXIT_STATUSES)
    verdict.add_argument(
        "run_folder", metavar="RUN", type=Path, help="run directory, e.g. runs/r1v-mini/images-fixed-seed1"
    )
    report = verb("report", _report, "write a finished run's report.html again")
    report.add_argument(
        "run_folder", metavar="RUN", type=Path, help="run directory, e.g. runs/r1v-mini/images-fixed-seed1"
    )

    score = verb(
        "score",
        _score,
        "score recorded outputs of the counting task again",
        "FILE is a generations/*.jsonl of r1mm, or the JSON that R1-V's evaluation script writes. The first\n"
        "<answer> N </answer> decides; an output without one is wrong and counted as unparsed.",
    )
    score.add_argument("file", metavar="FILE", type=Path, help="recorded outputs")

    recipes = verb("recipes", _recipes, "list the recipes, or check one whole: schema, sources, batch, claims")
    recipes.add_argument("action", choices=("list", "check"), help="what to do")
    recipes.add_argument("recipe", nargs="?", help="check only this recipe (name or folder); default: all")

    doctor = verb(
        "doctor",
        _doctor,
        "check that this machine can run what is asked, and say what to do where it cannot",
        "ok: good; no: the run asked for cannot start; --: not good, but that run does not need it.\n"
        "Exit status 1 when a line says no.",
    )
    doctor.add_argument(
        "--runs", type=Path, default=Path("runs"), help="folder of the run directories (default ./runs)"
    )
    doctor.add_argument(
        "--gpus", type=_whole_number, default=0, help="GPUs of the run asked for (default 0: a miniature)"
    )
    _launch_options(doctor)

    verify = verb(
        "verify",
        _verify,
        "check a run's every file against its checksum, and compare tree, packages and image with those of then",
        "exit status: 0 whole and the same, 1 damaged, 3 something differs, 4 something cannot be compared",
    )
    verify.add_argument("run_folder", metavar="RUN", type=Path, help="run directory")

    image = verb(
        "image",
        _image,
        "build an image from this tree: cpu (miniatures) or trainer (CUDA, full recipes)",
        "From the environment: BASE_IMAGE=NAME@sha256:... another base; CA_BUNDLE=FILE certificates of a proxy that\n"
        "inspects TLS; WHEELS=DIR packages to take from a folder.",
    )
    image.add_argument("kind", choices=("cpu", "trainer"), help="which image")

    dashboard = verb(
        "dashboard",
        _dashboard,
        "show the curves of all runs in a browser (TensorBoard), until Ctrl-C",
        "On this machine's loopback only.  DASHBOARD_PORT: another port than 6006.",
    )
    dashboard.add_argument(
        "--runs", type=Path, default=Path("runs"), help="folder of the run directories (default ./runs)"
    )
    dashboard.add_argument(
        "--launch", choices=("local", "compose"), default="local", help="where it runs (default local)"
    )

    facts = verb("facts", _facts, "print what a run here would record of code, packages, machine and image")
    facts.add_argument("--gpus", action="store_true", help="also ask torch which GPUs it can use")
    return parser


def _launch_options(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--launch",
        choices=("auto", "local", "compose"),
        default="auto",
        help="where stages run: local processes, containers through docker compose, or auto (containers where the "
        "recipe needs GPUs and an engine answers)",
    )
    made.add_argument("--image", help="run in this image, which the engine holds, instead of building one")


def _job(options: argparse.Namespace, variant: str | None) -> "Job":
    from r1mm.pipeline import make_job

    return make_job(options.recipe, variant, options.seed, options.base_seed, options.runs)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, ensure_ascii=False))


def _say(text: str) -> None:
    # Progress goes to standard error, so that --json leaves one object on standard output.
    print(text, file=sys.stderr, flush=True)


def _reproduce(options: argparse.Namespace) -> int:
    from r1mm.doctor import preflight
    from r1mm.launch.choose import decide, open_place
    from r1mm.pipeline import Outcome, reproduce, wanted_gpus, write_comparison
    from r1mm.processes import terminated_by_signal
    from r1mm.recipe_files import find_recipe, load_recipe
    from r1mm.terminal import exit_status, print_comparison, print_verdict, severity

    variants: list[str | None] = [options.variant]
    if options.variant == "all":
        variants = [*load_recipe(find_recipe(options.recipe) / "recipe.yaml").variants]
    jobs = [_job(options, variant) for variant in variants]
    gpus = wanted_gpus(jobs[0])
    launch, reason = decide(options.launch, wanted_gpus=gpus, image=options.image)
    _say(f"launch: {launch} ({reason})")
    outcomes: list[Outcome] = []
    with terminated_by_signal():
        kind = "trainer" if gpus else "cpu"
        preflight(launch=launch, wanted_gpus=gpus, builds=None if options.image else kind)
        place = open_place(launch, runs=jobs[0].runs, wanted_gpus=gpus, image=options.image, say=_say)
        for job in jobs:
            _say(f"{job.recipe.name}, variant {job.resolved.variant}, seed {job.seed}: {job.folder('run')}")
            outcomes.append(reproduce(job, place, fresh=options.fresh, say=_say))
    page = write_comparison(jobs) if options.variant == "all" else outcomes[0].root / "report.html"
    verdicts = [outcome.verdict for outcome in outcomes]
    if options.json:
        _print_json({"report": str(page), "verdicts": verdicts})
    elif len(verdicts) > 1:
        print_comparison(verdicts, page)
    else:
        print_verdict(verdicts[0], page)
    return exit_status(min(verdicts, key=severity))


def _stage(options: argparse.Namespace) -> int:
    from r1mm.pipeline import run_one_stage, run_stage_alone
    from r1mm.recipe import STAGES

    if options.stage not in STAGES:
        from r1mm.errors import BadInput

        raise BadInput(f"there is no stage {options.stage!r}; stages are {', '.join(STAGES)}")
    run = run_one_stage if options.locks_held else run_stage_alone
    run(_job(options, options.variant), options.stage)
    if options.json:
        _print_json({"stage": options.stage, "done": True})
    return 0


def _verdict(options: argparse.Namespace) -> int:
    from r1mm.pipeline import redo
    from r1mm.terminal import exit_status, print_verdict

    outcome = redo(options.run_folder, "verdict")
    if options.json:
        _print_json(outcome.verdict)
    else:
        print_verdict(outcome.verdict, outcome.root / "report.html")
    return exit_status(outcome.verdict)


def _report(options: argparse.Namespace) -> int:
    from r1mm.pipeline import redo

    page = redo(options.run_folder, "report").root / "report.html"
    if options.json:
        _print_json({"report": str(page)})
    else:
        print(page)
    return 0


def _score(options: argparse.Namespace) -> int:
    from r1mm.evaluate.counting import rescore
    from r1mm.terminal import score_summary

    summary = score_summary(rescore(options.file))
    if options.json:
        _print_json(summary)
    else:
        print(", ".join(f"{key} {value}" for key, value in summary.items()))
    return 0


def _recipes(options: argparse.Namespace) -> int:
    from r1mm.recipe_files import all_recipes, find_recipe, load_expected, load_recipe

    rows: list[dict[str, Any]] = []
    for folder in [find_recipe(options.recipe)] if options.recipe else list(all_recipes()):
        recipe = load_recipe(folder / "recipe.yaml")
        expected = load_expected(folder / "expected.yaml", recipe)
        rows.append(
            {
                "name": recipe.name,
                "title": recipe.title,
                "size": recipe.size,
                "variants": list(recipe.variants),
                "default_variant": recipe.default_variant,
                "claims": len(expected.claims),
                "reference_rows": len(expected.reference_rows),
            }
        )
    if options.json:
        _print_json(rows)
    elif options.action == "check":
        for row in rows:
            print(f"{row['name']}: good ({row['claims']} claims, {row['reference_rows']} reference rows)")
    else:
        for row in rows:
            names = ", ".join(f"{name}*" if name == row["default_variant"] else name for name in row["variants"])
            print(f"{row['name']}  ({row['size']})  {row['title']}\n    variants: {names}   (* default)")
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from r1mm.doctor import checks
    from r1mm.terminal import print_checks

    found = checks(options.runs, launch=options.launch, wanted_gpus=options.gpus, image=options.image)
    if options.json:
        _print_json([check.as_dict() for check in found])
    else:
        print_checks(found)
    return 1 if any(check.fails for check in found) else 0


def _verify(options: argparse.Namespace) -> int:
    from r1mm.terminal import print_findings
    from r1mm.verify import VERIFY_STATUS, verify

    found = verify(options.run_folder)
    if options.json:
        _print_json([finding.as_dict() for finding in found])
    else:
        print_findings(found)
    states = {finding.state for finding in found}
    return next((status for state, status in VERIFY_STATUS.items() if state in states), 0)


def _image(options: argparse.Namespace) -> int:
    from r1mm.doctor import preflight
    from r1mm.launch.images import build
    from r1mm.processes import terminated_by_signal

    with terminated_by_signal():
        preflight(launch="compose", wanted_gpus=0, builds=options.kind)
        image = build(options.kind, _say)
    if options.json:
        _print_json(image.as_dict())
    else:
        print(image.id)
    return 0


def _dashboard(options: argparse.Namespace) -> int:
    from r1mm.doctor import preflight
    from r1mm.launch.dashboard import serve
    from r1mm.processes import Terminated, terminated_by_signal

    try:
        with terminated_by_signal():
            preflight(launch=options.launch, wanted_gpus=0)
            return serve(options.runs.resolve(), options.launch, _say)
    except (KeyboardInterrupt, Terminated):
        return 0  # how it is meant to end


def _facts(options: argparse.Namespace) -> int:
    from r1mm.gpus import cuda_facts
    from r1mm.manifest import code_version, surroundings

    found = {"code": code_version(["."]), **surroundings(), **({"cuda": cuda_facts()} if options.gpus else {})}
    _print_json(found)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit status."""
    options = _parser().parse_args(arguments)
    from r1mm.errors import BadInput, StageFailed
    from r1mm.processes import Terminated

    try:
        status: int = options.run(options)
        return status
    except BadInput as error:
        print(f"r1mm: error: {error}", file=sys.stderr)
        return 2
    except StageFailed as error:
        print(f"r1mm: failed: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, Terminated) as stopped:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the way out is short, and a second Ctrl-C would only litter it
        print("r1mm: stopped; the same command goes on from here", file=sys.stderr)
        return 143 if isinstance(stopped, Terminated) else 130
    except BrokenPipeError:
        # The reader of our output has gone (`r1mm ... | head`); nothing more can be said.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
