"""The answer in words, on made-up runs of the real expected.yaml and upstream's kind of records."""

from collections.abc import Mapping

import pytest

from r1mm.errors import BadInput
from r1mm.expected import Expected
from r1mm.judge.answer import answer
from r1mm.judge.seeds import SeedsVerdict, judge_seeds
from r1mm.recipe_files import find_recipe, load_expected, load_recipe
from tests.outputs import first, outputs, scored

SET = "superclevr-200"
RECORDED = {SET: {"base-think": scored(first(96)), "trained-think": scored(first(165))}}


@pytest.fixture(scope="module")
def expected() -> Expected:
    folder = find_recipe("r1v-clevr-2b")
    return load_expected(folder / "expected.yaml", load_recipe(folder / "recipe.yaml"))


def seeds(
    expected: Expected, variant: str, trained: Mapping[int, int], thinks: bool, why_not: tuple[str, ...] = ()
) -> SeedsVerdict:
    runs = {
        seed: {
            SET: outputs(96, right, direct=172, thinks=thinks),
            "cogent-valb": outputs(106, 198, thinks=thinks),
        }
        for seed, right in trained.items()
    }
    return judge_seeds(
        expected, recipe="r1v-clevr-2b", size="full", variant=variant, runs=runs, recorded=RECORDED,
        comparable=not why_not, why_not=why_not,
    )  # fmt: skip


def test_each_clause_has_its_evidence(expected: Expected) -> None:
    fixed = seeds(expected, "as-fixed", {1: 132, 2: 130, 3: 128}, thinks=True)
    february = seeds(expected, "as-published", {1: 166, 2: 164, 3: 165, 4: 164, 5: 165}, thinks=False)
    said = answer(expected, [fixed, february])
    number = next(text for text in said if text.startswith("82.5 on superclevr-200"))
    assert "is reproduced by the February code (our 5 seeds: 83.0, 82.0, 82.5, 82.0, 82.5; mean 82.4, 90 %" in number
    assert "is reproduced only in part, with the direction but not the size, by the fixed code" in number
    assert "66.0, 65.0, 64.0; mean 65.0" in number
    direct = next(text for text in said if text.startswith("The published outputs"))
    assert "(82.5) lies below" not in direct  # 165 and 172 of 200, the former all among the latter: p = 0.016
    assert "published outputs (82.5) lie below the untrained model's direct answers in our harness (86.0" in direct
    assert "n = 200" in direct
    assert "McNemar p = 0.016" in direct
    assert any("200 of 200 answers the same" in text and "scores 48.0" in text for text in said)
    assert any("thinks in 0 % of its outputs" in text for text in said)
    assert any("thinks in 100 % of its outputs" in text and "lies below the untrained" in text for text in said)
    others = next(text for text in said if text.startswith("Others report on superclevr-200"))
    assert "74 after 100 steps (a user of #112)" in others
    assert "71.5 after 100 steps (a user of #170)" in others


def test_a_miss_is_said_before_its_size_is_known(expected: Expected) -> None:
    fixed = seeds(expected, "as-fixed", {1: 147, 2: 150, 3: 142}, thinks=True)
    said = answer(expected, [fixed])
    assert "by the fixed code with the README's command, which is shown to lie below it, if not by how much" in said[0]
    assert "nothing is said of it for the February code: no finished run of as-published" in said[0]


def test_one_seed_says_what_is_missing(expected: Expected) -> None:
    said = answer(expected, [seeds(expected, "as-published", {4: 165}, thinks=False)])
    assert "our seed 4: 82.5; 90 % interval" in said[0]
    assert said[-1].startswith("as-published: one seed only (seed 4)")


def test_nothing_is_said_of_a_number_by_runs_that_are_not_comparable(expected: Expected) -> None:
    why = ("this run's model is not the published one",)
    said = answer(expected, [seeds(expected, "as-fixed", {1: 3}, thinks=True, why_not=why)])
    assert said == ["Nothing is said of 82.5, 99: this run's model is not the published one."]
    mixed = answer(
        expected,
        [
            seeds(expected, "as-fixed", {1: 3}, thinks=True, why_not=why),
            seeds(expected, "as-published", {1: 165}, thinks=False),
        ],
    )
    assert "for the fixed code with the README's command: this run's model is not the published one" in mixed[0]
    assert not any("Trained by the fixed code" in text for text in mixed)


def test_where_nothing_was_published_it_says_what_the_runs_did() -> None:
    unpublished = Expected(recipe="r1v-clevr-2b", claims=[], reference_rows=[])
    runs = {"a": {1: 150, 2: 147, 3: 142}, "b": {4: 120}, "c": {4: 96}}
    said = answer(unpublished, [seeds(unpublished, name, trained, thinks=True) for name, trained in runs.items()])
    assert said[0].startswith("No accuracy was published for r1v-clevr-2b")
    assert len(said) == 1 + 2 * 3 + 1  # two splits, and once what one seed leaves open
    assert said[1].startswith("Trained by variant a, the model gains +25.2 points on superclevr-200 (90 % interval ")
    assert "18.9 to 31.4); it lies below the untrained model's direct answers" in said[1]  # nothing was read for parts
    assert said[-1].startswith("b, c: one seed only (seed 4)")


def test_without_runs_or_numbers_it_says_that(expected: Expected) -> None:
    said = answer(expected, [])
    assert "no finished run of as-fixed" in said[0]
    assert not any("Trained by" in text for text in said)
    empty = Expected(recipe="other", claims=[], reference_rows=[])
    assert answer(empty, []) == [
        "No accuracy was published for other: there is no number here that could reproduce or not."
    ]


def test_wrong_verdicts_are_refused(expected: Expected) -> None:
    one = seeds(expected, "as-published", {1: 165}, thinks=False)
    with pytest.raises(BadInput, match="2 verdicts are on 1 variants"):
        answer(expected, [one, one])
    with pytest.raises(BadInput, match="is on recipe 'r1v-clevr-2b'"):
        answer(Expected(recipe="other", claims=[], reference_rows=[]), [one])
