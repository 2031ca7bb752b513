"""What the verbs share: how a verb is added, and the options that several of them take."""

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from r1mm.job import Job

EXIT_STATUSES = """exit status:
  0  reproduced, or nothing was judged (no claim, or not comparable); for verbs without a verdict: done
  1  failure: a stage started and could not finish; the same command goes on
  2  bad input: no result was written
  3  not reproduced, or only partly
  4  inconclusive: too few items or seeds to tell"""

RUN_EXAMPLE = "run directory, e.g. runs/r1v-mini/images-fixed-seed1"
_LARGEST_SEED = 2**32 - 1  # numpy's


class AddVerb(Protocol):
    """Adds a verb to the command line and returns its parser, for the verb's own arguments."""

    def __call__(
        self, name: str, run: Callable[[argparse.Namespace], int], short: str, long: str = ""
    ) -> argparse.ArgumentParser:
        """`short` stands in the list of verbs, `long` follows it in the verb's own help."""


def style() -> dict[str, Any]:
    """What every parser has: help as it was written, no abbreviations."""
    return {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}


def adds_to(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> AddVerb:
    """What adds a verb to `verbs`."""

    def verb(
        name: str, run: Callable[[argparse.Namespace], int], short: str, long: str = ""
    ) -> argparse.ArgumentParser:
        made = verbs.add_parser(
            name, help=short, description=f"{short[0].upper()}{short[1:]}.\n\n{long}".strip(), **style()
        )
        made.set_defaults(run=run)
        # Without a default of its own, which would undo a --json that came before the name of a step.
        made.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON object instead of text"
        )
        return made

    return verb


def with_steps(verb: AddVerb, name: str, short: str, long: str) -> AddVerb:
    """Add a verb that is nothing but verbs of its own, and return what adds these."""

    def no_step(_: argparse.Namespace) -> int:
        raise AssertionError("a step is required")

    return adds_to(verb(name, no_step, short, long).add_subparsers(dest="step", metavar="STEP", required=True))


def whole_number(text: str) -> int:
    """An argument that counts or seeds."""
    try:
        number = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to {_LARGEST_SEED}, is {text!r}") from error
    if not 0 <= number <= _LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to {_LARGEST_SEED}, is {text!r}")
    return number


def whole_numbers(text: str) -> list[int]:
    """An argument of several seeds, `1,2,3`."""
    return [whole_number(part) for part in text.split(",")]


def at_least_one(text: str) -> int:
    """An argument that counts something of which there must be one."""
    number = whole_number(text)
    if not number:
        raise argparse.ArgumentTypeError(f"must be at least 1, is {text!r}")
    return number


def amount(text: str) -> float:
    """An argument that measures: a number from 0 up."""
    try:
        number = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be a number from 0 up, is {text!r}") from error
    if not (math.isfinite(number) and number >= 0):
        raise argparse.ArgumentTypeError(f"must be a number from 0 up, is {text!r}")
    return number


def positive_amount(text: str) -> float:
    """An argument that measures something of which there must be some."""
    number = amount(text)
    if not number:
        raise argparse.ArgumentTypeError(f"must be more than 0, is {text!r}")
    return number


def runs_option(made: argparse.ArgumentParser) -> None:
    """The folder of runs."""
    made.add_argument(
        "--runs", type=Path, default=Path("runs"), help="folder that holds all run directories (default ./runs)"
    )


def job_options(made: argparse.ArgumentParser) -> None:
    """The arguments that say which job, its seed aside: recipe, variant, base model, GPUs, folder of runs."""
    made.add_argument("recipe", help="name of a recipe (see `r1mm recipes list`), or a folder that holds recipe.yaml")
    made.add_argument(
        "--variant", help="reading of upstream to run, with options after it: as-fixed+no-think; default: the recipe's"
    )
    made.add_argument(
        "--base-seed",
        type=whole_number,
        help="seed of a miniature's base model (default: the recipe's); runs of one base share its warm start",
    )
    made.add_argument(
        "--gpus",
        help="what a full recipe is planned for, e.g. 8xA100-80G, 1xH100-80G, 2x8xH100, cpu (default: what is here)",
    )
    runs_option(made)


def launch_options(made: argparse.ArgumentParser) -> None:
    """The arguments that say where stages run."""
    made.add_argument(
        "--launch",
        choices=("auto", "local", "compose"),
        default="auto",
        help="where stages run: local processes, containers through docker compose, or auto (containers where the "
        "recipe needs GPUs and an engine answers)",
    )
    made.add_argument("--image", help="run in this image, which the engine holds, instead of building one")


def job_of_options(options: argparse.Namespace, variant: str | None, seed: int) -> "Job":
    """The job that `job_options` parsed."""
    from r1mm.job import make_job
    from r1mm.plan import gpus_here

    return make_job(options.recipe, variant, seed, options.base_seed, options.runs, options.gpus or gpus_here())


def print_json(value: Any) -> None:
    """A verb's one JSON value on standard output."""
    print(json.dumps(value, indent=1, ensure_ascii=False))


def say(text: str) -> None:
    """A line of progress."""
    # Progress goes to standard error, so that --json leaves one object on standard output.
    print(text, file=sys.stderr, flush=True)


@contextmanager
def ended_in_order() -> Iterator[None]:
    """Half-written files go also when SIGTERM ends the step."""
    from r1mm.processes import terminated_by_signal

    with terminated_by_signal():
        yield


def print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[Any]], words: int = 1) -> None:
    """A table whose first `words` columns are words, the others numbers."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for number, column in enumerate(head):
        table.add_column(column, justify="left" if number < words else "right", no_wrap=number >= words)
    for row in rows:
        table.add_row(*("-" if cell is None else str(cell) for cell in row))
    print(title)
    Console(width=None if Console().is_terminal else 140).print(table)
