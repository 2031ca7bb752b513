"""The run directory: atomic files, checksums, stage records, one writer at a time.

A file appears by write-temporary, fsync, rename, so a reader never meets half of one.  A stage is done when its record
says so: the record holds the digests of what went in and of every file that came out, and its own checksum.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import BaseModel, ConfigDict, ValidationError

from r1mm.errors import BadInput, StageFailed


class FileStamp(BaseModel):
    """Size and checksum of one file."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    sha256: str
    bytes: int


class StageRecord(BaseModel):
    """Proof that a stage is done: `inputs` by name, `outputs` by path relative to the run directory.

    `image` is the id of the container image it ran in, None outside of containers; `threads` how many each of its
    processes took for arithmetic, None where its numbers depend on none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    stage: str
    code: str
    inputs: dict[str, str]
    outputs: dict[str, FileStamp]
    started: str
    seconds: float
    image: str | None = None
    threads: int | None = None
    checksum: str = ""

    def own_checksum(self) -> str:
        """sha256 over everything but the checksum itself."""
        absent = {name for name in ("image", "threads") if getattr(self, name) is None}  # older records lack them
        body = self.model_dump(mode="json", exclude={"checksum", *absent})
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()

    def content(self) -> str:
        """sha256 over what came out: what a later stage takes as this stage's identity, times aside."""
        body = {path: stamp.sha256 for path, stamp in self.outputs.items()}
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


_FULL, _FORBIDDEN = (errno.ENOSPC, errno.EDQUOT), (errno.EACCES, errno.EPERM, errno.EROFS)
# The operating system's refusals to write that `explained` has words for.
REFUSALS = (*_FULL, *_FORBIDDEN)
ANOTHER_PLACE = "choose another place with --runs, or RUNS= for make"


@contextlib.contextmanager
def explained(path: Path, elsewhere: str = ANOTHER_PLACE) -> Iterator[None]:
    """Turn the operating system's refusals to write at `path` into one clear error; `elsewhere` says where else."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StageFailed(
                f"the disk is full: {path} could not be written ({error.strerror}); free some space and start the same "
                "command again, it goes on from the last completed step"
            ) from error
        if error.errno in _FORBIDDEN:
            raise BadInput(f"no permission to write {path} ({error.strerror}); {elsewhere}") from error
        if error.errno in (errno.EEXIST, errno.ENOTDIR):
            raise BadInput(
                f"{path} cannot be a folder, a file of that name is in the way ({error.strerror}); {elsewhere}"
            ) from error
        raise


def sync_folder(folder: Path) -> None:
    """Bring the names in `folder` to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path, elsewhere: str = ANOTHER_PLACE) -> Path:
    """`folder`, made if missing."""
    with explained(folder, elsewhere):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def publish(temporary: Path, path: Path) -> Path:
    """Give a finished temporary file of the same folder its name, once its bytes are on the disk."""
    with explained(path):
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    return path


@contextlib.contextmanager
def writing(path: Path, elsewhere: str = ANOTHER_PLACE) -> Iterator[BinaryIO]:
    """A file to write piece by piece, which appears at `path` when the block ends well, and not at all otherwise."""
    make_folder(path.parent, elsewhere)
    with explained(path, elsewhere):
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            # mkstemp makes files for the owner alone; a run directory is for everyone who may read the folder.
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                Path(temporary).unlink()
            raise
        sync_folder(path.parent)


def check_new(path: Path) -> None:
    """Raise BadInput where something is at `path` already, an empty folder aside."""
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise BadInput(f"{path} is there already and is not written over; name another folder, or remove it")


@contextlib.contextmanager
def new_folder(path: Path, elsewhere: str = ANOTHER_PLACE) -> Iterator[Path]:
    """A folder to fill, which is at `path` when the block ends well, and nowhere otherwise; `check_new` is asked."""
    check_new(path)
    make_folder(path.parent, elsewhere)
    with explained(path, elsewhere):
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        try:
            yield temporary
            temporary.chmod(0o755)
            sync_folder(temporary)
            temporary.replace(path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync_folder(path.parent)


def write_bytes(path: Path, data: bytes) -> Path:
    """Write a file whole or not at all."""
    with writing(path) as file:
        file.write(data)
    return path


def write_text(path: Path, text: str) -> Path:
    """Write a UTF-8 file whole or not at all."""
    return write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> Path:
    """Write readable JSON whole or not at all."""
    return write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def json_line(row: Mapping[str, Any]) -> bytes:
    """An object as a line of a JSON-lines file."""
    try:
        return json.dumps(row, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can write and UTF-8 cannot
        return json.dumps(row).encode() + b"\n"


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write JSON lines whole or not at all; the rows may be more than the memory holds."""
    with writing(path) as file:
        file.writelines(map(json_line, rows))
    return path


def iter_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSON-lines file one after the other, each with its line's number from 1 on.

    BadInput names the file and line that is not one.
    """
    try:
        # As bytes, at line feeds alone: JSON texts may hold the other characters that end a line of text.
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                yield number, json_object(line, f"{path}:{number}")
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error}") from error


def json_object(line: bytes, where: str) -> dict[str, Any]:
    """The object that a line of a JSON-lines file holds.  BadInput names `where` when it is none."""
    shown = line[:60].decode(errors="replace").rstrip("\n")
    try:
        row = json.loads(line.decode())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{where}: not JSON: {error} (line {shown!r})") from error
    if not isinstance(row, dict):
        raise BadInput(f"{where}: not an object: {shown!r}")
    return row


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file.  BadInput names the file and line that is not one."""
    return [row for _, row in iter_jsonl(path)]


def sha256_file(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stamp(path: Path) -> FileStamp:
    """Size and checksum of a file."""
    return FileStamp(sha256=sha256_file(path), bytes=path.stat().st_size)


def verify_file(path: Path, expected: FileStamp, remedy: str) -> None:
    """Raise BadInput, naming the checksums, when a file is missing or not what was recorded."""
    if not path.is_file():
        raise BadInput(f"{path} is missing (recorded sha256 {expected.sha256}); {remedy}")
    size = path.stat().st_size
    if size != expected.bytes:
        raise BadInput(
            f"{path} is truncated or changed: {size} bytes, recorded {expected.bytes} with sha256 {expected.sha256}; "
            f"{remedy}"
        )
    found = sha256_file(path)
    if found != expected.sha256:
        raise BadInput(f"{path} is corrupted: sha256 {found}, recorded {expected.sha256}; {remedy}")


def files_below(folder: Path, root: Path) -> dict[str, FileStamp]:
    """The stamps of all files below `folder`, by path relative to `root`, in order; temporaries of a kill aside."""
    files = (
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in _BOOKKEEPING and not path.name.startswith(".")
    )
    return {str(path.relative_to(root)): stamp(path) for path in files}


# What a stage's folder holds about itself: never among its outputs.
_BOOKKEEPING = ("record.json", "started.json")


def record_path(root: Path, stage: str) -> Path:
    """Where the record of a stage lies."""
    return root / "stages" / stage / "record.json"


def write_record(root: Path, record: StageRecord) -> StageRecord:
    """Declare a stage done."""
    record = record.model_copy(update={"checksum": record.own_checksum()})
    write_json(record_path(root, record.stage), record.model_dump(mode="json"))
    return record


def forget_record(root: Path, stage: str) -> None:
    """Declare a stage not done, before it is done again."""
    record_path(root, stage).unlink(missing_ok=True)


def read_record(root: Path, stage: str) -> StageRecord | None:
    """The record of a stage, or None when it is not done.  BadInput when the record itself is damaged."""
    path = record_path(root, stage)
    if not path.is_file():
        return None
    remedy = f"the record is damaged: delete {path} to redo stage {stage}, or start anew with --fresh"
    try:
        record = StageRecord.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise BadInput(f"{path} is no stage record ({error.errors()[0]['msg']}); {remedy}") from error
    if record.own_checksum() != record.checksum:
        raise BadInput(f"{path}: checksum {record.own_checksum()}, recorded {record.checksum}; {remedy}")
    return record


@contextlib.contextmanager
def locked(root: Path, elsewhere: str = ANOTHER_PLACE) -> Iterator[None]:
    """Hold `root` against a second writer for the length of the block; a killed holder leaves no lock behind.

    The lock lies beside `root`, so that the holder may move `root` itself.
    """
    make_folder(root.parent, elsewhere)
    path = root.with_name(f".{root.name}.lock")
    with explained(path, elsewhere):
        file = path.open("a+")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "an unknown process"
            raise BadInput(f"{root} is in use by {holder}; wait for it, end it, or {elsewhere}") from error
        file.truncate(0)
        file.write(f"process {os.getpid()} of {platform.node()}")
        file.flush()
        yield
