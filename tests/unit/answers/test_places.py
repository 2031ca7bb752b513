import pytest

from r1mm.answers.places import after_thoughts, found_by_rule, sentences, statement


def first(completion: str, *, forced: bool = False) -> tuple[str, tuple[str, ...]] | None:
    found = next(found_by_rule(completion, forced=forced), None)
    return None if found is None else (found.rule, found.texts)


@pytest.mark.parametrize(
    ("completion", "found"),
    [
        ("<think>a</think><answer> B </answer>", ("tag", (" B ",))),
        ("<think>a</think><answer></answer> B", ("tag", ("",))),  # a tag decides
        ("<answer>A</answer><answer>B</answer>", ("tag", ("A", "B"))),
        ("<think>or <answer>A</answer></think><answer>B</answer>", ("tag", ("B",))),
        ("<think>a <answer>B</answer>", ("tag", ("B",))),  # the tag ends the thoughts
        ("<think>a</think><answer>B", ("open tag", ("B",))),
        ("<think>a</think><Answer>B</Answer>", ("open tag", ("B",))),
        ("As 5 > 4, the answer is B. That is it.", ("statement", ("B.",))),
        ("**Final Answer:** 40°", ("statement", ("40°",))),
        ("### Final Answer\n40°", ("statement", ("40°",))),
        ("The answer is 5. No, it is \\boxed{6}", ("statement", ("6",))),
        ("\\boxed{5}\nSo the answer is 6.", ("statement", ("6.",))),
        ("答案是 B", ("statement", ("B",))),
        ("B", ("bare", ("B",))),
        ("<think>a</think>\nx = 5\n", ("bare", ("x = 5",))),
        ("First there are two.\nThen there are three.", None),
        ("<think>The answer is B.</think>", None),
        ("<think>The answer is B.", None),
        ("", None),
        (" \n", None),
    ],
)
def test_rules_in_order(completion: str, found: tuple[str, tuple[str, ...]] | None) -> None:
    assert first(completion) == found


def test_by_force_an_empty_tag_is_none_the_last_of_several_counts_and_last_words_do() -> None:
    assert first("<answer>A</answer><answer>B</answer>", forced=True) == ("tag", ("B",))
    assert first("The answer is B. <answer> </answer>", forced=True) == ("statement", ("B.",))
    assert first("First there are two.\nThen there are three.", forced=True) == (
        "last words",
        ("Then there are three.",),
    )
    assert first("<think>There are three.", forced=True) is None


def test_thoughts_end() -> None:
    assert after_thoughts("<think>a</think>b") == "b"
    assert after_thoughts("a</think>b") == "b"  # where the prompt has opened them
    assert after_thoughts("<think>a<answer>b</answer>") == "<answer>b</answer>"
    assert after_thoughts("<think>a") is None
    assert after_thoughts("a") == "a"


def test_sentences() -> None:
    assert sentences("B. 40°") == ["B. 40°"]
    assert sentences("It is B. The angle is 40.5°. So!") == ["It is B.", "The angle is 40.5°.", "So!"]
    assert statement("nothing is stated") is None
