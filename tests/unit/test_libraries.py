import pytest

from r1mm import libraries
from r1mm.recipe import Recipe
from r1mm.recipe_files import RECIPES, load_recipe
from r1mm.sourced import Setting


def test_a_full_recipe_takes_no_more_threads_than_its_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(name: str, threads: int) -> Recipe:
        recipe = load_recipe(RECIPES / name / "recipe.yaml")
        return recipe.model_copy(update={"threads": Setting[int](value=threads, source="our choice: of a test")})

    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(libraries, "cores", lambda: 6)
    assert libraries.threads_here(of("r1v-clevr-2b", 4)) == 4
    assert libraries.threads_here(of("r1v-clevr-2b", 16)) == 6
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert libraries.threads_here(of("r1v-clevr-2b", 4)) == 1
    assert libraries.threads_here(of("r1v-clevr-2b", 4), processes=2) == 3
    # The last bit of a miniature's sums depends on its threads, on any machine.
    assert libraries.threads_here(of("r1v-mini", 16)) == 16
