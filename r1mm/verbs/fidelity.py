"""Verb about upstream's own numbers: fidelity."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from r1mm.verbs.common import AddVerb, print_json

if TYPE_CHECKING:
    from r1mm.train.fidelity import Fidelity


def add(verb: AddVerb) -> None:
    """Add this verb."""
    fidelity = verb(
        "fidelity",
        _fidelity,
        "hold our trainer's gradient against the one that upstream's code computed",
        "FOLDER is a fixture: recorded rollouts (prompts, completions, rewards, pixels) and the loss, KL and gradient\n"
        "that upstream's code made of them. They go through the trainer and settings of the recipe's variant for\n"
        "the fixture's upstream commit, on the CPU in float32. Exit status 0 when the whole gradient's relative error\n"
        "is at most 1e-5, 3 when it is larger.\n\n"
        "With --as the rollouts are read as another commit's, of which no gradient was recorded, such as one that\n"
        "shows the images to the policy alone. Plain torch then computes what upstream's code would; the same\n"
        "computation must give the recorded gradient of the fixture's own commit to 1e-5 as well.\n\n"
        "  r1mm fidelity fidelity/r1v-head\n"
        "  r1mm fidelity fidelity/r1v-head --as EvolvingLMMs-Lab/open-r1-multimodal@232b7ba",
    )
    fidelity.add_argument(
        "folder", metavar="FOLDER", type=Path, help="a fixture: meta.json, rollouts, gradients, policy"
    )
    fidelity.add_argument(
        "--base", metavar="FOLDER", type=Path, help="reference policy and processor (default: base, beside the fixture)"
    )
    fidelity.add_argument(
        "--as",
        dest="upstream",
        metavar="OWNER/REPOSITORY@COMMIT",
        help="the upstream commit of a recipe's variant, in place of the fixture's own",
    )


def _fidelity(options: argparse.Namespace) -> int:
    import tempfile
    import warnings

    import datasets
    import transformers

    # The libraries' notices to their own callers, and bars over a model that loads in an instant.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers|trl")
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    from r1mm.train.fidelity import check_fidelity
    from r1mm.train.fixture import read_fixture

    with tempfile.TemporaryDirectory(prefix="r1mm-fidelity-") as scratch:
        fixture = read_fixture(options.folder, options.base)
        found = check_fidelity(fixture, Path(scratch), upstream=options.upstream)
    if options.json:
        print_json(found.as_dict())
    else:
        _print(found)
    return 0 if found.faithful else 3


def _print(found: "Fidelity") -> None:
    def error(value: float | None) -> str:
        return "not defined" if value is None else f"{value:.2e}"

    if found.anchor_error is None:
        print(f"{found.fixture}: {found.upstream}, read as {found.reading}")
    else:
        print(f"{found.fixture}: rollouts of {found.recorded_of}")
        print(f"  as {found.upstream} would score them, read as {found.reading}")
        print("  upstream's numbers: by plain torch, which gives the rollouts' own recorded gradient to", end=" ")
        print(error(found.anchor_error))
    print(f"  {found.prompts} prompts x {found.group} completions, beta {found.beta:g}", end="")
    print("" if found.beta == found.recipe_beta else f" (the recipe's own is {found.recipe_beta:g})")
    print("  relative errors:")
    print(f"    loss            {error(found.loss_error)}   ours {found.loss:.6e}, upstream {found.upstream_loss:.6e}")
    print("                    the advantages of a group cancel in it; what is left is beta x KL and rounding")
    if found.kl is None:
        print("    KL              none: beta is 0, TRL computes no reference")
    else:
        print(f"    KL              {error(found.kl_error)}   ours {found.kl:.6e}, upstream {found.upstream_kl:.6e}")
        print(
            "                    both by upstream's convention, the mean over sequences of token means; TRL logs\n"
            f"                    the mean over all tokens, here {found.kl_over_tokens:.6e}"
        )
    print(f"    whole gradient  {error(found.gradient_error)}   at most {found.tolerance:g} is faithful")
    print(f"    worst parameter {error(found.worst_error)}   {found.worst_parameter},", end=" ")
    print(f"{100 * found.worst_share:.3g}% of the whole's norm" if found.worst_share else "where upstream has none")
    if found.pixel_difference is None:
        print("  pixels: our processor makes another grid of the inputs than the recorded one")
    else:
        print(f"  pixels: our processor's differ from the recorded ones by at most {found.pixel_difference:.1e}")
    if found.largest_log_ratio is not None:
        print(f"  largest log-ratio of policy and reference: {found.largest_log_ratio:.3g}", end="")
        if found.clamp is None:
            print()
        else:
            binds = "binds" if found.largest_log_ratio > found.clamp else "does not bind"
            print(f"; upstream clamps it at {found.clamp:g}, which {binds} here; ours is not clamped")
    print("faithful" if found.faithful else "NOT faithful: our trainer computes something else than upstream's code")
