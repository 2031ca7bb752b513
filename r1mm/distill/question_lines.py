"""A file of questions about described scenes, as they are asked."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, StrictInt, StrictStr

from r1mm.chain.lines import ChosenLines

UPSTREAMS_SEED = 1234  # Deep-Agent/R1-V@bbbbe3d:src/distill_r1/query_r1.py


class SceneQuestion(BaseModel):
    """What a line must hold, ours or upstream's; `a` is the right answer, which upstream has as a number too."""

    model_config = ConfigDict(frozen=True)
    img_filename: str
    q: str
    a: StrictStr | StrictInt
    description: str


def question_lines(
    path: Path, first: int | None = None, seed: int = UPSTREAMS_SEED, taken: tuple[str, ...] = ()
) -> ChosenLines:
    """The questions of a file.  The order of the `first` so many is upstream's: of its list, shuffled by
    random.seed(1234), the first 10,000."""
    holds = "a line holds img_filename, q, a and description"
    return ChosenLines(path, SceneQuestion, holds, "question", first, seed, taken)
