"""The tasks of all recipes by name: which scorer, how many items, which prompts file."""

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from r1mm.errors import BadInput
from r1mm.evaluate.scoring import Scorer
from r1mm.recipe import Recipe
from r1mm.recipe_files import all_recipes, load_recipe
from r1mm.task_parts import Task

_COUNT_IN_NAME = re.compile(r"-(\d+)$")


@dataclass(frozen=True)
class KnownTask:
    """A task as far as recorded outputs can be held against it.

    `items` is None where neither the recipe nor the name says how many there are; `prompts_sha256` is that of the
    prompts file that the recipe pins, None where the items come from elsewhere.
    """

    name: str
    scorer: Scorer
    items: int | None
    prompts_sha256: str | None


def _number_of_items(recipe: Recipe, name: str, task: Task) -> int | None:
    """By the recipe, else by the name: `superclevr-200` has 200 items."""
    in_name = _COUNT_IN_NAME.search(name)
    asset = recipe.assets.get(task.items)
    if task.items in recipe.scenes:
        known: int | None = recipe.scenes[task.items].items
    elif asset is not None and asset.kind in ("dataset", "clips", "repository"):
        known = asset.rows
    else:
        known = int(in_name.group(1)) if in_name else None
    if task.limit is None:
        return known
    return task.limit if known is None else min(task.limit, known)


def known_tasks(root: Path | None = None) -> dict[str, dict[str, KnownTask]]:
    """All tasks: by name, and then by the recipe that has them.  `root`: the folder of recipes, ours when None."""
    found: dict[str, dict[str, KnownTask]] = {}
    for folder in all_recipes(root):
        recipe = load_recipe(folder / "recipe.yaml")
        for name, task in recipe.tasks.items():
            asset = recipe.assets.get(task.items)
            found.setdefault(name, {})[recipe.name] = KnownTask(
                name=name,
                scorer=task.scorer,
                items=_number_of_items(recipe, name, task),
                prompts_sha256=asset.sha256 if asset is not None and asset.kind == "file" else None,
            )
    return found


def find_task(name: str, root: Path | None = None) -> KnownTask:
    """A task by name, or by `recipe/name` where recipes differ in what a name means.  BadInput when there is none."""
    tasks = known_tasks(root)
    recipe, _, bare = name.rpartition("/")
    if bare not in tasks or (recipe and recipe not in tasks[bare]):
        whole = [f"{of}/{task}" for task, all_of in tasks.items() for of in all_of]
        known = sorted(whole if recipe else tasks)
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise BadInput(f"there is no task {name!r}; there are: {', '.join(known) or 'none'}{hint}")
    if recipe:
        return tasks[bare][recipe]
    if len(set(tasks[bare].values())) > 1:
        choices = " or ".join(f"{of}/{bare}" for of in tasks[bare])
        raise BadInput(f"recipes differ in what task {bare!r} is; write {choices}")
    return next(iter(tasks[bare].values()))
