"""What the terminal shows of a verdict, a comparison, a score, a check."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from r1mm.doctor import Check
from r1mm.evaluate.counting import Output
from r1mm.judge.verdict import EXIT_STATUS, WORST_FIRST
from r1mm.verify import Finding


def exit_status(verdict: dict[str, Any]) -> int:
    """The exit status that a verdict calls for."""
    return EXIT_STATUS[verdict["outcome"]]


def severity(verdict: dict[str, Any]) -> int:
    """Where a verdict stands among others, the worst first; one that judged nothing last."""
    outcomes: tuple[str, ...] = WORST_FIRST
    return outcomes.index(verdict["outcome"]) if verdict["outcome"] in outcomes else len(outcomes)


def _score_table(verdict: dict[str, Any]) -> Table:
    table = Table(
        title=f"{verdict['recipe']}, {verdict['variant']}, seed {verdict['seed']}: right answers in %, 95 % interval; "
        "outputs that cannot be parsed, that think, that are a bare answer; mean tokens",
        title_justify="left",
        title_style="",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for column in ("set", "condition", "right", "from", "to", "n", "unparsed", "think", "bare", "tokens"):
        table.add_column(column, justify="left" if column in ("set", "condition") else "right", no_wrap=True)
    for split, conditions in verdict["scores"].items():
        for condition, score in conditions.items():
            interval = score["interval"]
            table.add_row(
                *(split, condition, f"{score['accuracy']:.1f}", f"{interval['low']:.1f}", f"{interval['high']:.1f}"),
                *(str(score["n"]), str(score["unparsed"]), f"{100 * score['format'] / score['n']:.0f}%"),
                *(f"{100 * score['direct'] / score['n']:.0f}%", f"{score['mean_tokens']:.1f}"),
            )
        table.add_section()
    return table


def print_verdict(verdict: dict[str, Any], page: Path) -> None:
    """Scores, claims with their outcome, and where the report lies."""
    console = Console()
    console.print(_score_table(verdict))
    for claim in verdict["claims"]:
        console.print(f"[bold]{claim['outcome']}[/bold]  {claim['statement']}  ({claim['split']})", highlight=False)
        console.print(f"    {claim['words']}", highlight=False)
    console.print(f"\n[bold]{verdict['outcome'].upper()}[/bold]: {verdict['headline']}", highlight=False)
    console.print(f"report: {page}", highlight=False, soft_wrap=True)


def print_comparison(verdicts: Sequence[dict[str, Any]], page: Path) -> None:
    """The variants of a recipe, one line each and split."""
    console = Console()
    first = verdicts[0]
    table = Table(
        title=f"{first['recipe']}, seed {first['seed']}, all variants: accuracy in %, base and control first",
        title_justify="left",
        title_style="",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for column in ("variant", "set", "base", "direct", "after", "from", "to", "think", "tokens", "outcome"):
        table.add_column(
            column, justify="left" if column in ("variant", "set", "outcome") else "right", no_wrap=column != "outcome"
        )
    for verdict in verdicts:
        for split, scores in verdict["scores"].items():
            base, direct, trained = (scores[name] for name in ("base-think", "base-direct", "trained-think"))
            interval = trained["interval"]
            table.add_row(
                *(verdict["variant"], split, f"{base['accuracy']:.1f}", f"{direct['accuracy']:.1f}"),
                *(f"{trained['accuracy']:.1f}", f"{interval['low']:.1f}", f"{interval['high']:.1f}"),
                *(
                    f"{100 * trained['format'] / trained['n']:.0f}%",
                    f"{trained['mean_tokens']:.1f}",
                    verdict["outcome"],
                ),
            )
        table.add_section()
    console.print(table)
    console.print(f"report: {page}", highlight=False, soft_wrap=True)


def score_summary(outputs: Sequence[Output]) -> dict[str, Any]:
    """Counts over scored outputs."""
    right = sum(output.correct for output in outputs)
    return {
        "n": len(outputs),
        "right": right,
        "accuracy": round(100 * right / len(outputs), 2),
        "unparsed": sum(output.parsed is None for output in outputs),
        "thinks": sum(output.format for output in outputs),
        "bare": sum(output.direct for output in outputs),
    }


def print_checks(found: Sequence[Check]) -> None:
    """One line per check, and what to do where one is not good; `--` where the run asked for does not need it."""
    table = Table(show_header=False, box=None)
    for check in found:
        mark = "[green]ok[/green]" if check.good else "[red]no[/red]" if check.needed else "[yellow]--[/yellow]"
        table.add_row(mark, check.name, escape(check.seen))
        if not check.good:
            table.add_row("", "", escape(f"-> {check.remedy}"))
    Console().print(table)


_COLOURS = {"same": "green", "differs": "yellow", "damaged": "red", "unknown": "cyan"}


def print_findings(found: Sequence[Finding]) -> None:
    """One line per thing compared."""
    table = Table(show_header=False, box=None)
    for _ in range(3):
        table.add_column(overflow="fold")  # digests are cut by nobody
    for finding in found:
        colour = _COLOURS[finding.state]
        table.add_row(f"[{colour}]{finding.state}[/{colour}]", finding.what, escape(finding.words))
    Console().print(table)
