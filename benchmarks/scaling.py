"""How a step scales: processes on this machine's cores, the plan's time model held against measurements, and its page.

python benchmarks/scaling.py processes                   1 and 2 CPU processes in turns: seconds a step, efficiency
python benchmarks/scaling.py fit STEP.json --hold-out 60 speeds that fit what `step.py --json` wrote, and their misses
python benchmarks/scaling.py page > benchmarks/SCALING.md

`processes` needs as many free cores as processes; what else runs there goes into its numbers.  `fit` prints what a
person may carry into `r1mm/plan/duration.py`; completions of the lengths that `--hold-out` names are foretold only.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import scaling_fit
import scaling_page

from r1mm.errors import BadInput

_PROMPTS, _GROUP = 16, 8
_WARM_UP = 2


def _whole_numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def processes(options: argparse.Namespace) -> int:
    """Measure, print a table; 1 when processes gain nothing at all, which means that they do not share the work."""
    import scaling_processes  # slow: it imports the trainer

    taken: dict[int, list[dict[str, Any]]] = {1: [], 2: []}
    completions = _PROMPTS * _GROUP
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        scaling_processes.make_world(place / "world", _PROMPTS * (options.steps + _WARM_UP + 1))
        for repeat in range(options.repeats):
            for count, found in taken.items():
                # A pass has the same rows in both: one process takes twice as many of them.
                one = scaling_processes.measure(
                    count, completions, completions // 2, options.tokens, options.steps + _WARM_UP, place
                )
                found.append(one)
                middle = statistics.median(step["step"] for step in one["steps"][_WARM_UP:])
                print(f"  repeat {repeat + 1}, {count} processes: {middle:.3f} s a step", file=sys.stderr, flush=True)
    steps = {count: [step for one in found for step in one["steps"][_WARM_UP:]] for count, found in taken.items()}
    seconds = {count: [step["step"] for step in each] for count, each in steps.items()}
    one, two = (statistics.median(seconds[count]) for count in (1, 2))
    worked = {count: statistics.median(step["worked"] for step in each) for count, each in steps.items()}
    exchanging = statistics.median(step["exchange"] / step["step"] for step in steps[2])
    alone = statistics.median(run["sum_alone"] for run in taken[2])
    megabytes = taken[2][0]["gradient_bytes"] / 1e6
    print(f"{_PROMPTS} x {_GROUP} completions of {options.tokens} tokens, one thread a process, gloo")
    print("\n| processes | rows x accumulation | seconds a step (range) | of them on a core |\n|---:|---:|---:|---:|")
    for count, each in seconds.items():
        rows = f"{completions // 2} x {2 // count}"
        middle = statistics.median(each)
        print(f"| {count} | {rows} | {middle:.3f} ({min(each):.3f} to {max(each):.3f}) | {worked[count]:.3f} |")
    print(f"\nefficiency t1 / (2 t2): {one / two / 2:.2f}")
    print(
        f"of the seconds on a core alone, without waiting for each other, the share of work that is not duplicated: "
        f"{worked[1] / worked[2] / 2:.2f}"
    )
    print(f"in an exchange, waiting for the other included: {exchanging:.1%} of a step of 2")
    print(f"{megabytes:.1f} MB of gradients summed with nobody late: {1e3 * alone:.1f} ms, {alone / two:.1%} of it")
    if options.json:
        options.json.write_text(
            json.dumps({"options": vars(options) | {"json": None}, "runs": taken}, default=str) + "\n"
        )
    return 0 if one > two else 1


def fit(options: argparse.Namespace) -> int:
    """Fit, print; 1 when a step that was held out is missed by more than `--within`."""
    found = json.loads(options.measured.read_text(encoding="utf-8"))
    unseen = scaling_fit.print_fit(found, options.hold_out)
    if unseen.worst_step > options.within:
        print(f"NOT FORETOLD within {options.within:.0%}", file=sys.stderr)
        return 1
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the status to exit with."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    measured = verbs.add_parser("processes")
    measured.add_argument("--repeats", type=int, default=3)
    measured.add_argument("--steps", type=int, default=6, help="measured steps of a repeat, after 2 (default: 6)")
    measured.add_argument("--tokens", type=int, default=24, help="of every completion (default: 24)")
    measured.add_argument("--json", type=Path)
    fitted = verbs.add_parser("fit")
    fitted.add_argument("measured", type=Path, help="what step.py --json wrote, with completions of several lengths")
    fitted.add_argument("--hold-out", type=_whole_numbers, required=True, help="lengths that are foretold, as 60,300")
    fitted.add_argument("--within", type=float, default=0.25, help="error of a step that is held out (default: 0.25)")
    verbs.add_parser("page")
    options = parser.parse_args(arguments)
    try:
        if options.verb == "page":
            print(scaling_page.page(), end="")
            return 0
        return processes(options) if options.verb == "processes" else fit(options)
    except BadInput as error:
        print(f"scaling: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
