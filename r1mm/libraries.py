"""The libraries under every stage: how many threads they take, what they may not leave to chance, and their silence."""

import os

from r1mm.manifest import cores
from r1mm.recipe import Recipe


def threads_here(recipe: Recipe, processes: int | None = None) -> int:
    """The threads of arithmetic of this process, one of so many on this machine (torch says how many): the recipe's.

    A miniature's decide the last bit of its sums and stay as they are.  No number of a full recipe depends on its own,
    and more threads than this process's share of the cores wait for one another by spinning (measured: four on two
    cores make a matrix product ten times slower), so they are at most that share.
    """
    if recipe.miniature:
        return recipe.threads.value
    beside = processes or int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(recipe.threads.value, max(1, cores() // beside))


def prepare_libraries(recipe: Recipe, *, cpu: bool) -> None:
    """Pin what decides the last bit of a sum, and leave the terminal to our own progress bars."""
    import warnings

    import datasets
    import torch
    import transformers

    torch.set_num_threads(threads_here(recipe))
    if cpu:  # CUDA has no deterministic form of some of what Qwen2-VL needs
        torch.use_deterministic_algorithms(True)
    # Only uninitialised memory would be filled, and nothing here reads any; TRL's log-prob buffers are large.
    torch.utils.deterministic.fill_uninitialized_memory = False
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    # The libraries' notices to their own callers about names that will go; the versions are locked.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers|trl")
