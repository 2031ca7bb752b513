"""What the model that rewrites is told, and the model that tries the result.

The words are ours.  Carried over from upstream (see `r1mm.curate`): the model sees the picture, the question and its
answer; it is asked for a question that wants reasoning in steps, with one answer that is easily compared; "Answer:" is
forbidden in the question; thoughts stand in `<think>`, the answer in `<answer>`.  What differs: the problem has a tag
of its own, so that nothing has to be guessed about where it ends; options are to be kept; a question whose answer
seems wrong may be declined; and there is no system turn, where upstream had one sentence.
"""

from typing import Any

from r1mm.endpoint.attached import PictureFile, picture_part

NAME = "r1mm's own, 1"  # to be counted up with every change: records say by which words they were made

_REWRITE = """\
The picture belongs to a question whose right answer is known. Make a problem of them from which a model can learn to \
reason about pictures.

The question:
{question}

The right answer, perhaps with an explanation:
{answer}

Write these three parts, each in its tags, and nothing outside of them.

<problem>The question in your own words, put so that several steps of reasoning about the picture lead to its answer. \
There is exactly one right answer, and it is a number, an expression, the letter of an option, or yes or no. Keep all \
options of the question, with their letters and in their order. Neither say nor hint at the answer, add nothing that \
is in neither picture nor question, and do not write "Answer:".</problem>
<think>The way to the answer, step by step, with its calculations, as somebody thinks aloud who sees the picture and \
does not know the answer. It comes to the right answer.</think>
<answer>The right answer alone, as short as it can be compared: 12, 40°, 3/4, B, yes.</answer>

If the answer cannot be right for this picture and this question, or is no single number, expression or option, leave \
the three tags empty."""

_SOLVE = "{problem}\n\nThink step by step. Then give the answer alone in <answer> </answer> tags."


def rewrite_messages(question: str, answer: str, picture: PictureFile) -> list[dict[str, Any]]:
    """The conversation that asks for problem, thoughts and answer."""
    return _shown(_REWRITE.format(question=question, answer=answer), picture)


def solve_messages(problem: str, picture: PictureFile) -> list[dict[str, Any]]:
    """The conversation that asks a problem, without its answer."""
    return _shown(_SOLVE.format(problem=problem), picture)


def _shown(text: str, picture: PictureFile) -> list[dict[str, Any]]:
    # The picture first, as upstream has it.
    return [{"role": "user", "content": [picture_part(picture), {"type": "text", "text": text}]}]
