"""What each step of a chain leaves about itself beside its files, and how the next one reads it.

Step after step the record of the one before is taken in whole, so that the dataset's card knows the chain.  A record
holds no secret: of an address its credentials and its query are left out.
"""

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from pydantic import BaseModel, ConfigDict, ValidationError

from r1mm import __version__
from r1mm.errors import BadInput
from r1mm.rundir import FileStamp, stamp, write_json

# What steps that write folders call their record, which is their report too.
FILTER_FILE, VERIFY_FILE = "filter.json", "verify.json"
ELSEWHERE = "choose another place with --out"  # where a step may not write
_SUFFIX = ".provenance.json"
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE)


class Provenance(BaseModel):
    """One step: what it was given, by name, what it was told, what came out, by file name, and how many of what.

    `about` holds what an input says of itself: its split, its licence; `report` what the step found.  `before` is the
    record of the step that made the main input, None where there is none or the file is not as it was recorded.
    """

    model_config = ConfigDict(frozen=True)
    step: str
    version: str = __version__
    settings: dict[str, Any]
    inputs: dict[str, FileStamp]
    about: dict[str, dict[str, str]] = {}
    outputs: dict[str, FileStamp]
    counts: dict[str, int]
    report: dict[str, Any] | None = None
    before: dict[str, Any] | None = None

    def chain(self) -> list["Provenance"]:
        """This step and those before it, the first of all first.  BadInput where an older one is damaged."""
        if self.before is None:
            return [self]
        try:
            return [*Provenance.model_validate(self.before).chain(), self]
        except ValidationError as error:
            first = error.errors()[0]
            raise BadInput(
                f"the record of what came before {self.step} is damaged ({'.'.join(map(str, first['loc']))}: "
                f"{first['msg']}); make it again"
            ) from error


def provenance_path(path: Path) -> Path:
    """Where the record of the file that a step made lies."""
    return path.with_suffix(_SUFFIX)


def write_provenance(path: Path, record: Provenance) -> Path:
    """Write a record at `path`, whole or not at all."""
    return write_json(path, without_credentials(record.model_dump(mode="json")))


def read_provenance(path: Path) -> tuple[Provenance | None, FileStamp]:
    """The record of the step that made the file `path`, and the file's stamp.

    None where no record names the file as it is now: its maker left none, or it was changed since.  BadInput where a
    record that names it is damaged, or the file cannot be read.
    """
    try:
        found = stamp(path)
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror}); give the file that the step before wrote") from error
    for place in (provenance_path(path), path.with_name(FILTER_FILE), path.with_name(VERIFY_FILE)):
        if not place.is_file():
            continue
        try:
            record = Provenance.model_validate_json(place.read_bytes())
        except ValidationError as error:
            raise BadInput(
                f"{place} is damaged ({error.errors()[0]['msg']}); delete it, or make {path} again"
            ) from error
        if record.outputs.get(path.name) == found:
            return record, found
    return None, found


def host_of(address: str) -> str:
    """The host and port of an address, without credentials and path; as it is where it is no address."""
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        return f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname or ""
    except ValueError:
        return ""


def without_credentials(value: Any) -> Any:
    """`value` with all addresses in its texts cut down to scheme, host, port and path."""
    if isinstance(value, dict):
        return {key: without_credentials(one) for key, one in value.items()}
    if isinstance(value, list):
        return [without_credentials(one) for one in value]
    return _ADDRESS.sub(_bare, value) if isinstance(value, str) else value


def _bare(found: re.Match[str]) -> str:
    parts = urlsplit(found[0])
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
