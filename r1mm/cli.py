"""The command line: the verbs of `r1mm.verbs`, and what becomes of their errors.

Heavy modules are imported by the verb that needs them.
"""

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Sequence

from r1mm.verbs import assets, curate, distill, fidelity, ledger, machine, plan, questions, recipes, runs
from r1mm.verbs.common import EXIT_STATUSES, adds_to, style

OVERVIEW = f"""r1mm re-runs a published R1-style result on a vision-language model and says with statistics
whether it reproduces.

  r1mm recipes list                     what can be reproduced
  r1mm reproduce r1v-mini               run it: data, base model, GRPO, evaluation, verdict, report
  r1mm reproduce r1v-mini --variant all --seed 2
                                        all code eras from one base model, side by side
  r1mm reproduce r1v-mini --launch compose
                                        the same in a container, from an image built of this tree
  r1mm plan r1v-clevr-2b --gpus 8xA100-80G
                                        what it needs on these GPUs: batch, memory, time, cost
  r1mm verify runs/r1v-mini/images-fixed-seed1
                                        is every file what was recorded, would this tree make the same?
  r1mm doctor                           can this machine run it, and what to do where it cannot

{EXIT_STATUSES}"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="r1mm", description=OVERVIEW, **style())
    parser.set_defaults(json=False, when_stopped="the same command goes on from here")
    verb = adds_to(parser.add_subparsers(dest="verb", metavar="VERB", required=True))
    for module in (runs, recipes, ledger, plan, assets, questions, distill, curate, fidelity, machine):
        module.add(verb)
    return parser


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
        print(f"r1mm: stopped; {options.when_stopped}", file=sys.stderr)
        return 143 if isinstance(stopped, Terminated) else 130
    except BrokenPipeError:
        # The reader of our output has gone (`r1mm ... | head`); nothing more can be said.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
