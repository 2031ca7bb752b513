"""A job, one recipe, variant and seed below a folder of runs, and where its stages leave their files."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from r1mm.errors import BadInput
from r1mm.expected import Expected
from r1mm.manifest import packages_digest
from r1mm.recipe import Recipe, Resolved, resolve
from r1mm.recipe_files import find_recipe, load_expected, load_recipe

Home = Literal["assets", "base", "run"]
HOMES: tuple[Home, ...] = ("assets", "base", "run")
# The stages of a home lie in one folder.
HOME_OF: dict[str, Home] = {
    "assets": "assets",
    "warm-start": "base",
    "distill": "assets",
    "base-evaluation": "base",
    "base-gate": "run",
    "sft": "run",
    "grpo": "run",
    "evaluation": "run",
    "verdict": "run",
    "report": "run",
}


def default_base_seed(recipe: Recipe) -> int:
    """The seed of the base model that a recipe pins, as a full recipe pins a checkpoint; 0 where it makes none."""
    return recipe.base_seed.value if recipe.base_seed else 0


@dataclass(frozen=True)
class Job:
    """One recipe, variant and seed, below a folder of runs.

    Stages that do not depend on the variant lie in folders that all variants share: `assets` (the pinned data) and
    `base-seed<j>` (the warm-started base model and its evaluation, by all that ask it the same way).
    """

    recipe_folder: Path
    resolved: Resolved
    expected: Expected
    seed: int
    base_seed: int
    runs: Path
    gpus: str = "cpu"  # what a full recipe's plan is made for, as `r1mm plan --gpus` takes it
    packages: str = field(default_factory=packages_digest)  # of the place where the stages run

    @property
    def recipe(self) -> Recipe:
        """The recipe under the job's variant."""
        return self.resolved.recipe

    def folder(self, home: Home) -> Path:
        """Where the stages of one home lie."""
        top = self.runs / self.recipe.name
        if home == "assets":
            return top / "assets"
        if home == "base":
            # Whoever changes how the base model is asked has a base evaluation of its own; an option may.
            reading, plus, options = self.resolved.variant.partition("+")
            own = f"-{reading}" if self._asks_its_own_way(reading) else ""
            return top / f"base-seed{self.base_seed}{own}{plus}{options}"
        suffix = "" if self.base_seed == default_base_seed(self.recipe) else f"-base{self.base_seed}"
        return top / f"{self.resolved.variant}-seed{self.seed}{suffix}"

    def _asks_its_own_way(self, reading: str) -> bool:
        overridden = self.recipe.variants[reading].overrides
        return any(path.partition(".")[0] in ("prompts", "evaluation", "tasks") for path in overridden)

    def stage_folder(self, stage: str) -> Path:
        """Where one stage leaves its files."""
        return self.folder(HOME_OF[stage]) / "stages" / stage

    def identity(self, home: Home) -> dict[str, Any]:
        """What a home's manifest must say to be this job's."""
        names: dict[str, Any] = {"recipe": self.recipe.name, "size": self.recipe.size}
        if home != "assets":
            names["base_seed"] = self.base_seed
        if home == "run":
            names |= {"variant": self.resolved.variant, "seed": self.seed}
        return names


def make_job(recipe: str, variant: str | None, seed: int, base_seed: int | None, runs: Path, gpus: str = "cpu") -> Job:
    """A checked job.  BadInput for an unknown recipe, variant or GPU, or files that do not hold together."""
    folder = find_recipe(recipe)
    loaded = load_recipe(folder / "recipe.yaml")
    return Job(
        recipe_folder=folder,
        resolved=resolve(loaded, variant),
        expected=load_expected(folder / "expected.yaml", loaded),
        seed=seed,
        base_seed=default_base_seed(loaded) if base_seed is None else base_seed,
        runs=runs.resolve(),
        gpus="cpu" if loaded.miniature else gpus,
    )


def read_manifest(root: Path) -> dict[str, Any]:
    """The manifest of a run directory.  BadInput when it is none, or the manifest is damaged."""
    path = root / "manifest.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadInput(f"{root} is no run directory (it has no manifest.json); give one that r1mm made") from error
    except ValueError as error:
        raise BadInput(f"{path} is damaged ({error}); restore it, or start anew with --fresh") from error
    if not isinstance(content, dict):
        raise BadInput(f"{path} is damaged (it holds {type(content).__name__}); restore it, or start anew with --fresh")
    return content


def job_of(root: Path) -> Job:
    """The job whose run directory `root` is.  BadInput when it is none, or the recipe has changed its variants."""
    manifest = read_manifest(root)
    missing = [key for key in ("recipe_folder", "variant", "seed", "base_seed") if key not in manifest]
    if missing:
        raise BadInput(f"{root}/manifest.json has no {missing[0]!r}; give the directory of one variant and seed")
    return make_job(
        manifest["recipe_folder"],
        manifest["variant"],
        manifest["seed"],
        manifest["base_seed"],
        root.resolve().parent.parent,
        manifest.get("gpus_planned", "cpu"),
    )
