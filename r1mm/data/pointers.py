"""What was fetched and where it lies: the small files that stand for an asset in the assets stage's folder.

`<asset>/asset.json` says what the asset is: its identity and the size and sha256 of each file.  It is an output of the
stage and the same wherever the bytes lie.  `<asset>/.where.json` says where they lie on this machine: a checkpoint in
the hub's cache, a parquet file in a local folder, an image beside it.  A file is hashed once; later its size and its
time of change stand for the hash, and it is hashed anew when the time differs.
"""

import json
import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from r1mm.asset_kinds import ArchiveAsset, Asset, ClipsAsset, FileAsset
from r1mm.errors import BadInput
from r1mm.recipe import digest
from r1mm.rundir import FileStamp, sha256_file, write_json
from r1mm.sourced import Strict

ASSET_FILE, WHERE_FILE, PINS_FILE = "asset.json", ".where.json", "pins.json"
_REMEDY = "run `r1mm assets RECIPE` again, with --runs where this run lies"


def size_text(size: int) -> str:
    """A number of bytes for people."""
    unit, name = next(
        ((unit, name) for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "KB")) if size >= unit), (1, "B")
    )
    return f"{size / unit:.3g} {name}"


class Fetched(Strict):
    """An asset as it was found.

    `asked`: digest of what the recipe says of it.  `identity`: full revision, commit, or sha256 of an archive.
    `verified`: whether all of it is what the recipe pins; `why_not` says what is not known or differs.
    `unpinned`: nothing is known to differ; there is no pin to hold it against.
    """

    name: str
    kind: str
    asked: str
    source: str
    identity: dict[str, str]
    files: dict[str, FileStamp]
    licence: str
    verified: bool
    why_not: str | None = None
    unpinned: bool = False

    @property
    def bytes(self) -> int:
        """The size of all its files together."""
        return sum(found.bytes for found in self.files.values())


class Located(Strict):
    """Where one file lies: absolute, or relative to the asset's own folder; and its time of change when hashed."""

    path: str
    mtime_ns: int


class Where(Strict):
    """Where an asset's files lie.  `origin`: the local folder that served them, None where they were fetched."""

    origin: str | None
    root: str
    files: dict[str, Located]


class Pins:
    """What was learnt on first contact: full revisions of short ones, hashes of archives.  Others later are refused."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / PINS_FILE

    def _read(self) -> dict[str, str]:
        if not self.path.is_file():
            return {}
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise BadInput(f"{self.path} is damaged ({error}); restore it, or start anew with --fresh") from error
        if not isinstance(content, dict):
            raise BadInput(f"{self.path} is damaged (it holds no object); restore it, or start anew with --fresh")
        return {str(key): str(value) for key, value in content.items()}

    def get(self, key: str) -> str | None:
        """What was found before."""
        return self._read().get(key)

    def agree(self, key: str, value: str) -> None:
        """Record `value` on first contact.  BadInput when another one was recorded before."""
        pins = self._read()
        before = pins.setdefault(key, value)
        if before != value:
            raise BadInput(
                f"{key} is {value} now, it was {before} when it was first fetched ({self.path}); upstream has changed "
                "it: find out what, then start anew with --fresh, or serve the old one from a folder with R1MM_ASSETS"
            )
        if pins != self._read():
            write_json(self.path, dict(sorted(pins.items())))


def origin_of(asset: Asset) -> str:
    """An asset's published place, in short: repository@revision, or its address."""
    if isinstance(asset, ArchiveAsset):
        return asset.url
    if isinstance(asset, FileAsset):
        return f"{asset.repository}@{asset.commit[:7]}:{asset.path}"
    place = f"{asset.repo}@{asset.revision[:7]}" if asset.revision else asset.repo
    return f"{place}:{asset.file}" if isinstance(asset, ClipsAsset) else place


def asked_for(asset: Asset) -> str:
    """Digest of what a recipe says of an asset."""
    return digest(asset.model_dump(mode="json"))


def _read(path: Path, form: type[Any], what: str) -> Any:
    try:
        return form.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise BadInput(f"{what} is not there ({path} is missing); {_REMEDY}") from error
    except ValidationError as error:
        raise BadInput(f"{path} is damaged ({error.errors()[0]['msg']}); delete {path.parent} and {_REMEDY}") from error


def read_fetched(folder: Path, name: str) -> Fetched:
    """What was fetched of the asset `name`.  BadInput when nothing was."""
    found: Fetched = _read(folder / name / ASSET_FILE, Fetched, f"asset {name}")
    return found


def read_where(folder: Path, name: str) -> Where:
    """Where the files of the asset `name` lie.  BadInput when that is not known."""
    found: Where = _read(folder / name / WHERE_FILE, Where, f"asset {name}")
    return found


def write_pointer(folder: Path, fetched: Fetched, root: Path, places: dict[str, Path], origin: Path | None) -> Fetched:
    """Write down an asset whose files lie at `places` below `root`, its record last.

    BadInput when another content was recorded here before: a run never goes on with other data.
    """
    own = folder / fetched.name
    if (own / ASSET_FILE).is_file():
        before = read_fetched(folder, fetched.name)
        if before.asked == fetched.asked and before.files != fetched.files:
            changed = sorted(
                name
                for name in before.files.keys() | fetched.files.keys()
                if before.files.get(name) != fetched.files.get(name)
            )
            raise BadInput(
                f"asset {fetched.name} is not what {own} was made with: {', '.join(changed[:3])} differ"
                f"{'' if len(changed) < 4 else f' and {len(changed) - 3} more'}; start anew with --fresh (which moves "
                f"the old aside), or bring the old files back"
            )

    def relative(path: Path) -> str:
        return os.path.relpath(path, own) if path.is_relative_to(own) else str(path)

    located = {
        name: Located(path=relative(path), mtime_ns=path.stat().st_mtime_ns) for name, path in sorted(places.items())
    }
    where = Where(origin=str(origin) if origin else None, root=relative(root), files=located)
    write_json(own / WHERE_FILE, where.model_dump(mode="json"))
    write_json(own / ASSET_FILE, fetched.model_dump(mode="json"))
    return fetched


def asset_files(folder: Path, name: str) -> dict[str, Path]:
    """The files of a fetched asset by name, each still what it was when fetched.  BadInput names one that is not.

    `folder` is the assets stage's.  The name of a file is its path in the dataset, checkpoint or archive.
    """
    fetched, where = read_fetched(folder, name), read_where(folder, name)
    if fetched.files.keys() != where.files.keys():
        raise BadInput(f"{folder / name} is damaged (its two records name different files); delete it and {_REMEDY}")
    files = {}
    for file, expected in fetched.files.items():
        path = folder / name / where.files[file].path
        if not path.is_file():
            raise BadInput(f"asset {name}: {path} is missing, it was there when it was fetched; {_REMEDY}")
        status = path.stat()
        if status.st_size != expected.bytes:
            raise BadInput(
                f"asset {name}: {path} has {status.st_size} bytes, recorded {expected.bytes}: truncated or changed; "
                f"bring the old file back, or delete it and {_REMEDY}"
            )
        if status.st_mtime_ns != where.files[file].mtime_ns and (found := sha256_file(path)) != expected.sha256:
            raise BadInput(
                f"asset {name}: {path} has changed: sha256 {found}, recorded {expected.sha256}; bring the old file "
                f"back, or delete it and {_REMEDY}"
            )
        files[file] = path
    return files


def resolve_asset(folder: Path, name: str) -> Path:
    """Where a fetched asset lies, its files checked: of `file` the file itself, of other kinds the folder of its files.

    `folder` is the assets stage's.  Raises BadInput when it was not fetched, or a file is missing or has changed.
    """
    files = asset_files(folder, name)
    if read_fetched(folder, name).kind == "file":
        (path,) = files.values()
        return path
    return (folder / name / read_where(folder, name).root).resolve()
