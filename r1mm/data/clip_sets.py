"""Fetched questions and their clips as datasets: the clips as paths, to be decoded when rows are read."""

from pathlib import Path

from datasets import Dataset, Features, Value

from r1mm.asset_kinds import ClipsAsset
from r1mm.data.pointers import asset_files
from r1mm.data.questions import match_clips, read_questions
from r1mm.errors import BadInput
from r1mm.recipe import Recipe

_FEATURES = Features(
    {
        "video": {"bytes": Value("binary"), "path": Value("string")},
        **{name: Value("string") for name in ("problem", "solution", "original_question", "original_answer", "item")},
    }
)


def wanted_clips(folder: Path, name: str) -> list[str]:
    """The clips that the fetched questions `name` are about, by the paths that they have there, each once."""
    return list(dict.fromkeys(one.video for one in read_questions(questions_file(folder, name))))


def questions_file(folder: Path, name: str) -> Path:
    """The file of a fetched asset of questions.  `folder` is the assets stage's.  BadInput where it has changed."""
    (path,) = asset_files(folder, name).values()
    return path


def load_clips(folder: Path, recipe: Recipe, name: str, prefix: str) -> Dataset:
    """The questions of the asset `name`: video (bytes none, path), problem, solution, originals, item.

    `folder` is the assets stage's, `item` is `prefix` and the line's number.  Raises BadInput where files are missing
    or changed, or a clip is not there.
    """
    asset = recipe.assets[name]
    if not isinstance(asset, ClipsAsset):
        raise BadInput(f"asset {name} is of kind {asset.kind}, and holds no questions about clips; name one of clips")
    questions = read_questions(questions_file(folder, name))
    videos = asset_files(folder, asset.videos)
    matched = match_clips((one.video for one in questions), videos, f"asset {asset.videos}")
    paths = {path: str(videos[member].absolute()) for path, member in matched.items()}
    return Dataset.from_list(
        [
            {
                "video": {"bytes": None, "path": paths[one.video]},
                **one.model_dump(exclude={"video"}),
                "item": f"{prefix}-{i:06d}",
            }
            for i, one in enumerate(questions)
        ],
        features=_FEATURES,
    )
