"""Verbs about recipes and recorded outputs: recipes, score."""

import argparse
from pathlib import Path
from typing import Any

from r1mm.verbs.common import AddVerb, print_json


def add(verb: AddVerb) -> None:
    """Add these verbs."""
    recipes = verb("recipes", _recipes, "list the recipes, or check one whole: schema, sources, batch, claims")
    recipes.add_argument("action", choices=("list", "check"), help="what to do")
    recipes.add_argument("recipe", nargs="?", help="check only this recipe (name or folder); default: all")

    score = verb(
        "score",
        _score,
        "score recorded outputs of the counting task again",
        "FILE is a generations/*.jsonl of r1mm, or the JSON that R1-V's evaluation script writes. The first\n"
        "<answer> N </answer> decides; an output without one is wrong and counted as unparsed.",
    )
    score.add_argument("file", metavar="FILE", type=Path, help="recorded outputs")


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


def _score(options: argparse.Namespace) -> int:
    from r1mm.evaluate.counting import rescore
    from r1mm.terminal import score_summary

    summary = score_summary(rescore(options.file))
    if options.json:
        print_json(summary)
    else:
        print(", ".join(f"{key} {value}" for key, value in summary.items()))
    return 0
