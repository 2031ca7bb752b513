"""The verb about what upstream's code had and ours has: ledger."""

import argparse
from typing import TYPE_CHECKING

from r1mm.verbs.common import AddVerb, print_json

if TYPE_CHECKING:
    from r1mm.ledger import Entry, Scalar, TrlFields


_CONFIGS = {"sft": "SFTConfig", "grpo": "GRPOConfig"}


def add(verb: AddVerb) -> None:
    """Add this verb."""
    ledger = verb(
        "ledger",
        _ledger,
        "show every setting that upstream's code had beside ours, and why some differ",
        "A row is equal, or a deviation with its reason and what it does to numbers: none, rounding (last digits),\n"
        "draws (other random draws from the same distribution), possible (can change results).",
    )
    ledger.add_argument("recipe", help="name of a recipe (see `r1mm recipes list`), or a folder that holds recipe.yaml")
    ledger.add_argument("--variant", help="reading of upstream, with options after it: as-fixed+vllm")
    ledger.add_argument("--fields", action="store_true", help="also list TRL's fields that are left at TRL's defaults")


def _ledger(options: argparse.Namespace) -> int:
    from r1mm.errors import BadInput
    from r1mm.ledger import counts, entries, load_ledger, trl_fields
    from r1mm.recipe import resolve
    from r1mm.recipe_files import find_recipe, load_recipe

    folder = find_recipe(options.recipe)
    recipe = load_recipe(folder / "recipe.yaml")
    if not (folder / "ledger.yaml").is_file():
        raise BadInput(f"recipe {recipe.name} has no ledger.yaml; a miniature's deviations stand in its README.md")
    found = entries(load_ledger(folder / "ledger.yaml", recipe), recipe, options.variant)
    variant = options.variant or recipe.default_variant
    lists = {training: trl_fields(training) for training in resolve(recipe, options.variant).recipe.trainings}
    if options.json:
        print_json(
            {
                "recipe": recipe.name,
                "variant": variant,
                "counts": counts(found),
                "rows": [entry.model_dump(mode="json") for entry in found],
                "trl_fields": {training: fields.model_dump(mode="json") for training, fields in lists.items()},
            }
        )
        return 0
    _print_entries(f"{recipe.name}, {variant}: what upstream's code had, and ours", found)
    for training, fields in lists.items() if options.fields else ():
        _print_fields(f"{fields.package}, {_CONFIGS[training]}: fields left at their defaults", fields)
    number = counts(found)
    by_effect = ", ".join(f"{number[effect]} {effect}" for effect in ("none", "rounding", "draws", "possible"))
    print(f"{number['settings']} settings: {number['equal']} equal, {number['deviations']} deviations ({by_effect})")
    for training, fields in lists.items():
        vllm = f" (and {len(fields.vllm)} with vLLM)" if fields.vllm else ""
        print(
            f"{fields.package}, {_CONFIGS[training]}: {len(fields.names)} fields, of which recipes set "
            f"{len(fields.recipe)}{vllm}, r1mm {len(fields.r1mm)}, the layout {len(fields.layout)}; {len(fields.left)} "
            "are left at TRL's defaults, each with its reason (--fields)"
        )
    return 0


def _shown(value: "Scalar") -> str:
    return (
        {True: "true", False: "false", None: "none"}[value]
        if value is None or value is True or value is False
        else str(value)
    )


def _print_entries(title: str, found: "list[Entry]") -> None:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column, share in (("setting", 3), ("upstream", 3), ("ours", 3), ("", 1), ("why it differs", 5)):
        table.add_column(column, ratio=share if column else None, overflow="fold", no_wrap=not column)
    topic = ""
    for entry in found:
        if entry.topic != topic:
            topic = entry.topic
            table.add_section()
            table.add_row(f"[bold]{topic}[/bold]")
        equal = entry.status == "equal"
        table.add_row(
            *map(escape, (entry.setting, _shown(entry.upstream), _shown(entry.ours))),
            "equal" if equal else f"[bold]{entry.effect}[/bold]",
            escape(entry.reason or ""),
        )
    Console().print(table)


def _print_fields(title: str, fields: "TrlFields") -> None:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        title=title,
        title_justify="left",
        title_style="",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for column in ("field", "default", "why no number depends on it"):
        table.add_column(column, overflow="fold")
    for name, left in fields.left.items():
        table.add_row(*map(escape, (name, _shown(left.default), left.why)))
    Console().print(table)
