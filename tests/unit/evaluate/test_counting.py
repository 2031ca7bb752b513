import pytest

from r1mm.evaluate.counting import count_of_truth, is_bare_count, parse_count, parse_count_leniently


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("<answer>4</answer>", 4),
        ("<think>\n x\n </think>\n<answer>\n    12\n    </answer>", 12),
        ("<answer>3</answer> <answer>4</answer>", 3),  # the first match decides
        ("<answer>none</answer> <answer>4</answer>", 4),  # a tag without a number is no match
        ("<answer>four</answer>", None),
        ("<answer>4", None),
        ("<answer>4.5</answer>", None),
        ("4", None),
        ("", None),
    ],
)
def test_the_first_answer_tag_with_a_number_decides(text: str, count: int | None) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("<answer>3</answer>, no, 4", 3),  # what the strict rule finds stands
        ("<answer>\nC. 6\n</answer>", 6),
        ("<think>\nA. 7\n</think>\n<answer>Q</answer>", None),  # an answer without a number is not looked for elsewhere
        ("<answer>3 red and 4 blue, 7 in all</answer> 9", 7),  # the last number, up to the closing tag
        ("<think>x</think>\n<answer>\n 4", 4),  # cut within its answer
        ("<answer>**8** items</answer>", 8),
        ("<answer>7个</answer>", 7),
        ("<answer>seven</answer>", 7),
        ("<answer>Twenty</answer>", 20),
        ("<answer>4, the last one is red</answer>", 4),  # digits before words
        ("<answer>twenty-one</answer>", None),
        ("<answer>3.5</answer>", None),
        ("<answer>-3</answer>", None),
        ("<answer>the 7th</answer>", None),
        ("<answer>someone</answer>", None),
        ("<think>\nA. 6\nB. 5\nC. 4", None),  # cut within its thoughts
        ("<think>Two, then 5.</think> I count six things.", 6),  # after the thoughts
        ("There are 5 cars. The answer is 4.", 4),  # the last sentence
        ("There are 5 cars.\nNo number here.", None),
        ("共有3辆。答案是5。", 5),  # Qwen's full stops, and digits beside its letters
        ("", None),
    ],
)
def test_a_benevolent_reader(text: str, count: int | None) -> None:
    assert parse_count_leniently(text) == count


def test_bare_answers_and_truths() -> None:
    assert is_bare_count(" <answer> 3 </answer>\n")
    assert not is_bare_count("<think></think><answer>3</answer>")
    assert [count_of_truth(text) for text in ("<answer> 3 </answer>", "4", " 5\n")] == [3, 4, 5]
    assert [count_of_truth(text) for text in ("three", "", "<answer>x</answer>", "3.5", "-1")] == [None] * 5
