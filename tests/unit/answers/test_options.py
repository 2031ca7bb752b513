import pytest

from r1mm.answers.options import find_options

FOUR = {"A": "30°", "B": "40°", "C": "50°", "D": "60°"}


@pytest.mark.parametrize(
    "problem",
    [
        "Find x.\nChoices:\nA: 30°\nB: 40°\nC: 50°\nD: 60°",
        "Find x.\nA. 30°\nB. 40°\nC. 50°\nD. 60°\nAnswer with the letter.",
        "Find x.\n(A) 30°\n(B) 40°\n(C) 50°\n(D) 60°",
        "Find x.\n[A] 30°\n[B] 40°\n[C] 50°\n[D] 60°",
        "Find x.\n- **A)** 30°\n- **B)** 40°\n- **C)** 50°\n- **D)** 60°",
        "Find x.\na) 30°\nb) 40°\nc) 50°\nd) 60°",
        "Find x. (A) 30° (B) 40° (C) 50° (D) 60°",
        "Find x. (A)30°(B)40°(C)50°(D)60°",
        "Find x. (A) 30°, (B) 40°, (C) 50°, or (D) 60°",
        "Find x. (a) 30° (b) 40° (c) 50° (d) 60°",
        "Find x. A. 30° B. 40° C. 50° D. 60°",
        "Find x. A: 30°; B: 40°; C: 50°; D: 60°",
        "Find x. A) 30° B) 40° C) 50° D) 60°",
        "x is ( )\nA.30° B.40°\nC.50° D.60°",
        "x = ( )\n(A) 30° (B) 40°\n(C) 50° (D) 60°",
        "x = ( )\nA\uff0e30° B\uff0e40° C\uff0e50° D\uff0e60°",
        "Points (A) and (B) lie on it. Find x. (A) 30° (B) 40° (C) 50° (D) 60°",  # the longest series counts
    ],
)
def test_layouts(problem: str) -> None:
    assert find_options(problem) == FOUR


@pytest.mark.parametrize(
    ("problem", "options"),
    [
        ("Which one? (A) (B) (C) (D)", {"A": "", "B": "", "C": "", "D": ""}),  # the picture shows what they are
        ("Parallel?\nA. yes\nB. no", {"A": "yes", "B": "no"}),
        ("Options: A) red B) blue", {"A": "red", "B": "blue"}),  # announced, two are enough
        (
            "Q\n" + "\n".join(f"{letter}. {i}" for i, letter in enumerate("ABCDEFGHIJ")),
            dict(zip("ABCDEFGHIJ", "0123456789", strict=True)),
        ),
        ("A. one\nB. two\nline three of B\nC. four", {"A": "one", "B": "two line three of B", "C": "four"}),
    ],
)
def test_odd_ones(problem: str, options: dict[str, str]) -> None:
    assert find_options(problem) == options


@pytest.mark.parametrize(
    "problem",
    [
        "",
        "They meet at A. Then B. is on it. Find AB.",
        "In triangle ABC, angle A: 30, angle B: 40, angle C: 50. Find it.",
        "P(A) = 0.5 and P(B) = 0.3. What is P(A and B)?",
        "triangle ABC with angle A = 80.0, angle B = 60.0, DE parallel BC, then the size of angle CED is ()",
        "A. Only one",
        "B. first\nC. second",
    ],
)
def test_single_letters_are_no_options(problem: str) -> None:
    assert find_options(problem) == {}
