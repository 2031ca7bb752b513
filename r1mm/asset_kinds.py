"""The kinds of assets that a full recipe can name: what is fetched, from where, at which revision."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from r1mm.sourced import Source, Sparse, Strict

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Revision = Annotated[str, Field(pattern=r"^[0-9a-f]{7,40}$")]  # of the hub: shorter than 40 only where no more is known


class ModelAsset(Strict):
    """A checkpoint on the hub.  `sha256` by file name, where known."""

    kind: Literal["model"]
    repo: str
    revision: Revision
    sha256: dict[str, Sha256] = Field(default={})
    licence: str
    source: Source


class DatasetAsset(Sparse):
    """A dataset on the hub: the parquet files of its `split`, with columns image, problem, solution.

    A solution has its answer in a tag; where rows without are to be kept (`untagged`), theirs stands as a whole for the
    answer, as upstream's reward takes it.
    """

    LATER: ClassVar[frozenset[str]] = frozenset({"untagged"})

    kind: Literal["dataset"]
    repo: str
    revision: Revision
    split: str = "train"
    rows: Annotated[int, Field(gt=0)] | None = None
    untagged: Literal["keep"] | None = None
    licence: str
    source: Source


class FileAsset(Strict):
    """One file of a public repository at a commit."""

    kind: Literal["file"]
    repository: str
    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    path: str
    sha256: Sha256
    licence: str
    source: Source


class ArchiveAsset(Strict):
    """A zip file of images behind a plain address; only what the prompts file `items` (another asset) names is kept.

    Without `sha256` the hash found first is recorded, and a later one that differs is refused.
    """

    kind: Literal["archive"]
    url: str
    sha256: Sha256 | None = None
    items: str
    licence: str
    source: Source


class ClipsAsset(Strict):
    """Questions about clips: one JSON-lines `file` of a dataset on the hub, with problem, solution and video in a line.

    The clips that it names lie in the asset `videos`.
    """

    kind: Literal["clips"]
    repo: str
    revision: Revision
    file: str
    videos: str
    sha256: Sha256 | None = None
    rows: Annotated[int, Field(gt=0)] | None = None
    licence: str
    source: Source


class VideosAsset(Strict):
    """Clips of a dataset on the hub; only those that `items`, an asset of questions, names are fetched."""

    kind: Literal["videos"]
    repo: str
    revision: Revision
    items: str
    licence: str
    source: Source


class RepositoryAsset(Strict):
    """Files of a dataset on the hub as they are, for a tool that reads them itself.  `files` are patterns (`*.json`).

    Of patterns with `|` between them the first that fits is taken: what the hub has packed may lie unpacked in a folder
    of assets.  `file`: the one that lists the items, of which there are `rows`; a pattern where several do together.
    Without `revision` the one found first is recorded, and a later one that differs is refused.
    """

    kind: Literal["repository"]
    repo: str
    revision: Revision | None = None
    files: Annotated[list[str], Field(min_length=1)]
    file: str | None = None
    rows: Annotated[int, Field(gt=0)] | None = None
    licence: str
    source: Source

    @model_validator(mode="after")
    def _rows_of_a_file(self) -> "RepositoryAsset":
        if self.rows is not None and self.file is None:
            raise ValueError(f"rows is {self.rows}, and no `file` is named that lists them")
        return self


Asset = Annotated[
    ModelAsset | DatasetAsset | FileAsset | ArchiveAsset | ClipsAsset | VideosAsset | RepositoryAsset,
    Field(discriminator="kind"),
]
