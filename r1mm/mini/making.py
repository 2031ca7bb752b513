"""A miniature's items, made in all processes at hand."""

import multiprocessing
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

from r1mm.processes import die_with_parent
from r1mm.progress import progress_bar

Set = TypeVar("Set")
Made = TypeVar("Made")


def make_sets(
    sets: Mapping[str, Set],
    jobs_of: Callable[[str, Set], list[Any]],
    make: Callable[[Any], Made],
    *,
    workers: int,
    doing: str,
    unit: str,
) -> Iterator[tuple[str, Set, list[Made]]]:
    """Each set's name and settings, and what `make` makes of each of its jobs, in their order.

    `make` is a function of a module, and of its job alone: how the work is split over `workers` then does not show.
    """
    # Forked, not from the fork server: the workers are to end with this process, and need nothing it does not have.
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=die_with_parent) as pool:
        for name, settings in sets.items():
            jobs = jobs_of(name, settings)
            found = pool.map(make, jobs, chunksize=32)
            yield name, settings, list(progress_bar(found, total=len(jobs), desc=f"{doing} {name}", unit=unit))
