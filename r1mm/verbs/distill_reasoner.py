"""The verb that lets the miniatures' scripted reasoner answer, so that the distillation can be tried: reasoner."""

import argparse
import contextlib
import sys
import threading

from r1mm.verbs.common import AddVerb, print_json, say, whole_number

_LONG = """\
It answers POST /v1/chat/completions on this machine alone, as an OpenAI-compatible server does, until it is stopped.
It is a script, not a model: it reads the description and the question in a prompt, thinks aloud, and errs as often as
the recipe's setting distill.reasoner says.  The same prompt and --seed get the same answer.

  r1mm distill reasoner --port 8001
  r1mm distill query questions.jsonl --out traces.jsonl --base-url http://127.0.0.1:8001/v1 --model scripted-reasoner

It understands questions that count objects by their attributes, or compare two such counts, in CLEVR's words; to others
(where something is, which colour it has) it says that it cannot tell."""


def add(step: AddVerb) -> None:
    """Add this step."""
    made = step("reasoner", _reasoner, "let a scripted reasoner answer on this machine, to try the chain", _LONG)
    made.set_defaults(when_stopped="nobody answers at that address any more")
    made.add_argument("--port", type=whole_number, default=0, help="where it listens (default: one that is free)")
    made.add_argument("--recipe", default="distill-mini", help="whose reasoner (default distill-mini)")
    made.add_argument("--seed", type=whole_number, help="of its answers (default: the recipe's)")


def _reasoner(options: argparse.Namespace) -> int:
    from r1mm.errors import BadInput
    from r1mm.mini.server import MODEL, serving
    from r1mm.processes import terminated_by_signal
    from r1mm.recipe_files import find_recipe, load_recipe

    recipe = load_recipe(find_recipe(options.recipe) / "recipe.yaml")
    if recipe.distill is None:
        raise BadInput(f"recipe {recipe.name} has no scripted reasoner; give --recipe distill-mini")
    seed = recipe.distill.seed.value if options.seed is None else options.seed
    with contextlib.ExitStack() as stack:
        stack.enter_context(terminated_by_signal())
        try:
            url = stack.enter_context(serving(recipe.distill.reasoner.value, seed, options.port))
        except (OSError, OverflowError) as error:
            raise BadInput(f"--port {options.port} cannot be listened on ({error}); give another") from error
        if options.json:
            print_json({"base_url": url, "model": MODEL})
            sys.stdout.flush()  # whoever reads it waits for it, and this goes on
        say(f"{MODEL} answers at {url}; stop it with Ctrl-C")
        threading.Event().wait()
    return 0
