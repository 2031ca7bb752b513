"""Verbs about recipes and recorded outputs: recipes, score."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1mm.errors import BadInput
from r1mm.verbs.asking import ask_by_options, endpoint_of_options, endpoint_options
from r1mm.verbs.common import AddVerb, print_json

if TYPE_CHECKING:
    from r1mm.evaluate.readings import Ask


def add(verb: AddVerb) -> None:
    """Add these verbs."""
    recipes = verb("recipes", _recipes, "list the recipes, or check one whole: schema, sources, batch, claims")
    recipes.add_argument("action", choices=("list", "check"), help="what to do")
    recipes.add_argument("recipe", nargs="?", help="check only this recipe (name or folder); default: all")

    score = verb(
        "score",
        _score,
        "score recorded outputs of a task again, by upstream's rule and by a lenient one",
        "TASK is a task of any recipe (superclevr-200, geoqa-754, ...), FILE a generations/*.jsonl of r1mm or the\n"
        "JSON that R1-V's evaluation scripts write. counting: the first <answer> N </answer> decides, an output\n"
        "without one is wrong and counted as unparsed; lenient: what a benevolent reader would take it to answer.\n"
        "math: math-verify on the whole output; lenient: also on the answer alone, without its tags.\n"
        "choice: the letter that the answer tag, or an output without one, starts with; lenient: the last letter in\n"
        "the part that answers.\n"
        "answer: an option, or a value and nothing else, in the answer tag, right as letter, text or value; lenient:\n"
        "wherever it stands after the thoughts.\n"
        "mmmu, mathvista: the benchmark's own comparison, behind rules that read the answer (elsewhere a language\n"
        "model reads mathvista's); lenient: also a lone letter, the last of several numbers, equal values.\n"
        "parseable: the answer stands where the prompt asks for it, in the task's form; by force: wherever it stands\n"
        "after the thoughts. Of both, how many are right by letter, option or value.\n"
        "--judge has a language model read the outputs in which no rule finds an answer, and those alone; what it\n"
        "reads counts as found by force, and how many these are is said (read_by_model).",
    )
    score.add_argument("task", metavar="TASK", help="name of a task, or recipe/task where recipes differ in it")
    score.add_argument("file", metavar="FILE", type=Path, help="recorded outputs")
    score.add_argument(
        "--prompts", metavar="FILE", type=Path, help="the task's prompts file, to check items, questions and truths"
    )
    judge = score.add_argument_group("a model that reads what no rule does (opt-in: with --judge)")
    judge.add_argument(
        "--judge",
        metavar="JUDGED",
        type=Path,
        help="ask the model of --base-url and --model; its answers are kept in JUDGED, and none is asked for twice",
    )
    endpoint_options(judge, max_tokens=1024, temperature=0.0, required=False, whose="JUDGED")


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
        print_json(rows)
    elif options.action == "check":
        for row in rows:
            print(f"{row['name']}: good ({row['claims']} claims, {row['reference_rows']} reference rows)")
    else:
        for row in rows:
            names = ", ".join(f"{name}*" if name == row["default_variant"] else name for name in row["variants"])
            print(f"{row['name']}  ({row['size']})  {row['title']}\n    variants: {names}   (* default)")
    return 0


def _judge(options: argparse.Namespace) -> "Ask | None":
    if options.judge is None:
        if options.base_url or options.model:
            raise BadInput("--base-url and --model are for a model that reads outputs; say --judge JUDGED too")
        return None
    if not (options.base_url and options.model and (options.budget or options.budget_tokens)):
        raise BadInput(
            "--judge needs --base-url, --model and a limit, --budget-tokens N or --budget MONEY with prices; give these"
        )
    from r1mm.evaluate.judge_model import ANSWER, ask_model

    endpoint = endpoint_of_options(options)
    return ask_model(
        endpoint,
        options.judge,
        lambda requests: ask_by_options(options, endpoint, requests, len(requests), options.judge, ANSWER).summary,
    )


def _score(options: argparse.Namespace) -> int:
    from r1mm.evaluate.recorded import score_recorded
    from r1mm.evaluate.tasks import find_task

    task = find_task(options.task)
    summary = score_recorded(options.file, task, options.prompts, _judge(options))
    if options.json:
        print_json(summary)
        return 0
    notes, changed = summary.pop("notes"), summary.pop("changed")
    summary["changed"] = len(changed)
    print(", ".join(f"{key} {value}" for key, value in summary.items() if value is not None))
    for note in notes:
        print(f"note: {note}")
    return 0
