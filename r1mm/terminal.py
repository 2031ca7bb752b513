"""What the terminal shows of a verdict, a comparison, a score, a check."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from r1mm.doctor import Check
from r1mm.judge.form import FormEffect, form_words
from r1mm.judge.verdict import EXIT_STATUS, WORST_FIRST
from r1mm.verify import Finding


def _console() -> Console:
    """Standard output; a log or a pipe is wide enough for every column."""
    return Console() if sys.stdout.isatty() else Console(width=140)


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


def _recorded_table(recorded: dict[str, dict[str, Any]]) -> Table:
    """Our outputs against upstream's own, on the same items."""
    table = Table(
        title="our outputs minus upstream's recorded ones on the same items: right in %, points, 95 % interval, "
        "McNemar's p; on how many items both answer the same",
        title_justify="left",
        title_style="",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for column in ("set", "ours", "recorded", "ours %", "recorded %", "points", "from", "to", "p", "n", "same"):
        table.add_column(column, justify="left" if column in ("set", "ours", "recorded") else "right", no_wrap=True)
    for split, by_name in recorded.items():
        for found in by_name.values():
            table.add_row(
                *(split, found["ours"], found["theirs"]),
                *(f"{100 * found[side] / found['n']:.1f}" for side in ("ours_right", "theirs_right")),
                *(f"{found['points']:+.1f}", *(f"{found['interval'][end]:.1f}" for end in ("low", "high"))),
                *(f"{found['p']:.2g}", str(found["n"]), str(found["same_answer"])),
            )
    return table


def print_answer(sentences: Sequence[str]) -> None:
    """The answer in words, one sentence a line."""
    console = _console()
    for sentence in sentences:
        console.print(escape(f"- {sentence}"), highlight=False)


def print_verdict(verdict: dict[str, Any], page: Path) -> None:
    """Scores, recorded comparisons, claims with their outcome, and where the report lies."""
    console = _console()
    console.print(_score_table(verdict))
    if verdict.get("recorded"):
        console.print(_recorded_table(verdict["recorded"]))
    for split, effect in (verdict.get("form") or {}).items():
        console.print(escape(form_words(split, FormEffect.model_validate(effect))), highlight=False)
    for claim in verdict["claims"]:
        counted = claim.get("counted", True)
        said_by = (
            " [third party's; not counted]" if claim.get("by") == "third party" else "" if counted else " [not counted]"
        )
        console.print(
            f"[bold]{claim['outcome']}[/bold]  {escape(claim['statement'] + said_by)}  ({claim['split']})",
            highlight=False,
        )
        console.print(f"    {escape(claim['words'])}", highlight=False)
    console.print(f"\n[bold]{verdict['outcome'].upper()}[/bold]: {escape(verdict['headline'])}", highlight=False)
    console.print(f"report: {page}", highlight=False, soft_wrap=True)


def print_comparison(verdicts: Sequence[dict[str, Any]], page: Path, answer: Sequence[str] = ()) -> None:
    """The variants of a recipe, one line each, seed and split, and the answer in words where there is one."""
    console = _console()
    first = verdicts[0]
    seeds = list(dict.fromkeys(verdict["seed"] for verdict in verdicts))
    listed = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    table = Table(
        title=f"{first['recipe']}, {listed}: accuracy in %, base and control first; of the gain, what "
        "parsing and answering explain, in points",
        title_justify="left",
        title_style="",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    measured = ("base", "direct", "after", "from", "to", "parsing", "answering", "think", "tokens")
    for column in ("variant", "set", *measured, "outcome"):
        table.add_column(
            column, justify="left" if column in ("variant", "set", "outcome") else "right", no_wrap=column != "outcome"
        )
    for verdict in verdicts:
        named = verdict["variant"] + (f", seed {verdict['seed']}" if len(seeds) > 1 else "")
        for split, scores in verdict["scores"].items():
            base, direct, trained = (scores[name] for name in ("base-think", "base-direct", "trained-think"))
            interval = trained["interval"]
            form: dict[str, Any] = (verdict.get("form") or {}).get(split) or {"known": False}
            parts = ("parsing", "answering") if form.get("known", True) else ()
            table.add_row(
                *(named, split, f"{base['accuracy']:.1f}", f"{direct['accuracy']:.1f}"),
                *(f"{trained['accuracy']:.1f}", f"{interval['low']:.1f}", f"{interval['high']:.1f}"),
                *([f"{form[part]['points']:+.1f}" for part in parts] or ["", ""]),
                *(
                    f"{100 * trained['format'] / trained['n']:.0f}%",
                    f"{trained['mean_tokens']:.1f}",
                    verdict["outcome"],
                ),
            )
        table.add_section()
    console.print(table)
    for reason in dict.fromkeys(reason for verdict in verdicts for reason in verdict.get("why_not") or []):
        console.print(escape(f"not comparable: {reason}"), highlight=False)
    print_answer(answer)
    console.print(f"report: {page}", highlight=False, soft_wrap=True)


def print_checks(found: Sequence[Check]) -> None:
    """One line per check, and what to do where one is not good; `--` where the run asked for does not need it."""
    table = Table(show_header=False, box=None)
    for check in found:
        mark = "[green]ok[/green]" if check.good else "[red]no[/red]" if check.needed else "[yellow]--[/yellow]"
        table.add_row(mark, check.name, escape(check.seen))
        if not check.good:
            table.add_row("", "", escape(f"-> {check.remedy}"))
    _console().print(table)


_COLOURS = {"same": "green", "differs": "yellow", "damaged": "red", "unknown": "cyan"}


def print_findings(found: Sequence[Finding]) -> None:
    """One line per thing compared."""
    table = Table(show_header=False, box=None)
    for _ in range(3):
        table.add_column(overflow="fold")  # digests are cut by nobody
    for finding in found:
        colour = _COLOURS[finding.state]
        table.add_row(f"[{colour}]{finding.state}[/{colour}]", finding.what, escape(finding.words))
    _console().print(table)
