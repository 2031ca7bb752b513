"""Checkpoints and datasets from the hub, at one full revision, into the hub's own cache, every file checked.

The hub names each file by its content: sha256 for large files, git's sha1 for small ones.  Both are checked here,
and the recipe's own sha256 where it has one.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import httpx2
from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from huggingface_hub.file_download import repo_folder_name

from r1mm.data.access import LOCAL_VARIABLE, Access
from r1mm.data.download import Again, check_space, given_up, refuse_status
from r1mm.data.pointers import Pins
from r1mm.errors import BadInput
from r1mm.progress import progress_bar
from r1mm.rundir import REFUSALS, FileStamp, explained, make_folder, stamp

Kind = Literal["model", "dataset"]
T = TypeVar("T")
_FULL = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Snapshot:
    """A repository at one revision: the wanted files by name, below `folder`."""

    revision: str
    folder: Path
    files: dict[str, Path]
    stamps: dict[str, FileStamp]


@dataclass(frozen=True)
class Wanted:
    """What is asked of a repository: `choose` picks the wanted of its file names, or raises BadInput.

    Without `revision` it is the one found first.
    """

    kind: Kind
    repo: str
    revision: str | None
    choose: Callable[[list[str]], list[str]]
    sha256: Mapping[str, str]

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"{self.kind} {self.repo}"


def hub_token() -> str | Literal[False]:
    """The hub's token from the file that HF_TOKEN_PATH names; False where there is none.  It is never logged."""
    try:
        return Path(constants.HF_TOKEN_PATH).read_text(encoding="utf-8").strip() or False
    except OSError:
        return False


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        seen.append(cause)
        yield cause
        cause = cause.__cause__ or cause.__context__


def _explain(error: Exception, wanted: Wanted, access: Access) -> None:
    """Raise what an error of the hub's library means, if it is known."""
    for cause in _chain(error):
        if isinstance(cause, HfHubHTTPError):
            page = f"{access.hub}/{'datasets/' if wanted.kind == 'dataset' else ''}{wanted.repo}"
            refuse_status(
                cause.response.status_code,
                cause.response.headers,
                wanted.title,
                access.hub,
                login=f"it does not exist, is private, or wants its licence accepted: look at {page}, accept there, "
                "put a token into a file and name the file with HF_TOKEN_PATH (make: HF_TOKEN_FILE)",
                place=f"look whether {page} has revision {wanted.revision}, and correct the recipe's repo and revision",
            )
        if isinstance(cause, (httpx2.TransportError, ConnectionError, TimeoutError)):
            raise Again(f"{access.hub} cannot be reached ({cause or type(cause).__name__})") from error
    for cause in _chain(error):
        if isinstance(cause, OSError) and cause.errno in REFUSALS:
            with explained(access.hub_cache):
                raise cause
    if isinstance(error, LocalEntryNotFoundError) or "Consistency check failed" in str(error):
        raise Again(f"{access.hub}: {str(error).splitlines()[0]}") from error


def _patiently(call: Callable[[], T], wanted: Wanted, access: Access) -> T:
    """`call`, made again while the hub is busy or out of reach.  Raises BadInput or StageFailed."""
    failures = 0
    while True:
        try:
            try:
                return call()
            except (OSError, httpx2.HTTPError) as error:
                _explain(error, wanted, access)
                raise
        except Again as again:
            failures += 1
            if failures >= access.patience.attempts:
                raise given_up(wanted.title, str(again), failures) from again
            access.patience.wait(failures, again.told)


def _cached_snapshots(wanted: Wanted, access: Access) -> dict[str, Path]:
    """The snapshots of a repository in the hub's cache, by full revision."""
    name = repo_folder_name(repo_id=wanted.repo, repo_type=wanted.kind)
    return {path.name: path for path in (access.hub_cache / name / "snapshots").glob("*") if path.is_dir()}


def _full_revision(api: HfApi, wanted: Wanted, access: Access, pins: Pins) -> str:
    """The full form of a revision, agreed with what was found on first contact."""
    if wanted.revision is None:
        return _first_revision(api, wanted, access, pins)
    key = f"{wanted.title}@{wanted.revision}"
    if _FULL.fullmatch(wanted.revision):
        return wanted.revision
    # The hub takes full revisions only, so a short one is looked up in the history.
    if access.offline:
        known = list(_cached_snapshots(wanted, access))
        where = f"the hub's cache ({access.hub_cache})"
    else:
        commits = _patiently(lambda: api.list_repo_commits(wanted.repo, repo_type=wanted.kind), wanted, access)
        known, where = [commit.commit_id for commit in commits], f"the history of {access.hub}"
    found = sorted({commit for commit in known if commit.startswith(wanted.revision)})
    if len(found) != 1:
        raise BadInput(
            f"{wanted.title}: revision {wanted.revision} is "
            + (f"several commits ({', '.join(found)})" if found else "no commit")
            + f" in {where}"
            + ("; fetch it once with a network" if access.offline else "; write a revision it has into the recipe")
            + f", or serve it from a folder with {LOCAL_VARIABLE}=DIR"
        )
    if not access.offline or pins.get(key):
        pins.agree(key, found[0])
    return found[0]


def _first_revision(api: HfApi, wanted: Wanted, access: Access, pins: Pins) -> str:
    """The revision recorded on first contact; without a record the newest, or offline the only one in the cache."""
    known = pins.get(wanted.title)
    if known is None and access.offline:
        cached = sorted(_cached_snapshots(wanted, access))
        if len(cached) != 1:
            raise BadInput(
                f"{wanted.title}: the recipe names no revision, and the hub's cache ({access.hub_cache}) has "
                f"{', '.join(cached) or 'none'}; fetch it once with a network"
            )
        known = cached[0]
    if known is None:
        info = _patiently(lambda: api.repo_info(wanted.repo, repo_type=wanted.kind), wanted, access)
        if not info.sha:
            raise BadInput(f"{wanted.title}: {access.hub} names no revision of it; check HF_ENDPOINT")
        known = info.sha
    pins.agree(wanted.title, known)
    return known


def _git_sha1(path: Path) -> str:
    """What git calls a file of this content."""
    whole = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            whole.update(chunk)
    return whole.hexdigest()


def _is_content(path: Path, found: FileStamp, name: str) -> bool:
    """Whether a file's content has the name that the hub gives it: sha256 (64 digits) or git's sha1 (40)."""
    return name == (found.sha256 if len(name) == 64 else _git_sha1(path))


def _check_pins(wanted: Wanted, stamps: Mapping[str, FileStamp], where: str) -> None:
    for name, expected in wanted.sha256.items():
        if name not in stamps:
            raise BadInput(f"{wanted.title} has no {name} {where}, the recipe pins its sha256; correct the recipe")
        if stamps[name].sha256 != expected:
            raise BadInput(
                f"{wanted.title}: {name} has sha256 {stamps[name].sha256} {where}, the recipe pins {expected}; "
                "delete that file to fetch it again; if it comes back the same, find out what changed"
            )


def _from_cache(wanted: Wanted, revision: str, access: Access) -> Snapshot:
    """What an earlier call left in the hub's cache, checked against the names the cache gives its contents."""
    folder = _cached_snapshots(wanted, access).get(revision)
    if folder is None:
        raise BadInput(
            f"{wanted.title} at {revision} is not in the hub's cache ({access.hub_cache}), and the network is not to "
            f"be used; run `r1mm assets RECIPE` once where there is one, or serve it from a folder with "
            f"{LOCAL_VARIABLE}=DIR"
        )
    names = wanted.choose([str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()])
    files = {name: folder / name for name in names}
    stamps = {}
    for name, path in progress_bar(files.items(), desc=f"check {wanted.repo}", unit="file"):
        stamps[name] = stamp(path)
        content = path.resolve().name
        if path.is_symlink() and len(content) in (40, 64) and not _is_content(path, stamps[name], content):
            raise BadInput(
                f"{wanted.title}: {path} is corrupted (its content is not {content}); delete {path.resolve()} and "
                "fetch it again with a network"
            )
    _check_pins(wanted, stamps, "in the hub's cache")
    return Snapshot(revision, folder, files, stamps)


def _fetch_file(wanted: Wanted, sibling: Any, revision: str, access: Access) -> tuple[Path, FileStamp]:
    """One file into the cache, its content checked; fetched once more when it is not what the hub says it is."""
    name: str = sibling.rfilename
    content = sibling.lfs.sha256 if sibling.lfs else sibling.blob_id
    for force in (False, True):

        def get(force: bool = force) -> str:
            return hf_hub_download(
                wanted.repo,
                name,
                repo_type=wanted.kind,
                revision=revision,
                cache_dir=access.hub_cache,
                endpoint=access.hub,
                token=hub_token(),
                force_download=force,
                tqdm_class=cast(Any, progress_bar),  # any callable that makes a bar will do
            )

        path = Path(_patiently(get, wanted, access))
        found = stamp(path)
        if content is None or _is_content(path, found, content):
            return path, found
    raise BadInput(
        f"{wanted.title}: {name} came with other content than the hub names ({found.bytes} bytes, sha256 "
        f"{found.sha256}, expected {content}), twice; something on the way changes files: check proxy and HF_ENDPOINT"
    )


def fetch_repository(wanted: Wanted, access: Access, pins: Pins) -> Snapshot:
    """The wanted files of a repository at one full revision, each with the content that the hub and the recipe name.

    What is in the hub's cache already is checked and not fetched again.  Raises BadInput or StageFailed.
    """
    api = HfApi(endpoint=access.hub, token=hub_token())
    revision = _full_revision(api, wanted, access, pins)
    if access.offline:
        return _from_cache(wanted, revision, access)
    info: Any = _patiently(
        lambda: api.repo_info(
            wanted.repo,
            revision=revision,
            repo_type=wanted.kind,
            files_metadata=True,
            timeout=constants.HF_HUB_ETAG_TIMEOUT,
        ),
        wanted,
        access,
    )
    if info.sha != revision:
        raise BadInput(f"{wanted.title}: {access.hub} answers revision {info.sha} for {revision}; check HF_ENDPOINT")
    siblings = {sibling.rfilename: sibling for sibling in info.siblings or []}
    names = wanted.choose(list(siblings))
    make_folder(access.hub_cache)
    missing = [
        siblings[name].size or 0
        for name in names
        if not isinstance(
            try_to_load_from_cache(
                wanted.repo, name, cache_dir=access.hub_cache, revision=revision, repo_type=wanted.kind
            ),
            str,
        )
    ]
    check_space(access.hub_cache, sum(missing), wanted.title)
    files, stamps = {}, {}
    for name in names:
        files[name], stamps[name] = _fetch_file(wanted, siblings[name], revision, access)
    _check_pins(wanted, stamps, f"at {revision}")
    return Snapshot(revision, _cached_snapshots(wanted, access)[revision], files, stamps)
