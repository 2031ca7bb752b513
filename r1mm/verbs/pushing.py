"""What the steps that build a dataset share: pushing it to the hub, when it is asked for."""

import argparse
from typing import TYPE_CHECKING

from r1mm.verbs.common import say

if TYPE_CHECKING:
    from r1mm.chain.provenance import Provenance
    from r1mm.data.access import Access


def push_option(made: argparse.ArgumentParser) -> None:
    """The option to push."""
    made.add_argument("--push", metavar="OWNER/NAME", help="push the dataset to this repository of the hub")


def access_of_options(options: argparse.Namespace) -> "Access | None":
    """How the hub is reached, where a push was asked for; BadInput, before anything is built, where it cannot work."""
    if not options.push:
        return None
    from r1mm.chain.push import check_push
    from r1mm.data.access import access_from_environment

    access = access_from_environment()
    check_push(options.push, access)
    return access


def pushed_of_options(options: argparse.Namespace, access: "Access | None", record: "Provenance") -> str | None:
    """Push what was built to where `push_option` says; its address, None where no push was asked for."""
    if access is None:
        return None
    from r1mm.chain.push import push_dataset

    whole = sum(one.bytes for one in record.outputs.values())
    say(
        f"push {options.out} to {access.hub}/datasets/{options.push}: README.md, provenance.json and "
        f"{len(record.outputs)} parquet files of {whole / 1e6:.1f} MB"
    )
    return push_dataset(options.out, options.push, access, record.step)
