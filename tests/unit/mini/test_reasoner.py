"""The scripted reasoner reads prompts, errs as it is told to, and tells the truth about it."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from r1mm.distill_parts import Habits
from r1mm.mini.reasoner import ENDINGS, LABEL, MISTAKES, ORDINALS, read_prompt, read_question, reply

LINES = {
    "a": "A small red metal cube rotated 10.0° located at 3D coordinates (0.10, 1.00, 0.35) and pixel coordinates"
    " (90, 40, 9.51)",
    "b": "A large blue rubber sphere rotated 1.5° located at 3D coordinates (1.10, 1.00, 0.70) and pixel coordinates"
    " (12, 44, 9.00)",
    "c": "A small red rubber sphere rotated 299.9° located at 3D coordinates (-2.10, 1.00, 0.35) and pixel coordinates"
    " (50, 70, 8.75)",
}
COUNT_ALL = "How many items are there in the described scene?"


def prompt(question: str = COUNT_ALL, things: str = "abc", label: bool = False) -> str:
    """As upstream's query_r1.py words it."""
    described = "".join(f"{LINES[one]}\n" for one in things)
    text = (
        f"Answer the question according to scene description.\n\nScene Description:\n{described}\nQuestion:\n{question}"
    )
    return text + f"\nInstructions:\n3. For the final answer, start a new line with '{LABEL}' followed by it\n" * label


def habits(
    mistake: str | None = None, ending: str = "labelled", rechecks: float = 0.0, concludes: float = 1.0
) -> Habits:
    """Of a reasoner that always does the same."""
    return habits_of({mistake: 1.0} if mistake else {}, {ending: 1.0}, rechecks=rechecks, concludes=concludes)


def habits_of(mistakes: dict[str, float], endings: dict[str, float], **more: float) -> Habits:
    shares = {"rechecks": 0.0, "concludes": 0.5, "obeys": 0.0} | more
    return Habits.model_validate({"mistakes": mistakes, "endings": endings, **shares})


def thoughts_of(text: str) -> list[str]:
    """The objects that the thoughts name, in their order; their ordinals must be in order too."""
    found = re.findall(rf"({'|'.join(ORDINALS)}) (\w+ \w+)", text.partition("</think>")[0])
    assert [ordinal for ordinal, _ in found] == list(ORDINALS[: len(found)])
    return [name for _, name in found]


def test_it_reads_the_description_from_left_to_right() -> None:
    things, task = read_prompt(prompt())
    assert [thing.name for thing in things] == ["blue sphere", "red sphere", "red cube"]
    assert things[0].attributes == {"size": "large", "color": "blue", "material": "rubber", "shape": "sphere"}
    assert task is not None
    assert (task.words, task.how) == (("items",), None)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (COUNT_ALL, "3"),
        ("How many different items are there in the image?", "3"),
        ("How many red things are there?", "2"),
        ("What number of tiny shiny blocks are there?", "1"),
        ("How many green balls are there?", "0"),
        ("Is the number of red things greater than the number of spheres?", "no"),
        ("Is the number of red things the same as the number of rubber objects?", "yes"),
        ("Is the number of cubes less than the number of small things?", "yes"),
        ("Are there more rubber things than metal things?", "yes"),
        ("Are there fewer rubber things than metal things?", "no"),
    ],
)
def test_without_mistakes_it_is_right_and_sound(question: str, answer: str) -> None:
    for seed in range(8):
        said = reply(prompt(question), habits(rechecks=0.5), seed)
        assert (said.answer, said.sound, said.mistake) == (answer, True, None)
        assert said.text.endswith(f"\n\n{LABEL} {answer}")
        assert said.text.startswith("<think>\nGoing through the scene description from left to right. ")


@pytest.mark.parametrize(
    "question",
    [
        "What color is the cube?",
        "How many dogs are there?",
        "How many small big things are there?",
        "How many red things are left of the cube?",
        "Is the number of red things greater than the number of dogs?",
    ],
)
def test_it_does_not_pretend_to_understand(question: str) -> None:
    assert read_question(question) is None
    said = reply(prompt(question), habits(), 1)
    assert said.text.endswith("I cannot tell.")
    assert (said.answer, said.sound, said.ending) == (None, False, None)
    assert reply("Hello!", habits(), 1).answer is None
    assert reply(prompt(things=""), habits(), 1).answer is None  # a question about nothing


def test_its_thoughts_go_through_all_and_say_how_many_are_asked_for() -> None:
    every = ["blue sphere", "red sphere", "red cube"]
    said = reply(prompt("How many red things are there?"), habits(), 3)
    assert thoughts_of(said.text) == every
    assert "third red cube. Among these 2 red things." in said.text
    everything = reply(prompt(), habits(), 3)
    assert thoughts_of(everything.text) == every
    assert "Among" not in everything.text
    compared = reply(prompt("Is the number of red things less than the number of cubes?"), habits(), 3)
    assert "Among these 2 red things, 1 cubes." in compared.text
    assert "right. None." in reply(prompt(things="a"), habits("forgets"), 3).text


def test_a_slip_that_it_notices_is_made_good() -> None:
    for seed in range(8):
        said = reply(prompt(), habits(rechecks=1.0), seed)
        missed = re.search(r"So 2\. Wait, I missed (\w+ \w+)\.", said.text)
        assert missed is not None
        assert sorted([*thoughts_of(said.text), missed[1]]) == ["blue sphere", "red cube", "red sphere"]
        assert (said.answer, said.sound) == ("3", True)


def concluded(text: str) -> str:
    """The number that the thoughts come to."""
    return re.findall(r"(?:So|should be|makes) (\d+)\.", text.partition("</think>")[0])[-1]


def test_each_mistake_is_made_and_owned_up_to() -> None:
    every = ["blue sphere", "red sphere", "red cube"]
    for seed in range(12):
        said = {name: reply(prompt(), habits(name), seed) for name in MISTAKES}
        assert {name: (one.mistake, one.sound) for name, one in said.items()} == {n: (n, False) for n in MISTAKES}
        named = {name: thoughts_of(one.text) for name, one in said.items()}
        assert len(named["forgets"]) == 2
        assert said["forgets"].answer == "2"
        assert len(named["repeats"]) == 4
        assert said["repeats"].answer == "4"
        assert set(named["repeats"]) == set(every)
        assert len(named["cancels"]) == 3
        assert named["cancels"] != every
        assert said["cancels"].answer == "3"  # right, and not by counting
        assert not named["guesses"]
        assert said["guesses"].answer in ("2", "3", "4")
        assert named["miscounts"] == every
        assert said["miscounts"].answer in ("2", "4")
        assert concluded(said["miscounts"].text) == said["miscounts"].answer
        assert (named["misstates"], concluded(said["misstates"].text)) == (every, "3")
        assert said["misstates"].answer in ("2", "4")
    guesses = {reply(prompt(), habits("guesses"), seed).answer for seed in range(30)}
    assert guesses == {"2", "3", "4"}


def test_a_mistake_that_cannot_be_made_is_none() -> None:
    for name in ("forgets", "repeats", "cancels"):  # none of what is asked for is there
        said = reply(prompt("How many metal spheres are there?"), habits(name), 1)
        assert (said.answer, said.sound, said.mistake) == ("0", True, None)
    said = reply(prompt(), habits("misstates", "plain"), 1)  # nothing is stated
    assert (said.answer, said.sound, said.mistake) == ("3", True, None)


def test_a_comparison_may_go_wrong_and_come_out_right() -> None:
    question = "Is the number of red things less than the number of cubes?"  # 2 and 1: no
    forgot = reply(prompt(question), habits("forgets"), 1)
    assert re.search(r"Among these 1 red things, [01] cubes\.", forgot.text)
    assert (forgot.answer, forgot.sound) == ("no", False)
    assert reply(prompt(question), habits("miscounts"), 1).answer == "yes"
    assert {reply(prompt(question), habits("guesses"), seed).answer for seed in range(20)} == {"yes", "no"}


@pytest.mark.parametrize(
    ("ending", "end"),
    [
        ("labelled", "\n\n**The answer is: ** 3"),
        ("conclusion", "\n\nTherefore the answer is **3**."),
        ("bold", "\n\nMy count: **3**"),
        ("boxed", "\n\n$\\boxed{3}$"),
        ("there-are", "\n\nThere are 3 items in the scene description."),
        ("plain", "\n\nThat is all that I see."),
        ("words", "\n\nI count three."),
        ("untagged", "\n\n**The answer is: ** 3"),
    ],
)
def test_it_ends_in_each_way(ending: str, end: str) -> None:
    said = reply(prompt(), habits(ending=ending), 5)
    assert said.text.endswith(end)
    assert (said.answer, said.sound, said.cut, said.ending) == ("3", True, False, ending)
    assert ("<think>" in said.text) == ("</think>" in said.text) == (ending != "untagged")


def test_its_thoughts_may_leave_open_what_they_come_to() -> None:
    said = reply(prompt(), habits(concludes=0.0), 1)
    assert "third red cube.\n</think>" in said.text
    assert (said.answer, said.sound) == ("3", True)
    # Not where nothing else would tell.
    for silent in (habits("miscounts", concludes=0.0), habits(ending="plain", concludes=0.0)):
        assert concluded(reply(prompt(), silent, 1).text)


def test_one_is_one() -> None:
    assert (
        "There is 1 red cube in" in reply(prompt("How many red cubes are there?"), habits(ending="there-are"), 1).text
    )


def test_answers_that_do_not_come() -> None:
    broken = reply(prompt(), habits(ending="breaks-off"), 1)
    assert (broken.answer, broken.sound, broken.cut) == (None, False, False)
    assert "</think>" not in broken.text
    endless = reply(prompt(), habits(ending="endless"), 1, max_tokens=50)
    assert (endless.answer, endless.sound, endless.cut, endless.tokens) == (None, False, True, 50)
    assert len(endless.text.split()) == 50
    # Any answer is cut where it is longer than it may be, and is none then.
    cut = reply(prompt(), habits(), 1, max_tokens=5)
    assert (cut.text, cut.answer) == ("<think>\nGoing through the scene", None)


def test_the_same_prompt_and_seed_give_the_same_answer_and_others_do_not() -> None:
    mixed = habits_of(dict.fromkeys(MISTAKES, 0.12), {name: 1 / len(ENDINGS) for name in ENDINGS}, rechecks=0.2)
    once = [reply(prompt(things=things), mixed, 1) for things in ("abc", "cab", "ab", "c")]
    again = [reply(prompt(things=things), mixed, 1) for things in ("c", "ab", "cab", "abc")]
    assert once == again[::-1]
    assert len({reply(prompt(), mixed, seed).text for seed in range(40)}) > 20
    assert len({one.text for one in once}) == 4


def test_it_does_each_thing_as_often_as_it_is_told() -> None:
    shares = {"rechecks": 0.25, "concludes": 0.3, "obeys": 0.4}
    some = habits_of({"forgets": 0.2, "guesses": 0.1}, {"labelled": 0.5, "bold": 0.3, "plain": 0.2}, **shares)
    asked = [prompt(f"How many {word} are there?") for word in ("things", "red things", "small objects")]
    said = [reply(text, some, seed) for seed in range(700) for text in asked]
    mistakes, endings = (Counter(getattr(one, name) for one in said) for name in ("mistake", "ending"))
    assert mistakes["forgets"] / len(said) == pytest.approx(0.2, abs=0.03)
    assert mistakes["guesses"] / len(said) == pytest.approx(0.1, abs=0.03)
    assert endings["bold"] / len(said) == pytest.approx(0.3, abs=0.03)
    sound = [one for one in said if one.sound]
    assert sum("missed" in one.text for one in sound) / len(sound) == pytest.approx(0.25, abs=0.04)
    # Where the prompt asks for a label, that is obeyed more often than not.
    told = Counter(reply(prompt(label=True), some, seed).ending for seed in range(700))
    assert told["labelled"] / 700 == pytest.approx(0.4 + 0.6 * 0.5, abs=0.05)
