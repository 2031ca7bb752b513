import pytest

from r1mm.answers.values import read
from r1mm.errors import BadInput
from r1mm.recipe import resolve
from r1mm.recipe_files import RECIPES, load_recipe
from r1mm.sourced import Setting
from r1mm.train import rewards
from r1mm.train.rewards import (
    accuracy_reward,
    answer_reward,
    check_solutions,
    format_reward_for,
    gives_letter,
    is_accurate,
    letter_reward,
    matches_format,
    reward_functions,
)

MULTI_LINE = "<think>\nFirst red, second blue.\n</think>\n<answer>\n 2\n</answer>"
ONE_LINE = "<think>two items</think> <answer>2</answer>"
BARE = "<answer>2</answer>"


@pytest.mark.parametrize(
    ("text", "prefix", "start", "full"),
    [
        (MULTI_LINE, False, True, True),
        (ONE_LINE, True, True, True),
        (BARE, False, False, False),
        (ONE_LINE + " and more", True, True, False),  # a match at the start lets anything follow
        (MULTI_LINE + "\nand more", False, True, False),
        ("so: " + ONE_LINE, False, False, False),
        ("<think>\nFirst red", False, False, False),
        ("<think>a</think>\n\n<answer>\n2\n</answer>", False, True, True),
        ("", False, False, False),
    ],
)
def test_format_match_of_all_eras(text: str, prefix: bool, start: bool, full: bool) -> None:
    assert matches_format(text, "prefix") is prefix
    assert matches_format(text, "start") is start
    assert matches_format(text, "full") is full


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("<think>a</think><answer>2</answer>", True),
        ("<think>a</think><answer>2</answer>\n", True),  # `$` matches before a last line break
        ("<think>a</think><answer>2</answer>\n\n", False),
        ("<think></think><answer></answer>", True),
        ("<think>a</think><answer>2</answer> <answer>3</answer>", True),  # `.*?` takes what it needs
        (ONE_LINE, False),  # a blank between the tags
        (MULTI_LINE, False),
        ("<think>a</think><answer>2</answer> and more", False),
        ("so: <think>a</think><answer>2</answer>", False),
        (BARE, False),
    ],
)
def test_a_format_on_one_line_with_nothing_between_the_tags(text: str, line: bool) -> None:
    assert matches_format(text, "line") is line


@pytest.mark.parametrize(
    ("text", "accurate"),
    [
        (BARE, True),  # by the string comparison: math-verify does not look inside a tag that stands alone
        ("<answer> 2 </answer>", True),
        (MULTI_LINE, True),  # by math-verify: the string comparison does not see over lines
        (MULTI_LINE.replace("2", "3"), False),
        ("2", True),  # no tag: the whole text counts
        ("<answer>two</answer>", False),
        ("<think>\nFirst red", False),
        ("", False),
    ],
)
def test_accuracy_is_upstreams(text: str, accurate: bool) -> None:
    assert is_accurate(text, "<answer> 2 </answer>") is accurate


def test_the_weakness_of_parsing_the_whole_text_is_kept() -> None:
    # Deep-Agent/R1-V#38: math-verify does not see a number between bare tags, so one in the thoughts counts instead.
    assert is_accurate("There are 2 items, so <answer>\nmany\n</answer>", "<answer> 2 </answer>")
    assert is_accurate("<think>I count 2</think> <answer>5</answer>", "<answer> 2 </answer>")


def test_rewards_in_the_trainers_form() -> None:
    completions = [[{"role": "assistant", "content": text}] for text in (MULTI_LINE, BARE)]
    solutions = ["<answer> 2 </answer>", "<answer> 3 </answer>"]
    assert accuracy_reward(completions, solution=solutions, prompts=None) == [1.0, 0.0]
    reward = format_reward_for("full")
    assert reward.__name__ == "format_reward"
    assert reward(completions, solution=solutions) == [1.0, 0.0]
    assert format_reward_for("prefix")(completions) == [0.0, 0.0]


def test_a_batch_has_each_different_text_read_once() -> None:
    read.cache_clear()
    rewards._symbolically_equal.cache_clear()
    texts = [MULTI_LINE, MULTI_LINE.replace("2", "3"), BARE]
    completions = [[{"role": "assistant", "content": text}] for text in texts * 16]
    solutions = [solution for solution in ("<answer> 2 </answer>", "<answer> 3 </answer>") for _ in range(24)]
    assert accuracy_reward(completions, solution=solutions) == [1.0, 0.0, 1.0] * 8 + [0.0, 1.0, 0.0] * 8
    assert read.cache_info().misses == 5  # three completions and two solutions


@pytest.mark.parametrize(
    "text", ["<answer> \uff13 </answer>", "There are \uff13 items.", "the total is $0/0$", r"$\frac{1}{0}$"]
)
def test_what_math_verify_cannot_work_out_is_not_equal(text: str) -> None:
    # As upstream, whose except clause lets the strings decide: a sampled completion must not end a run.
    assert not is_accurate(text, "<answer> 3 </answer>")
    assert is_accurate("<answer>\uff13</answer>", "<answer>\uff13</answer>")


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("<answer>B</answer>", True),
        ("<think>\nNot A.\n</think>\n<answer>\n B. red\n</answer>", True),
        ("<answer>Blue</answer>", True),  # the first character alone counts, as upstream
        ("<answer>A</answer> <answer>B</answer>", False),  # the first tag does
        ("<answer>(B)</answer>", False),
        ("<answer>b</answer>", False),
        ("B", False),  # no tag, no letter
        ("<answer> </answer>", False),
        ("", False),
    ],
)
def test_the_letter_is_upstreams(text: str, right: bool) -> None:
    assert gives_letter(text, "<answer>B.</answer>") is right


def test_where_math_verify_reads_the_answer_the_letter_need_not_be_the_same() -> None:
    # Upstream asks math-verify first, over the whole completion.
    assert gives_letter("<think>It is 2.</think> <answer>C</answer>", "<answer> 2 </answer>")
    assert not gives_letter("<think>It is 3.</think> <answer>C</answer>", "<answer> 2 </answer>")


def test_the_answer_needs_the_problem_for_its_options() -> None:
    problems = ["Find x.\nA. 3\nB. 4", "Find x.\nA. 4\nB. 3", "Find x."]
    completions = [[{"role": "assistant", "content": "<think>It is 4.</think>\n<answer>B</answer>"}]] * 3
    solution = ["<think>It is 4.</think>\n\n<answer>4</answer>"] * 3
    assert answer_reward(completions, solution=solution, problem=problems, prompts=None) == [1.0, 0.0, 0.0]
    with pytest.raises(BadInput, match="holds no answer; correct the dataset"):
        answer_reward(completions[:1], solution=["<answer></answer>"], problem=problems[:1])


def test_a_solution_without_an_answer_is_refused_before_the_first_step_where_the_reward_needs_it() -> None:
    whole = load_recipe(RECIPES / "mm8k-2b" / "recipe.yaml")
    problems, solutions = ["Find x."] * 3, ["<answer>4</answer>", "<think>It is 4.</think>", "<think>a</think><answer>"]
    for variant in whole.variants:
        check_solutions(resolve(whole, variant).recipe, solutions, problems)  # a text without a tag is an answer
    solutions[2] += "</answer>"
    check_solutions(resolve(whole, "released").recipe, solutions, problems)
    with pytest.raises(BadInput, match=r"'<think>a</think><answer></answer>' holds no answer; correct the dataset"):
        check_solutions(resolve(whole, "ours").recipe, solutions, problems)


def test_a_recipe_says_which_rewards_count() -> None:
    recipe = load_recipe(RECIPES / "r1v-clevr-2b" / "recipe.yaml")
    assert [reward.__name__ for reward in reward_functions(recipe)] == ["accuracy_reward", "format_reward"]
    letter = recipe.model_copy(
        update={"rewards": Setting[list[str]](value=["letter"], source="our choice: a test of it")}
    )
    assert reward_functions(letter) == [letter_reward]
    ours = recipe.model_copy(
        update={"rewards": Setting[list[str]](value=["answer", "format"], source="our choice: a test of it")}
    )
    assert [reward.__name__ for reward in reward_functions(ours)] == ["answer_reward", "format_reward"]
    assert letter_reward([[{"content": "<answer>B</answer>"}]] * 2, ["<answer>B.</answer>", "<answer>C.</answer>"]) == [
        *(1.0, 0.0)
    ]
